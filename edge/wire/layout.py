"""Where the elements of a tensor stand when they are coded: in slabs of groups, each group behind one it resembles.

A group is 2 to 4 neighbouring elements that are coded as one symbol; a slab is as many groups as there are in parallel.
What is behind a group, at its place in the slab before, is its context.

    PLANE   (batch, channels, rows, columns): groups lie along the columns of all samples, a slab is a row of all
            channels, and behind a group is the one above it
    LINE    (batch, channels, …): a channel's samples, one after the other, are cut into equal parts; a slab is one
            group of each part, and behind a group is the one before it
    LAST    the same with the last axis for the channels
    FLAT    the same with one channel for everything
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

FLAT, LINE, LAST, PLANE = range(4)

_PARALLEL = 128
"""Groups in parallel that a step of the coder is worth."""
_GROUPS_OF_A_PART = 32


def layouts_of(shape: Shape) -> tuple[int, ...]:
    """Those that suit a shape, the likeliest first."""
    if len(shape) == 4 and shape[2] * shape[3] > 1:
        return PLANE, FLAT
    if len(shape) >= 3:
        return LINE, LAST
    return (FLAT, LAST) if len(shape) == 2 else (FLAT,)


def fits(layout: int, shape: Shape) -> bool:
    """Whether a tensor of this shape can be laid out so."""
    return len(shape) >= {FLAT: 0, LINE: 2, LAST: 2, PLANE: 4}[layout] and (layout != PLANE or len(shape) == 4)


@dataclass(frozen=True)
class Layout:
    """How a tensor of one shape, with at least one element, is laid out in groups of `size`."""

    kind: int
    shape: Shape
    size: int

    @property
    def channels(self) -> int:
        """How many there are."""
        return {FLAT: 1, LAST: self.shape[-1] if self.shape else 1}.get(self.kind) or self.shape[1]

    @property
    def slabs(self) -> int:
        """How many there are."""
        return self.shape[2] if self.kind == PLANE else self._part // self.size

    @property
    def groups_of_a_channel(self) -> int:
        """How many a slab has."""
        return -(-self.shape[0] * self.shape[3] // self.size) if self.kind == PLANE else self._parts

    @property
    def slab(self) -> int:
        """Groups of a slab."""
        return self.channels * self.groups_of_a_channel

    def classes(self, of_channel: Array) -> Array:
        """What belongs to the channels, for each place of a slab."""
        return np.repeat(of_channel, self.groups_of_a_channel)

    def arrange(self, values: Array) -> Array:
        """`(slabs, slab, size)` from a tensor of the shape; what is beyond its end is 0."""
        values = values.reshape(self.shape)
        if self.kind == PLANE:
            rows = values.transpose(2, 1, 0, 3).reshape(self.slabs, self.channels, -1)
            return _padded(rows, self.groups_of_a_channel * self.size).reshape(self.slabs, self.slab, self.size)
        lines = _padded(self._lines(values), self._parts * self._part)
        grouped = lines.reshape(self.slab, self.slabs, self.size)
        return np.ascontiguousarray(grouped.transpose(1, 0, 2))

    def restore(self, groups: Array) -> Array:
        """The tensor, flat, from what `arrange` gave."""
        if self.kind == PLANE:
            batch, _, rows, columns = self.shape
            lines = groups.reshape(rows, self.channels, -1)[..., : batch * columns]
            return lines.reshape(rows, self.channels, batch, columns).transpose(2, 1, 0, 3).ravel()
        lines = groups.transpose(1, 0, 2).reshape(self.channels, -1)[:, : self._line]
        if self.kind == FLAT:
            return lines.ravel()
        if self.kind == LAST:
            return lines.T.ravel()
        return lines.reshape(self.channels, self.shape[0], -1).transpose(1, 0, 2).ravel()

    def _lines(self, values: Array) -> Array:
        if self.kind == FLAT:
            return values.reshape(1, -1)
        if self.kind == LAST:
            return values.reshape(-1, self.channels).T
        return np.moveaxis(values, 1, 0).reshape(self.channels, -1)

    @property
    def _line(self) -> int:
        """Elements of a channel."""
        return math.prod(self.shape) // self.channels

    @property
    def _part(self) -> int:
        """Elements of a part: a multiple of the group's size."""
        samples = 1 if self.kind == FLAT else self.shape[0]
        whole = samples // (self.size // math.gcd(self.size, self._line // samples))
        many = min(-(-_PARALLEL // self.channels), self._line // (_GROUPS_OF_A_PART * self.size))
        return self.size * -(-self._line // (self.size * max(1, whole, many)))

    @property
    def _parts(self) -> int:
        """Parts of a channel."""
        return -(-self._line // self._part)


def _padded(rows: Array, width: int) -> Array:
    if rows.shape[-1] == width:
        return rows
    wider = np.zeros((*rows.shape[:-1], width), rows.dtype)
    wider[..., : rows.shape[-1]] = rows
    return wider
