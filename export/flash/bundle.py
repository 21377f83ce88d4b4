"""One signed file for a kind of board: graphs, agent, wheels, units, installer; the same inputs give the same bytes."""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from edge.release.archive import open_release
from edge.release.manifest import (
    AGENT,
    BUNDLE,
    INSTALLER,
    UNITS,
    WHEELS,
    ReleaseFile,
    ReleaseManifest,
    environment_of,
)
from edge.release.signatures import fingerprint
from edge.release.writer import write_release
from edge.wire.manifest import Manifest, ManifestError
from export import archive
from export.flash import agent, history, signing, wheels
from export.flash.boards import board
from export.flash.errors import FlashError


@dataclass(frozen=True)
class ReleaseSpec:
    """What is to be released, to whom."""

    bundle: Path
    """device.bundle, or the folder it lies in."""
    board: str
    keys: tuple[Path, ...]
    """Files of private keys; versions are noted beside the first."""
    out: Path
    fleet: str = "fleet"
    python: str = ""
    """Such as 3.11; empty: the board's usual one."""
    minimum_agent: str = ""
    wheels: Path | None = None
    """Folder of wheels; None: the user's cache."""
    since: Path | None = None
    """A release whose files are left out, because the board has them."""
    wish: history.Wish = field(default_factory=history.Wish)


@dataclass(frozen=True)
class Written:
    """A release file that was written."""

    path: Path
    manifest: ReleaseManifest
    left_out: tuple[str, ...]
    """Paths whose contents are not in it."""
    signers: tuple[str, ...]
    """Fingerprints of the keys."""
    measured_on: str
    """Architecture that the graphs' formulations were measured on; empty: nothing was measured."""


def build_release(spec: ReleaseSpec, now: datetime, *, locks: Path = wheels.LOCKS, edge: Path | None = None) -> Written:
    """Write the release and note its version beside the key.

    Args:
        spec: what is wanted.
        now: with a time zone; when it is issued, unless it has been before.
        locks: folder of locks.
        edge: folder of the device's package; the installed one by default.

    Raises:
        FlashError: a key, the bundle, a wheel or the old release cannot be used.
        ReleaseError: what is wanted makes no release.
    """
    keys = [signing.load_key(path) for path in spec.keys]
    path = spec.bundle / "device.bundle" if spec.bundle.is_dir() else spec.bundle
    identity, graphs = read_bundle(path)
    contents, manifest = _collect(spec, path, identity, locks, edge or agent.package())
    folder = spec.keys[0].parent
    with history.alone(spec.keys[0]):
        before = history.read(folder)
        manifest = history.date(manifest, spec.wish, before, now)
        old = _old(spec, manifest, [signing.public_of(key) for key in keys]) if spec.since else frozenset()
        # Noted before it is written: a version that was never seen costs nothing, one that is given twice would.
        history.note(folder, before, manifest)
    present = {sha256: content for sha256, content in contents.items() if sha256 not in old}
    write_release(spec.out, manifest, signing.sign(manifest, keys), present)
    left = tuple(path for path in sorted(manifest.files) if manifest.files[path].sha256 in old)
    return Written(
        spec.out, manifest, left, tuple(fingerprint(signing.public_of(key)) for key in keys), _measured_on(graphs)
    )


def _collect(
    spec: ReleaseSpec, path: Path, identity: str, locks: Path, edge: Path
) -> tuple[dict[str, Path | bytes], ReleaseManifest]:
    """Return the contents by hash and the manifest that names them; `path` and `identity` are the bundle's."""
    kind, number = board(spec.board), agent.agent_version()
    python = spec.python or kind.python
    data: dict[str, bytes] = {
        BUNDLE: path.read_bytes(),
        AGENT: agent.agent_zip(edge, number),
        INSTALLER: agent.installer_pyz(edge),
        **{UNITS + name: content for name, content in agent.units(edge).items()},
    }
    contents: dict[str, Path | bytes] = {hashlib.sha256(content).hexdigest(): content for content in data.values()}
    files = {name: ReleaseFile(hashlib.sha256(content).hexdigest(), len(content)) for name, content in data.items()}
    lock = wheels.read_lock(kind.architecture, python, locks)
    found = wheels.fetch(lock, kind.architecture, python, spec.wheels or wheels.cache())
    for wheel in lock:
        files[WHEELS + wheel.file] = ReleaseFile(wheel.sha256, found[wheel.sha256].stat().st_size)
    manifest = ReleaseManifest(
        fleet=spec.fleet, board=spec.board, architecture=kind.architecture, python=python, minimum_agent=spec.minimum_agent,
        cutlayer=number, bundle=identity, environment=environment_of(files), files=files, **history.undated(),
    )  # fmt: skip
    return {**contents, **found}, manifest


def read_bundle(path: Path) -> tuple[str, Manifest]:
    """Return id and manifest of a device.bundle, all of whose members have the hashes it states.

    Raises:
        FlashError: it is no device.bundle.
        ExportError: it is missing or damaged.
    """
    members = archive.read(path)
    if "manifest.json" not in members:
        raise FlashError(f"{path} is no device.bundle, which cutlayer-export build writes: it has no manifest.json")
    try:
        manifest = Manifest.parse(members["manifest.json"])
    except ManifestError as error:
        raise FlashError(f"{path}: {error}") from error
    for name, file in manifest.files.items():
        if name not in members or archive.sha256(members[name]) != file.sha256:
            raise FlashError(f"{path} is damaged: {name} is missing or does not have its hash")
    return archive.sha256(members["manifest.json"]), manifest


def _measured_on(graphs: Manifest) -> str:
    measured = graphs.tuning.get("measured")
    machine = measured.get("machine") if isinstance(measured, dict) else None
    return str(machine.get("architecture") or "") if isinstance(machine, dict) else ""


def _old(spec: ReleaseSpec, manifest: ReleaseManifest, keys: list[bytes]) -> frozenset[str]:
    """Return the hashes that a board with the old release has."""
    assert spec.since is not None  # noqa: S101  asked by the caller
    with open_release(spec.since, keys, now=None) as release:
        old = release.manifest
    for name in ("fleet", "board", "architecture", "python"):
        if getattr(old, name) != getattr(manifest, name):
            raise FlashError(f"{spec.since} is for the {name} {getattr(old, name)}, this release for {getattr(manifest, name)}")  # fmt: skip
    return frozenset(old.sizes)
