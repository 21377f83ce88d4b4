"""Wheels into a folder of packages, without pip: every file is one that RECORD names, with the hash it states.

Scripts, headers and data outside of the packages are left out: an agent needs none, and scripts would name a folder that is
renamed later.
"""

import base64
import csv
import hashlib
import os
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edge.release import disk
from edge.release.manifest import ReleaseError

PACKAGES = ("purelib", "platlib")
"""Folders of NAME.data/ whose content goes to the packages."""

UNRECORDED = ("RECORD", "RECORD.jws", "RECORD.p7s")


@dataclass(frozen=True)
class Recorded:
    """A line of RECORD: where a file belongs, and its SHA-256."""

    path: str
    sha256: bytes


def unpacked_bytes(wheel: Path) -> tuple[int, int]:
    """Returns bytes and number of the files in a wheel."""
    with _open(wheel) as archive:
        return sum(member.file_size for member in archive.infolist()), len(archive.infolist())


def unpack(wheel: Path, packages: Path) -> str:
    """Unpacks a wheel into a folder of packages and returns the name of its .dist-info folder.

    Raises:
        ReleaseError: it is no wheel, a file is not as RECORD says or has no place in packages.
    """
    with _open(wheel) as archive:
        names = [member.filename for member in archive.infolist() if not member.is_dir()]
        if len(set(names)) != len(names):
            raise ReleaseError(f"{wheel.name} has two files of one name")
        info = _dist_info(wheel, names)
        recorded = {line.path: line for line in _lines(wheel.name, archive.read(f"{info}/RECORD").decode())}
        if strange := sorted((set(names) ^ set(recorded)) - {f"{info}/{name}" for name in UNRECORDED}):
            raise ReleaseError(f"{wheel.name}: {strange[0]} is in the wheel or in its RECORD, not in both")
        for member in archive.infolist():
            at = None if member.is_dir() else _place(wheel.name, member.filename)
            if at is not None:
                _extract(archive, member, packages / at, recorded.get(member.filename))
    return info


def carry(info: str, old: Path, packages: Path) -> None:
    """Takes the packages of a wheel from another environment by hard links, every hash checked.

    Raises:
        ReleaseError: they are not what they were when they were unpacked.
        OSError: a file is gone, or cannot be linked.
    """
    record = (old / info / "RECORD").read_text("utf-8")
    names = [line.path for line in _lines(info, record)]
    for name in [*names, f"{info}/RECORD"]:
        at = _place(info, name)
        if at is not None:
            disk.make_folders((packages / at).parent, sync=False)
            os.link(old / at, packages / at, follow_symlinks=False)
    check(info, packages)


def check(info: str, packages: Path) -> None:
    """Compares the packages of a wheel with its RECORD.

    Raises:
        ReleaseError: naming the first file that is missing or not what it should be.
    """
    for line in _lines(info, (packages / info / "RECORD").read_text("utf-8")):
        at = _place(info, line.path)
        if at is not None and not _is(packages / at, line.sha256):
            raise ReleaseError(f"{packages / at} is missing or damaged: it is not the file that {info}/RECORD names")


def _is(path: Path, sha256: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest() == sha256
    except OSError:
        return False


def _open(wheel: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(wheel)
    except (zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise ReleaseError(f"{wheel.name} is no wheel: {error}") from None


def _dist_info(wheel: Path, names: list[str]) -> str:
    found = {name.split("/")[0] for name in names if name.split("/")[0].endswith(".dist-info")}
    if len(found) != 1 or f"{next(iter(found))}/RECORD" not in names:
        raise ReleaseError(f"{wheel.name} is no wheel: it has no .dist-info/RECORD, or several")
    return found.pop()


def _lines(name: str, record: str) -> Iterator[Recorded]:
    for row in csv.reader(record.splitlines()):
        path, stated = (row[0], row[1]) if len(row) == 3 else ("", "")
        if PurePosixPath(path).name in UNRECORDED and ".dist-info" in path:
            continue
        algorithm, _, digits = stated.partition("=")
        if algorithm != "sha256" or len(digits) != 43:
            raise ReleaseError(f"{name}: RECORD has no SHA-256 for {path or ','.join(row)!r:.100}")
        yield Recorded(path, base64.urlsafe_b64decode(digits + "="))


def _place(wheel: str, name: str) -> str | None:
    """Returns where below the packages a file goes; None where it is not unpacked."""
    parts = name.split("/")
    if not all(part and part not in {".", ".."} and "\0" not in part and "\\" not in part for part in parts):
        raise ReleaseError(f"{wheel}: {name!r:.100} has no place in a folder of packages")
    if parts[0].endswith(".data"):
        return "/".join(parts[2:]) if len(parts) > 2 and parts[1] in PACKAGES else None
    return name


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, recorded: Recorded | None) -> None:
    mode = member.external_attr >> 16
    disk.make_folders(path.parent, sync=False)
    data = archive.read(member)
    if recorded is not None and hashlib.sha256(data).digest() != recorded.sha256:
        raise ReleaseError(f"{archive.filename}: {member.filename} is not the file that RECORD names")
    try:
        with disk.create(path, disk.PROGRAM if mode & stat.S_IXUSR else disk.FILE) as file:
            file.write(data)
    except FileExistsError:
        raise ReleaseError(f"{Path(str(archive.filename)).name}: {member.filename} is in another wheel too") from None
