"""The claim that goes to a board with its release; made by `cutlayer-hub enrol`."""

from datetime import datetime
from pathlib import Path

from edge.enrolment.claim import Claim, read
from edge.enrolment.errors import EnrolmentError
from export.flash.errors import FlashError


def read_claim(path: Path) -> Claim:
    """Read a claim file.

    Raises:
        FlashError: it cannot be read, is no claim, or has no keys to check a release with.
    """
    try:
        claim = read(path)
    except EnrolmentError as error:
        raise FlashError(str(error)) from error
    if not claim.release_keys:
        raise FlashError(f"the claim {path} has no release_keys: a board could trust no release")
    return claim


def check(claim: Claim, now: datetime) -> None:
    """Raise where no board can enrol with it any more.

    Raises:
        FlashError: it has expired.
    """
    if claim.until <= now:
        raise FlashError(
            f"the claim for {claim.name} expired at {claim.until:%Y-%m-%d %H:%M} UTC: "
            f"make a new one with `cutlayer-hub enrol --name {claim.name} --board {claim.board}`"
        )
