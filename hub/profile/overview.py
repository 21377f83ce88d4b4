"""What a step costs on each board of a fleet, in 80 columns; a figure that is missing is a dash with its reason below."""

import io
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edge.wire.profile import Missing, Profile, Stage
from hub.table import MISSING, figure, mark_of

WIDTH = 80
MIB = 2**20
WHOLE = "local"
"""The stage that is a whole step."""
HALVES = ("forward", "backward")
"""Those that are one together, where the hub's gradient comes between them."""


@dataclass
class _Notes:
    """Footnotes, equal ones once."""

    texts: list[str] = field(default_factory=list)

    def missing(self, why: str) -> str:
        """A dash with the mark of its reason."""
        return f"{MISSING}{self.mark(why)}"

    def mark(self, why: str) -> str:
        """Of a text."""
        text = why or "the profile does not say why"
        if text not in self.texts:
            self.texts.append(text)
        return mark_of(self.texts.index(text))


def render(found: Mapping[str, Profile], missing: Mapping[str, str]) -> str:
    """The table, its notes, and the devices without a profile."""
    notes = _Notes()
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("device", overflow="fold", max_width=12)
    table.add_column("board", overflow="ellipsis", no_wrap=True, max_width=15)
    for heading in ("batch", "thr", "step ms", "joules", "peak MiB", "headroom"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, profile in sorted(found.items()):
        for place, row in enumerate(_rows(profile, notes)):
            first = ("", "") if place else (name, _printable(profile.name))
            table.add_row(*map(Text, (*first, *row)))
    out = io.StringIO()
    if found:
        Console(file=out, width=WIDTH, color_system=None).print(table, markup=False, highlight=False)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    for number, text in enumerate(notes.texts):
        lines += _wrapped(f"{mark_of(number)} ", text)
    for name, reason in sorted(missing.items()):
        lines += _wrapped(f"no profile of {name}: ", reason)
    return "".join(f"{line}\n" for line in lines)


def _rows(profile: Profile, notes: _Notes) -> Iterator[tuple[str, ...]]:
    """A row for each batch size and number of threads."""
    rows: list[Stage | Missing] = [*profile.stages, *profile.missing]
    settings = sorted({(row.batch, row.threads) for row in rows})
    if not settings:
        yield "", "", *[notes.missing("the profile has no stages")] * 4
    for batch, threads in settings:
        stages = {s.stage: s for s in profile.stages if (s.batch, s.threads) == (batch, threads)}
        step = [stages[WHOLE]] if WHOLE in stages else [stages[name] for name in HALVES if name in stages]
        whole = WHOLE in stages or len(step) == len(HALVES)
        cells = _step(step, notes) if whole else [notes.missing(_why(profile, batch, threads))] * 2
        yield str(batch), str(threads), *cells, *_memory(profile, list(stages.values()), notes)


def _why(profile: Profile, batch: int, threads: int) -> str:
    reasons = {m.stage: m.why for m in profile.missing if (m.batch, m.threads) == (batch, threads)}
    return next((reasons[name] for name in (WHOLE, *HALVES) if name in reasons), "no step was measured")


def _step(step: list[Stage], notes: _Notes) -> list[str]:
    milliseconds = figure(1e3 * sum(stage.median_seconds for stage in step))
    joules = [stage.joules for stage in step if stage.joules is not None]
    if len(joules) < len(step):
        return [milliseconds, notes.missing(next(stage.joules_why for stage in step if stage.joules is None))]
    first = step[0]
    source = ": ".join(filter(None, (first.joules_kind, first.joules_source)))
    return [milliseconds, f"{figure(sum(joules))} {first.joules_kind}{notes.mark(source)}"]


def _memory(profile: Profile, stages: list[Stage], notes: _Notes) -> tuple[str, str]:
    peaks = [stage.peak_bytes for stage in stages if stage.peak_bytes is not None]
    if not peaks:
        cell = notes.missing(next((stage.peak_why for stage in stages if stage.peak_why), "no stage was measured"))
        return cell, cell
    peak = max(peaks)
    room = profile.conditions.get("room")
    ceilings = [*_whole(room, "total_bytes"), *_whole(room, "limit_bytes")] or [*filter(None, [profile.memory_bytes])]
    if not ceilings:
        return figure(peak / MIB), notes.missing("the memory of the board is not known")
    return figure(peak / MIB), f"{(min(ceilings) - peak) / MIB:.0f} MiB"


def _whole(record: Any, name: str) -> list[int]:
    value = record.get(name) if isinstance(record, Mapping) else None
    return [value] if type(value) is int and value > 0 else []


def _wrapped(head: str, text: str) -> list[str]:
    return textwrap.wrap(_printable(text), WIDTH, initial_indent=head, subsequent_indent="  ") or [head.rstrip()]


def _printable(text: str) -> str:
    """What devices say, without what would move a terminal's cursor."""
    return "".join(character if character.isprintable() else " " for character in text)
