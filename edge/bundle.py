"""Reads a bundle and believes nothing in it before its hash is right."""

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.wire.manifest import Manifest, ManifestError

MAXIMUM_MANIFEST_BYTES = 4 << 20
MAXIMUM_MEMBER_BYTES = 1 << 30


class BundleError(ValueError):
    """A bundle that will not be loaded; the message names the file, the member and what is wrong with it."""


@dataclass(frozen=True)
class Bundle:
    """A verified bundle in memory."""

    id: str
    """SHA-256 of the manifest, 64 hexadecimal digits."""
    manifest: Manifest
    graphs: Mapping[str, bytes]
    """ONNX bytes by kind: `local`, `forward`, `backward`, `evaluate`."""
    state: Mapping[str, npt.NDArray[Any]]
    """Initial value of every state tensor."""
    blocked: Mapping[str, bytes] = field(default_factory=dict)
    """ONNX bytes by kind of graphs that see channels in blocks; see `edge.segment.Segment.blocked`."""
    probe: bytes = b""
    """The graph that tells whether this device can run them."""


def load(path: Path) -> Bundle:
    """Read and verify the bundle at `path`.

    Raises:
        BundleError: the file is missing or no archive, a member is missing, larger than stated or of another hash,
            or an initial state has another shape than the manifest says.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive, path)
    except FileNotFoundError as error:
        raise BundleError(f"there is no bundle at {path}") from error
    except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError, ManifestError) as error:
        raise BundleError(f"{path} is not a bundle this release can read: {error}") from error


def measured_elsewhere(manifest: Manifest, machine: str) -> str:
    """What to say of a bundle whose formulations were measured on another architecture: it is right here, but may be slow; else empty.

    Args:
        manifest: of the bundle.
        machine: this one, as `platform.machine()` names it.
    """
    found = manifest.tuning.get("measured")
    where = found.get("machine") if isinstance(found, dict) else None
    there = where.get("architecture") if isinstance(where, dict) else None
    if not there or there == machine:
        return ""
    return (
        f"the bundle's formulations were measured on {there}, this is {machine}: its results are the same, its steps may be slower; "
        "build it with --no-tune, or with --choices of a build on such a board"
    )


def _read(archive: zipfile.ZipFile, path: Path) -> Bundle:
    data = _member(archive, "manifest.json", MAXIMUM_MANIFEST_BYTES, path)
    manifest = Manifest.parse(data)
    members = {name: _verified(archive, name, manifest, path) for name in manifest.files}
    graphs = {kind: members[graph.file] for kind, graph in manifest.graphs.items()}
    state = {name: _array(name, members, manifest, path) for name in manifest.state}
    blocked = {kind: members[graph.blocked] for kind, graph in manifest.graphs.items() if graph.blocked}
    probe = members[manifest.layout.probe] if manifest.layout else b""
    return Bundle(hashlib.sha256(data).hexdigest(), manifest, graphs, state, blocked, probe)


def _member(archive: zipfile.ZipFile, name: str, limit: int, path: Path) -> bytes:
    try:
        stated = archive.getinfo(name).file_size
    except KeyError:
        raise BundleError(f"{path}: {name} is missing") from None
    if stated > limit:
        raise BundleError(f"{path}: {name} has {stated} bytes; the limit is {limit}")
    with archive.open(name) as member:
        # The size in a zip's directory is only a claim: read no more than the limit, whatever unpacks.
        data = member.read(limit + 1)
    if len(data) > limit:
        raise BundleError(f"{path}: {name} unpacks to more than the {limit} bytes it may have")
    return data


def _verified(archive: zipfile.ZipFile, name: str, manifest: Manifest, path: Path) -> bytes:
    stated = manifest.files[name]
    data = _member(archive, name, min(stated.bytes, MAXIMUM_MEMBER_BYTES), path)
    found = hashlib.sha256(data).hexdigest()
    if len(data) != stated.bytes or found != stated.sha256:
        raise BundleError(
            f"{path}: {name} has SHA-256 {found[:16]}… and {len(data)} bytes; "
            f"the manifest says {stated.sha256[:16]}… and {stated.bytes}"
        )
    return data


def _array(name: str, members: Mapping[str, bytes], manifest: Manifest, path: Path) -> npt.NDArray[Any]:
    file = f"state/{name}.npy"
    if file not in members:
        raise BundleError(f"{path}: {file} is missing from the manifest's files")
    try:
        array: npt.NDArray[Any] = np.load(io.BytesIO(members[file]), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise BundleError(f"{path}: {file} is not a plain array: {error}") from error
    spec = manifest.state[name]
    if array.shape != spec.shape or array.dtype != np.dtype(spec.dtype):
        raise BundleError(
            f"{path}: {file} has shape {array.shape} and dtype {array.dtype}; "
            f"the manifest says {spec.shape} and {spec.dtype}"
        )
    return array
