"""So many bits an element between the smallest and the largest value: what weights are often sent as."""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from edge.wire.escapes import from_bits, to_bits
from edge.wire.floats import FLOAT32_LIMIT, decoded, finite
from edge.wire.frames import WireError
from edge.wire.tables import Tables

Array = npt.NDArray[Any]

_HEAD = struct.Struct("<Bff")
BITS_LIMIT = 16


@dataclass(frozen=True)
class Uniform:
    """Levels of equal width; the error is at most half of one."""

    number: ClassVar[int] = 7

    bits: float = 8

    def encode(self, array: Array) -> bytes:
        """Bits, smallest value, width (float32), levels, highest bit first."""
        bits, values = int(self.bits), finite(array).ravel().astype(np.float64)
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
        width = float(np.float32((high - low) / ((1 << bits) - 1)))
        if high - low + width >= FLOAT32_LIMIT:
            raise WireError(f"values from {low:g} to {high:g} are too far apart", "range")
        levels = np.rint((values - np.float32(low)) / width) if width else np.zeros(values.size)
        stream = to_bits(np.clip(levels, 0, (1 << bits) - 1).astype(np.int64), bits)
        return _HEAD.pack(bits, low, width) + np.packbits(stream).tobytes()

    @staticmethod
    def decode(payload: bytes | memoryview, shape: Sequence[int], tables: Tables | None = None) -> Array:  # noqa: ARG004
        """float32."""
        if len(payload) < _HEAD.size:
            raise WireError(f"uniform payload of {len(payload)} bytes is cut off", "too short")
        bits, low, width = _HEAD.unpack_from(payload)
        if not (1 <= bits <= BITS_LIMIT and math.isfinite(low) and math.isfinite(width) and width >= 0):
            raise WireError(f"uniform payload of {bits} bits from {low} in steps of {width}", "step")
        count = math.prod(shape)
        if len(payload) - _HEAD.size != -(-count * bits // 8):
            raise WireError(f"{count} levels of {bits} bits in {len(payload) - _HEAD.size} bytes", "shape")
        stream = np.unpackbits(np.frombuffer(payload, np.uint8, offset=_HEAD.size))[: count * bits]
        with np.errstate(over="ignore"):
            return decoded((low + from_bits(stream, bits, count) * width).astype(np.float32))
