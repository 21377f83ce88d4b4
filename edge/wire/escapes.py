"""Whole numbers without a model: the values that no table has a rank for, and whole tensors too small for a table.

A Rice code in three sections of bits, highest first, so that all of a section is read at once: for each number its
upper part as so many zeros and a one; the lower k bits of each; 24 bits of those whose upper part is 24 or more (24
zeros and a one stand for them). Where that is shorter, deflate of 1, 2 or 4 bytes each.
"""

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.wire.frames import WireError
from edge.wire.varint import pack_varint, unpack_varint, unzigzag, zigzag

Array = npt.NDArray[Any]

VALUE_LIMIT = 1 << 22
"""Absolute values stay below."""

_LOWER_LIMIT = 24
_UPPER_LIMIT = 24
_WHOLE = 24
_SIGNED, _DEFLATED = 0x20, 0x40
_WIDTHS = (1, 2, 4)
_TRY_DEFLATE = 32


def pack(values: Array) -> bytes:
    """Whole numbers; none take no byte. Form, smallest number, bits.

    Raises:
        WireError: one is not below `VALUE_LIMIT`.
    """
    if not values.size:
        return b""
    if max(int(values.max()), -int(values.min())) >= VALUE_LIMIT:
        raise WireError(f"a number is not below {VALUE_LIMIT}", "range")
    signed = bool(values.min() < 0 < values.max())
    plain = np.where(values < 0, -2 * values - 1, 2 * values) if signed else values
    least = int(plain.min())
    over = (plain - least).astype(np.int64)
    head = pack_varint(zigzag(least))
    k = _lower_bits(over)
    upper = np.minimum(over >> k, _UPPER_LIMIT)
    ends = np.cumsum(upper + 1) - 1
    unary = np.zeros(int(ends[-1]) + 1, np.uint8)
    unary[ends] = 1
    short = upper < _UPPER_LIMIT
    sections = unary, to_bits(over[short], k), to_bits(over[~short], _WHOLE)
    coded = np.packbits(np.concatenate(sections)).tobytes()
    if len(coded) > _TRY_DEFLATE:
        width = next(width for width in _WIDTHS if int(over.max()) < 1 << 8 * width)
        coder = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9)
        deflated = coder.compress(over.astype(f"<u{width}").tobytes()) + coder.flush()
        if len(deflated) + 2 < len(coded):
            return bytes([width | _SIGNED * signed | _DEFLATED]) + head + pack_varint(len(deflated)) + deflated
    return bytes([k | _SIGNED * signed]) + head + coded


def _lower_bits(over: Array) -> int:
    """Those that make the Rice code shortest, or nearly so: about what the mean has."""
    near = int(over.mean()).bit_length()
    tried = range(max(0, near - 3), min(_LOWER_LIMIT, near + 1))
    return min(tried, key=lambda k: int(np.minimum(over >> k, _UPPER_LIMIT).sum()) + k * over.size)


def unpack(data: bytes, count: int) -> tuple[Array, int]:
    """So many numbers (int64), and the bytes they took.

    Raises:
        WireError: they are cut off or damaged.
    """
    if not count:
        return np.zeros(0, np.int64), 0
    if not data:
        raise _cut_off(count)
    form = data[0]
    if form & 0x1F >= _LOWER_LIMIT or form > (_SIGNED | _DEFLATED | 0x1F):
        raise WireError(f"numbers of unknown form {form}", "coder")
    folded, offset = unpack_varint(data, 1)
    read = _deflated if form & _DEFLATED else _rice
    over, offset = read(data, offset, count, form & 0x1F)
    plain = over + unzigzag(folded)
    values = np.where(plain & 1, -(plain >> 1) - 1, plain >> 1) if form & _SIGNED else plain
    if (np.abs(values) >= VALUE_LIMIT).any():
        raise WireError(f"a number is not below {VALUE_LIMIT}", "range")
    return values, offset


def _rice(data: bytes, offset: int, count: int, k: int) -> tuple[Array, int]:
    stream = np.unpackbits(np.frombuffer(data, np.uint8, offset=offset))
    ends = np.flatnonzero(stream)[:count]
    if len(ends) < count:
        raise _cut_off(count)
    upper = np.diff(ends, prepend=-1) - 1
    if upper.max() > _UPPER_LIMIT:
        raise WireError(f"a number has an upper part of {upper.max()}", "coder")
    long = upper == _UPPER_LIMIT
    a = int(ends[-1]) + 1
    b = a + k * int(count - long.sum())
    c = b + _WHOLE * int(long.sum())
    if c > len(stream):
        raise _cut_off(count)
    over = upper << k
    over[~long] += from_bits(stream[a:b], k, int(count - long.sum()))
    over[long] = from_bits(stream[b:c], _WHOLE, int(long.sum()))
    return over, offset + -(-c // 8)


def _deflated(data: bytes, offset: int, count: int, width: int) -> tuple[Array, int]:
    length, offset = unpack_varint(data, offset)
    if length > len(data) - offset:
        raise _cut_off(count)
    if width not in _WIDTHS:
        raise WireError(f"deflated numbers of {width} bytes", "coder")
    decoder = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        raw = decoder.decompress(data[offset : offset + length], width * count + 1)
    except zlib.error as error:
        raise WireError(f"damaged deflate stream: {error}", "coder") from error
    if not decoder.eof or decoder.unused_data or len(raw) != width * count:
        raise WireError(f"deflate stream does not end after {count} numbers", "coder")
    return np.frombuffer(raw, f"<u{width}").astype(np.int64), offset + length


def to_bits(values: Array, width: int) -> Array:
    """Bits of each value, highest first, flat uint8."""
    return (values[:, None] >> np.arange(width - 1, -1, -1) & 1).astype(np.uint8).ravel()


def from_bits(stream: Array, width: int, count: int) -> Array:
    """The way back: int64."""
    values: Array = stream.reshape(count, width) @ (1 << np.arange(width - 1, -1, -1, dtype=np.int64))
    return values


def _cut_off(count: int) -> WireError:
    return WireError(f"{count} numbers are cut off", "too short")
