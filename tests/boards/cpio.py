"""Packs files into a cpio archive ("newc"), as a kernel wants its first root."""

from collections.abc import Mapping
from pathlib import PurePosixPath

_FOLDER, _FILE = 0o040755, 0o100000


def pack(files: Mapping[str, tuple[int, bytes]]) -> bytes:
    """An archive of these files: path -> (mode, content), owned by root, with the folders they want and an empty /dev."""
    folders = sorted(
        {str(parent) for name in (*files, "dev/console") for parent in PurePosixPath(name).parents} - {"."}
    )
    members = [_member(number, name, _FOLDER, b"") for number, name in enumerate(folders, 1)]
    for number, (name, (mode, content)) in enumerate(files.items(), len(folders) + 1):
        members.append(_member(number, name, _FILE | mode, content))
    return b"".join([*members, _member(0, "TRAILER!!!", 0, b"")])


def _member(number: int, name: str, mode: int, content: bytes) -> bytes:
    encoded = name.encode() + b"\0"
    # inode, mode, uid, gid, links, mtime, size, major and minor of the device and of a node, length of the name, check
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
    return _padded(head) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
