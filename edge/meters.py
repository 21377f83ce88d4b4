"""What a stretch of work costs on this board: seconds, CPU seconds, memory, temperature and joules, each with its source.

    with Meter() as meter:          # the thread inside reads the power sensor; `sample()` in one's own loop does as well
        meter.begin("round")
        ...
        cost = meter.end("round")   # a Measurement

Windows may nest and overlap: each gets the whole of what was spent between its begin and its end, nothing is divided among
them. A name can be used again once its window has ended. This is the only file that imports psutil.
"""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from edge import energy
from edge.energy import Energy, Files, Integrator, Mark, UnreadableError

__all__ = ["Energy", "Measurement", "Meter", "Temperature", "Used", "temperature"]

# Names under which kernels show the temperature of the processor, best first; other zones are chargers, radios, disks.
CPU_ZONES = (
    "cpu-thermal",
    "cpu_thermal",
    "cpu-therm",
    "x86_pkg_temp",
    "soc-thermal",
    "soc_thermal",
    "cpu0-thermal",
    "acpitz",
)

SINCE_BEGIN = "VmHWM, reset at the window's begin"
SINCE_START = "VmHWM since the process started: /proc/self/clear_refs does not take a reset"
SEEN = "largest resident size at the readings of the window: /proc/self/status has no VmHWM"


@dataclass(frozen=True)
class Temperature:
    """The processor's temperature in °C and the zone it was read from, or None and why."""

    celsius: float | None = None
    source: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Measurement:
    """What one window cost this process; memory in bytes at the end of the window and at its peak.

    `uss_bytes` (what would be free if the process ended) and the temperature are None where the system does not tell.
    """

    window: str
    seconds: float
    cpu_seconds: float
    peak_rss_bytes: int
    peak_rss_source: str
    rss_bytes: int
    uss_bytes: int | None
    temperature: Temperature
    energy: Energy

    @property
    def temperature_celsius(self) -> float | None:
        """The processor's temperature at the end of the window."""
        return self.temperature.celsius

    def to_record(self) -> dict[str, object]:
        """Returns a dictionary for reports: plain values, missing ones None with their reason beside them."""
        return {
            "window": self.window,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "peak_rss_bytes": self.peak_rss_bytes,
            "peak_rss_source": self.peak_rss_source,
            "rss_bytes": self.rss_bytes,
            "uss_bytes": self.uss_bytes,
            "temperature_celsius": self.temperature.celsius,
            "temperature_source": self.temperature.source,
            "temperature_reason": self.temperature.reason,
            "energy": self.energy.to_record(),
        }


@dataclass(frozen=True)
class Used:
    """What a process and its board have taken since some moment before it: only differences mean something."""

    cpu_seconds: float
    joules: float | None = None
    reason: str = ""
    """Why there are no joules: not asked for, no sensor, or it could not be read since it was asked last."""


@dataclass
class _Window:
    """An open window: where everything stood at its begin, and the highest memory seen so far."""

    started: float
    cpu_seconds: float
    mark: Mark
    peak_rss_bytes: int
    peak_rss_source: str


class Meter:
    """Measures named windows of this process. A board without a sensor gets None and a reason, never a guess.

    Args:
        root: where /proc and /sys start.
        now: a monotonic clock in seconds.
        read: how a file's text is read.
        sample_seconds: time between two readings of a power sensor; counters are read more rarely.
    """

    def __init__(
        self,
        root: Path = Path("/"),
        now: Callable[[], float] = time.monotonic,
        *,
        read: Callable[[Path], str] = Path.read_text,
        sample_seconds: float = energy.SENSOR_SECONDS,
    ) -> None:
        self._files = Files(root, read)
        self._now = now
        self._process = psutil.Process()
        self._windows: dict[str, _Window] = {}
        # The sampling thread and the loop both advance the sum.
        self._lock = threading.Lock()
        self._integrator = Integrator(*energy.find(self._files, sample_seconds))
        self._failures = 0
        """Of the energy source, when `used` was asked last."""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, window: str) -> None:
        """Opens a window; raises ValueError when one of this name is open already."""
        with self._lock:
            if window in self._windows:
                raise ValueError(f"window {window!r} is open already: end it before it begins again")
            if not self._windows:
                self._integrator.rest()
            # The reset below would take the peak so far from the windows around this one.
            self._note_peak()
            source = self._reset_peak()
            now = self._now()
            mark = self._integrator.advance(now)
            self._windows[window] = _Window(now, time.process_time(), mark, self._peak() or 0, source)

    def end(self, window: str) -> Measurement:
        """Closes a window and returns what it cost; raises ValueError when none of this name is open."""
        with self._lock:
            if window not in self._windows:
                names = ", ".join(sorted(self._windows)) or "none"
                raise ValueError(f"window {window!r} is not open; open: {names}")
            now = self._now()
            mark = self._integrator.advance(now)
            self._note_peak()
            return self._measurement(window, self._windows.pop(window), now, mark)

    @property
    def missing_energy(self) -> str:
        """What was looked for and not found, where joules are not measured; empty where they are."""
        return self._integrator.missing

    def used(self, *, joules: bool = False) -> Used:
        """What the process has taken so far, without the memory that makes a window dear: for between two steps.

        Args:
            joules: whether to read the energy source, too.
        """
        if not joules:
            return Used(time.process_time(), reason="not asked for")
        with self._lock:
            mark = self._integrator.advance(self._now())
            gap, self._failures = mark.failures > self._failures, mark.failures
            reason = self.missing_energy or (self._integrator.failure if gap else "")
            return Used(time.process_time(), None if reason else mark.joules, reason)

    def sample(self) -> None:
        """Reads the energy source if it is time to; call it from a loop that runs no sampling thread."""
        with self._lock:
            if self._windows and self._integrator.due(self._now()):
                self._integrator.advance(self._now())

    def start(self) -> None:
        """Starts a thread that samples until `close`; without an energy source there is nothing to read, and no thread.

        A loop that samples between its steps sees the board only while it idles: the thread sees it at work.
        """
        source = self._integrator.source
        if source is None or self._thread is not None:
            return
        self._thread = threading.Thread(
            target=self._sample_on, args=(source.seconds_between,), name="meter", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stops the thread; open windows are given up."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _sample_on(self, seconds: float) -> None:
        while not self._stop.wait(seconds):
            self.sample()

    def _measurement(self, name: str, window: _Window, now: float, mark: Mark) -> Measurement:
        rss, uss = self._memory()
        return Measurement(
            window=name,
            seconds=now - window.started,
            cpu_seconds=time.process_time() - window.cpu_seconds,
            # The kernel updates its counters in batches, so VmHWM may lag behind the resident size by some pages.
            peak_rss_bytes=max(window.peak_rss_bytes, rss),
            peak_rss_source=window.peak_rss_source,
            rss_bytes=rss,
            uss_bytes=uss,
            temperature=temperature(self._files),
            energy=self._integrator.between(window.mark, mark),
        )

    def _memory(self) -> tuple[int, int | None]:
        try:
            return self._process.memory_info().rss, self._process.memory_full_info().uss
        except (psutil.Error, AttributeError):
            return self._process.memory_info().rss, None

    def _peak(self) -> int | None:
        try:
            status = self._files.text("proc/self/status")
        except UnreadableError:
            return None
        lines = (line.split() for line in status.splitlines())
        return next((int(words[1]) * 1024 for words in lines if words[:1] == ["VmHWM:"]), None)

    def _note_peak(self) -> None:
        peak = self._peak()
        peak = self._process.memory_info().rss if peak is None else peak
        for window in self._windows.values():
            window.peak_rss_bytes = max(window.peak_rss_bytes, peak)

    def _reset_peak(self) -> str:
        """Lets VmHWM start over from the present size; returns what the peak from here on means."""
        if self._peak() is None:
            return SEEN
        try:
            # Neither created nor truncated: this is a file of the kernel's, and where it is missing it must stay so.
            descriptor = os.open(self._files.root / "proc/self/clear_refs", os.O_WRONLY)
        except OSError:
            return SINCE_START
        try:
            os.write(descriptor, b"5")
        except OSError:
            return SINCE_START
        finally:
            os.close(descriptor)
        return SINCE_BEGIN


def temperature(files: Files) -> Temperature:
    """Reads the processor's thermal zone below /sys/class/thermal, in °C."""
    folder = "sys/class/thermal"
    zones: dict[str, str] = {}
    try:
        for name in files.names(folder, "thermal_zone*"):
            zones.setdefault(files.text(f"{folder}/{name}/type").lower(), f"{folder}/{name}/temp")
        kind = next(kind for kind in CPU_ZONES if kind in zones)
        return Temperature(files.number(zones[kind]) / 1000, f"/{zones[kind]} ({kind})")
    except StopIteration:
        found = f": only {', '.join(zones)}" if zones else ""
        return Temperature(reason=f"no processor zone under /{folder}{found}")
    except UnreadableError as error:
        return Temperature(reason=str(error))
