"""What a source of joules is, and the one that most are: a gauge of power, read now and then."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edge.energy.measure import Kind
from edge.files import Files, UnreadableError

MOST_WATTS = 1000.0  # no board or CPU package draws more: beyond it a reading is a fault, or a counter wrapped unseen
SPREAD = 1 / math.sqrt(12)  # standard deviation of what lies evenly within a step of 1


class Source(Protocol):
    """A place where energy or power is read. `seconds_between` is how often to read, `refresh_seconds` how often it changes."""

    name: str
    kind: Kind
    seconds_between: float
    refresh_seconds: float
    unseen: float
    """Running sum, in J²: variance of what may have happened between readings."""

    def joules_since(self, seconds: float) -> float:
        """Reads once; returns the joules since the last good reading, `seconds` ago. Raises UnreadableError.

        The first reading, and the first after a failure, is preceded by `restart()` and returns 0.
        """

    def sigma(self, joules: float, seconds: float) -> float:
        """Standard deviation in joules that a window of so many joules has by the source's own steps and age."""

    def restart(self) -> None:
        """Forgets the last reading, so that no energy is made up for a gap."""

    def close(self) -> None:
        """Gives back what is open."""


class Gauge:
    """A sensor of power, read now and then: the energy between two readings is their mean times the time.

    Args:
        name: of the source.
        watts: reads it; raises UnreadableError.
        seconds_between: how often to read.
        refresh_seconds: how often it changes.
        step_watts: the smallest difference that it shows; 0 where that is not known.
    """

    kind: Kind = "sensor"

    def __init__(
        self,
        name: str,
        watts: Callable[[], float],
        seconds_between: float,
        refresh_seconds: float,
        step_watts: float = 0.0,
    ) -> None:
        self.name = name
        self.seconds_between = seconds_between
        self.refresh_seconds = refresh_seconds
        self.step_watts = step_watts
        self.unseen = 0.0
        self._watts = watts
        self._last: float | None = None

    def joules_since(self, seconds: float) -> float:
        """Reads the power; returns the trapezoid between the last reading and this."""
        watts = credible(self._watts(), self.name)
        before, self._last = self._last, watts
        if before is None:
            return 0.0
        self.unseen += (SPREAD * (watts - before) * seconds) ** 2
        return (before + watts) / 2 * seconds

    def sigma(self, joules: float, seconds: float) -> float:  # noqa: ARG002  the protocol's
        """The step lies the same way all along where the power is steady, so it counts for the whole window."""
        return SPREAD * self.step_watts * seconds

    def restart(self) -> None:
        """Forgets the last power."""
        self._last = None

    def close(self) -> None:
        """Nothing is open."""


def credible(watts: float, name: str) -> float:
    """Returns a power that a board can draw; raises UnreadableError for one that it cannot."""
    if not -MOST_WATTS <= watts <= MOST_WATTS:
        raise UnreadableError(f"{name} reads {watts:.6g} W, beyond the {MOST_WATTS:.0f} W that are credible")
    return watts


@dataclass(frozen=True)
class Rail:
    """One supply line: its label, the files that multiply to its power in units of `unit` watts, and its step in watts."""

    label: str
    factors: tuple[str, ...]
    unit: float
    step_watts: float = 0.0

    def watts(self, files: Files) -> float:
        """Reads the rail's power."""
        product = self.unit
        for path in self.factors:
            product *= files.number(path)
        return product
