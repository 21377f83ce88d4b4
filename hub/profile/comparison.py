"""Several profiles beside each other: every one by its own figures and by its ratio to the first."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edge.wire.profile import Profile
from hub.profile.read import Shown, plain
from hub.profile.tables import (
    SILENT,
    Cell,
    Line,
    Notes,
    Part,
    Table,
    configuration,
    label,
    mebibytes,
    milliseconds,
    order,
)
from hub.table import MISSING, figure


@dataclass(frozen=True)
class Entry:
    """What is compared: one stage, or one whole step, of one profile."""

    median_seconds: float
    low_seconds: float | None
    high_seconds: float | None
    joules: float | None
    joules_why: str
    joules_kind: str
    peak_bytes: int | None
    peak_why: str


def entries(shown: Sequence[Shown]) -> dict[str, list[Entry | None]]:
    """Entries by their name, one of each profile or None; stages where two profiles or more have any, else whole steps."""
    staged = sum(bool(one.profile.stages) for one in shown) > 1
    found = [_stage_entries(one.profile) if staged else _step_entries(one.profile) for one in shown]
    order = {key: name for one in found for key, (name, _) in one.items()}
    keys = sorted(order)
    return {order[key]: [one[key][1] if key in one else None for one in found] for key in keys}


def _stage_entries(profile: Profile) -> dict[Any, tuple[str, Entry]]:
    return {
        ((row.batch, row.threads), order(row)): (
            f"{label(row)}, {configuration(row.batch, row.threads)}",
            Entry(
                row.median_seconds, row.low_seconds, row.high_seconds, row.joules, row.joules_why, row.joules_kind,
                row.peak_bytes, row.peak_why,
            ),
        )
        for row in profile.stages
    }  # fmt: skip


def _step_entries(profile: Profile) -> dict[Any, tuple[str, Entry]]:
    several = len({step.key[0] for step in profile.steps}) > 1
    return {
        row.key: (
            f"{plain(row.model) + ', ' if several else ''}{plain(row.cut, 30)} {plain(row.kind)}, {configuration(row.batch, row.threads)}",
            Entry(row.median_seconds, None, None, row.joules, row.joules_why, "", row.peak_bytes, row.peak_why),
        )
        for row in profile.steps
    }


ABSENT = "not measured there"


def table(shown: Sequence[Shown]) -> Table | None:
    """Every profile beside the first; None where no two have anything in common."""
    found = {name: row for name, row in entries(shown).items() if row[0] and sum(one is not None for one in row) > 1}
    if not found:
        return None
    notes, heads = Notes(), []
    groups = [(one.name, 3 if place == 0 else 5) for place, one in enumerate(shown)]
    for place in range(len(shown)):
        heads += [("median", "ms"), ("energy", "mJ"), ("peak", "MiB")]
        if place:
            heads += [("time", "times the first"), ("energy", "times the first")]
    lines = [Line(name, _compared(row, notes)) for name, row in found.items()]
    return Table("", groups, heads, [Part("", lines)], notes)


def _compared(row: Sequence[Entry | None], notes: Notes) -> list[Cell]:
    first, cells = row[0], []
    for place, entry in enumerate(row):
        if entry is None:
            cells += [notes.missing(ABSENT)] + [Cell(MISSING)] * 4
            continue
        joules = Cell(MISSING, notes.mark(entry.joules_why or SILENT)) if entry.joules is None else Cell(figure(1e3 * entry.joules), remark=plain(entry.joules_kind))  # fmt: skip
        cells += [Cell(milliseconds(entry.median_seconds)), joules, mebibytes(entry.peak_bytes, entry.peak_why, notes)]
        if place and first:
            cells += [_time_ratio(entry, first, notes), _energy_ratio(entry, first, notes)]
    return cells


def _time_ratio(entry: Entry, first: Entry, notes: Notes) -> Cell:
    if not first.median_seconds:
        return notes.missing("the first took no time that its clock shows")
    text = figure(entry.median_seconds / first.median_seconds)
    if entry.low_seconds is None or entry.high_seconds is None or not first.low_seconds or not first.high_seconds:
        return Cell(text)
    low, high = entry.low_seconds / first.high_seconds, entry.high_seconds / first.low_seconds
    return Cell(text, remark=f"{figure(low)} … {figure(high)}")


def _energy_ratio(entry: Entry, first: Entry, notes: Notes) -> Cell:
    if entry.joules is None or not first.joules:
        return notes.missing("no ratio without joules of both")
    cell = figure(entry.joules / first.joules)
    if entry.joules_kind != first.joules_kind:
        return Cell(cell, notes.mark("the two are not of one class"))
    return Cell(cell)


UNLIKE: dict[str, Callable[[Profile], Any]] = {
    "bundle": lambda profile: profile.conditions.get("bundle"),
    "data": lambda profile: profile.conditions.get("data"),
    "codec": lambda profile: sorted({stage.codec for stage in profile.stages if stage.codec}),
    "version of onnxruntime": lambda profile: profile.board.get("onnxruntime"),
    "version of cutlayer": lambda profile: profile.conditions.get("cutlayer"),
}


def unlike(shown: Sequence[Shown]) -> list[str]:
    """What else than the board differs between profiles, so that it is not only boards that are compared."""
    return [name for name, of in UNLIKE.items() if len({str(of(one.profile)) for one in shown}) > 1]
