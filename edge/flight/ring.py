"""A ring of files that is bounded in bytes: the oldest go when new ones come, and each can be read without the others.

A file is the eight bytes of `MAGIC`, then records: u32 length, u32 CRC-32 of the body (both little-endian), body. The
first body of every file is a snapshot, all else follows from it. A body is one `write`, so kill -9 leaves whole
records. Nothing is synced: a power cut may take what the kernel had not written yet, half a minute or so, and a
record that it has torn ends its file.
"""

import os
import re
import struct
import zlib
from pathlib import Path

MAGIC = b"CUTREC\x00\x01"
SUFFIX = ".rec"

_HEAD = struct.Struct("<II")
_NAME = re.compile(r"\d{8}\.rec")
_FILES = 64
"""A board that restarts every minute shall not fill its folder with small files."""


class RingError(ValueError):
    """A file that is no recording; the message names it."""


class Ring:
    """Writes the files of one folder.

    Args:
        folder: made when it is missing; nothing else may lie there that is named as a file of the ring.
        limit_bytes: of all files together, at any time.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.segment_bytes = limit_bytes // 4
        """Most bytes of one file."""
        self.size = 0
        """Bytes of the file that is being written."""
        self._folder, self._limit = folder, limit_bytes
        self._file: int | None = None

    def begin(self, snapshot: bytes) -> bool:
        """Begin the next file; the oldest make room first. False when the snapshot does not fit one.

        Raises:
            OSError: the disk is full or gone.
        """
        self.close()
        if len(MAGIC) + _HEAD.size + len(snapshot) > self.segment_bytes:
            return False
        self._folder.mkdir(parents=True, exist_ok=True)
        files = segments(self._folder)
        number = int(files[-1].stem) + 1 if files else 1
        sizes = [file.stat().st_size for file in files]
        while files and (sum(sizes) + self.segment_bytes > self._limit or len(files) >= _FILES):
            files.pop(0).unlink()
            sizes.pop(0)
        path = self._folder / f"{number:08d}{SUFFIX}"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._append(MAGIC + _record(snapshot))
        return True

    def write(self, body: bytes) -> bool:
        """Append one record; False, and nothing is written, when the file has no room for it.

        Raises:
            OSError: the disk is full or gone; the file ends with the record before.
        """
        if self._file is None or self.size + _HEAD.size + len(body) > self.segment_bytes:
            return False
        self._append(_record(body))
        return True

    def close(self) -> None:
        """Leave the file as it is."""
        if self._file is not None:
            os.close(self._file)
        self._file, self.size = None, 0

    def _append(self, data: bytes) -> None:
        assert self._file is not None  # noqa: S101  only called with a file
        written = os.write(self._file, data)
        if written < len(data):
            # What half a record leaves would hide every record behind it.
            os.ftruncate(self._file, self.size)
            raise OSError(f"{written} of {len(data)} bytes could be written to the recorder: the disk is full")
        self.size += len(data)


def segments(path: Path) -> list[Path]:
    """The files of a recording, oldest first: those of a folder, or the one that is named.

    Raises:
        RingError: there is nothing of that name.
    """
    if path.is_dir():
        return sorted(file for file in path.iterdir() if _NAME.fullmatch(file.name))
    if not path.is_file():
        raise RingError(f"there is no recording at {path}")
    return [path]


def read(path: Path) -> tuple[list[bytes], int]:
    """The bodies of one file, and how many bytes behind the last whole record are ignored.

    Raises:
        RingError: it does not begin as a recording does.
    """
    data = path.read_bytes()
    if not data.startswith(MAGIC):
        raise RingError(f"{path} is no recording of this release: it begins with {data[:8]!r}, not {MAGIC!r}")
    bodies, offset = [], len(MAGIC)
    while len(data) - offset >= _HEAD.size:
        length, crc = _HEAD.unpack_from(data, offset)
        body = data[offset + _HEAD.size : offset + _HEAD.size + length]
        # An empty record would be taken out of the zeros that some file systems leave after a power cut.
        if not length or len(body) < length or zlib.crc32(body) != crc:
            break
        bodies.append(body)
        offset += _HEAD.size + length
    return bodies, len(data) - offset


def _record(body: bytes) -> bytes:
    return _HEAD.pack(len(body), zlib.crc32(body)) + body
