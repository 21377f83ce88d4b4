"""What a stretch of work costs on this board: seconds, CPU seconds, memory, temperature and joules, each with its source.

    with Meter() as meter:          # the thread inside reads the power sensor; `sample()` in one's own loop does as well
        meter.begin("round")
        ...
        cost = meter.end("round")   # a Measurement

Windows may nest and overlap: each gets the whole of what was spent between its begin and its end, nothing is divided among
them. A name can be used again once its window has ended. This is the only file that imports psutil; memory.py has peaks and
limits, thermal.py how warm it is, energy/ where joules come from.
"""

import resource
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from edge import energy
from edge.energy import Energy, Integrator, Mark
from edge.energy.config import EnergyConfig
from edge.energy.ina import SENSOR_SECONDS
from edge.files import Files
from edge.measurement import Measurement, Used
from edge.memory import SEEN, SINCE_BEGIN, SINCE_START, peak_bytes, reset_peak
from edge.thermal import Temperature, temperature

__all__ = [
    "SEEN", "SINCE_BEGIN", "SINCE_START", "Energy", "Measurement", "Meter", "Temperature", "Used", "temperature",
]  # fmt: skip


@dataclass
class _Window:
    """An open window: where everything stood at its begin, and the highest memory seen so far."""

    started: float
    cpu_seconds: float
    mark: Mark
    peak_rss_bytes: int
    peak_rss_source: str
    uss_bytes: int | None
    sampling: float


class Meter:
    """Measures named windows of this process. A board without a sensor gets None and a reason, never a guess.

    Args:
        root: where /proc and /sys start.
        now: a monotonic clock in seconds.
        read: how a file's text is read.
        sample_seconds: time between two readings of a power sensor; counters are read more rarely.
        config: which source of energy; without it the best that can be read.
    """

    def __init__(
        self,
        root: Path = Path("/"),
        now: Callable[[], float] = time.monotonic,
        *,
        read: Callable[[Path], str] | None = None,
        sample_seconds: float = SENSOR_SECONDS,
        config: EnergyConfig | None = None,
    ) -> None:
        self._files = Files(root, read)
        self._now = now
        self._process = psutil.Process()
        self._windows: dict[str, _Window] = {}
        # The sampling thread and the loop both advance the sum.
        self._lock = threading.Lock()
        self._integrator = Integrator(*energy.find(self._files, sample_seconds, now, config))
        self._failures = 0
        """Of the energy source, when `used` was asked last."""
        self._sampling = self._sampling_thread = 0.0
        """CPU seconds that reading has taken: of those who called, and of the thread with all that it does."""
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
            source = reset_peak(self._files)
            now = self._now()
            sampling, uss = self.sampling_cpu_seconds, self._memory()[1]
            mark = self._advance(now)
            peak = peak_bytes(self._files) or 0
            self._windows[window] = _Window(now, time.process_time(), mark, peak, source, uss, sampling)

    def end(self, window: str) -> Measurement:
        """Closes a window and returns what it cost; raises ValueError when none of this name is open."""
        with self._lock:
            if window not in self._windows:
                names = ", ".join(sorted(self._windows)) or "none"
                raise ValueError(f"window {window!r} is not open; open: {names}")
            now = self._now()
            mark = self._advance(now)
            self._note_peak()
            return self._measurement(window, self._windows.pop(window), now, mark)

    @property
    def missing_energy(self) -> str:
        """What was looked for and not found, where joules are not measured; empty where they are."""
        return self._integrator.missing

    @property
    def energy_source(self) -> str:
        """The source's name and class; empty where there is none."""
        source = self._integrator.source
        return f"{source.name}, {source.kind}" if source else ""

    def used(self, *, joules: bool = False) -> Used:
        """What the process has taken so far, without the memory that makes a window dear: for between two steps.

        Args:
            joules: whether to read the energy source, too.
        """
        if not joules:
            return Used(time.process_time(), reason="not asked for")
        with self._lock:
            mark = self._advance(self._now())
            gap, self._failures = mark.failures > self._failures, mark.failures
            reason = self.missing_energy or (self._integrator.failure if gap else "")
            return Used(time.process_time(), None if reason else mark.joules, reason)

    @property
    def sampling_cpu_seconds(self) -> float:
        """What reading the energy source has taken of the processor so far."""
        return self._sampling + self._sampling_thread

    def take_baseline(self, seconds: float, wait: Callable[[float], object] = time.sleep) -> Energy:
        """Measures the idle board for so long; energies of later windows have its power beside them as `idle_watts`.

        Args:
            seconds: at least some readings of the source long; a window that is too short is not taken for a baseline.
            wait: lets the time pass.

        Returns:
            The idle window's energy.
        """
        self.begin("idle baseline")
        wait(seconds)
        idle = self.end("idle baseline").energy
        if idle.joules is not None and idle.seconds and not idle.too_short:
            self._integrator.idle_watts = idle.joules / idle.seconds
        return idle

    def sample(self) -> None:
        """Reads the energy source if it is time to; call it from a loop that runs no sampling thread."""
        with self._lock:
            if self._windows and self._integrator.due(self._now()):
                self._advance(self._now())

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
        """Stops the thread and closes the source; open windows are given up."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._integrator.close()

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
            self._sampling_thread = time.thread_time()

    def _advance(self, now: float) -> Mark:
        """Reads the source, and counts what that takes: its programs' time, and ours unless this is the thread."""
        began, children = time.thread_time(), _children_seconds()
        mark = self._integrator.advance(now)
        self._sampling += _children_seconds() - children
        if threading.current_thread() is not self._thread:
            self._sampling += time.thread_time() - began
        return mark

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
            uss_grown_bytes=None if uss is None or window.uss_bytes is None else uss - window.uss_bytes,
            sampling_cpu_seconds=self.sampling_cpu_seconds - window.sampling,
        )

    def _memory(self) -> tuple[int, int | None]:
        try:
            return self._process.memory_info().rss, self._process.memory_full_info().uss
        except (psutil.Error, AttributeError):
            return self._process.memory_info().rss, None

    def _note_peak(self) -> None:
        peak = peak_bytes(self._files)
        peak = self._process.memory_info().rss if peak is None else peak
        for window in self._windows.values():
            window.peak_rss_bytes = max(window.peak_rss_bytes, peak)


def _children_seconds() -> float:
    """CPU seconds of programs that this process has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
