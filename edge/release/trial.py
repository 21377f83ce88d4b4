"""The journal of an update: one small file, replaced as a whole, which decides what the board comes up on.

No journal: `current` has proven itself. A journal that names a release: that release is to be `current`, and counts its starts.
The same with `failed`: `previous` is to be `current` again. Whoever reads it brings the links to what it says (guard.py), so
writing it is the one moment at which an update, and a way back, happens.
"""

import json
from dataclasses import asdict, dataclass, replace

from edge.release import disk
from edge.release.layout import ID, Layout

STARTS = 3
"""Starts that a release on trial has to become healthy in."""


@dataclass(frozen=True)
class Trial:
    """A release on trial."""

    release: str
    previous: str | None
    """What to go back to; None where nothing has proven itself yet."""
    starts: int = 0
    failed: bool = False

    def started(self) -> "Trial":
        """Returns it with one more start."""
        return replace(self, starts=self.starts + 1)

    def lost(self) -> "Trial":
        """Returns it as failed."""
        return replace(self, failed=True)


def load(layout: Layout) -> Trial | None:
    """Returns the trial under way; None without one, or where the journal cannot be what we have written."""
    try:
        plain = json.loads(layout.trial.read_bytes())
        trial = Trial(plain["release"], plain["previous"], plain["starts"], plain["failed"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    ids = (trial.release, trial.previous)
    fits = all(isinstance(name, str) and ID.fullmatch(name) for name in ids if name is not None)
    return trial if fits and trial.release and isinstance(trial.starts, int) else None


def save(layout: Layout, trial: Trial) -> None:
    """Writes the journal."""
    disk.write(layout.trial, json.dumps(asdict(trial), sort_keys=True).encode() + b"\n")


def end(layout: Layout) -> None:
    """Removes the journal: what is current has proven itself."""
    disk.remove(layout.trial)
    disk.sync_folder(layout.home)
