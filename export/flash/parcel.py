"""What a board is given: a release that its claim's keys have signed, the claim, the user's configuration, the installer.

All of it is checked here, on the workstation, before anything is written anywhere; the board checks it again.
"""

import io
import tomllib
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from edge.enrolment.claim import Claim
from edge.release import settings
from edge.release.archive import Accepts, open_release
from edge.release.manifest import INSTALLER, ReleaseError, ReleaseManifest
from export.flash.claim import check, read_claim
from export.flash.errors import FlashError

RELEASE, KEYS, CLAIM, CONFIG = "board.release", "release-keys", "claim.json", "device.toml"
"""Names of the files, wherever they are put for the installer; the installer's own is `INSTALLER`."""
MOST_CONFIG = 64 << 10


@dataclass(frozen=True)
class Parcel:
    """Everything that one board is given."""

    release: Path
    id: str
    manifest: ReleaseManifest
    claim: Claim
    installer: bytes = field(repr=False)
    config: bytes | None = None
    """The user's device.toml."""

    def check_new(self, now: datetime) -> None:
        """Raise where a board that is nobody yet would refuse this: the claim has expired, or the configuration lacks something.

        Raises:
            FlashError: what is missing.
        """
        check(self.claim, now)
        try:
            settings.compose(self.claim, tomllib.loads((self.config or b"").decode()))
        except ReleaseError as error:
            raise FlashError(f"{error}") from error

    @property
    def files(self) -> dict[str, bytes | Path]:
        """The files by name; the claim is the only secret."""
        found: dict[str, bytes | Path] = {
            RELEASE: self.release,
            INSTALLER: self.installer,
            KEYS: self.claim.key_file,
            CLAIM: self.claim.pack(),
        }
        if self.config is not None:
            found[CONFIG] = self.config
        return found


def read_parcel(release: Path, claim: Path, config: Path | None, now: datetime) -> Parcel:
    """Read and check what a board is to be given.

    Raises:
        FlashError: one of the files cannot be read, or they do not belong together; the message names it.
    """
    found = read_claim(claim)
    accepts = Accepts(fleet=found.fleet, board=found.board)
    try:
        with open_release(release, found.keys, now=now, accepts=accepts) as opened:
            if opened.missing:
                raise FlashError(
                    f"{release} is made for boards that have the release before it: {opened.missing[0]} is not in it; "
                    "build one without --since"
                )
            opened.check()
            installer = io.BytesIO()
            opened.copy(opened.manifest.files[INSTALLER].sha256, installer)
            manifest = opened.manifest
    except ReleaseError as error:
        raise FlashError(
            f"{error} (the claim {claim} is for the board {found.board} of the fleet {found.fleet})"
        ) from error
    return Parcel(release, manifest.id, manifest, found, installer.getvalue(), _config(config))


def _config(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FlashError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > MOST_CONFIG:
        raise FlashError(f"{path} has {len(data)} bytes; a configuration has at most {MOST_CONFIG}")
    try:
        tomllib.loads(data.decode())
    except ValueError as error:  # of UTF-8 or of TOML
        raise FlashError(f"{path} is no TOML: {error}") from error
    return data
