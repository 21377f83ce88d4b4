"""The board's private key: Ed25519, made here, readable by its owner only, on the disk before anybody hears of it."""

import base64
import os
import re
from collections.abc import Callable
from pathlib import Path

from edge.enrolment.csr import pem
from edge.enrolment.errors import EnrolmentError
from edge.enrolment.files import write

_PKCS8 = bytes.fromhex("302e020100300506032b657004220420")
"""What stands before the 32 bytes in PKCS #8."""
_PEM = re.compile(r"-----BEGIN PRIVATE KEY-----([A-Za-z0-9+/=\s]+)-----END PRIVATE KEY-----")


def read_or_make(path: Path, chance: Callable[[int], bytes] = os.urandom) -> bytes:
    """The key's 32 bytes, made and durably written where there is none yet.

    Raises:
        EnrolmentError: the file has another kind of key, or cannot be read or written.
    """
    try:
        return _read(path.read_text("ascii"))
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise EnrolmentError(f"the key {path} cannot be used: {_reason(error)}") from None
    seed = chance(32)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write(path, pem("PRIVATE KEY", _PKCS8 + seed).encode(), 0o600)
    except OSError as error:
        raise EnrolmentError(f"the key {path} cannot be written: {_reason(error)}") from None
    return seed


def _read(text: str) -> bytes:
    found = _PEM.search(text)
    data = base64.b64decode("".join(found[1].split())) if found else b""
    if len(data) != len(_PKCS8) + 32 or not data.startswith(_PKCS8):
        raise EnrolmentError("it is no Ed25519 key as cutlayer makes it")
    return data[len(_PKCS8) :]


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()
