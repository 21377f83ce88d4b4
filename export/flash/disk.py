"""Where the FAT partitions of a disk image are, read from its partition table (MBR or GPT) ourselves: no root, no loop device."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

SECTOR = 512
PROTECTIVE = 0xEE
"""Type of the one MBR partition that says: look at the GPT."""
MOST_ENTRIES = 1024


@dataclass(frozen=True)
class Partition:
    """A FAT file system within an image, in bytes."""

    offset: int
    size: int


def fat_partitions(image: BinaryIO, size: int) -> list[Partition]:
    """All FAT file systems of an image, in the order of its partition table; one without a table may be FAT as a whole.

    Args:
        image: seekable.
        size: of the image in bytes; a partition that reaches beyond it is left out.
    """
    first = _read(image, 0, SECTOR)
    if _is_fat(first):
        return [Partition(0, size)]
    found = []
    for part in _table(image, first):
        inside = part.offset > 0 and part.size > 0 and part.offset + part.size <= size
        if inside and _is_fat(_read(image, part.offset, SECTOR)):
            found.append(part)
    return found


def _table(image: BinaryIO, first: bytes) -> Iterator[Partition]:
    if len(first) < SECTOR or first[510:] != b"\x55\xaa":
        return
    entries = [first[446 + 16 * place : 462 + 16 * place] for place in range(4)]
    if any(entry[4] == PROTECTIVE for entry in entries):
        yield from _gpt(image)
        return
    for entry in entries:
        start, count = struct.unpack_from("<II", entry, 8)
        if entry[4]:
            yield Partition(start * SECTOR, count * SECTOR)


def _gpt(image: BinaryIO) -> Iterator[Partition]:
    header = _read(image, SECTOR, SECTOR)
    if header[:8] != b"EFI PART":
        return
    place, number, length = struct.unpack_from("<QII", header, 72)
    if not 128 <= length <= 4096:
        return
    for one in range(min(number, MOST_ENTRIES)):
        entry = _read(image, place * SECTOR + one * length, length)
        if len(entry) < length:
            return
        start, last = struct.unpack_from("<QQ", entry, 32)
        if any(entry[:16]) and last >= start:
            yield Partition(start * SECTOR, (last - start + 1) * SECTOR)


def _is_fat(sector: bytes) -> bool:
    return (
        len(sector) == SECTOR
        and sector[510:] == b"\x55\xaa"
        and (sector[82:90] == b"FAT32   " or sector[54:62] in {b"FAT16   ", b"FAT12   "})
    )


def _read(image: BinaryIO, offset: int, count: int) -> bytes:
    if offset >= 1 << 62:  # a table of garbage
        return b""
    image.seek(offset)
    return image.read(count)
