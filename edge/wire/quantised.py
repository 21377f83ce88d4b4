"""The codec `quantised:K`: a uniform quantiser whose symbols go through deflate or bz2, whichever is shortest."""

import bz2
import math
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from edge.wire.floats import FLOAT32_LIMIT, decoded, finite
from edge.wire.frames import WireError
from edge.wire.tables import Tables

Array = npt.NDArray[Any]
Bytes = bytes | memoryview


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
        if len(raw) != length:
            raise WireError(f"tensor payload of {len(raw)} bytes, its shape needs {length}", "shape")
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


def step_of(payload: Bytes) -> float:
    """The step that a payload of this codec was quantised with."""
    step: float = _QUANTISED.unpack_from(payload)[0]
    return step


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
