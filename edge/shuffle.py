"""Which samples make the batch of a step: a pure function of (seed, device, round, step), the same after a power cut.

Within a round a device goes through its samples in a shuffled order; when they are used up before the round ends it recycles
them, shuffled anew.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge.recordings import Array, SensorError, Wanted


@dataclass(frozen=True)
class Batch:
    """Samples `x` (batch, *input) in the bundle's dtype and labels `y` (batch,) int64."""

    x: Array
    y: npt.NDArray[np.int64]


def order_of(samples: int, *key: int) -> npt.NDArray[np.int64]:
    """Returns a permutation that depends on the key alone, and not on numpy's version (only raw bits are drawn)."""
    bits = np.random.PCG64(np.random.SeedSequence([part % 2**64 for part in key])).random_raw(samples)
    return np.argsort(bits, kind="stable")


def device_number(device: str) -> int:
    """Returns a number for a device's name, so that devices with equal data shuffle it differently."""
    return int.from_bytes(hashlib.sha256(device.encode()).digest()[:8], "big")


class Shuffled:
    """What all sources share: which rows are the batch of a step. Subclasses say how many rows there are and fetch them."""

    def __init__(self, device: str, wanted: Wanted) -> None:
        self._device = device_number(device)
        self._wanted = wanted
        self._key: tuple[int, ...] = ()
        self._order: npt.NDArray[np.int64] = np.empty(0, np.int64)

    @property
    def samples(self) -> int:
        """Rows to train on."""
        raise NotImplementedError

    @property
    def test_samples(self) -> int:
        """Rows to test on."""
        raise NotImplementedError

    def numbers(self, round: int, step: int, size: int, seed: int) -> npt.NDArray[np.int64] | None:  # noqa: A002, ARG002
        """Returns the numbers of a batch's samples, each the same sample for ever; None where samples have none."""
        return None

    def fingerprint(self) -> int:
        """Returns what tells these samples from others under the same numbers; 32 bits."""
        return 0

    def _rows(self, rows: npt.NDArray[np.int64], *, test: bool) -> tuple[Array, Array]:
        raise NotImplementedError

    def _shuffle(self, key: tuple[int, ...]) -> npt.NDArray[np.int64]:
        return order_of(self.samples, *key)

    def batches(self, size: int) -> int:
        """Returns how many batches one pass over the samples has."""
        return -(-self.samples // _positive(size))

    def batch(self, round: int, step: int, size: int, seed: int) -> Batch:  # noqa: A002  the paper's word for it
        """Returns batch `step` of a round; the last of a pass may be short, and the next pass is shuffled anew.

        Raises:
            SensorError: the step is negative, the size is not positive, or the recorded data cannot be read any more.
        """
        return self._batch(self._rows_of(round, step, size, seed), test=False)

    def _rows_of(self, round: int, step: int, size: int, seed: int) -> npt.NDArray[np.int64]:  # noqa: A002
        if step < 0:
            raise SensorError(f"step {step} of round {round}: steps start at 0")
        passed, index = divmod(step, self.batches(size))
        key = (seed, self._device, round, passed)
        if key != self._key or len(self._order) != self.samples:
            self._order, self._key = self._shuffle(key), key
        return self._order[index * size : (index + 1) * size]

    def test_batch(self, index: int, size: int) -> Batch:
        """Returns one batch of test samples, in their recorded order; empty beyond the last."""
        first = index * _positive(size)
        return self._batch(np.arange(first, max(first, min(first + size, self.test_samples))), test=True)

    def test_batches(self, size: int) -> Iterator[Batch]:
        """Yields all test samples in order; the last batch may be short."""
        for index in range(-(-self.test_samples // _positive(size))):
            yield self.test_batch(index, size)

    def _batch(self, rows: npt.NDArray[np.int64], *, test: bool) -> Batch:
        x, y = self._rows(rows, test=test)
        return Batch(np.ascontiguousarray(x, self._wanted.dtype), y.astype(np.int64, copy=False))


def _positive(size: int) -> int:
    if size < 1:
        raise SensorError(f"batch size {size}: it must be at least 1")
    return size
