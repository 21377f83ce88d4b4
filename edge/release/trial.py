"""The journal of an update: one small file, replaced as a whole, which decides what the board comes up on.

No journal: `current` has proven itself. A journal that names a release: that release is to be `current`, and counts its starts.
A start that the machine's power has cut off is not the release's fault, and counted apart. The same with `failed`: `previous` is to be `current` again. Whoever reads it brings the links to what it says (guard.py), so
writing it is the one moment at which an update, and a way back, happens.
"""

import json
from dataclasses import asdict, dataclass, replace

from edge.release import disk
from edge.release.layout import ID, Layout

STARTS = 3
"""Starts that a release on trial has to become healthy in."""
CUTS = 10
"""Starts more that the end of the machine may cut off: a board in bad light loses its power often, and one whose release takes the
whole machine down comes back all the same."""


@dataclass(frozen=True)
class Trial:
    """A release on trial."""

    release: str
    previous: str | None
    """What to go back to; None where nothing has proven itself yet."""
    starts: int = 0
    failed: bool = False
    cuts: int = 0
    """Starts that the end of the machine has cut off."""
    boot: str = ""
    """The time since the machine was switched on in which it was started last."""

    def resumed(self, boot: str) -> "Trial":
        """Returns it without its last start, where the machine has been off since; a cut instead."""
        if not self.starts or not boot or boot == self.boot or self.cuts >= CUTS:
            return self
        return replace(self, starts=self.starts - 1, cuts=self.cuts + 1, boot=boot)

    def started(self, boot: str = "") -> "Trial":
        """Returns it with one more start."""
        return replace(self, starts=self.starts + 1, boot=boot)

    def lost(self) -> "Trial":
        """Returns it as failed."""
        return replace(self, failed=True)


def load(layout: Layout) -> Trial | None:
    """Returns the trial under way; None without one, or where the journal cannot be what we have written."""
    try:
        plain = json.loads(layout.trial.read_bytes())
        trial = Trial(**{name: plain[name] for name in ("release", "previous", "starts", "failed", "cuts", "boot")})
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    ids = (trial.release, trial.previous)
    fits = all(isinstance(name, str) and ID.fullmatch(name) for name in ids if name is not None)
    return trial if fits and trial.release and isinstance(trial.starts, int) and isinstance(trial.cuts, int) else None


def save(layout: Layout, trial: Trial) -> None:
    """Writes the journal."""
    disk.write(layout.trial, json.dumps(asdict(trial), sort_keys=True).encode() + b"\n")


def end(layout: Layout) -> None:
    """Removes the journal: what is current has proven itself."""
    disk.remove(layout.trial)
    disk.sync_folder(layout.home)
