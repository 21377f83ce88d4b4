"""A file that comes in pieces: written in order, hashed on the way, good up to a known length after a power cut."""

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from edge.service import keep_names

SYNC_BYTES = 256 << 10
"""Written to the disk whenever so many more have come."""
READ_BYTES = 1 << 20
"""Hashed at a time of what was there before."""


class Part:
    """The beginning of a file.

    Args:
        path: of what is there; made where there is nothing.
        total: bytes of the whole file.
        lost_power: whether the machine has been off since it was written: then the last bytes may not be what was written.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path, total: int, *, lost_power: bool) -> None:
        self.path, self.total = path, total
        fresh = not path.exists()
        self._file: BinaryIO = path.open("a+b", buffering=0)
        size = min(os.fstat(self._file.fileno()).st_size, total)
        # A disk may know of a length before it has the bytes, but not of one beyond a point that was synced.
        self.length = max(0, (size - 1) // SYNC_BYTES * SYNC_BYTES) if lost_power else size
        self._file.truncate(self.length)
        self._hash, self._hashed, self._synced = hashlib.sha256(), 0, self.length
        if fresh:
            keep_names(path.parent)

    @property
    def whole(self) -> bool:
        """Whether all bytes are there."""
        return self.length >= self.total

    @property
    def known(self) -> bool:
        """Whether what was there before has been read; nothing may be added until then."""
        return self._hashed == self.length

    def read_on(self) -> None:
        """Hash a little more of what was there before.

        Raises:
            OSError: it cannot be read, or is shorter than it was.
        """
        data = os.pread(self._file.fileno(), min(READ_BYTES, self.length - self._hashed), self._hashed)
        if not data:
            raise OSError(5, "has become shorter")
        self._hash.update(data)
        self._hashed += len(data)

    def add(self, data: bytes) -> None:
        """Add the bytes that follow; beyond the file's end none are taken.

        Raises:
            OSError: the disk is full or gone; what is there stays.
        """
        data = data[: self.total - self.length]
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            self._file.truncate(self.length)
            raise
        self._hash.update(data)
        self.length = self._hashed = self.length + len(data)
        if self.whole or self.length // SYNC_BYTES > self._synced // SYNC_BYTES:
            self.sync()

    def sync(self) -> None:
        """Make what is there durable.

        Raises:
            OSError: the disk is gone.
        """
        os.fsync(self._file.fileno())
        self._synced = self.length

    def digest(self) -> str:
        """SHA-256 of all that is there, once it is known."""
        return self._hash.hexdigest()

    def close(self) -> None:
        """Leave it for another time."""
        self._file.close()

    def discard(self) -> None:
        """Close and remove it."""
        self.close()
        self.path.unlink(missing_ok=True)
