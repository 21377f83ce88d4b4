"""Small releases to read, and archives that no writer makes."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from edge.release.archive import END, MANIFEST, SIGNATURE, header, padding
from edge.release.ed25519 import public_key, sign
from edge.release.manifest import ReleaseFile, ReleaseManifest, environment_of
from edge.release.signatures import pack_signatures, signed_part
from edge.release.writer import write_release

SEED = bytes(range(32))
KEY = public_key(SEED)
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)

CONTENTS = {
    "device.bundle": b"graphs" * 100,
    "agent.zip": b"agent",
    "installer.pyz": b"#!/usr/bin/env python3\n" + b"i" * 600,
    "wheels/numpy-2.4.6-cp313-cp313-manylinux_2_28_aarch64.whl": b"numpy",
    "wheels/paho_mqtt-2.2.0-py3-none-any.whl": b"paho",
    "units/cutlayer.service": b"[Service]\n",
}


def manifest_of(contents=CONTENTS, **changes):
    files = {path: ReleaseFile(sha256(data).hexdigest(), len(data)) for path, data in contents.items()}
    manifest = ReleaseManifest(
        fleet="fleet",
        version=7,
        issued=datetime(2026, 11, 22, tzinfo=UTC),
        expires=datetime(2027, 5, 21, tzinfo=UTC),
        board="pi5",
        architecture="aarch64",
        python="3.13",
        minimum_agent="",
        cutlayer="0.1.0",
        bundle="b" * 64,
        environment=environment_of(files),
        files=files,
    )
    return replace(manifest, **changes)


def signed(manifest, seed=SEED):
    return {public_key(seed): sign(seed, signed_part(manifest.pack()))}


def by_hash(contents=CONTENTS):
    return {sha256(data).hexdigest(): data for data in contents.values()}


def write(path, contents=CONTENTS, *, leave_out=(), seed=SEED, **changes):
    """Write a release and return its manifest; `leave_out` are paths that a partial one lacks."""
    manifest = manifest_of(contents, **changes)
    kept = by_hash({name: data for name, data in contents.items() if name not in leave_out})
    write_release(path, manifest, signed(manifest, seed), kept)
    return manifest


def tar(members):
    """An archive of these pairs of name and bytes, in the form of a release, in whatever order."""
    blocks = (header(name, len(data)) + data + bytes(padding(len(data))) for name, data in members)
    return b"".join(blocks) + END


def members(manifest=None, contents=CONTENTS):
    """What a right release has, to be put together wrongly."""
    manifest = manifest or manifest_of(contents)
    data = manifest.pack()
    contents = sorted((f"files/{name}", content) for name, content in by_hash(contents).items())
    return [(MANIFEST, data), (SIGNATURE, pack_signatures(signed(manifest))), *contents]


LATER = NOW + timedelta(days=400)
