"""Fits a model of a board's energy against a meter: loads of known CPU seconds and bytes, then least squares without negatives."""

import itertools
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edge.energy.activity import Activity
from edge.energy.measure import Energy
from edge.energy.model import Model

LEAST_SECONDS = 1.0
"""Of a window: the clock of /proc/stat ticks a hundred times a second."""
OF_ITS_OWN = 0.05
"""A column is fitted when at least this share of it cannot be made of those before it."""
CHUNK = bytes(range(256)) * 64
"""What is sent at a time: 16 KiB."""


class CalibrationError(Exception):
    """These windows make no model; the text says what they lack."""


@dataclass(frozen=True)
class Sample:
    """One window: what the board did, and what the meter said of it."""

    load: str
    seconds: float
    cpu_seconds: float
    sent_bytes: int
    received_bytes: int
    joules: float


@dataclass(frozen=True)
class Load:
    """Something to do for so many seconds."""

    name: str
    run: Callable[[float], None]


def calibrate(
    samples: Sequence[Sample], meter: str, kind: str | None, at: datetime, board: Mapping[str, Any] | None = None
) -> Model:
    """Fits a model.

    Power is fitted, so that each window counts alike. The columns are taken in order: time, CPU seconds, bytes sent, bytes
    received; one that says nothing beyond those before it (received acknowledgements follow what is sent) is None.

    Args:
        samples: windows with different loads, at least two more than coefficients.
        meter: what measured the joules.
        kind: its class; a model is not fitted against a model.
        at: when, with a time zone.
        board: record of the board.

    Raises:
        CalibrationError: the windows are too few, too short or too much alike, or what measured them is no meter.
    """
    if kind not in ("metered", "sensor"):
        raise CalibrationError(
            f"{meter} is {kind or 'of no class'}: a model is fitted against a meter or a sensor only"
        )
    if short := [sample for sample in samples if not sample.seconds >= LEAST_SECONDS]:
        raise CalibrationError(
            f"window {short[0].load!r} has {short[0].seconds:.3g} s, at least {LEAST_SECONDS:g} are wanted"
        )
    rows = [(1.0, s.cpu_seconds / s.seconds, s.sent_bytes / s.seconds, s.received_bytes / s.seconds) for s in samples]
    watts = np.array([sample.joules / sample.seconds for sample in samples])
    columns = np.array(rows, float).reshape(-1, 4)
    told = _that_tell(columns)
    if 1 not in told:
        raise CalibrationError("all windows have the same CPU load: an idle and a busy one are wanted")
    if len(samples) < len(told) + 2:
        raise CalibrationError(
            f"{len(samples)} windows are too few for {len(told)} coefficients: {len(told) + 2} are wanted"
        )
    fitted = nonnegative(columns[:, told], watts)
    rms = math.sqrt(float(((watts - columns[:, told] @ fitted) ** 2).sum()) / (len(samples) - len(told)))
    by_column = dict(zip(told, fitted.tolist(), strict=True))
    return Model(
        idle_watts=by_column[0],
        joules_per_cpu_second=by_column[1],
        joules_per_byte_sent=by_column.get(2),
        joules_per_byte_received=by_column.get(3),
        rms_watts=rms,
        residual_percent=100 * rms / float(watts.mean()),
        windows=len(samples),
        meter=f"{meter} ({kind})",
        date=at.isoformat(timespec="seconds"),
        board=dict(board or {}),
    )


def _that_tell(columns: npt.NDArray[np.float64]) -> list[int]:
    """Columns that are not made of those before them."""
    told: list[int] = []
    for n, column in enumerate(columns.T):
        before = columns[:, told]
        made = before @ np.linalg.lstsq(before, column, rcond=None)[0] if told else np.zeros_like(column)
        if np.linalg.norm(column - made) > OF_ITS_OWN * np.linalg.norm(column) > 0:
            told.append(n)
    return told


def nonnegative(columns: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Least squares with no coefficient below 0: of all subsets of the few columns, the best whose fit has none.

    Args:
        columns: `(windows, coefficients)`, at most about ten of the latter.
        wanted: `(windows,)`.
    """
    count = columns.shape[1]
    scale = np.linalg.norm(columns, axis=0)
    best, least = np.zeros(count), float((wanted**2).sum())
    for chosen in itertools.chain.from_iterable(itertools.combinations(range(count), n) for n in range(1, count + 1)):
        part = columns[:, chosen] / scale[list(chosen)]
        fitted = np.linalg.lstsq(part, wanted, rcond=None)[0]
        left = float(((wanted - part @ fitted) ** 2).sum())
        if fitted.min() >= 0 and left < least:
            best, least = np.zeros(count), left
            best[list(chosen)] = fitted / scale[list(chosen)]
    return best


class Windows(Protocol):
    """Measures windows: `edge.meters.Meter`, started."""

    def begin(self, window: str) -> None:
        """A window begins."""

    def end(self, window: str) -> Any:
        """It ends; what is returned has `energy`."""


def collect(
    meter: Windows,
    activity: Callable[[], Activity],
    loads: Sequence[Load],
    seconds: float,
    *,
    repeats: int = 3,
    told: Callable[[Sample], None] = lambda _: None,
) -> tuple[list[Sample], Energy]:
    """Runs the loads in turn, `repeats` times over, so that a board that warms up does so for all of them.

    Args:
        meter: measures the board.
        activity: what the board has done so far.
        loads: what to do.
        seconds: of each window.
        repeats: windows of each load.
        told: hears of each window as it ends.

    Returns:
        The windows, and the last one's energy, which has source and class.

    Raises:
        CalibrationError: the meter could not measure a window, with its reason.
    """
    samples = []
    energy = Energy(reason="no window")
    for load in list(loads) * repeats:
        meter.begin("calibration")
        before = activity()
        try:
            load.run(seconds)
        finally:
            after = activity()
            energy = meter.end("calibration").energy
        if energy.joules is None or energy.seconds is None:
            raise CalibrationError(f"window {load.name!r} was not measured: {energy.reason}")
        if energy.too_short:
            raise CalibrationError(f"window {load.name!r} is too short for this meter: {energy.resolution}")
        sample = Sample(
            load.name,
            energy.seconds,
            after.cpu_seconds - before.cpu_seconds,
            after.sent_bytes - before.sent_bytes,
            after.received_bytes - before.received_bytes,
            energy.joules,
        )
        samples.append(sample)
        told(sample)
    return samples, energy


def usual_loads(send: Callable[[bytes], None] | None = None, cores: int | None = None) -> list[Load]:
    """Idle, one core busy, all cores busy and, where `send` is given, bytes sent through it as fast as it takes them."""
    cores = cores or os.cpu_count() or 1
    loads = [Load("idle", time.sleep), Load("1 core busy", lambda seconds: busy(seconds, 1))]
    if cores > 1:
        loads.append(Load(f"{cores} cores busy", lambda seconds: busy(seconds, cores)))
    return [*loads, Load("sending", lambda seconds: pour(send, seconds))] if send else loads


def busy(seconds: float, cores: int) -> None:
    """Keeps so many cores busy, each with a process of its own that ends by itself even if this one is killed."""
    program = (
        "import sys, time\nend = time.monotonic() + float(sys.argv[1])\nwhile time.monotonic() < end: sum(range(10000))"
    )
    with ExitStack() as down:
        for _ in range(cores):
            command = [sys.executable, "-S", "-E", "-c", program, str(seconds)]
            process = subprocess.Popen(command)  # noqa: S603  this interpreter, with the program above
            down.callback(process.wait)
            down.callback(process.kill)
        time.sleep(seconds)


def pour(send: Callable[[bytes], None], seconds: float, now: Callable[[], float] = time.monotonic) -> None:
    """Sends chunk after chunk until the time is over."""
    end = now() + seconds
    while now() < end:
        send(CHUNK)
