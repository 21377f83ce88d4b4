"""Prepares a card: onto its boot partition, mounted or inside an image, goes a seed that official images understand.

First everything is written under new names and read back, then the names are changed, user-data last; whatever fails
before the end leaves the partition as it was. A raw device is never written.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from export.flash import seed as seeds
from export.flash.disk import SECTOR, fat_partitions
from export.flash.errors import FlashError
from export.flash.parcel import Parcel
from export.flash.places import CLUSTER, Folder, Image, Place, digest_of, size_of
from export.flash.seed import FOLDER, SCRIPT, Seed

BOOTS = ("cmdline.txt", "config.txt")
"""What a Raspberry Pi's firmware reads, with any system."""
SEEDS = ("user-data", "meta-data", "network-config")
"""What cloud-init reads; the images bring them along."""
NEW, OLD, BEFORE = ".new", ".old", ".before-cutlayer"
KEPT = ("cmdline.txt", "user-data", "network-config")
LOOKED_FOR = (
    "a boot partition of Raspberry Pi OS from Trixie on, or of Ubuntu for the Pi, has "
    f"{' and '.join(BOOTS)} and one of {', '.join(SEEDS)}"
)
PACKED = {
    b"\xfd7zXZ\0": "xz -d",
    b"\x1f\x8b": "gunzip",
    b"PK\3\4": "unzip",
    b"\x28\xb5\x2f\xfd": "zstd -d",
    b"BZh": "bunzip2",
}


@dataclass(frozen=True)
class Written:
    """What has been put on a card."""

    place: str
    files: tuple[str, ...]
    kept: tuple[str, ...]
    """Files of before, under the names that they have now."""


def prepare(target: Path, parcel: Parcel, seed: Seed, instance: str, *, replace: bool = False) -> Written:
    """Put everything on a card that lets a board install itself at its first boot.

    Args:
        target: a mounted boot partition, or a disk image.
        parcel: what the board is given.
        seed: what the user wants of its system.
        instance: the id for cloud-init, never used before.
        replace: take nothing over from what other seeds are there.

    Raises:
        FlashError: the target is none, has no room, or its seed cannot be added to; it is as it was.
    """
    place = open_place(target)
    script = (Path(__file__).parent / SCRIPT).read_bytes()
    files = {**parcel.files, SCRIPT: script}
    try:
        _finish_what_was_left(place)
        texts = _texts(place, parcel, seed, instance, replace=replace)
        _check_room(place, [*files.values(), *texts.values()])
        with _removed_on_failure(place, [FOLDER, *texts]):
            place.make_folder(_new(FOLDER))
            for name, source in files.items():
                _write(place, f"{_new(FOLDER)}/{name}", source)
            for name, data in texts.items():
                _write(place, _new(name), data)
            place.sync()
            there = place.names()
            _exchange(place, [FOLDER, *texts], there)
        kept = _tidy(place, [FOLDER, *texts], there)
        place.sync()
    except OSError as error:
        raise FlashError(f"{place.name} cannot be written: {error.strerror}; it is as it was") from error
    return Written(place.name, (*(f"{FOLDER}/{name}" for name in files), *texts), kept)


def open_place(target: Path) -> Place:
    """Return the boot partition that a target is, or has inside.

    Raises:
        FlashError: it is none; the message says what was looked for.
    """
    _refuse_devices(target)
    if target.is_dir():
        folder = Folder(target)
        if reason := _unlike_boot(folder.names()):
            raise FlashError(f"{target} is no boot partition: {reason}")
        return folder
    try:
        with target.open("rb") as image:
            head = image.read(SECTOR)
            size = os.fstat(image.fileno()).st_size
            parts = fat_partitions(image, size)
    except OSError as error:
        raise FlashError(f"{target} cannot be read: {error.strerror}") from error
    for magic, unpack in PACKED.items():
        if head.startswith(magic):
            raise FlashError(f"{target} is packed: unpack it first, with `{unpack}`")
    if not os.access(target, os.W_OK):
        raise FlashError(f"{target} cannot be written: its permissions do not allow it")
    if not parts:
        raise FlashError(f"{target} is no disk image with a FAT partition: looked in its partition table, MBR or GPT")
    reasons = []
    for part in parts:
        found = Image(target, part)
        reason = _unlike_boot(found.names())
        if not reason:
            return found
        reasons.append(f"the FAT partition at byte {part.offset}: {reason}")
    raise FlashError(f"{target} has no boot partition: {'; '.join(reasons)}")


def expired_before_use(parcel: Parcel, now: datetime) -> str:
    """Return a warning where the claim soon expires; empty where it does not."""
    hours = (parcel.claim.until - now).total_seconds() / 3600
    return f"the claim expires in {hours:.1f} hours: boot the board before" if hours < 24 else ""


def _refuse_devices(target: Path) -> None:
    real = target.resolve()
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        mode = 0
    except OSError as error:
        raise FlashError(f"{target} cannot be read: {error.strerror}") from error
    raw = (
        stat.S_ISBLK(mode)
        or stat.S_ISCHR(mode)
        or Path("/dev") in (target.absolute(), *target.absolute().parents, *real.parents)
    )
    if raw:
        raise FlashError(
            f"{target} is a device, which this never writes. Write a system image to it with "
            f"`rpi-imager --cli IMAGE {target}` or `bmaptool copy IMAGE {target}`, then give the folder that its boot partition "
            "is mounted on; or give the .img file here first, and write it then"
        )
    if not mode:
        raise FlashError(f"{target} is not there: give the folder that a boot partition is mounted on, or an .img file")


def _unlike_boot(names: list[str]) -> str:
    """Why these are not the names of a boot partition's files; empty if they are."""
    there = {name.lower() for name in names}
    missing = [name for name in BOOTS if name not in there]
    if {"etc", "usr"} <= there:
        return f"it looks like a system's root; for one there is `flash rootfs` ({LOOKED_FOR})"
    if missing:
        return f"it has no {' and no '.join(missing)} ({LOOKED_FOR})"
    if not there & set(SEEDS):
        return f"its system does not start with cloud-init, use `flash ssh` for it ({LOOKED_FOR})"
    return ""


def _texts(place: Place, parcel: Parcel, seed: Seed, instance: str, *, replace: bool) -> dict[str, bytes]:
    """The files of the partition's root that change; user-data is the last."""
    texts: dict[str, bytes] = {}
    if seed.wifi:
        before = place.read("network-config")
        texts["network-config"] = seeds.network_config(before, seed.wifi, seed.country, replace=replace)
    line = place.read("cmdline.txt") or b""
    if (changed := seeds.command_line(line, instance, seed.country)) != line:
        texts["cmdline.txt"] = changed
    texts["meta-data"] = seeds.meta_data(place.read("meta-data"), instance, replace=replace)
    texts["user-data"] = seeds.user_data(place.read("user-data"), seed, parcel.claim, replace=replace)
    return texts


def _check_room(place: Place, sources: list[bytes | Path]) -> None:
    needed = sum(size_of(source) + CLUSTER for source in sources) + 4 * CLUSTER
    free = place.free()
    if free < needed:
        raise FlashError(
            f"{place.name} has {free / 2**20:.1f} MiB of room and {needed / 2**20:.1f} MiB are needed: nothing was written"
        )


def _new(name: str) -> str:
    # cmdline.new, not cmdline.txt.new: a long name that is renamed to a short one comes back in capitals from mtools.
    return name.partition(".")[0] + NEW


def _old(name: str) -> str:
    return name.partition(".")[0] + OLD


def _write(place: Place, path: str, source: bytes | Path) -> None:
    place.write(path, source)
    if place.digest(path) != digest_of(source):
        raise FlashError(
            f"{path.replace(NEW, '')} reads back from {place.name} other than it was written; it is as it was. Is the card broken?"
        )


@contextmanager
def _removed_on_failure(place: Place, names: list[str]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for name in names:
            with suppress(FlashError, OSError):
                place.remove(_new(name))
        raise


def _exchange(place: Place, names: list[str], there: list[str]) -> None:
    """Give what is new its names; what is old stays beside it, and comes back where one fails."""
    done: list[str] = []
    try:
        for name in names:
            done.append(name)
            if name in there:
                place.rename(name, _old(name))
            place.rename(_new(name), name)
    except BaseException:
        for name in reversed(done):
            with suppress(FlashError, OSError):
                _take_back(place, name, there)
        raise


def _take_back(place: Place, name: str, there: list[str]) -> None:
    if name not in there:
        place.remove(name)
    elif _old(name) in place.names():
        place.remove(name)
        place.rename(_old(name), name)


def _tidy(place: Place, names: list[str], there: list[str]) -> tuple[str, ...]:
    """Remove what is old; keep the texts of before the first time, which may be somebody's work."""
    kept = []
    for name in names:
        if name not in there:
            continue
        if name in KEPT and name + BEFORE not in there:
            place.rename(_old(name), name + BEFORE)
            kept.append(name + BEFORE)
        else:
            place.remove(_old(name))
    return tuple(kept)


def _finish_what_was_left(place: Place) -> None:
    """Tidy up behind a writer that was killed: files of before get their names back."""
    there = place.names()
    for name in (FOLDER, "cmdline.txt", *SEEDS):
        if _old(name) in there:
            place.remove(name)
            place.rename(_old(name), name)
        if _new(name) in there:
            place.remove(_new(name))
