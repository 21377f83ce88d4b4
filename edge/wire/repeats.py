"""Which samples an activation has, and which of its batch the hub is to take from its cache instead.

A sample is named by its number at its device, and what the hub has of it by the upload it came with: device and hub count
the device's uploads alike, since each says its own. So a cache that has another upload of a sample, or none, shows at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.wire.codec import Bytes, pieces
from edge.wire.frames import U32, WireError

Array = npt.NDArray[np.int64]

BATCH_LIMIT = 65_536
"""Most samples of a batch, those that are sent and those that are known."""


@dataclass(frozen=True)
class Repeats:
    """The samples of one batch."""

    upload: int
    """Number of this upload at its device: ascending, from 1 or anywhere."""
    numbers: Array
    """Of the samples that are sent, in their order: int64 `(sent,)`, 32 bits."""
    known: Array
    """Of the samples that the hub has: int64 `(known,)`."""
    uploads: Array
    """With which upload each of those was sent last: int64 `(known,)`."""

    def first(self, count: int) -> "Repeats":
        """Without the samples behind the first `count` that are sent."""
        return Repeats(self.upload, self.numbers[:count], self.known, self.uploads)


def pack(repeats: Repeats, rows: int) -> list[Bytes]:
    """The bytes of the three lists; what is known is said by how many uploads ago it came.

    Raises:
        WireError: they do not go with an activation of so many rows.
    """
    check(repeats, rows)
    parts: list[Bytes] = []
    for numbers in (repeats.numbers, repeats.known, repeats.upload - repeats.uploads):
        parts += pieces(numbers, "integers")
    return parts


def unpack(upload: int, lists: Sequence[npt.NDArray[Any]], rows: int) -> Repeats:
    """What `pack` was given.

    Args:
        upload: number of this upload.
        lists: numbers of what is sent, numbers of what is known, how many uploads ago each of those came.
        rows: of the activation.

    Raises:
        WireError: they do not go with an activation of so many rows.
    """
    numbers, known, ago = lists
    _check_lists(numbers, known, ago, rows)
    if len(ago) and not 1 <= int(ago.min()) <= int(ago.max()) < upload:
        raise WireError(
            f"known samples came {int(ago.min())} to {int(ago.max())} uploads ago, this is upload {upload}", "known"
        )
    repeats = Repeats(upload, numbers, known, upload - ago)
    check(repeats, rows)
    return repeats


def check(repeats: Repeats, rows: int) -> None:
    """Raise `WireError` unless these are the samples of one batch, of which `rows` are sent."""
    numbers, known, uploads = repeats.numbers, repeats.known, repeats.uploads
    if not 1 <= repeats.upload <= U32:
        raise WireError(f"upload {repeats.upload} is not from 1 to {U32}", "known")
    _check_lists(numbers, known, uploads, rows)
    if len(known) and not 1 <= int(uploads.min()) <= int(uploads.max()) < repeats.upload:
        raise WireError(f"a known sample is of no upload before number {repeats.upload}", "known")
    everything = np.concatenate([numbers, known])
    if len(everything) and not 0 <= int(everything.min()) <= int(everything.max()) <= U32:
        raise WireError(f"a sample has a number outside 0 to {U32}", "known")
    if len(np.unique(everything)) != len(everything):
        raise WireError("a sample comes twice in one batch", "known")


def _check_lists(numbers: npt.NDArray[Any], known: npt.NDArray[Any], beside: npt.NDArray[Any], rows: int) -> None:
    if any(part.dtype.kind not in "iu" or part.ndim != 1 for part in (numbers, known, beside)):
        raise WireError("the samples of a batch are not three lists of whole numbers", "known")
    if len(numbers) != rows:
        raise WireError(f"{len(numbers)} numbers of samples for an activation of {rows}", "known")
    if len(known) != len(beside):
        raise WireError(f"{len(known)} known samples with {len(beside)} uploads", "known")
    if len(numbers) + len(known) > BATCH_LIMIT:
        raise WireError(f"a batch of {len(numbers) + len(known)} samples, the limit is {BATCH_LIMIT}", "too long")
