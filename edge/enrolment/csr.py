"""A request for a certificate (PKCS #10, RFC 2986) with an Ed25519 key (RFC 8410)."""

import base64
import textwrap

from edge.enrolment import der
from edge.release import ed25519

ED25519 = der.wrap(der.SEQUENCE, der.object_id(1, 3, 101, 112))
COMMON_NAME = der.object_id(2, 5, 4, 3)


def request(seed: bytes, name: str) -> str:
    """The request as PEM.

    Args:
        seed: the private key, 32 bytes.
        name: goes into it as CN.
    """
    attribute = der.wrap(der.SEQUENCE, COMMON_NAME, der.wrap(der.TEXT, name.encode()))
    subject = der.wrap(der.SEQUENCE, der.wrap(der.SET, attribute))
    key = public_info(ed25519.public_key(seed))
    version, attributes = der.wrap(der.INTEGER, b"\0"), der.wrap(0xA0)
    told = der.wrap(der.SEQUENCE, version, subject, key, attributes)
    signature = der.wrap(der.BITS, b"\0", ed25519.sign(seed, told))
    return pem("CERTIFICATE REQUEST", der.wrap(der.SEQUENCE, told, ED25519, signature))


def public_info(public: bytes) -> bytes:
    """A public key of 32 bytes as SubjectPublicKeyInfo."""
    return der.wrap(der.SEQUENCE, ED25519, der.wrap(der.BITS, b"\0", public))


def pem(label: str, data: bytes) -> str:
    """Bytes as PEM."""
    lines = "\n".join(textwrap.wrap(base64.b64encode(data).decode("ascii"), 64))
    return f"-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n"
