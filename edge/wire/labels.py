"""Small whole numbers as the digits of one large number: labels of seven classes take 2.81 bits each."""

from typing import Any

import numpy as np
import numpy.typing as npt

from edge.wire.frames import WireError

Array = npt.NDArray[Any]

BASE_LIMIT = 256
COUNT_LIMIT = 65_536
_CHUNK = 256
"""Digits of one large number; more would take quadratic time."""


def pack(values: Array) -> bytes | None:
    """The base less one, then the numbers; None where they are not all from 0 to 255, none or more than 65536."""
    if not 0 < values.size <= COUNT_LIMIT or int(values.min()) < 0 or int(values.max()) >= BASE_LIMIT:
        return None
    base = int(values.max()) + 1
    flat = values.ravel().tolist()
    parts = []
    for place in range(0, len(flat), _CHUNK):
        digits = flat[place : place + _CHUNK]
        number = 0
        for digit in reversed(digits):
            number = number * base + int(digit)
        parts.append(number.to_bytes(_length(base, len(digits)), "little"))
    return bytes([base - 1]) + b"".join(parts)


def unpack(payload: bytes | memoryview, count: int) -> Array:
    """int64, flat.

    Raises:
        WireError: the payload is not that of so many numbers.
    """
    if not payload:
        raise WireError("labels are cut off", "too short")
    if count > COUNT_LIMIT:
        raise WireError(f"{count} labels, the limit is {COUNT_LIMIT}", "too long")
    base = payload[0] + 1
    whole, rest = divmod(count, _CHUNK)
    lengths = [_length(base, _CHUNK)] * whole + [_length(base, rest)] * bool(rest)
    if len(payload) - 1 != sum(lengths):
        raise WireError(f"labels of {len(payload) - 1} bytes, {count} below {base} need {sum(lengths)}", "shape")
    values = np.empty(count, np.int64)
    offset = 1
    for chunk, length in enumerate(lengths):
        number = int.from_bytes(payload[offset : offset + length], "little")
        offset += length
        for place in range(chunk * _CHUNK, min((chunk + 1) * _CHUNK, count)):
            number, values[place] = divmod(number, base)
        if number:
            raise WireError(f"labels beyond {base - 1}", "range")
    return values


def _length(base: int, digits: int) -> int:
    """Bytes that hold every number of so many digits."""
    return -(-int(base**digits - 1).bit_length() // 8)
