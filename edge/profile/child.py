"""The measured process: all stages of one batch size and number of threads, clear of what ran before. `children` starts it.

It is told a `Setting` in one line of JSON on its standard input, and prints one line of JSON for each thing that it finds:

    {"stage": {…}}        a row `edge.wire.profile.Stage`; {"drift": …} beside it, last third over first
    {"missing": {…}}      a row `Missing`
    {"shares": [{…}]}     rows `Share` of a graph
    {"operators": [{…}]}  rows `Operator`
    {"begins": "local"}   before each stage
    {"done": {…}}         at the end: where joules came from, what reading them took
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edge import bundle, config, device, sensors
from edge.config import DeviceConfig
from edge.files import Files
from edge.link import LinkError
from edge.measurement import Measurement
from edge.memory import TooLargeError, room
from edge.meters import Meter
from edge.mistakes import MISTAKE, mistakes
from edge.outbox import OutboxError
from edge.profile.asked import GRAPHS, SYNTHETIC, Setting
from edge.profile.spread import drift, spread
from edge.profile.stages import STAGES, Bench, Ready, UnmeasurableError
from edge.refusal import RefusalError
from edge.segment import Segment, SegmentError, profiled_session, providers
from edge.sensors import SensorError
from edge.wire.operators import RUNS, read, shares
from edge.wire.profile import Missing, Operator, Stage

LEAST_REPEATS = 10
MOST_REPEATS = 100_000
WARM_UPS = 3
WARM_SECONDS = 0.2
"""Repetitions before the clock counts: at least so many and so long, for caches, arenas and a governor that raises the clock."""
SYNTHETIC_SAMPLES = 256


def main() -> None:
    """Measure what the line on standard input tells."""
    told = Setting.from_json(json.loads(sys.stdin.readline()))
    found = sys.stdout

    def say(**line: Any) -> None:
        print(json.dumps(line, allow_nan=False), file=found, flush=True)

    # A user's own source of data may print: that is no line of ours.
    sys.stdout = sys.stderr
    measure(told, say)


def measure(setting: Setting, say: Callable[..., None]) -> None:
    """Measure all stages of one setting.

    Args:
        setting: what and how.
        say: hears of each thing that is found.
    """
    asked = setting.asked
    settings = None if asked.config is None else config.load(Path(asked.config), os.environ)
    loaded = bundle.load(Path(asked.bundle))
    source = _source(setting, settings, loaded)
    bench = Bench(
        loaded,
        source,
        settings,
        batch=setting.batch,
        threads=setting.threads,
        codecs=asked.codecs,
        folder=setting.folder,
        room=room(Files(Path("/"))),
        send_beyond_budget=asked.send_beyond_budget,
    )
    with Meter(config=None if settings is None else settings.energy) as meter:
        stage = _Measuring(setting, meter, say)
        began = time.monotonic()
        for name in setting.stages:
            say(begins=name)
            with ExitStack() as down:
                try:
                    stage.run(name, bench, down)
                except (
                    UnmeasurableError,
                    SegmentError,
                    TooLargeError,
                    SensorError,
                    LinkError,
                    OutboxError,
                    MemoryError,
                ) as error:
                    why = str(error) or "there is not enough memory"
                    say(missing=asdict(Missing(name, setting.batch, setting.threads, why)))
        seconds = time.monotonic() - began
        operators: list[Operator] = []
        for name in setting.stages:
            if name in GRAPHS and name in loaded.graphs:
                rows = _operators(bench, name)
                say(shares=[asdict(row) for row in shares(rows, name, setting.batch, setting.threads)])
                operators += rows
        say(operators=[asdict(row) for row in operators])
        say(
            done={
                "energy": meter.energy_source,
                "energy_missing": meter.missing_energy,
                "sampling_cpu_seconds": meter.sampling_cpu_seconds,
                "seconds": seconds,
                "cpu_seconds": sum(resource.getrusage(resource.RUSAGE_SELF)[:2]),
                "providers": list(providers()),
                "data": SYNTHETIC if _synthetic(setting, settings) else f"the device's own, {source.samples} samples",
            }
        )


def _source(setting: Setting, settings: DeviceConfig | None, loaded: bundle.Bundle) -> sensors.Source:
    manifest = loaded.manifest
    if settings is None or _synthetic(setting, settings):
        wanted = sensors.Wanted(manifest.input.shape, manifest.input.dtype, manifest.classes)
        samples = max(SYNTHETIC_SAMPLES, setting.batch)
        return sensors.Synthetic(samples, "profile" if settings is None else settings.device.name, wanted)
    # What a source keeps beside the state of the device is not to be touched: it may be running.
    apart = replace(settings, device=replace(settings.device, state_directory=setting.folder))
    source = device.open_source(apart, loaded)
    if source.samples < setting.batch:
        raise RefusalError(
            f"the device has {source.samples} samples, a batch of {setting.batch} is asked for: fewer, or --synthetic"
        )
    return source


def _synthetic(setting: Setting, settings: DeviceConfig | None) -> bool:
    return settings is None or setting.asked.synthetic or settings.data.source.startswith(SYNTHETIC)


class _Measuring:
    """Runs stages in windows of a meter, and tells what they took."""

    def __init__(self, setting: Setting, meter: Meter, say: Callable[..., None]) -> None:
        self._setting = setting
        self._meter = meter
        self._say = say

    def run(self, name: str, bench: Bench, down: ExitStack) -> None:
        """One stage, with each of its codecs."""
        if name in ("encode", "outbox", "send"):
            bench.activations  # noqa: B018  made now, so that they do not count as the stage's own memory
        prepared = STAGES[name](bench, down)
        while True:
            self._meter.begin("set-up")
            try:
                ready = next(prepared, None)
                if ready is not None:
                    _warm(ready.once)
            finally:
                grown = self._meter.end("set-up").uss_grown_bytes
            if ready is None:
                return
            self._one(name, ready, grown)

    def _one(self, name: str, ready: Ready, grown: int | None) -> None:
        self._meter.begin(name)
        try:
            seconds, cpu_seconds = self._repeat(ready.once)
        finally:
            cost = self._meter.end(name)
        row = self._row(name, ready, seconds, cost)
        row = replace(row, cpu_seconds=cpu_seconds / len(seconds), own_bytes=None if grown is None else max(grown, 0))
        self._say(stage=asdict(row), drift=drift(seconds))

    def _repeat(self, once: Callable[[], object]) -> tuple[list[float], float]:
        """Seconds of each repetition, and CPU seconds of all.

        It is over when the median is known well enough; where joules are measured, only with the time: that makes them better.
        """
        asked = self._setting.asked
        early = bool(self._meter.missing_energy)
        seconds: list[float] = []
        end = time.perf_counter() + asked.seconds
        look = 2 * LEAST_REPEATS
        cpu = -time.process_time()
        while len(seconds) < MOST_REPEATS and (len(seconds) < LEAST_REPEATS or time.perf_counter() < end):
            began = time.perf_counter()
            once()
            seconds.append(time.perf_counter() - began)
            if early and len(seconds) == look:
                before = time.process_time()
                if sum(seconds) > WARM_SECONDS and spread(seconds).precision <= asked.precision:
                    return seconds, cpu + before
                look *= 2
                cpu -= time.process_time() - before
        return seconds, cpu + time.process_time()

    def _row(self, name: str, ready: Ready, seconds: list[float], cost: Measurement) -> Stage:
        energy, setting, found, repeats = cost.energy, self._setting, spread(seconds), len(seconds)

        def each(amount: float | None) -> float | None:
            return None if amount is None else amount / repeats

        why = energy.reason or ""
        if energy.joules is not None and energy.too_short:
            why = f"the window of {cost.seconds:.2g} s is shorter than the source can tell: {energy.resolution}"
        return Stage(
            stage=name,
            batch=setting.batch,
            threads=setting.threads,
            codec=ready.codec,
            repeats=repeats,
            median_seconds=found.median,
            low_seconds=found.low,
            high_seconds=found.high,
            p95_seconds=found.p95,
            quiet_seconds=found.quiet,
            cpu_seconds=cost.cpu_seconds / repeats,
            joules=each(energy.joules),
            joules_why=why,
            joules_kind=energy.kind or "",
            joules_source=energy.source or "",
            joules_uncertainty=each(energy.uncertainty_joules),
            joules_hertz=energy.hertz,
            idle_watts=setting.idle_watts,
            peak_bytes=cost.peak_rss_bytes,
            peak_why=cost.peak_rss_source,
            unshared_bytes=cost.uss_bytes,
            bytes=ready.size(),
        )


def _warm(once: Callable[[], object]) -> None:
    end = time.perf_counter() + WARM_SECONDS
    for number in range(MOST_REPEATS):
        if number >= WARM_UPS and time.perf_counter() > end:
            return
        once()


def _mistake(error: Exception) -> int:
    print(error, file=sys.stderr)
    return MISTAKE


def _operators(bench: Bench, kind: str) -> list[Operator]:
    """What the nodes of a graph take, under the profiler: in a session of its own, which would be slower otherwise, too."""
    session = profiled_session(Segment(bench.bundle).graph(kind), bench.threads, bench.folder / f"operators-{kind}")
    once = bench.graph(kind, {kind: session})
    for _ in range(RUNS):
        once()
    return read(Path(session.end_profiling()).read_text("utf-8"))


if __name__ == "__main__":
    try:
        main()
    except mistakes() as error:
        sys.exit(_mistake(error))
