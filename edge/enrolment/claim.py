"""The claim file: JSON of a few hundred bytes that lets one board in, once. Whoever has it may take the board's place: it is secret.

{"format": 1, "name": "greenhouse-7", "board": "pi5", "fleet": "fleet", "broker": "mqtts://hub.local:8883",
 "enrol": "https://hub.local:8443", "ca": PEM, "release_keys": [64 hex digits, …], "token": …, "expires": "2026-11-23T12:00:00Z"}
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from edge.enrolment.errors import EnrolmentError

FORMAT = 1
MOST_BYTES = 65536

_FORMS = {
    "name": r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
    "board": r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
    "fleet": r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
    "broker": r"mqtts://\S{1,300}",
    "enrol": r"https://\S{1,300}",
    "token": r"[A-Za-z0-9_-]{43}",
    "expires": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",
}


@dataclass(frozen=True)
class Claim:
    """What a board is told about its fleet, and the token that lets it in."""

    name: str
    board: str
    fleet: str
    broker: str
    enrol: str
    ca: str
    release_keys: tuple[str, ...]
    token: str = field(repr=False)
    expires: str

    @classmethod
    def parse(cls, data: bytes) -> "Claim":
        """Read a claim file.

        Raises:
            EnrolmentError: it is none.
        """
        try:
            found: Any = json.loads(data.decode("utf-8"))
        except (ValueError, RecursionError):
            raise EnrolmentError("it is no JSON") from None
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise EnrolmentError(f"it is no claim of format {FORMAT}")
        for name, form in _FORMS.items():
            value = found.get(name)
            if not isinstance(value, str) or not re.fullmatch(form, value):
                raise EnrolmentError(f"its {name!r} is missing or has another form")
        keys, ca = found.get("release_keys"), found.get("ca")
        if not isinstance(keys, list) or not all(isinstance(k, str) and re.fullmatch(r"[0-9a-f]{64}", k) for k in keys):
            raise EnrolmentError("its 'release_keys' are no list of 64 hex digits each")
        if not isinstance(ca, str) or not ca.startswith("-----BEGIN CERTIFICATE-----"):
            raise EnrolmentError("its 'ca' is no certificate")
        claim = cls(**{name: found[name] for name in _FORMS}, ca=ca, release_keys=tuple(keys))
        claim.until  # noqa: B018  a 30th of February is none
        return claim

    @property
    def until(self) -> datetime:
        """When it expires, an aware time."""
        try:
            return datetime.fromisoformat(self.expires)
        except ValueError:
            raise EnrolmentError(f"its 'expires' is no time: {self.expires}") from None

    @property
    def keys(self) -> tuple[bytes, ...]:
        """Public keys that releases of the fleet are signed with."""
        return tuple(bytes.fromhex(key) for key in self.release_keys)

    @property
    def key_file(self) -> bytes:
        """The keys as a board keeps them: one a line."""
        return "".join(f"{key}\n" for key in self.release_keys).encode()

    @property
    def mark(self) -> str:
        """SHA-256 of the token, which a board keeps of a claim that is used."""
        return hashlib.sha256(self.token.encode()).hexdigest()

    def pack(self) -> bytes:
        """The bytes of a claim file."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1, ensure_ascii=True).encode() + b"\n"


def read(path: Path) -> Claim:
    """The claim in a file.

    Raises:
        EnrolmentError: there is none; the message begins with the path.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise EnrolmentError(f"the claim {path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    if len(data) > MOST_BYTES:
        raise EnrolmentError(f"the claim {path} has more than {MOST_BYTES} bytes: it is none")
    if not data.strip():
        raise EnrolmentError(f"the claim {path} is empty: it has been used, or was never written")
    try:
        return Claim.parse(data)
    except EnrolmentError as error:
        raise EnrolmentError(f"the claim {path} cannot be used: {error}") from None
