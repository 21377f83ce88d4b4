"""A fleet's key, a bundle, and tiny wheels with their lock: what a release is built from."""

import hashlib
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from export.flash.bundle import ReleaseSpec, build_release
from export.flash.wheels import Wheel
from tests.tiny import write_bundle

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SEED = bytes(range(32))


def write_key(path, key=None, mode=0o600):
    key = key or Ed25519PrivateKey.from_private_bytes(SEED)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(mode)
    return path


def write_wheel(folder, name, version="1.0", tag="py3-none-any", needs=()):
    """A wheel that pip takes; returns its line of a lock."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-{tag}.whl"
    info = f"{name}-{version}.dist-info"
    asks = "".join(f"Requires-Dist: {other}\n" for other in needs)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", f"version = '{version}'\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{asks}")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Wheel(name, version, digest, path.name, path.stat().st_size)


class Workshop:
    """A folder with all that a release is built from."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fleet, self.wheels, self.locks = root / "fleet", root / "wheels", root / "locks"
        for folder in (self.fleet, self.locks):
            folder.mkdir()
        self.key = write_key(self.fleet / "release.key")
        self.public = Ed25519PrivateKey.from_private_bytes(SEED).public_key().public_bytes_raw()
        (self.fleet / "release.pub").write_text(self.public.hex() + "\n")
        self.bundle = root / "device.bundle"
        write_bundle(self.bundle)
        self.lines = [
            write_wheel(self.wheels, "numbers"),
            write_wheel(self.wheels, "board", tag="cp313-cp313-manylinux_2_28_aarch64"),
        ]
        self.write_lock(*self.lines)

    def write_lock(self, *lines, architecture="aarch64", python="3.13"):
        text = "# a comment\n" + "".join(f"{line.line()}\n" for line in lines)
        (self.locks / f"{architecture}-{python}.txt").write_text(text)

    def spec(self, **changes):
        return ReleaseSpec(**{
            "bundle": self.bundle, "board": "pi5", "keys": (self.key,), "out": self.root / "pi5.release", "wheels": self.wheels,
            **changes,
        })  # fmt: skip

    def build(self, now=NOW, **changes):
        return build_release(self.spec(**changes), now, locks=self.locks)


@pytest.fixture
def workshop(tmp_path):
    return Workshop(tmp_path)
