"""Who has signed a manifest: the few bytes that are read before anything is believed."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from edge.release.ed25519 import verify
from edge.release.manifest import ReleaseError, canonical, read_canonical

CONTEXT = b"cutlayer release 1\n"
"""Stands before the manifest in what is signed, so that no signature made for another purpose fits."""

MAXIMUM_SIGNATURE_BYTES = 4 << 10
MAXIMUM_SIGNATURES = 8

_KEY = re.compile(r"[0-9a-f]{16}")
_SIGNATURE = re.compile(r"[0-9a-f]{128}")
_PUBLIC = re.compile(r"[0-9a-fA-F]{64}")


def fingerprint(public: bytes) -> str:
    """Return how a signature names its key: 16 hexadecimal digits."""
    return hashlib.sha256(public).hexdigest()[:16]


def signed_part(manifest: bytes) -> bytes:
    """Return what a signature is made over."""
    return CONTEXT + manifest


def pack_signatures(signatures: Mapping[bytes, bytes]) -> bytes:
    """Return manifest.sig: signatures by public key, in the order of the keys' fingerprints."""
    rows = sorted((fingerprint(public), signature.hex()) for public, signature in signatures.items())
    return canonical({"signatures": [{"key": key, "signature": signature} for key, signature in rows]})


def parse_signatures(data: bytes) -> list[tuple[str, bytes]]:
    """Return fingerprints and signatures of a manifest.sig.

    Raises:
        ReleaseError: it is larger than it may be, or anything but what `pack_signatures` writes.
    """
    if len(data) > MAXIMUM_SIGNATURE_BYTES:
        raise ReleaseError(f"the signature has {len(data)} bytes; the limit is {MAXIMUM_SIGNATURE_BYTES}")
    plain = read_canonical(data, "the signature")
    rows = plain.get("signatures")
    if set(plain) != {"signatures"} or not isinstance(rows, list) or not 1 <= len(rows) <= MAXIMUM_SIGNATURES:
        raise ReleaseError(f"the signature is no list of 1 to {MAXIMUM_SIGNATURES} signatures")
    found = []
    for row in rows:
        if not isinstance(row, dict) or set(row) != {"key", "signature"}:
            raise ReleaseError("the signature has an entry that is not a key and a signature")
        key, signature = row["key"], row["signature"]
        if not _matches(_KEY, key) or not _matches(_SIGNATURE, signature):
            raise ReleaseError("the signature has an entry whose key or signature is not written in hexadecimal digits")
        found.append((key, bytes.fromhex(signature)))
    return found


def check_signature(manifest: bytes, signatures: bytes, keys: Sequence[bytes]) -> bytes:
    """Return the trusted public key that has signed these bytes of a manifest.

    Raises:
        ReleaseError: none has, or the signatures cannot be read.
    """
    stated = parse_signatures(signatures)
    trusted = {fingerprint(key): key for key in keys}
    for key, signature in stated:
        if key in trusted and verify(trusted[key], signed_part(manifest), signature):
            return trusted[key]
    if known := [key for key, _ in stated if key in trusted]:
        raise ReleaseError(f"the signature of key {known[0]} is wrong: the release was changed, or damaged on its way")
    signers, ours = ", ".join(key for key, _ in stated), ", ".join(trusted) or "none"
    raise ReleaseError(f"it is signed by the key {signers}; trusted here: {ours}")


def parse_keys(text: str, source: str) -> tuple[bytes, ...]:
    """Return the public keys of a text with one of 64 hexadecimal digits a line; `#` begins a comment.

    Raises:
        ReleaseError: a line is something else, or there is no key at all.
    """
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        key = line.partition("#")[0].strip()
        if key and not _PUBLIC.fullmatch(key):
            raise ReleaseError(f"{source}: line {number} is not a public key of 64 hexadecimal digits")
        if key:
            keys.append(bytes.fromhex(key))
    if not keys:
        raise ReleaseError(f"{source}: there is no public key in it")
    return tuple(keys)


def read_keys(path: Path) -> tuple[bytes, ...]:
    """Return the public keys of a file; see `parse_keys`.

    Raises:
        ReleaseError: it cannot be read, or is no list of keys.
    """
    try:
        return parse_keys(path.read_text("ascii"), str(path))
    except OSError as error:
        raise ReleaseError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ReleaseError(f"{path}: it is no text with public keys") from error


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
