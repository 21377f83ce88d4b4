"""How an activation was coded, read off its bytes: so it is the same for every codec, and for whoever holds the message."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge.wire import entropy, quantised
from edge.wire.codec import Array, look
from edge.wire.messages import SMASHED_AT

STEPS: dict[int, Callable[[bytes], float]] = {
    quantised.Quantised.number: quantised.step_of,
    entropy.NUMBER: entropy.step_of,
}
"""By the codec's number, how its payload tells its step: of those whose values are multiples of one, zero among them."""
_HEAD_BYTES = 16
"""Of a payload, where the step is."""


@dataclass(frozen=True)
class Figures:
    """What the smashed data of one activation came to."""

    elements: int
    nonzeros: int
    """Elements that are not zero, before any codec."""
    payload_bytes: int
    """Of the coded smashed data, without the head that names codec and shape; a table that goes along is in it."""
    step: float | None = None
    """D, in units of the activation; None where the codec has no quantiser."""
    deviations: float | None = None
    """D in standard deviations of the activation."""
    left: int | None = None
    """Elements that are not zero behind the quantiser."""


def figures_of(smashed: Array, packed: bytes) -> Figures:
    """What an activation came to.

    Args:
        smashed: the activation, float32 of any shape.
        packed: the message that carries it.
    """
    codec, _, start, length = look(packed, SMASHED_AT)
    flat = smashed.reshape(-1)
    nonzeros = int(np.count_nonzero(flat != 0))  # of floats, numpy counts one by one
    read = STEPS.get(codec.number)
    if read is None:
        return Figures(flat.size, nonzeros, length)
    step = read(packed[start : start + _HEAD_BYTES])
    left = int(np.count_nonzero(flat > step / 2)) + int(np.count_nonzero(flat < -step / 2))
    return Figures(flat.size, nonzeros, length, step, step / _spread(flat, step), left)


def _spread(flat: Array, step: float) -> float:
    """The standard deviation; of equal values the step itself, since no multiple of 0 says anything."""
    if not flat.size:
        return step
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        quick = float(flat.std())  # in float32 where that holds the squares: five times as fast
    return quick if 1e-15 < quick < 1e15 else float(flat.std(dtype=np.float64)) or step
