"""What must survive a restart of a board that is updated: how training went by release, what became of releases, whose part lies there."""

import json
import logging
from collections import deque
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple

from edge.service import write_whole
from edge.wire.updates import Figures, Release

log = logging.getLogger("cutlayer.updates")

LOSS_LIMIT = 1e9
"""What is beyond, or no number, counts as this: a loss that has gone astray must be told, and a state takes finite numbers."""
LAST_STEPS = 64
"""That the figures are about."""
STEP_LEAST = 8
"""Fewer steps of this process do not replace what was known before."""
CLOSED_KEPT = 16
"""Releases whose end is remembered."""


class Steps:
    """How training goes: the steps of this process, and what was known of the release before it."""

    def __init__(self, known: Figures) -> None:
        self._known = known
        self._count = 0
        self._seconds: deque[float] = deque(maxlen=LAST_STEPS)
        self._losses: deque[float] = deque(maxlen=LAST_STEPS)

    def add(self, seconds: float, loss: float | None) -> None:
        """A step is done; `loss` where the device knows it."""
        self._count += 1
        self._seconds.append(seconds)
        if loss is not None:
            self._losses.append(min(max(loss, -LOSS_LIMIT), LOSS_LIMIT) if loss == loss else LOSS_LIMIT)  # noqa: PLR0124  NaN

    def figures(self) -> Figures:
        """Of the last steps."""
        known = self._known
        steps = known.steps + self._count
        if len(self._seconds) < STEP_LEAST and known.step_seconds is not None:
            return replace(known, steps=steps)
        seconds = round(median(self._seconds), 6) if self._seconds else None
        return replace(
            known, steps=steps, step_seconds=seconds, loss=round(fmean(self._losses), 6) if self._losses else None
        )


class _End(NamedTuple):
    phase: str
    reason: str
    again: bool


class Memory:
    """Figures by release, what became of releases, whose part lies there, and which file the installer has been given last.

    A release that was rolled back is closed. One that was refused is closed with the hash of its file: another file of it may be good,
    the whole one where a partial one lacked something.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = ""
        try:
            record = json.loads(path.read_text("utf-8"))
            self.figures = {name: Figures(**found) for name, found in record["figures"].items()}
            self.starts = {name: int(count) for name, count in record["starts"].items()}
            self.closed = {name: _End(str(end[0]), str(end[1]), bool(end[2])) for name, end in record["closed"].items()}
            self.part: tuple[str, str] = (str(record["part"][0]), str(record["part"][1]))
            self.handed: tuple[str, str] = (str(record["handed"][0]), str(record["handed"][1]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            self.figures, self.starts, self.closed = {}, {}, {}
            self.part = self.handed = ("", "")

    def end_of(self, release: Release) -> tuple[str, str] | None:
        """Phase and reason, where it or this file of it has come to an end here."""
        end = self.closed.get(release.id) or self.closed.get(f"{release.id} {release.file}")
        return (end.phase, end.reason) if end else None

    def close(self, release: str, phase: str, reason: str, file: str = "", *, again: bool = False) -> None:
        """A release, or one file of it, has come to its end here; `again`: until its offer is withdrawn."""
        self.closed[f"{release} {file}".strip()] = _End(phase, reason, again)
        self.closed = dict(list(self.closed.items())[-CLOSED_KEPT:])

    def withdrawn(self) -> None:
        """Nothing is offered any more: what only the board stood against may be tried when it is offered again."""
        self.closed = {name: end for name, end in self.closed.items() if not end.again}
        self.keep()

    def keep(self) -> None:
        """Write it, where it has changed; what cannot be written is only logged."""
        text = json.dumps(
            {
                "figures": {name: asdict(found) for name, found in self.figures.items()},
                "starts": self.starts,
                "closed": self.closed,
                "part": self.part,
                "handed": self.handed,
            }
        )
        if text == self._written:
            return
        try:
            write_whole(self._path, text.encode())
        except OSError as error:
            log.warning("%s cannot be written: %s", self._path, error.strerror)
        else:
            self._written = text
