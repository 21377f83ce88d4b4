"""Codecs: an array becomes bytes, smaller at the price of exactness, and an array again.

A codec is named in text, with its parameter after a colon: `float32`, `float16`, `quantised:0.5`, `entropy:1`. On the wire a tensor
carries the codec's number, its shape and a payload, so that whoever reads it needs no other knowledge.

To add a codec, write a class with `number`, `encode` and `decode`, and add it to `CODECS`.
"""

import bz2
import math
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from edge.wire import entropy, labels
from edge.wire.floats import FLOAT32_LIMIT, decoded, finite
from edge.wire.frames import DEFAULT_LIMITS, WireError
from edge.wire.tables import Tables
from edge.wire.varint import pack_varint, unpack_varint

Array = npt.NDArray[Any]
Bytes = bytes | memoryview
"""Bytes of one's own, or a view of somebody else's: tensors are long, and every copy of one costs as much as a check."""

RANK_LIMIT = 8


class Codec(Protocol):
    """One way to code an array."""

    number: ClassVar[int]

    def encode(self, array: Array) -> Bytes:
        """The payload; a view is one of the array's own memory.

        Raises:
            WireError: the array holds what this codec cannot carry.
        """

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
class Quantised:
    """Multiples of a step, entropy coded. The step is `deviations` times the tensor's standard deviation.

    Zero stays zero; the error is at most half a step. The step is wider where the largest value would need more than
    16 bits.
    """

    number: ClassVar[int] = 3

    deviations: float = 0.5

    def encode(self, array: Array) -> bytes:
        """Step (float32), bytes a symbol, coder, coded symbols."""
        values = finite(array)
        step = self._step(values)
        symbols = np.rint(values.ravel() / step)
        wide = bool(values.size) and float(np.abs(symbols).max()) > np.iinfo(np.int8).max
        raw = symbols.astype("<i2" if wide else "i1").tobytes()
        coded = [coder(raw) for coder in _CODERS]
        best = min(range(len(coded)), key=lambda code: len(coded[code]))
        return _QUANTISED.pack(step, 1 + wide, best) + coded[best]

    @staticmethod
    def decode(payload: Bytes, shape: Sequence[int], tables: Tables | None = None) -> Array:  # noqa: ARG004  for those that need them
        """float32."""
        if len(payload) < _QUANTISED.size:
            raise WireError(f"quantised payload of {len(payload)} bytes is cut off", "too short")
        step, width, coder = _QUANTISED.unpack_from(payload)
        if not math.isfinite(step) or step <= 0:
            raise WireError(f"quantiser step {step} is not a positive number", "step")
        if width not in (1, 2) or coder >= len(_DECODERS):
            raise WireError(f"quantised payload with width {width} and coder {coder}", "codec")
        length = width * math.prod(shape)
        raw = _DECODERS[coder](payload[_QUANTISED.size :], length)
        _expect(len(raw), length)
        symbols = np.frombuffer(raw, "<i2" if width == 2 else "i1")
        with np.errstate(over="ignore"):
            values = symbols.astype(np.float32) * np.float32(step)
        return decoded(values)

    def _step(self, values: Array) -> np.float32:
        largest = float(np.abs(values).max()) if values.size else 0.0
        deviation = float(values.std(dtype=np.float64)) if values.size else 0.0
        wanted = self.deviations * (deviation or largest)
        # One symbol less than int16 has, for the rounding of the step to float32.
        step = min(max(wanted, largest / 32766, 2.0**-126), FLOAT32_LIMIT)
        if largest + step >= FLOAT32_LIMIT:
            raise WireError(f"values up to {largest:g} are too large for a step of {step:g}", "range")
        return np.float32(step)


_QUANTISED = struct.Struct("<fBB")


def _deflate(strategy: int) -> Callable[[bytes], bytes]:
    def code(raw: bytes) -> bytes:
        coder = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9, strategy)
        return coder.compress(raw) + coder.flush()

    return code


def _inflate(coded: Bytes, length: int) -> bytes:
    decoder = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        raw = decoder.decompress(coded, length + 1)
    except zlib.error as error:
        raise WireError(f"damaged deflate stream: {error}", "coder") from error
    if not decoder.eof or decoder.unused_data:
        raise WireError(f"deflate stream does not end after {length} bytes", "coder")
    return raw


def _bunzip(coded: Bytes, length: int) -> bytes:
    decoder = bz2.BZ2Decompressor()
    try:
        raw = decoder.decompress(coded, length + 1)
    except (OSError, ValueError) as error:
        raise WireError(f"damaged bz2 stream: {error}", "coder") from error
    if not decoder.eof or decoder.unused_data:
        raise WireError(f"bz2 stream does not end after {length} bytes", "coder")
    return raw


# Runs suit sparse tensors, Huffman codes alone suit noise, bz2 suits what repeats: the shortest of the three is taken.
_CODERS: tuple[Callable[[bytes], bytes], ...] = (_deflate(zlib.Z_RLE), _deflate(zlib.Z_HUFFMAN_ONLY), bz2.compress)
_DECODERS = (_inflate, _inflate, _bunzip)


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
}
_BY_NUMBER = {codec.number: codec for codec in CODECS.values()}
_WITH_STEP: dict[str, type[Quantised | Entropy]] = {"quantised": Quantised, "entropy": Entropy}
_PARAMETER_RANGE = (1e-3, 64.0)


def parse_codec(text: str) -> Codec:
    """The codec that a text like `quantised:0.5` names.

    Raises:
        WireError: there is none of that name, or its parameter is missing, superfluous or out of range.
    """
    name, colon, parameter = text.partition(":")
    if name not in CODECS:
        raise WireError(f"unknown codec {text!r:.40}; there are {', '.join(sorted(CODECS))}", "codec")
    if name not in _WITH_STEP:
        if colon:
            raise WireError(f"codec {name} takes no parameter, but {text!r:.40} has one", "codec")
        return CODECS[name]()
    low, high = _PARAMETER_RANGE
    try:
        deviations = float(parameter)
    except ValueError:
        deviations = math.nan
    if not low <= deviations <= high:
        raise WireError(f"codec {text!r:.40}: write {name}:STEP with a step of {low} to {high} deviations", "codec")
    return _WITH_STEP[name](deviations)


def encode(array: Array, codec: str | Codec) -> bytes:
    """A tensor for the wire; see `pieces`."""
    return b"".join(pieces(array, codec))


def pieces(array: Array, codec: str | Codec) -> tuple[bytes, Bytes]:
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


def _coder_of_integers(values: Array, wanted: Codec) -> Codec:
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
    if offset + 2 > len(data):
        raise WireError("tensor is cut off", "too short")
    number, rank = data[offset], data[offset + 1]
    if number not in _BY_NUMBER:
        raise WireError(f"unknown codec number {number}", "codec")
    if rank > RANK_LIMIT:
        raise WireError(f"tensor of rank {rank}, the limit is {RANK_LIMIT}", "shape")
    offset += 2
    shape = []
    for _ in range(rank):
        dimension, offset = unpack_varint(data, offset)
        shape.append(dimension)
    length, offset = unpack_varint(data, offset)
    if length > len(data) - offset:
        raise WireError(f"tensor payload of {length} bytes, {len(data) - offset} are there", "too short")
    codec = _BY_NUMBER[number]
    _check_shape(shape, 8 if codec in (Integers, Labels) else 4, limit)
    values = codec.decode(memoryview(data)[offset : offset + length], shape, tables)
    return values.reshape(shape), offset + length


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
