"""Two contestants measured in turns: what may be said of them."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """Ratio of the medians, and the range from the 10th to the 90th percentile of the ratios turn by turn."""

    middle: float
    low: float
    high: float


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Compare figures measured in turns: `ours[i]` and `theirs[i]` belong to the same turn."""
    paired = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    middle = statistics.median(ours) / statistics.median(theirs)
    return Ratio(middle, percentile(paired, 10), percentile(paired, 90))


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that `percent` of the values lie below, interpolated between neighbours."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
