"""The running sum of one source, and the windows that are differences of it."""

import dataclasses
import math
from dataclasses import dataclass

from edge.energy.measure import Energy
from edge.energy.source import Source
from edge.files import UnreadableError


@dataclass(frozen=True)
class Mark:
    """Where the running sum stood at a moment: joules, readings and failures since the start, and whether this reading failed."""

    time: float
    joules: float
    readings: int
    failures: int
    failed: bool
    unseen: float = 0.0
    """Variance so far, in J², of what may have happened between readings."""


class Integrator:
    """The running sum of one source, from which windows take differences; one failed reading voids the windows around it."""

    def __init__(self, source: Source | None, missing: str) -> None:
        self.source = source
        self.missing = missing
        """Why there is no source; empty where there is one."""
        self._last: float | None = None
        self._joules = 0.0
        self._readings = self._failures = 0
        self.failure = ""
        """Why the last reading failed that did."""
        self.idle_watts: float | None = None
        """What the board takes while nothing runs, once somebody has measured it."""

    def due(self, now: float) -> bool:
        """Whether it is time for another reading."""
        return self.source is not None and (self._last is None or now - self._last >= self.source.seconds_between)

    def rest(self) -> None:
        """Says that nobody measures until the next reading: what is used till then belongs to no window."""
        if self.source is not None:
            self.source.restart()
            self._last = None

    def advance(self, now: float) -> Mark:
        """Reads the source and returns where the sum stands. Never raises: a failure is counted and remembered."""
        failed = self.source is not None and not self._read(self.source, now)
        unseen = self.source.unseen if self.source else 0.0
        return Mark(now, self._joules, self._readings, self._failures, failed, unseen)

    def _read(self, source: Source, now: float) -> bool:
        seconds, self._last = (0.0 if self._last is None else now - self._last), now
        try:
            self._joules += source.joules_since(seconds)
        except UnreadableError as error:
            self._failures += 1
            self.failure = str(error)
            source.restart()
            return False
        self._readings += 1
        return True

    def between(self, begin: Mark, end: Mark) -> Energy:
        """Returns the energy of a window from two marks, with the reason where there is none."""
        source = self.source
        if source is None:
            return Energy(reason=self.missing)
        seconds, joules, readings = end.time - begin.time, end.joules - begin.joules, end.readings - begin.readings + 1
        too_short = seconds < 2 * source.refresh_seconds
        uncertainty = 2 * math.sqrt(max(0.0, end.unseen - begin.unseen) + source.sigma(joules, seconds) ** 2)
        fine = Energy(
            joules,
            source.kind,
            source.name,
            None,
            _resolution(seconds, readings, source.refresh_seconds),
            uncertainty_joules=max(uncertainty, abs(joules)) if too_short else uncertainty,
            seconds=seconds,
            readings=readings,
            too_short=too_short,
            idle_watts=self.idle_watts,
        )
        if begin.failed or end.failures > begin.failures:
            return _without(fine, self.failure)
        if joules == 0:
            why = f"{source.name} did not move in {seconds:.3g} s: the window is too short, or the sensor is not live"
            return _without(fine, why)
        return fine

    def close(self) -> None:
        """Gives back what the source has open."""
        if self.source is not None:
            self.source.close()


def _without(energy: Energy, reason: str) -> Energy:
    return dataclasses.replace(energy, joules=None, kind=None, uncertainty_joules=None, reason=reason)


def _resolution(seconds: float, readings: int, refresh: float) -> str:
    said = f"{readings} readings in {seconds:.3g} s"
    if seconds < 2 * refresh:
        said += f"; shorter than two samples of the sensor, which are {refresh:.3g} s apart"
    return said
