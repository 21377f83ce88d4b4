"""Releases, claims and boot partitions for the tests of this folder."""

import hashlib
import io
import json
import os
import shutil
import struct
import subprocess
import zipfile
from datetime import UTC, datetime, timedelta

import pytest

from edge.release import ed25519
from edge.release.manifest import ReleaseFile, ReleaseManifest, environment_of
from edge.release.signatures import signed_part
from edge.release.writer import write_release

SEED = bytes(range(32))
PUBLIC = ed25519.public_key(SEED)
TOKEN = "tOkEn-" + "x" * 37
SECRET = "correct: horse #battery"  # noqa: S105  of no network
START = 2048
"""Sector of the FAT partition, as on the official images' kin."""
USER_DATA = b"#cloud-config\n# An imager's.\nhostname: attic\ntimezone: Europe/Berlin\nruncmd:\n- [touch, /root/mine]\n"


def need(*programs):
    """Skips at home, fails in CI."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [name for name in programs if shutil.which(name, path=path) is None]
    if missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{', '.join(missing)} not installed")
    return [shutil.which(name, path=path) for name in programs]


def program(text):
    """A zipapp that runs this Python program."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("__main__.py", text)
    return packed.getvalue()


def write_parcel(folder, *, installer=b"an installer", contents=None, claim=None, partial=False, **manifest):
    """Writes board.release and greenhouse-7.claim; returns both paths and the release's id."""
    contents = contents or {"device.bundle": b"graphs" * 1000, "agent.zip": b"agent", "installer.pyz": installer}
    files = {path: ReleaseFile(hashlib.sha256(data).hexdigest(), len(data)) for path, data in contents.items()}
    now = datetime.now(UTC).replace(microsecond=0)
    stated = ReleaseManifest(
        **{
            "fleet": "fleet", "version": 7, "issued": now - timedelta(days=1), "expires": now + timedelta(days=90), "board": "pi5",
            "architecture": "aarch64", "python": "3.13", "minimum_agent": "", "cutlayer": "0.1.0", "bundle": "0" * 64,
            "environment": environment_of(files), "files": files,
        }
        | manifest
    )  # fmt: skip
    given = {
        hashlib.sha256(data).hexdigest(): data for name, data in contents.items() if not partial or name != "agent.zip"
    }
    release, path = folder / "pi5.release", folder / "greenhouse-7.claim"
    write_release(release, stated, {PUBLIC: ed25519.sign(SEED, signed_part(stated.pack()))}, given)
    path.write_text(json.dumps(claim_fields() | (claim or {}), indent=1) + "\n")
    path.chmod(0o600)
    (folder / "device.toml").write_text("[data]\nsource = 'synthetic'\n")
    return release, path, stated.id


def claim_fields():
    return {
        "format": 1, "name": "greenhouse-7", "board": "pi5", "fleet": "fleet", "broker": "mqtts://hub.local:8883",
        "enrol": "https://hub.local:8443", "ca": "-----BEGIN CERTIFICATE-----\n…\n", "release_keys": [PUBLIC.hex()],
        "token": TOKEN, "expires": (datetime.now(UTC) + timedelta(days=7)).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }  # fmt: skip


def boot_files(*, user_data=USER_DATA, meta_data=b"dsmode: local\ninstance_id: rpios-image\n"):
    """What lies on a boot partition of Raspberry Pi OS, as far as it matters."""
    return {
        "cmdline.txt": b"console=tty1 root=PARTUUID=1-02 rootwait ds=nocloud;i=rpi-imager-17 quiet\n",
        "config.txt": b"arm_64bit=1\n",
        "user-data": user_data,
        "meta-data": meta_data,
        "network-config": b"# nothing yet\n",
    }


def write_folder(root, files):
    root.mkdir(parents=True)
    for name, data in files.items():
        (root / name).write_bytes(data)
    return root


def table(kind, start, count):
    """An MBR or a GPT of two partitions: one of Linux that has no file system, and one at `start`, in sectors."""
    if kind == "mbr":
        rows = [(0x83, 64, 64), (0x0C, start, count)]
        entries = b"".join(struct.pack("<BBBBBBBBII", 0, 0, 0, 0, type_, 0, 0, 0, at, size) for type_, at, size in rows)
        return bytes(446) + entries + bytes(32) + b"\x55\xaa"
    protective = (
        bytes(446) + struct.pack("<BBBBBBBBII", 0, 0, 0, 0, 0xEE, 0, 0, 0, 1, 0xFFFFFFFF) + bytes(48) + b"\x55\xaa"
    )
    header = (b"EFI PART" + bytes(64) + struct.pack("<QII", 2, 4, 128)).ljust(512, b"\0")
    rows = [(b"L" * 16, 64, 127), (b"F" * 16, start, start + count - 1)]
    return (
        protective
        + header
        + b"".join((type_ + bytes(16) + struct.pack("<QQ", at, last)).ljust(128, b"\0") for type_, at, last in rows)
    )


def write_image(path, files, kind="mbr", mib=40):
    """A disk image with a FAT32 partition that has these files; made without root."""
    mkfs, mcopy = need("mkfs.vfat", "mcopy")
    count = mib * 2048 - START
    with path.open("wb") as file:
        file.truncate(mib << 20)
        file.write(table(kind, START, count))
    made = [mkfs, "-F", "32", "-s", "1", "-h", str(START), "--offset", str(START), str(path), str(count // 2)]
    subprocess.run(made, check=True, capture_output=True, timeout=60)
    for name, data in files.items():
        subprocess.run(
            [mcopy, "-i", f"{path}@@{START * 512}", "-", f"::/{name}"], input=data, check=True, env=plain(), timeout=60
        )
    return path


def image_files(path, folder):
    """Everything on the image's partition, copied out by mtools: content by path."""
    folder.mkdir()
    mcopy = need("mcopy")[0]
    subprocess.run(
        [mcopy, "-s", "-i", f"{path}@@{START * 512}", "::/", str(folder)], check=True, env=plain(), timeout=60
    )
    return {str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


def plain():
    return {**os.environ, "MTOOLSRC": os.devnull, "MTOOLS_SKIP_CHECK": "1"}
