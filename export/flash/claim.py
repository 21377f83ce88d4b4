"""A claim: what lets one board enrol, once; made by `cutlayer-hub enrol`."""

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from export.flash.errors import FlashError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
KEY = re.compile(r"[0-9a-f]{64}")
MOST_BYTES = 64 << 10
TEXTS = ("name", "board", "fleet", "broker", "enrol", "ca", "token", "expires")


@dataclass(frozen=True)
class Claim:
    """What a claim file says; its token is in `data` only, which no message shows."""

    name: str
    board: str
    fleet: str
    broker: str
    enrol: str
    ca: str = field(repr=False)
    keys: tuple[str, ...] = field(repr=False)
    """Public keys that releases are signed with, 64 hex digits each."""
    expires: datetime
    data: bytes = field(repr=False)
    """The file as it is."""

    @property
    def key_file(self) -> bytes:
        """The keys as a board keeps them: one a line."""
        return "".join(f"{key}\n" for key in self.keys).encode()


def read_claim(path: Path, now: datetime) -> Claim:
    """Read a claim file.

    Raises:
        FlashError: it cannot be read, is no claim, or has expired.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise FlashError(f"the claim {path} cannot be read: {error.strerror}") from error
    claim = _parse(path, data)
    if claim.expires <= now:
        raise FlashError(
            f"the claim {path} for {claim.name} expired at {claim.expires:%Y-%m-%d %H:%M} UTC: "
            f"make a new one with `cutlayer-hub enrol --name {claim.name} --board {claim.board}`"
        )
    return claim


def _parse(path: Path, data: bytes) -> Claim:
    fields = _fields(path, data)
    keys = fields.get("release_keys")
    if not isinstance(keys, list) or not keys or not all(isinstance(key, str) and KEY.fullmatch(key) for key in keys):
        raise FlashError(f"the claim {path} has no list of keys of 64 hex digits as its 'release_keys'")
    texts: dict[str, str] = {}
    for name in TEXTS:
        value = fields.get(name)
        if not isinstance(value, str) or not value:
            raise FlashError(f"the claim {path} has no text as its '{name}'")
        texts[name] = value
    if not NAME.fullmatch(texts["name"]):
        raise FlashError(f"the claim {path} names a device {texts['name'][:70]!r}, which is no name of a device")
    try:
        expires = datetime.strptime(texts["expires"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise FlashError(
            f"the claim {path} expires at {texts['expires'][:40]!r}, which is no time like 2026-11-22T00:00:00Z"
        ) from None
    return Claim(
        name=texts["name"],
        board=texts["board"],
        fleet=texts["fleet"],
        broker=texts["broker"],
        enrol=texts["enrol"],
        ca=texts["ca"],
        keys=tuple(keys),
        expires=expires,
        data=data,
    )


def _fields(path: Path, data: bytes) -> dict[str, Any]:
    if len(data) > MOST_BYTES:
        raise FlashError(f"{path} is no claim: it is larger than {MOST_BYTES} bytes")
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        raise FlashError(f"{path} is no claim: it is not JSON; `cutlayer-hub enrol` makes one") from None
    if not isinstance(fields, dict) or fields.get("format") != 1:
        raise FlashError(f"{path} is no claim of format 1; `cutlayer-hub enrol` makes one")
    return fields
