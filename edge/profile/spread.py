"""Median, interval and percentiles of repeated times."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
RESAMPLES = 1000
AT_ONCE = 1 << 15
"""Times drawn at a time, about: what draws them must not be the peak of the memory that is being measured."""
MOST_DRAWN = 2_000_000
"""Times drawn altogether: of many repetitions fewer resamples do, and a board has other things to do."""
LEAST_RESAMPLES = 200


@dataclass(frozen=True)
class Spread:
    """Seconds of one repetition, of many."""

    median: float
    low: float
    """The median lies between this and `high` with a confidence of `CONFIDENCE`."""
    high: float
    p95: float
    quiet: float
    """The tenth percentile: while nothing else runs."""

    @property
    def precision(self) -> float:
        """Half of the interval as a share of the median."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0


def spread(seconds: Sequence[float]) -> Spread:
    """Of at least one time.

    The interval is a bootstrap's: the medians of samples drawn with replacement, in blocks of neighbours (a circle of them, the
    cube root of their number long), since a time resembles the one before: taken one by one, they would promise too much.
    """
    times = np.asarray(seconds, np.float64)
    medians = np.concatenate([np.median(times[places], axis=1) for places in _resamples(len(times))])
    edge = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(medians, [edge, 100 - edge])
    quiet, median, p95 = np.percentile(times, [10, 50, 95])
    return Spread(float(median), float(low), float(high), float(p95), float(quiet))


def _resamples(count: int) -> Iterator[npt.NDArray[np.intp]]:
    """Places of the times of some resamples after the other: (resamples, count)."""
    # Of one seed: the same times give the same interval.
    rng = np.random.default_rng(0)
    left = max(LEAST_RESAMPLES, min(RESAMPLES, MOST_DRAWN // count))
    block = max(1, round(count ** (1 / 3)))
    while left > 0:
        many = min(left, max(1, AT_ONCE // count))
        left -= many
        starts = rng.integers(0, count, (many, -(-count // block)))
        yield ((starts[:, :, None] + np.arange(block)) % count).reshape(many, -1)[:, :count]


def drift(seconds: Sequence[float]) -> float:
    """Median of the last third over that of the first: above 1 where a board gets slower as it gets warm; 1 of fewer than nine."""
    third = len(seconds) // 3
    if third < 3:
        return 1.0
    first, last = np.median(seconds[:third]), np.median(seconds[-third:])
    return float(last / first) if first > 0 else 1.0
