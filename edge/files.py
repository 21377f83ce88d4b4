"""Files of the kernel below a root, read so that what fails can be told to a user. Tests lay out a root of their own."""

import fnmatch
import os
from collections.abc import Callable
from pathlib import Path

MOST_BYTES = 65536
"""Read at a time. Files of sensors have a few; /proc/stat of a large machine has more than a page."""


class UnreadableError(Exception):
    """A file, program or meter cannot be read, or tells no sensible number; the text is the reason to report."""


class Files:
    """The files below a root; messages show their paths as they would be on the board."""

    def __init__(self, root: Path, read: Callable[[Path], str] | None = None) -> None:
        self.root = root
        self._read = read

    def text(self, path: str) -> str:
        """Returns the content without white space around it; raises UnreadableError with path and cause."""
        try:
            return (_read(f"{self.root}/{path}") if self._read is None else self._read(self.root / path)).strip()
        except PermissionError:
            raise UnreadableError(
                f"/{path} wants read permission (it is often root's alone; a udev rule can grant it)"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise UnreadableError(f"/{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None

    def number(self, path: str) -> int:
        """Returns the whole number in a file."""
        text = self.text(path)
        try:
            return int(text)
        except ValueError:
            raise UnreadableError(f"/{path} holds {text[:40]!r}, not a whole number") from None

    def text_or_none(self, path: str) -> str | None:
        """Returns the content, or None where there is nothing that can be read; a device tree's NUL is taken off."""
        try:
            return self.text(path).strip("\0 \n") or None
        except UnreadableError:
            return None

    def number_or_none(self, path: str) -> int | None:
        """Returns the whole number, or None where there is none."""
        try:
            return self.number(path)
        except UnreadableError:
            return None

    def exists(self, path: str) -> bool:
        """Whether there is such a file, readable or not."""
        try:
            return (self.root / path).exists()
        except PermissionError:
            return True  # behind a folder that is closed to us: reading it says so

    def names(self, folder: str, pattern: str = "*") -> list[str]:
        """Returns what lies in a folder and matches, sorted by number and name; nothing when there is no such folder."""
        try:
            found = [entry.name for entry in (self.root / folder).iterdir()]
        except OSError:
            return []
        return sorted(fnmatch.filter(found, pattern), key=lambda name: (len(name), name))


def _read(path: str) -> str:
    """The whole of a small file; a fifth of the time of `Path.read_text`, which a sensor that is read ten times a second feels."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = part = os.read(descriptor, MOST_BYTES)
        while len(part) == MOST_BYTES:
            part = os.read(descriptor, MOST_BYTES)
            data += part
    finally:
        os.close(descriptor)
    return data.decode()
