"""Files that are whole or not there, also after a power cut."""

import os
from contextlib import suppress
from pathlib import Path


def write(path: Path, data: bytes, mode: int) -> None:
    """Replace a file durably: who reads it meanwhile sees the old one or the new one."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)  # of a power cut
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    sync(path.parent)


def remove(path: Path) -> bool:
    """Empty a secret's file and remove it, as far as its folder allows; whether nothing of it is left there."""
    empty = False
    with suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        empty = True
    with suppress(OSError):
        path.unlink()
        sync(path.parent)
        return True
    return empty or not path.exists()


def sync(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
