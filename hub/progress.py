"""Live progress of a run: a picture that stays in place on a terminal, plain lines elsewhere.

Both kinds take the same calls. They are made from the hub's one loop; nothing here is a thread, but for rich's own refresh.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hub.table import MISSING, human

NOTES = 3
"""How many of the last notes stay on the terminal."""
STATE_STYLES = {
    "training": "cyan",
    "sending": "cyan",
    "waiting": "dim",
    "late": "yellow",
    "gone": "red",
    "done": "green",
}


class Progress(Protocol):
    """What a run tells whoever watches it."""

    def stage(self, text: str) -> None:
        """The run as a whole begins something else: "starting the broker", "training"."""

    def device(self, name: str, state: str) -> None:
        """A device is in another state, in a few words."""

    def round(self, record: Mapping[str, Any]) -> None:
        """A round has ended; takes the record as it stands in metrics.jsonl, with `sent_bytes` (mean of the devices so far) where it is known."""

    def note(self, text: str) -> None:
        """Something to tell that does not fit elsewhere."""


class NoProgress:
    """Tells nobody; for tests and for runs without a watcher."""

    def stage(self, text: str) -> None:
        """Nothing."""

    def device(self, name: str, state: str) -> None:
        """Nothing."""

    def round(self, record: Mapping[str, Any]) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""


null_progress = NoProgress()


class PlainProgress:
    """One line a round, one a stage, one a note; and one where a device is late or gone."""

    def __init__(self, rounds: int, devices: Sequence[str], out: TextIO) -> None:
        self._rounds = rounds
        self._devices = devices
        self._out = out

    def stage(self, text: str) -> None:
        """Print the stage."""
        self._say(text)

    def device(self, name: str, state: str) -> None:
        """Print what needs a person's eye; a line for every state would drown the rounds."""
        if state.partition(" ")[0] in {"late", "gone"}:
            self._say(f"{name}: {state}")

    def round(self, record: Mapping[str, Any]) -> None:
        """Print the round."""
        self._say(
            f"round {record['round']:>{len(str(self._rounds))}}/{self._rounds}  {'  '.join(_facts(record, len(self._devices)))}"
        )

    def note(self, text: str) -> None:
        """Print the note."""
        self._say(text)

    def _say(self, text: str) -> None:
        print(text, file=self._out, flush=True)


class LiveProgress:
    """A bar over the rounds and a line a device, redrawn in place."""

    def __init__(self, rounds: int, devices: Sequence[str]) -> None:
        self._rounds = rounds
        self._states = dict.fromkeys(devices, "not seen yet")
        self._selected: Mapping[str, int] = {}
        self._accuracies: Mapping[str, float] = {}
        self._stage = ""
        self._last: Mapping[str, Any] | None = None
        self._notes: list[str] = []

    def stage(self, text: str) -> None:
        """Show the stage."""
        self._stage = text

    def device(self, name: str, state: str) -> None:
        """Show the device's state."""
        self._states[name] = state

    def round(self, record: Mapping[str, Any]) -> None:
        """Move the bar and show the round's figures."""
        self._last = record
        self._accuracies = {**self._accuracies, **(record.get("accuracies") or {})}
        self._selected = record.get("selected") or {}

    def note(self, text: str) -> None:
        """Show the note below; the last few stay."""
        self._notes = [*self._notes, text][-NOTES:]

    def __rich__(self) -> Group:
        done = int(self._last["round"]) if self._last else 0
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            Text(self._stage, "bold"), ProgressBar(self._rounds, done, width=30), Text(f"round {done}/{self._rounds}")
        )
        facts = Text("   ".join(_facts(self._last, len(self._states))) if self._last else "", "cyan")
        notes = [Text(note, "yellow", no_wrap=True, overflow="ellipsis") for note in self._notes]
        return Group(bar, facts, self._fleet(), *notes)

    def _fleet(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("device", no_wrap=True, max_width=20)
        table.add_column("accuracy", justify="right")
        table.add_column("selected", justify="right")
        table.add_column("state", no_wrap=True, max_width=34)
        for name, state in self._states.items():
            style = STATE_STYLES.get(state.partition(" ")[0], "")
            count = self._selected.get(name)
            table.add_row(
                Text(name), _percent(self._accuracies.get(name)), str(count) if count else MISSING, Text(state, style)
            )
        return table


@contextmanager
def progress(
    rounds: int, devices: Sequence[str], plain: bool | None = None, out: TextIO | None = None
) -> Iterator[Progress]:
    """Show a run's progress for as long as the block lasts.

    Args:
        rounds: how many there will be.
        devices: their names, in the order they are shown in.
        plain: lines instead of a live picture; decided by whether `out` is a terminal when `None`; `False` insists on the picture.
        out: where to, stdout if not given.
    """
    out = out or sys.stdout
    console = Console(file=out, force_terminal=True if plain is False else None)
    if plain or (plain is None and not console.is_terminal):
        yield PlainProgress(rounds, devices, out)
        return
    live = LiveProgress(rounds, devices)
    with Live(live, console=console, refresh_per_second=4):
        yield live


def _facts(record: Mapping[str, Any], devices: int) -> list[str]:
    """The figures of a round in a few words each."""
    facts = [f"{record['phase']:<6}", f"{record['seconds']:5.1f} s"]
    if record.get("accuracy") is not None:
        facts.append(f"accuracy {_percent(record['accuracy'])}")
    if record.get("loss") is not None:
        facts.append(f"loss {record['loss']:.3f}")
    if record.get("sent_bytes") is not None:
        facts.append(f"sent {human(record['sent_bytes'], 'bytes')} a device")
    if record.get("present", devices) < devices:
        facts.append(f"{record['present']} of {devices} present")
    if record.get("late"):
        facts.append(f"late: {', '.join(record['late'])}")
    return facts


def _percent(share: float | None) -> str:
    return MISSING if share is None else f"{100 * share:.1f} %"
