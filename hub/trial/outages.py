"""When a link is gone: moments that are listed, or ones that come back every so often."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from random import Random
from typing import Annotated

from edge.wire.toml_fields import Example, Pattern, Range


@dataclass(frozen=True)
class Outages:
    """Times at which both directions are gone, in seconds from the start; those of `times` or those of `every_seconds`."""

    times: Annotated[
        tuple[tuple[float, float], ...], Pattern("", "a list of [start, length] in seconds"), Example([[30, 5]])
    ] = ()
    """Each of them."""

    every_seconds: Annotated[float | None, Range(1e-3, 1e6), Example(60.0)] = None
    """One begins after so many seconds, and again after so many more."""

    for_seconds: Annotated[float | None, Range(1e-3, 1e6), Example(5.0)] = None
    """How long each of them lasts."""

    jitter_seconds: Annotated[float, Range(0, 1e6)] = 0.0
    """Each of them begins up to this many seconds earlier or later."""

    seed: Annotated[int, Range(0, 2**31 - 1)] = 0
    """What the jitter starts from, together with the scenario's seed and the device's name."""

    def problems(self) -> Iterator[str]:
        """What does not go together."""
        for start, length in self.times:
            if start < 0 or length <= 0:
                yield f"times has [{start:g}, {length:g}]: must be a start of at least 0 and a length above 0"
        for (start, length), (other, _) in zip(self.times, self.times[1:], strict=False):
            if other <= start + length:
                yield f"times has [{start:g}, {length:g}] before one that starts at {other:g}: must be sorted and apart"
        if (self.every_seconds is None) != (self.for_seconds is None):
            yield "every_seconds and for_seconds go together: give both or neither"
        elif self.every_seconds is not None and self.for_seconds is not None:
            if self.times:
                yield "times and every_seconds exclude each other: give one of them"
            if self.for_seconds + 2 * self.jitter_seconds >= self.every_seconds:
                yield (
                    f"for_seconds = {self.for_seconds:g} with jitter_seconds = {self.jitter_seconds:g} must fit into "
                    f"every_seconds = {self.every_seconds:g}, the jitter counted twice"
                )

    def during(self, since: float, until: float, chance: str = "") -> tuple[float, float] | None:
        """The first outage, as its start and end, that has a moment in common with `since` to `until`; None without one.

        An outage begins at its start and is over at its end: that moment belongs to the time after it.

        Args:
            since: seconds from the start of the trial.
            until: at least `since`; both are part of the time asked about.
            chance: what the jitter starts from: the scenario's seed and the device.
        """
        if self.every_seconds is None:
            return self._listed(since, until)
        # The one before may still last, the one after may come early.
        number = max(1, int(since / self.every_seconds) - 1) if since < inf else 0
        for candidate in range(number, number + 4) if number else ():
            start, end = self._numbered(candidate, f"{chance}/{self.seed}")
            if since < end:
                return (start, end) if start <= until else None
        return None

    def at(self, seconds: float, chance: str = "") -> tuple[float, float] | None:
        """The outage at this moment."""
        return self.during(seconds, seconds, chance)

    def _listed(self, since: float, until: float) -> tuple[float, float] | None:
        index = max(0, bisect_right(self.times, (since, inf)) - 1)
        for start, length in self.times[index : index + 2]:
            if since < start + length:
                return (start, start + length) if start <= until else None
        return None

    def _numbered(self, number: int, chance: str) -> tuple[float, float]:
        every, length = self.every_seconds or inf, self.for_seconds or 0.0
        start = number * every + _shift(chance, number) * self.jitter_seconds
        return start, start + length


@lru_cache(maxsize=4096)
def _shift(chance: str, number: int) -> float:
    return Random(f"outage/{chance}/{number}").uniform(-1, 1)
