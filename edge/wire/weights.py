"""Weights as differences to a base that both ends hold: what travels is small, and what coding loses is not lost.

    the hub     sends  w - base, coded; what the device decodes is its new base, and the hub computes the same
                the next difference is to that: it carries what coding has left out of this one
    the device  gives  w + residual - base, coded; what that leaves out is its residual, until the next time

A base is named by the CRC-32 of its bytes. A base begins as the bundle's own weights, or with weights that went whole.
Statistics of batch norm never belong to one: half a step might make a variance negative. They, whole numbers and state
vectors of an optimizer always go as they are.
"""

import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from edge.wire.codec import CODECS, Bytes, Encoder, parse_codec
from edge.wire.frames import WireError
from edge.wire.manifest import PARTS

Array = npt.NDArray[Any]

EXACT = "float32"
"""Weights go whole, and nobody keeps a base."""
STATISTICS = ("running_mean", "running_var")
"""How the names end of what is never coded."""


@dataclass(frozen=True)
class Difference:
    """Weights less those of a base; of no part at all it only names the base that its sender holds."""

    base: int
    """CRC-32 of the base."""
    parts: tuple[str, ...] = ()
    """Whose weights of the base it changes, ascending: of `PARTS`."""
    values: Array = field(default_factory=lambda: np.empty(0, np.float32))
    """float32, flat, tensor after tensor by name: as they are decoded, also at the sender."""
    codec: str | Encoder = EXACT
    """For packing; unpacked messages do not say."""


class Base:
    """Weights that both ends hold to the last bit, by name; float32."""

    def __init__(self, state: Mapping[str, Array]) -> None:
        self.state = {name: np.ascontiguousarray(state[name], np.float32) for name in sorted(state)}

    @cached_property
    def id(self) -> int:
        """Its name: of names, shapes and bytes."""
        crc = 0
        for name, array in self.state.items():
            crc = zlib.crc32(array.astype("<f4").tobytes(), zlib.crc32(f"{name}{array.shape}".encode(), crc))
        return crc

    def names(self, parts: Collection[str], part_of: Mapping[str, str]) -> list[str]:
        """What of it belongs to these parts of the model, ascending."""
        return [name for name in self.state if part_of[name] in parts]

    def whole_parts(self, names: Collection[str], part_of: Mapping[str, str]) -> tuple[str, ...]:
        """The parts of which it has something, and nothing that is not among these names."""
        found = {part: self.names({part}, part_of) for part in PARTS}
        return tuple(part for part, mine in found.items() if mine and all(name in names for name in mine))

    def flat(self, names: Iterable[str]) -> Array:
        """These tensors one after the other: float32."""
        return joined(self.state, names)

    def changed(self, difference: Difference, part_of: Mapping[str, str]) -> dict[str, Array]:
        """The weights that a difference stands for.

        Raises:
            WireError: it has more or fewer values than they have.
        """
        names = self.names(difference.parts, part_of)
        values, size = difference.values.reshape(-1), sum(self.state[name].size for name in names)
        if values.size != size:
            raise WireError(f"a difference of {values.size} values; the base {self.id:08x} has {size} of them", "shape")
        return split(self.flat(names) + values, {name: self.state[name].shape for name in names})

    def updated(self, state: Mapping[str, Array]) -> "Base":
        """The base with these weights in place of what it has of them, or beside it; itself if there are none."""
        return Base({**self.state, **state}) if state else self


def parts_of(pieces: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Part by name of what may belong to a base, from (name, part)."""
    return {name: part for name, part in pieces if part in PARTS and not name.endswith(STATISTICS)}


def codable(state: Mapping[str, Array], part_of: Mapping[str, str]) -> dict[str, Array]:
    """What of these tensors may belong to a base."""
    return {name: array for name, array in state.items() if name in part_of and array.dtype == np.float32}


def joined(state: Mapping[str, Array], names: Iterable[str]) -> Array:
    """These tensors one after the other: float32, flat."""
    return np.concatenate([np.empty(0, np.float32), *(state[name].reshape(-1) for name in names)])


def split(flat: Array, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Tensors of these shapes from what `joined` made of them."""
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])
    return {
        name: part.reshape(shape)
        for (name, shape), part in zip(shapes.items(), np.split(flat, ends[:-1]) if shapes else (), strict=True)
    }


def difference(base: Base, parts: tuple[str, ...], values: Array, codec: str | Encoder) -> Difference:
    """A difference whose values are coded already, and those that the other end will decode.

    Raises:
        WireError: it holds NaN or infinity, or what the codec cannot carry.
    """
    coder = parse_codec(codec) if isinstance(codec, str) else codec
    ready = _Ready(coder.number, coder.encode(values))
    kind = next(kind for kind in CODECS.values() if kind.number == ready.number)
    decoded = kind.decode(memoryview(ready.payload), values.shape, None)
    return Difference(base.id, parts, decoded, cast("Encoder", ready))  # its number is not its class's


@dataclass(frozen=True)
class _Ready:
    """An encoder that has encoded: training a table twice would cost as much again."""

    number: int
    payload: Bytes

    def encode(self, array: Array) -> Bytes:  # noqa: ARG002  the one it was made of
        return self.payload
