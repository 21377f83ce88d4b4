"""A boot partition that files are put on: mounted as a folder, or inside an image.

Both do the same few things with names below the partition's root. In an image that is done by mtools at the partition's
offset, so nothing needs root or a loop device; contents go through pipes, never through arguments.
"""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol

from export.flash.disk import Partition
from export.flash.errors import FlashError

CLUSTER = 64 << 10
"""Room that a file may waste on FAT, at most."""
PIECE = 1 << 20
MOST_READ = 1 << 20
"""Bytes of a file that a boot partition's texts have, at most."""


class Place(Protocol):
    """A partition; every path is relative to its root, with '/'."""

    name: str
    """As the user knows it."""

    def names(self) -> list[str]:
        """What lies in the root, in small letters: FAT does not tell them from capitals."""

    def read(self, path: str) -> bytes | None:
        """The content of a small file; None if it is not there."""

    def digest(self, path: str) -> str:
        """The SHA-256 of a file's content, read from the partition."""

    def free(self) -> int:
        """Bytes of free room."""

    def make_folder(self, path: str) -> None:
        """Make a folder that is not there."""

    def write(self, path: str, source: bytes | Path) -> None:
        """Write a file that is not there."""

    def rename(self, old: str, new: str) -> None:
        """Rename a file or folder to a name that is not there."""

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all that is in it; nothing happens if it is not there."""

    def sync(self) -> None:
        """Have all of it on the medium."""


class Folder:
    """A boot partition that is mounted."""

    def __init__(self, root: Path) -> None:
        self.name = str(root)
        self._root = root

    def names(self) -> list[str]:
        """What lies in the root, in small letters: FAT does not tell them from capitals."""
        try:
            return sorted(path.name.lower() for path in self._root.iterdir())
        except OSError as error:
            raise FlashError(f"{self.name} cannot be read: {error.strerror}") from error

    def read(self, path: str) -> bytes | None:
        """The content of a small file; None if it is not there."""
        try:
            with (self._root / path).open("rb") as file:
                return file.read(MOST_READ)
        except FileNotFoundError:
            return None

    def digest(self, path: str) -> str:
        """The SHA-256 of a file's content."""
        with (self._root / path).open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # from the card, not from memory
            return _digest(file)

    def free(self) -> int:
        """Bytes of free room."""
        return shutil.disk_usage(self._root).free

    def make_folder(self, path: str) -> None:
        """Make a folder that is not there."""
        (self._root / path).mkdir()

    def write(self, path: str, source: bytes | Path) -> None:
        """Write a file that is not there, readable by its owner only where the file system knows owners."""
        out = os.open(self._root / path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(out, "wb") as file:
            for piece in pieces(source):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())

    def rename(self, old: str, new: str) -> None:
        """Rename a file or folder to a name that is not there."""
        (self._root / old).rename(self._root / new)

    def remove(self, path: str) -> None:
        """Remove a file or a folder."""
        target = self._root / path
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)

    def sync(self) -> None:
        """Have all of it on the medium."""
        folder = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class Image:
    """A FAT partition inside a disk image."""

    def __init__(self, image: Path, partition: Partition) -> None:
        self.name = str(image)
        self._image = image
        path = image.resolve()
        if "@@" in str(path):
            raise FlashError(f"{path}: mtools takes '@@' in a path for an offset; rename it")
        self._drive = f"{path}@@{partition.offset}"

    def names(self) -> list[str]:
        """What lies in the root, in small letters: FAT does not tell them from capitals."""
        lines = self._run("mdir", "-b", "-a", "::/").decode(errors="replace").splitlines()
        return sorted(line.removeprefix("::").strip("/").lower() for line in lines)

    def read(self, path: str) -> bytes | None:
        """The content of a small file; None if it is not there."""
        if path not in self.names():
            return None
        return self._run("mcopy", f"::/{path}", "-")[:MOST_READ]

    def digest(self, path: str) -> str:
        """The SHA-256 of a file's content."""
        with self._start("mcopy", f"::/{path}", "-", stdout=subprocess.PIPE) as process:
            assert process.stdout is not None  # noqa: S101  it is a pipe
            found = _digest(process.stdout)
        self._judge("mcopy", process.returncode, b"")
        return found

    def free(self) -> int:
        """Bytes of free room."""
        said = self._run("mdir", "-a", "::/").decode(errors="replace")
        found = re.search(r"^\s*([\d ]+) bytes free", said, re.MULTILINE)
        if found is None:
            raise FlashError(f"mdir does not say how much room {self.name} has")
        return int(found[1].replace(" ", ""))

    def make_folder(self, path: str) -> None:
        """Make a folder that is not there."""
        self._run("mmd", "-D", "s", f"::/{path}")

    def write(self, path: str, source: bytes | Path) -> None:
        """Write a file that is not there."""
        if isinstance(source, Path):
            self._run("mcopy", "-D", "s", str(source.resolve()), f"::/{path}")
        else:
            self._run("mcopy", "-D", "s", "-", f"::/{path}", given=source)

    def rename(self, old: str, new: str) -> None:
        """Rename a file or folder to a name that is not there."""
        self._run("mren", "-D", "s", f"::/{old}", f"::/{new}")

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all that is in it."""
        if path in self.names():
            self._run("mdeltree", f"::/{path}")

    def sync(self) -> None:
        """Have all of it on the disk that the image lies on."""
        with self._image.open("rb") as file:
            os.fsync(file.fileno())

    def _run(self, program: str, *arguments: str, given: bytes = b"") -> bytes:
        with self._start(
            program, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            out, errors = process.communicate(given)
        self._judge(program, process.returncode, errors)
        return out

    def _start(self, program: str, *arguments: str, **pipes: int) -> "subprocess.Popen[bytes]":
        # Nobody's configuration of drives, and no quarrel about the geometry of heads and sectors.
        environment = {**os.environ, "MTOOLSRC": os.devnull, "MTOOLS_SKIP_CHECK": "1", "LC_ALL": "C.UTF-8"}
        try:
            return subprocess.Popen([program, "-i", self._drive, *arguments], env=environment, **pipes)  # type: ignore[call-overload]  # noqa: S603  no shell
        except FileNotFoundError as error:
            raise FlashError(
                f"there is no {program!r} on this machine: install mtools, which write into images"
            ) from error

    def _judge(self, program: str, code: int, errors: bytes) -> None:
        if code:
            said = " ".join(errors.decode(errors="replace").split()) or f"exit code {code}"
            raise FlashError(f"{program} on {self.name}: {said[:300]}")


def size_of(source: bytes | Path) -> int:
    """Bytes of what is to be written."""
    return len(source) if isinstance(source, bytes) else source.stat().st_size


def digest_of(source: bytes | Path) -> str:
    """The SHA-256 of what is to be written."""
    found = hashlib.sha256()
    for piece in pieces(source):
        found.update(piece)
    return found.hexdigest()


def pieces(source: bytes | Path) -> Iterator[bytes]:
    """Yield what is to be written, piece by piece."""
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece


def _digest(file: IO[bytes]) -> str:
    found = hashlib.sha256()
    while piece := file.read(PIECE):
        found.update(piece)
    return found.hexdigest()
