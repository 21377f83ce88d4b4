"""Values and ranks: the few most frequent values get a number from 0; all others are escapes, coded apart.

A value with a shift of b keeps its zero; of all others the lower b bits of |value| - 1 are left to be sent as they are.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_WIDE = 4096


def fold(values: Array, shift: int) -> Array:
    """The value without its lower bits."""
    folded: Array = np.sign(values) * (np.abs(values) + ((1 << shift) - 1) >> shift)
    return folded


def lower_bits(values: Array, shift: int) -> Array:
    """The lower bits of all values but zeros."""
    found = values[values != 0]
    low: Array = np.abs(found) - 1 & (1 << shift) - 1
    return low


def unfold(folded: Array, low: Array, shift: int) -> Array:
    """Values again; `low` has an entry for each that is not zero."""
    values = folded.copy()
    some = folded != 0
    found = folded[some]
    values[some] = np.sign(found) * (((np.abs(found) - 1) << shift) + low + 1)
    return values


def rank(values: Array, ranked: tuple[int, ...]) -> Array:
    """The rank of each value, uint8; without one, as many as there are ranks."""
    if ranked == tuple(range(len(ranked))) and values.size and values.min() >= 0:
        return np.minimum(values, len(ranked)).astype(np.uint8)
    low, high = min(ranked), max(ranked)
    if high - low > _WIDE:
        order = np.argsort(ranked)
        place = np.minimum(np.searchsorted(np.array(ranked)[order], values), len(ranked) - 1)
        return np.where(np.array(ranked)[order][place] == values, order[place], len(ranked)).astype(np.uint8)
    table = np.full(high - low + 3, len(ranked), np.uint8)
    table[np.array(ranked) - low + 1] = np.arange(len(ranked))
    ranks: Array = table[np.clip(values, low - 1, high + 1) - (low - 1)]
    return ranks
