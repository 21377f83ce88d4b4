"""The largest elements of each sample and their places; the others are zero.

`topk:SHARE` is there to be compared with. `randtopk:SHARE` is "Reducing Communication for Split Learning by Randomized
Top-k Sparsification" (Zheng, Chen, Lyu, Yao, IJCAI 2023, https://arxiv.org/abs/2305.18469): each kept place is one of
the k largest, or with a small probability one of the others, so that these learn too. For evaluation use `topk`.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from edge.wire import escapes
from edge.wire.floats import decoded, finite
from edge.wire.frames import WireError
from edge.wire.tables import Tables
from edge.wire.varint import pack_varint, unpack_varint

Array = npt.NDArray[Any]

_KINDS = ("<f2", "<f4")
_FLOAT16_LIMIT = 65520.0
OTHERS = 0.1
"""Probability of a kept place to be none of the largest: the paper tries 0.05 to 0.3."""


@dataclass(frozen=True)
class TopK:
    """A share of the elements of each sample (of the first axis): those with the largest absolute values."""

    number: ClassVar[int] = 6

    share: float = 0.05

    def encode(self, array: Array) -> bytes:
        """Kind of floats, how many, gaps between their places, values (float16 where that holds them)."""
        samples = finite(array).reshape(len(array) if array.ndim > 1 else 1, -1 if array.size else 0)
        kept = max(1, math.ceil(self.share * samples.shape[1])) if samples.size else 0
        places = np.sort((self._places(np.abs(samples), kept) + _rows(samples)).ravel())
        values = samples.ravel()[places]
        kind = int(np.abs(values).max(initial=0) >= _FLOAT16_LIMIT)
        gaps = escapes.pack(np.diff(places, prepend=-1) - 1)
        kept_values: bytes = values.astype(_KINDS[kind]).tobytes()
        return bytes([kind]) + pack_varint(len(places)) + gaps + kept_values

    @staticmethod
    def decode(payload: bytes | memoryview, shape: Sequence[int], tables: Tables | None = None) -> Array:  # noqa: ARG004
        """float32."""
        data, total = bytes(payload), math.prod(shape)
        if not data or data[0] >= len(_KINDS):
            raise WireError(f"unknown kind of kept values in {data[:1]!r}", "dtype")
        count, offset = unpack_varint(data, 1)
        if count > total:
            raise WireError(f"{count} kept values of {total}", "range")
        gaps, taken = escapes.unpack(data[offset:], count)
        places = np.cumsum(gaps + 1) - 1
        kind = np.dtype(_KINDS[data[0]])
        if count and (int(gaps.min()) < 0 or int(places[-1]) >= total):
            raise WireError(f"places of kept values are not in 0 to {total - 1}", "range")
        if len(data) - offset - taken != count * kind.itemsize:
            raise WireError(f"{count} kept values in {len(data) - offset - taken} bytes", "shape")
        values = np.zeros(total, np.float32)
        values[places] = decoded(np.frombuffer(data, kind, count, offset + taken).astype(np.float32))
        return values

    def _places(self, sizes: Array, kept: int) -> Array:
        """Columns that are kept of each row."""
        return np.argpartition(-sizes, kept - 1, axis=1)[:, :kept] if kept else np.zeros((len(sizes), 0), np.int64)


@dataclass(frozen=True)
class RandTopK(TopK):
    """The same, but now and then another place is kept instead; chance is seeded with the tensor itself."""

    others: float = OTHERS

    def _places(self, sizes: Array, kept: int) -> Array:
        if not kept or kept == sizes.shape[1]:
            return super()._places(sizes, kept)
        rng = np.random.default_rng(zlib.crc32(sizes.tobytes()))
        order = np.argpartition(-sizes, kept - 1, axis=1)
        # The largest and the others each in an order of chance; so many from the others as coins say.
        mixed = np.concatenate([rng.permuted(part, axis=1) for part in np.split(order, [kept], axis=1)], axis=1)
        swapped = np.minimum(rng.binomial(kept, self.others, len(sizes)), sizes.shape[1] - kept)
        columns = np.arange(kept) + np.where(np.arange(kept) < swapped[:, None], kept, 0)
        return np.take_along_axis(mixed, columns, axis=1)


def _rows(samples: Array) -> Array:
    """Flat place of each row's first element."""
    places: Array = (np.arange(len(samples)) * samples.shape[1])[:, None]
    return places
