"""Changes of the disk that a power cut leaves done or not begun, and readable whatever the umask says.

A file or folder is made under a hidden name (`.NAME.part`), brought to the disk with fsync, and renamed; then the folder that
holds it is brought to the disk too. So what has its name is complete, and what is hidden is rubbish.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from edge.release.manifest import BoardError

FILE = 0o644
PROGRAM = 0o755
FOLDER = 0o755


class FullError(BoardError):
    """There is less room than is needed; the text says how much of both."""


def part(path: Path) -> Path:
    """Returns the hidden name under which `path` is made."""
    return path.with_name(f".{path.name}.part")


def is_part(name: str) -> bool:
    """Whether a name is that of something that was not finished."""
    return name.startswith(".") and name.endswith(".part")


def make_folders(path: Path, *, sync: bool = True) -> None:
    """Makes a folder and its parents, readable, each on the disk before the next (`publish` does that below a hidden one)."""
    missing = [path, *path.parents]
    missing = missing[: next(at for at, folder in enumerate(missing) if folder.is_dir())]
    for folder in reversed(missing):
        folder.mkdir()
        folder.chmod(FOLDER)
        if sync:
            sync_folder(folder.parent)


def create(path: Path, mode: int = FILE) -> BinaryIO:
    """Opens a new file for writing with exactly this mode; raises FileExistsError where there is one, or a link."""
    return os.fdopen(_create(str(path), mode), "wb")


def _create(name: str, mode: int, within: int | None = None) -> int:
    handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=within)
    os.fchmod(handle, mode)
    return handle


def write(path: Path, data: bytes, mode: int = FILE) -> None:
    """Replaces a file as a whole, in a folder that is root's alone to write."""
    hidden = part(path)
    remove(hidden)
    with create(hidden, mode) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    hidden.replace(path)
    sync_folder(path.parent)


def copy(source: Path, path: Path, mode: int = FILE) -> None:
    """Replaces a file by another's content as a whole; nothing is written where both are equal."""
    data = source.read_bytes()
    if not (path.is_file() and path.read_bytes() == data):
        write(path, data, mode)


def link(path: Path, target: str) -> None:
    """Switches a symbolic link by a rename; nothing is written where it says so already."""
    with contextlib.suppress(OSError):
        if str(path.readlink()) == target:
            return
    hidden = part(path)
    remove(hidden)
    hidden.symlink_to(target)
    hidden.replace(path)
    sync_folder(path.parent)


def publish(hidden: Path, path: Path) -> None:
    """Brings a folder to the disk with all that is in it, then gives it its name."""
    for folder, folders, files in os.walk(hidden, topdown=False):
        for name in files:
            at = Path(folder, name)
            if not at.is_symlink():
                _sync(at, os.O_RDONLY)
        del folders
        sync_folder(Path(folder))
    hidden.rename(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Brings the names in a folder to the disk."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Removes a file, a link or a whole folder, if it is there; a folder is hidden first, so that no half of one has a name."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(mode):
        path.unlink()
        return
    hidden = path if is_part(path.name) else part(path)
    if hidden != path:
        remove(hidden)
        path.rename(hidden)
    shutil.rmtree(hidden)


def room(path: Path) -> int:
    """Returns the free bytes of the disk that holds a path, or will hold it."""
    while not path.exists():
        path = path.parent
    figures = os.statvfs(path)
    return figures.f_bavail * figures.f_frsize


def want_room(path: Path, needed: int, room: Callable[[Path], int] = room) -> None:
    """Raises FullError with both figures where a disk has less than `needed` bytes."""
    there = room(path)
    if there < needed:
        raise FullError(f"{path} is too full: this needs {needed / 1e6:.1f} MB there and {there / 1e6:.1f} MB are free")


@contextlib.contextmanager
def folder_of(path: Path, *, ours: Path) -> Iterator[int]:
    """Opens a folder below `ours` without following a link; for folders in which somebody else may write.

    Yields:
        a descriptor to give as `dir_fd`.

    Raises:
        OSError: a part of the way is missing, a link or no folder.
    """
    handle = os.open(ours, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in path.relative_to(ours).parts:
            following = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handle)
            os.close(handle)
            handle = following
        yield handle
    finally:
        os.close(handle)


def write_within(folder: int, name: str, data: bytes, mode: int = FILE, owner: tuple[int, int] | None = None) -> None:
    """Replaces a file as a whole in a folder of somebody else's, given as descriptor: no link is followed or written through."""
    hidden = f".{name}.part"
    remove_within(folder, hidden)
    handle = _create(hidden, mode, folder)
    try:
        if owner is not None:
            os.fchown(handle, *owner)
        with os.fdopen(handle, "wb", closefd=False) as file:
            file.write(data)
        os.fsync(handle)
    finally:
        os.close(handle)
    os.rename(hidden, name, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)


def read_within(folder: int, name: str, limit: int) -> bytes:
    """Returns the content of a plain file in a folder given as descriptor.

    Raises:
        OSError: it is a link, no plain file, has a second name, or more than `limit` bytes.
    """
    handle = open_within(folder, name)
    try:
        data = os.read(handle, limit + 1)
    finally:
        os.close(handle)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit} bytes", name)
    return data


def open_within(folder: int, name: str) -> int:
    """Opens a plain file in a folder given as descriptor, for reading; raises OSError where it is anything else.

    A file with a second name might be somebody else's, linked here by one who may not read it.
    """
    # Without blocking: a pipe laid there must not stop us for ever.
    handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    found = os.fstat(handle)
    if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
        return handle
    os.close(handle)
    raise OSError(errno.EINVAL, "it is no plain file with one name", name)


def make_within(folder: int, name: str, mode: int, owner: tuple[int, int] | None) -> None:
    """Makes a folder in one given as descriptor and gives it to its owner; one that is there stays as it is."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=folder)
    handle = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        own_folder(handle, mode, owner)
    finally:
        os.close(handle)
    os.fsync(folder)


def own_folder(handle: int, mode: int, owner: tuple[int, int] | None) -> None:
    """Gives a folder, as descriptor, its mode and owner."""
    os.fchmod(handle, mode)
    if owner is not None:
        os.fchown(handle, *owner)


def remove_within(folder: int, name: str) -> None:
    """Removes whatever has this name in a folder given as descriptor, if anything has; follows no link."""
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        shutil.rmtree(name, dir_fd=folder)


@contextlib.contextmanager
def lock(path: Path) -> Iterator[bool]:
    """Holds a lock while the body runs; yields whether it was to be had. The kernel lets it go with the process.

    On a file of our own: whoever can open a file or folder for reading, can lock it and keep us out.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)
