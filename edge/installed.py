"""What the installer of a board has left for the agent: which release runs, what became of one, where the next one goes."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.service import write_whole

MANIFEST_BYTES = 256 << 10
RESULT, RESULT_BYTES = "result.json", 64 << 10


@dataclass(frozen=True)
class Installed:
    """The release that this process runs."""

    id: str
    version: int
    cutlayer: str
    bundle: str


@dataclass(frozen=True)
class Result:
    """What became of a release that the installer was given."""

    release: str
    outcome: str
    """`installed`, `refused` or `rolled back`."""
    reason: str
    again: bool = False
    """Whether the board stood against it and not the release: it may be offered again."""


def running(current: Path, parse: Callable[[bytes], Any]) -> Installed | None:
    """The release in a folder, which may be a symlink; None where there is none that can be read.

    Asked once, when a process starts: the symlink may be switched while it runs.

    Args:
        current: folder with a `manifest.json`.
        parse: `ReleaseManifest.parse`, or what does the same.
    """
    try:
        manifest = parse(_read(current.resolve() / "manifest.json", MANIFEST_BYTES))
    except (OSError, ValueError):
        return None
    return Installed(manifest.id, manifest.version, manifest.cutlayer, manifest.bundle)


def result(incoming: Path) -> Result | None:
    """What the installer said last; None where it has said nothing that can be read."""
    try:
        record = json.loads(_read(incoming / RESULT, RESULT_BYTES))
        release, outcome, reason = record["release"], record["outcome"], record.get("reason") or ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if not all(isinstance(value, str) for value in (release, outcome, reason)):
        return None
    return Result(release, outcome, reason, again=record.get("again") is True)


def forget_result(incoming: Path) -> None:
    """What was said before is not said of what is handed over next, which may be another file of the same release.

    Raises:
        OSError: the disk is gone.
    """
    (incoming / RESULT).unlink(missing_ok=True)


def hand_over(part: Path, release: str) -> None:
    """A release is whole and good: the installer, which waits for the file `ready`, may have it.

    Raises:
        OSError: the disk is full or gone; to be called again.
    """
    whole = part.with_name(f"{release}.release")
    if part.exists() or not whole.exists():  # else it has come as far as this before
        part.rename(whole)
    write_whole(part.with_name("ready"), f"{release}\n".encode())


def handed_over(incoming: Path) -> str:
    """Id of the release that waits for the installer; empty where none does."""
    try:
        release = _read(incoming / "ready", 1024).decode().strip()
    except (OSError, ValueError):
        return ""
    return release if (incoming / f"{release}.release").is_file() else ""


def clean(incoming: Path, kept: str) -> None:
    """Remove what no installer waits for: parts of other releases, and a release that a power cut left without its `ready`.

    Args:
        incoming: the folder.
        kept: name of the part that stays.

    Raises:
        OSError: the disk is gone.
    """
    waits = f"{handed_over(incoming)}.release"
    for path in (*incoming.glob("[!.]*.part"), *incoming.glob("[!.]*.release")):
        if path.name not in (kept, waits):
            path.unlink(missing_ok=True)


def boot() -> str:
    """Names the time since the machine was switched on; empty where the kernel does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def _read(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{path} is longer than {limit} bytes")
    return data
