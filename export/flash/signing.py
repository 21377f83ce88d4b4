"""Signs a manifest with the fleet's key, on the workstation; the key stays in its file."""

from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from edge.release.manifest import ReleaseManifest
from edge.release.signatures import signed_part
from export.flash.errors import FlashError

_OF_OTHERS = 0o077


def load_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key, PKCS8 in PEM, that nobody else can read.

    Raises:
        FlashError: it is missing, others can read it, or it is no Ed25519 key without a passphrase.
    """
    try:
        with path.open("rb") as file:
            mode, data = path.stat().st_mode, file.read(1 << 16)
    except OSError as error:
        raise FlashError(f"the key {path} cannot be read: {error.strerror}; cutlayer-hub keys makes one") from error
    if mode & _OF_OTHERS:
        raise FlashError(f"the key {path} can be used by others (mode {mode & 0o777:04o}): chmod 600 it")
    try:
        key = load_pem_private_key(data, None)
    except TypeError:
        raise FlashError(f"the key {path} has a passphrase, which cannot be asked for here") from None
    except (ValueError, UnsupportedAlgorithm):
        raise FlashError(f"{path} is no private key in PEM") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise FlashError(f"{path} is no Ed25519 key, which releases are signed with")
    return key


def public_of(key: Ed25519PrivateKey) -> bytes:
    """Return its public key, 32 bytes."""
    return key.public_key().public_bytes_raw()


def sign(manifest: ReleaseManifest, keys: Sequence[Ed25519PrivateKey]) -> dict[bytes, bytes]:
    """Return the signatures by public key."""
    message = signed_part(manifest.pack())
    return {public_of(key): key.sign(message) for key in keys}
