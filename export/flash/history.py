"""Which version each release of a fleet got: `releases.json` beside the key. The same contents have the same version again."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from edge.release.manifest import ReleaseError, ReleaseManifest, canonical, format_date, parse_date
from export.flash.errors import FlashError

NAME = "releases.json"
LIFE = timedelta(days=180)
"""How long a release may be taken up, unless said otherwise."""

_EPOCH = parse_date("2000-01-01T00:00:00Z", "")


@dataclass(frozen=True)
class Noted:
    """One release that was signed."""

    id: str
    fleet: str
    version: int
    issued: str
    expires: str
    board: str
    content: str
    """Hash of the manifest without version and dates."""


@dataclass(frozen=True)
class Wish:
    """What the user says of version and dates; None leaves it to the history."""

    version: int | None = None
    issued: datetime | None = None
    expires: datetime | None = None


@contextmanager
def alone(key: Path) -> Iterator[None]:
    """While no other command gives out versions with this key: two that read at once would give the same one twice."""
    with key.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def read(folder: Path) -> tuple[Noted, ...]:
    """Return what was signed with the key in this folder, oldest first.

    Raises:
        FlashError: the file is damaged. It is not guessed at: a version that comes twice locks boards out.
    """
    path = folder / NAME
    try:
        plain = json.loads(path.read_text("utf-8"))
        noted = tuple(Noted(**row) for row in plain["releases"])
        for row in noted:
            if not _is_sound(row) or parse_date(row.issued, "issued") >= parse_date(row.expires, "expires"):
                raise FlashError(f"{path}: the release {row.id!r:.20} has a version or dates that cannot be")
    except FileNotFoundError:
        return ()
    except (ValueError, KeyError, TypeError) as error:
        raise FlashError(f"{path} is damaged ({error}): mend it, or give --version yourself with the file moved away") from error  # fmt: skip
    return noted


def note(folder: Path, history: Sequence[Noted], manifest: ReleaseManifest) -> None:
    """Add a release to the file, if it is not there."""
    if any(row.id == manifest.id for row in history):
        return
    row = Noted(
        manifest.id, manifest.fleet, manifest.version, format_date(manifest.issued), format_date(manifest.expires),
        manifest.board, content(manifest),
    )  # fmt: skip
    text = json.dumps({"releases": [asdict(item) for item in (*history, row)]}, indent=1, sort_keys=True) + "\n"
    part = folder / (NAME + ".part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(folder / NAME)


def content(manifest: ReleaseManifest) -> str:
    """Return the hash of what a release is, whichever version it has and whenever it was issued."""
    plain: dict[str, Any] = json.loads(manifest.pack())
    return hashlib.sha256(canonical({name: plain[name] for name in plain.keys() - {"version", "issued", "expires"}})).hexdigest()  # fmt: skip


def date(manifest: ReleaseManifest, wish: Wish, history: Sequence[Noted], now: datetime) -> ReleaseManifest:
    """Return the manifest with version and dates: those it had before, if it is the same, and else the next version.

    Args:
        manifest: whose version and dates do not count.
        wish: what the user wants.
        history: of the fleets that this key signs for.
        now: when it is issued, unless wished otherwise.

    Raises:
        FlashError: the wished version belongs to another release.
        ReleaseError: the dates do not fit together.
    """
    ours = [row for row in history if row.fleet == manifest.fleet]
    for row in reversed(ours):
        if row.content == content(manifest) and _fits(row, wish, now):
            return replace(
                manifest, version=row.version, issued=parse_date(row.issued, "issued"), expires=parse_date(row.expires, "expires")
            )  # fmt: skip
    version = wish.version if wish.version is not None else 1 + max((row.version for row in ours), default=0)
    issued = wish.issued or now.replace(microsecond=0)
    dated = replace(manifest, version=version, issued=issued, expires=wish.expires or issued + LIFE)
    if taken := [row for row in ours if row.version == version and row.id != dated.id]:
        raise FlashError(f"version {version} of fleet {manifest.fleet} is the release {taken[0].id[:16]} already: leave --version out for the next one")  # fmt: skip
    if dated.expires <= now:
        raise ReleaseError(f"a release that expires at {format_date(dated.expires)} would be refused everywhere: it is {format_date(now)}")  # fmt: skip
    return dated


def undated() -> dict[str, Any]:
    """Return version and dates for a manifest that gets its own by `date`."""
    return {"version": 1, "issued": _EPOCH, "expires": _EPOCH + LIFE}


def _is_sound(row: Noted) -> bool:
    texts = (row.id, row.fleet, row.board, row.content)
    return type(row.version) is int and all(isinstance(text, str) for text in texts)


def _fits(row: Noted, wish: Wish, now: datetime) -> bool:
    return (
        wish.version in {None, row.version}
        and (wish.issued is None or format_date(wish.issued) == row.issued)
        and (wish.expires is None or format_date(wish.expires) == row.expires)
        and now < parse_date(row.expires, "expires")
    )
