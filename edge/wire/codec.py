"""Codecs: an array becomes bytes, smaller at the price of exactness, and an array again.

A codec is named in text, with its parameter after a colon: `float32`, `float16`, `quantised:0.5`, `entropy:1`. On the wire a tensor
carries the codec's number, its shape and a payload, so that whoever reads it needs no other knowledge.

To add a codec, write a class with `number`, `encode` and `decode`, and add it to `CODECS`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from edge.wire import entropy, labels
from edge.wire.floats import decoded, finite
from edge.wire.frames import DEFAULT_LIMITS, WireError
from edge.wire.quantised import Quantised
from edge.wire.sparse import RandTopK, TopK
from edge.wire.tables import Tables
from edge.wire.uniform import BITS_LIMIT, Uniform
from edge.wire.varint import pack_varint, unpack_varint

Array = npt.NDArray[Any]
Bytes = bytes | memoryview
"""Bytes of one's own, or a view of somebody else's: tensors are long, and every copy of one costs as much as a check."""

RANK_LIMIT = 8


class Encoder(Protocol):
    """A sender's half of a codec."""

    number: ClassVar[int]

    def encode(self, array: Array) -> Bytes:
        """The payload; a view is one of the array's own memory.

        Raises:
            WireError: the array holds what this codec cannot carry.
        """


class Codec(Encoder, Protocol):
    """One way to code an array."""

    @staticmethod
    def decode(payload: Bytes, shape: Sequence[int], tables: Tables | None) -> Array:
        """The elements of such a tensor, flat, in memory of their own.

        Raises:
            WireError: the payload is not theirs.
        """


@dataclass(frozen=True)
class Integers:
    """Whole numbers, exactly, in the narrowest type that holds them. Decodes to int64."""

    number: ClassVar[int] = 0

    def encode(self, array: Array) -> bytes:
        """A byte for the type, then the numbers."""
        if array.dtype.kind not in "iub":
            raise WireError(f"the integers codec was given {array.dtype}", "dtype")
        low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
        for code, kind in enumerate(_INTEGERS):
            if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
                return bytes([code]) + array.astype(kind).tobytes()
        raise WireError(f"integers up to {high} do not fit 64 bits with a sign", "range")

    @staticmethod
    def decode(payload: Bytes, shape: Sequence[int], tables: Tables | None = None) -> Array:  # noqa: ARG004  for those that need them
        """int64."""
        if not payload or payload[0] >= len(_INTEGERS):
            raise WireError(f"unknown type of integers in {bytes(payload[:1])!r}", "dtype")
        kind, count = np.dtype(_INTEGERS[payload[0]]), math.prod(shape)
        _expect(len(payload) - 1, count * kind.itemsize)
        return np.frombuffer(payload, kind, count, 1).astype(np.int64)


_INTEGERS = ("<u1", "<i1", "<u2", "<i2", "<u4", "<i4", "<i8")


@dataclass(frozen=True)
class Float32:
    """The values as they are."""

    number: ClassVar[int] = 1

    def encode(self, array: Array) -> memoryview:
        """Little-endian float32."""
        return np.ascontiguousarray(finite(array), "<f4").reshape(-1).view(np.uint8).data

    @staticmethod
    def decode(payload: Bytes, shape: Sequence[int], tables: Tables | None = None) -> Array:  # noqa: ARG004  for those that need them
        """float32."""
        return _floats(payload, math.prod(shape), "<f4")


@dataclass(frozen=True)
class Float16:
    """Half the bytes, three digits. Only for values up to 65504."""

    number: ClassVar[int] = 2

    def encode(self, array: Array) -> bytes:
        """Little-endian float16."""
        values = finite(array)
        largest = float(np.abs(values).max()) if values.size else 0.0
        if largest >= _FLOAT16_LIMIT:
            raise WireError(f"float16 holds values up to 65504, not {largest:g}: use float32", "range")
        return values.astype("<f2").tobytes()

    @staticmethod
    def decode(payload: Bytes, shape: Sequence[int], tables: Tables | None = None) -> Array:  # noqa: ARG004  for those that need them
        """float32."""
        return _floats(payload, math.prod(shape), "<f2")


_FLOAT16_LIMIT = 65520.0
"""From here on float16 rounds to infinity."""


@dataclass(frozen=True)
class Entropy:
    """Multiples of a step, coded with a table that the tensor itself is the model of. `edge.wire.coder` shares tables."""

    number: ClassVar[int] = entropy.NUMBER

    deviations: float = 1.0

    def encode(self, array: Array) -> bytes:
        """Form, step, table, code stream."""
        return entropy.encode_alone(entropy.quantise(finite(array), deviations=self.deviations))

    @staticmethod
    def decode(payload: Bytes, shape: Sequence[int], tables: Tables | None = None) -> Array:
        """float32; a table that comes with it is put into `tables`, one that is named is looked for there."""
        return entropy.decode(payload, tuple(shape), tables)


@dataclass(frozen=True)
class Labels:
    """Whole numbers from 0 to 255, exactly, in as few bits as the largest needs. Decodes to int64."""

    number: ClassVar[int] = 5

    def encode(self, array: Array) -> bytes:
        """A byte for the largest, then the digits of large numbers."""
        payload = labels.pack(array) if array.dtype.kind in "iub" else None
        if payload is None:
            raise WireError("the labels codec takes 1 to 65536 whole numbers from 0 to 255", "range")
        return payload

    @staticmethod
    def decode(payload: Bytes, shape: Sequence[int], tables: Tables | None = None) -> Array:  # noqa: ARG004
        """int64."""
        return labels.unpack(payload, math.prod(shape))


CODECS: dict[str, type[Codec]] = {
    "integers": Integers,
    "float32": Float32,
    "float16": Float16,
    "quantised": Quantised,
    "entropy": Entropy,
    "labels": Labels,
    "topk": TopK,
    "randtopk": RandTopK,
    "uniform": Uniform,
}
_BY_NUMBER = {codec.number: codec for codec in CODECS.values() if codec is not RandTopK}
_DEVIATIONS = "a step of 0.001 to 64 deviations", 1e-3, 64.0
_SHARE = "a share from 0.00001 to 1", 1e-5, 1.0
_PARAMETERS: dict[str, tuple[str, float, float, Callable[[float], Codec]]] = {
    "quantised": (*_DEVIATIONS, Quantised),
    "entropy": (*_DEVIATIONS, Entropy),
    "topk": (*_SHARE, TopK),
    "randtopk": (*_SHARE, RandTopK),
    "uniform": ("1 to 16 bits", 1, BITS_LIMIT, Uniform),
}


def parse_codec(text: str) -> Codec:
    """The codec that a text like `entropy:1` names.

    Raises:
        WireError: there is none of that name, or its parameter is missing, superfluous or out of range.
    """
    name, colon, parameter = text.partition(":")
    if name not in CODECS:
        raise WireError(f"unknown codec {text!r:.40}; there are {', '.join(sorted(CODECS))}", "codec")
    if name not in _PARAMETERS:
        if colon:
            raise WireError(f"codec {name} takes no parameter, but {text!r:.40} has one", "codec")
        return CODECS[name]()
    what, low, high, make = _PARAMETERS[name]
    try:
        value = float(parameter)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        placeholder = "STEP" if what == _DEVIATIONS[0] else "SHARE" if what == _SHARE[0] else "BITS"
        raise WireError(f"codec {text!r:.40}: write {name}:{placeholder} with {what}", "codec")
    return make(value)


def step_of(codec: str) -> tuple[str, float | None]:
    """Name of a codec, and its step in deviations; None for the step where the codec has none."""
    name, _, parameter = codec.partition(":")
    return name, float(parameter) if name in ("quantised", "entropy") else None


def encode(array: Array, codec: str | Encoder) -> bytes:
    """A tensor for the wire; see `pieces`."""
    return b"".join(pieces(array, codec))


def pieces(array: Array, codec: str | Encoder) -> tuple[bytes, Bytes]:
    """A tensor for the wire: codec, rank, dimensions, payload length; and the payload. Integers always stay exact.

    Args:
        array: of any shape up to rank 8; the payload may be a view of it.
        codec: for the floats; for integers only `labels` says something: that they may be coded so where it is shorter.

    Raises:
        WireError: it holds NaN or infinity, or what the codec cannot carry.
    """
    values = np.asarray(array)
    coder = parse_codec(codec) if isinstance(codec, str) else codec
    if values.dtype.kind in "iub":
        coder = _coder_of_integers(values, coder)
    if values.ndim > RANK_LIMIT:
        raise WireError(f"tensor of rank {values.ndim}, the limit is {RANK_LIMIT}", "shape")
    payload = coder.encode(values)
    head = bytes([coder.number, values.ndim]) + b"".join(map(pack_varint, (*values.shape, len(payload))))
    return head, payload


def _coder_of_integers(values: Array, wanted: Encoder) -> Encoder:
    """The labels codec where it was asked for and is shorter."""
    if isinstance(wanted, Labels) and 0 < values.size <= labels.COUNT_LIMIT:
        low, high = int(values.min()), int(values.max())
        if low >= 0 and high < labels.BASE_LIMIT // 2:
            return wanted
    return Integers()


def decode(
    data: bytes, offset: int = 0, *, limit: int = DEFAULT_LIMITS.message_bytes, tables: Tables | None = None
) -> tuple[Array, int]:
    """The tensor that starts at `offset`, and the offset behind it.

    Args:
        data: whole message.
        offset: where `encode`'s bytes start.
        limit: most bytes of the decoded array.
        tables: those that the sender may name; tables that come with a tensor are put there.

    Raises:
        WireError: whatever is wrong with it, before anything of its size is allocated.
    """
    codec, shape, offset, length = look(data, offset)
    _check_shape(shape, 8 if codec in (Integers, Labels) else 4, limit)
    values = codec.decode(memoryview(data)[offset : offset + length], shape, tables)
    return values.reshape(shape), offset + length


def look(data: bytes, offset: int = 0) -> tuple[type[Codec], list[int], int, int]:
    """Of the tensor that starts at `offset`: codec, shape, where its payload starts and how long it is. Nothing is decoded.

    Raises:
        WireError: there is none.
    """
    if offset + 2 > len(data):
        raise WireError("tensor is cut off", "too short")
    number, rank = data[offset], data[offset + 1]
    if number not in _BY_NUMBER:
        raise WireError(f"unknown codec number {number}", "codec")
    if rank > RANK_LIMIT:
        raise WireError(f"tensor of rank {rank}, the limit is {RANK_LIMIT}", "shape")
    offset += 2
    shape: list[int] = []
    for _ in range(rank):
        dimension, offset = unpack_varint(data, offset)
        shape.append(dimension)
    length, offset = unpack_varint(data, offset)
    if length > len(data) - offset:
        raise WireError(f"tensor payload of {length} bytes, {len(data) - offset} are there", "too short")
    return _BY_NUMBER[number], shape, offset, length


def _check_shape(shape: list[int], itemsize: int, limit: int) -> None:
    # An empty tensor must not hide a dimension that no memory holds.
    size = itemsize * math.prod(max(dimension, 1) for dimension in shape)
    if size > limit:
        raise WireError(f"tensor of shape {tuple(shape)} takes {size} bytes, the limit is {limit}", "too long")


def _floats(payload: Bytes, count: int, kind: str) -> Array:
    _expect(len(payload), count * np.dtype(kind).itemsize)
    return decoded(np.frombuffer(payload, kind).astype(np.float32))


def _expect(length: int, expected: int) -> None:
    if length != expected:
        raise WireError(f"tensor payload of {length} bytes, its shape needs {expected}", "shape")
