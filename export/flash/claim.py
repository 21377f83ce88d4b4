"""A claim: what lets one board enrol, once; made by `cutlayer-hub enrol`."""

import json
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from edge.release import settings
from edge.release.manifest import ReleaseError, parse_date
from export.flash.errors import FlashError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Claim:
    """A claim; its token is in `data` only, which no message shows."""

    given: settings.Claim
    """As the board reads it."""
    expires: datetime

    @property
    def name(self) -> str:
        """Of the device."""
        return self.given.name

    @property
    def board(self) -> str:
        """Kind of the board."""
        return self.given.board

    @property
    def fleet(self) -> str:
        """Of the device."""
        return self.given.fleet

    @property
    def data(self) -> bytes:
        """The file as it is."""
        return self.given.data

    @property
    def keys(self) -> list[bytes]:
        """Public keys that releases may be signed with."""
        return [bytes.fromhex(key) for key in self.given.keys]

    @property
    def key_file(self) -> bytes:
        """The keys as a board keeps them: one a line."""
        return "".join(f"{key}\n" for key in self.given.keys).encode()

    def check(self, now: datetime) -> None:
        """Raise where no board can enrol with it any more.

        Raises:
            FlashError: it has expired.
        """
        if self.expires <= now:
            raise FlashError(
                f"the claim for {self.name} expired at {self.expires:%Y-%m-%d %H:%M} UTC: "
                f"make a new one with `cutlayer-hub enrol --name {self.name} --board {self.board}`"
            )


def read_claim(path: Path) -> Claim:
    """Read a claim file.

    Raises:
        FlashError: it cannot be read, or is no claim.
    """
    try:
        given = settings.read_claim(path)
        expires = parse_date(json.loads(given.data).get("expires"), "its end")
    except ReleaseError as error:
        raise FlashError(f"{error} (claim {path})") from error
    if not given.keys or not all(KEY.fullmatch(key) for key in given.keys):
        raise FlashError(f"the claim {path} has no list of keys of 64 hex digits as its 'release_keys'")
    if not NAME.fullmatch(given.name):
        raise FlashError(f"the claim {path} names a device {given.name[:70]!r}, which is no name of a device")
    return Claim(given, expires)
