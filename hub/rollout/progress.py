"""A rollout on the terminal: a table that stays in place, plain lines elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hub.rollout import rollout
from hub.rollout.book import DONE, STOPPED, Book
from hub.rollout.rollout import Rollout
from hub.table import MISSING

NOTES = 3
"""How many of the last notes stay on the terminal."""
ROWS = 24
"""Devices shown at a time: who is at work first."""
STYLES = {
    rollout.AWAY: "dim", rollout.FETCHING: "cyan", rollout.PROVING: "cyan", rollout.HELD: "green", rollout.SKIPPED: "yellow",
    rollout.FAILED: "red", rollout.LOST: "red",
}  # fmt: skip
_ORDER = [rollout.FAILED, rollout.LOST, rollout.FETCHING, rollout.PROVING, rollout.HELD, rollout.SKIPPED, rollout.AWAY]


class Shown(Protocol):
    """Whoever watches."""

    def note(self, text: str) -> None:
        """Something has happened."""

    def look(self, now: float) -> None:
        """Figures have changed."""


class Lines:
    """A line for what happens."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def note(self, text: str) -> None:
        """Print it."""
        print(text, file=self._out, flush=True)

    def look(self, now: float) -> None:
        """Nothing: a line for every figure would drown the rest."""


class Picture:
    """The stages, a line a device, the last notes."""

    def __init__(self, shown: Rollout) -> None:
        self._rollout, self._now = shown, 0.0
        self._notes: list[str] = []

    def note(self, text: str) -> None:
        """Keep it; the last few are shown."""
        self._notes = [*self._notes, text][-NOTES:]

    def look(self, now: float) -> None:
        """Ages count from here."""
        self._now = now

    def __rich__(self) -> Group:
        shown = self._rollout
        held = sum(shown.standing(name, self._now) == rollout.HELD for name in shown.scope)
        bar = Table.grid(padding=(0, 1))
        stage = shown.stages[min(shown.book.stage, len(shown.stages) - 1)]
        title = Text(f"version {shown.book.release.version} to {stage.name}", "bold")
        bar.add_row(
            title, ProgressBar(max(1, len(shown.scope)), held, width=24), Text(f"{held} of {len(shown.scope)} well")
        )
        notes = [Text(note, "yellow", no_wrap=True, overflow="ellipsis") for note in self._notes]
        return Group(bar, self._table(), *notes)

    def _table(self) -> Table:
        shown = self._rollout
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("device", no_wrap=True, max_width=20)
        table.add_column("version", justify="right")
        table.add_column("step", justify="right", no_wrap=True)
        table.add_column("loss", justify="right", no_wrap=True)
        table.add_column("state", no_wrap=True, max_width=34)
        standing = {name: shown.standing(name, self._now) for name in shown.scope}
        names = sorted(standing, key=lambda name: (_ORDER.index(standing[name]), name))
        for name in names[:ROWS]:
            state = shown.live[name].state
            now = state.now if state else None
            step = f"{1000 * now.step_seconds:.3g} ms" if now and now.step_seconds is not None else MISSING
            loss = f"{now.loss:.3f}" if now and now.loss is not None else MISSING
            version = str(state.version) if state and state.version else MISSING
            table.add_row(
                Text(name), version, step, loss, Text(_words(shown, name, standing[name]), STYLES[standing[name]])
            )
        if len(names) > ROWS:
            table.add_row(Text(f"and {len(names) - ROWS} more", "dim"), "", "", "", "")
        return table


def _words(shown: Rollout, name: str, standing: str) -> str:
    state, entry = shown.live[name].state, shown.book.devices.get(name)
    if entry and entry.worse:
        return f"failed: {entry.worse}"
    if standing == rollout.FETCHING and state:
        if state.reason:
            return f"fetching: {state.reason}"
        return f"fetching {100 * state.here // max(1, state.size)} %"
    if standing in (rollout.SKIPPED, rollout.FAILED) and state:
        return f"{standing}: {state.reason}"
    if standing == rollout.HELD:
        return "well"
    if standing == rollout.AWAY and shown.live[name].online:
        return "not yet offered" if state is None or state.release else "not installed from a release"
    return f"{standing}: {state.phase}" if standing == rollout.PROVING and state else standing


@contextmanager
def progress(shown: Rollout, plain: bool | None = None, out: TextIO | None = None) -> Iterator[Shown]:
    """Show a rollout for as long as the block lasts; arguments as those of `hub.progress.progress`."""
    out = out or sys.stdout
    console = Console(file=out, force_terminal=True if plain is False else None)
    if plain or (plain is None and not console.is_terminal):
        yield Lines(out)
        return
    picture: Any = Picture(shown)
    with Live(picture, console=console, refresh_per_second=4):
        yield picture


def summary(book: Book) -> Iterator[str]:
    """Where a rollout stands, a line each, in 80 columns."""
    release = book.release
    yield f"version {release.version} ({release.id[:8]}), to {book.stages}: {_outcome(book)}"
    for name, entry in sorted(book.devices.items()):
        if entry.stage is None and not entry.phase:
            continue
        word = "worse off" if entry.worse else "has it" if entry.on_it else entry.phase or "not heard of"
        offered = "" if entry.stage is not None else "; not offered yet"
        if entry.stage is None and entry.phase == "idle" and not entry.version:
            word, offered = "was not installed from a release", ""
        reason = entry.worse or entry.reason
        line = f"  {name:<20} version {entry.version or MISSING:<6} {word}{offered}{f': {reason}' if reason else ''}"
        yield line if len(line) <= 80 else f"{line[:79]}…"


def _outcome(book: Book) -> str:
    if book.outcome == DONE:
        return "done"
    if book.outcome == STOPPED:
        return f"stopped: {book.reason}"
    return f"in stage {book.stages.split(',')[book.stage].strip()}"
