"""The result table as text: one line a method, as many blocks as the width asks for, and a legend that says how each figure was obtained.

`Sheet` and `printed` are those of a trial's table, too (trial/report.py).

A figure that is missing prints as a dash with a footnote that gives the reason; it is never 0. Reference rows, which this run's devices did not measure, carry a dagger and their source.
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from rich.console import Group
from rich.table import Table
from rich.text import Text

from edge.memory_link import SOURCE
from hub.summary import Budgets, Row, budgets_of, c3_score, score, summarise

__all__ = [
    "COLUMNS",
    "Budgets",
    "Row",
    "Sheet",
    "budgets_of",
    "c3_score",
    "lay_out",
    "render",
    "rich_table",
    "score",
    "summarise",
]

MISSING = "–"  # noqa: RUF001  the dash a table wants
RECORDED = "†"
MARKS = "¹²³⁴⁵⁶⁷⁸⁹"
NAME_WIDTH = 24
CELL_WIDTH = 8


@dataclass(frozen=True)
class Column:
    """A figure of `Row`: its heading, the family its unit is chosen from, its group in wide tables, and how it was obtained."""

    field: str
    heading: str
    family: str
    group: str
    how: str


# The unit of a column is the largest that leaves its largest figure at 1 or more.
FAMILIES: dict[str, tuple[tuple[float, str], ...]] = {
    "share": ((0.01, "%"),),
    "score": ((1.0, ""),),
    "bytes": ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")),
    "memory": ((2.0**20, "MiB"),),
    "flops": ((1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"), (1.0, "FLOP")),
    "seconds": ((1.0, "s"),),
    "times": ((1.0, "s"), (1e-3, "ms")),
    "count": ((1.0, ""),),
    "joules": ((1e3, "kJ"), (1.0, "J"), (1e-3, "mJ")),
    "bits": ((1.0, "bits an element"),),
    "elements": ((1e6, "million"), (1e3, "thousand"), (1.0, "")),
    "deviations": ((1.0, "std. dev."),),
}

COLUMNS = (
    Column(
        "accuracy_last",
        "last",
        "share",
        "accuracy",
        "accuracy after the last round, mean over the devices' own test sets",
    ),
    Column("accuracy_max", "max", "share", "accuracy", "the best such accuracy of any round"),
    Column("c3", "C3", "score", "", "computed from last, sent + received and client"),
    Column(
        "sent_bytes",
        "sent",
        "bytes",
        "network, a device",
        "a device's bytes on the socket with MQTT, TLS and resends, evaluation left out",
    ),
    Column(
        "received_bytes", "recv.", "bytes", "network, a device", "a device's bytes on the socket, evaluation left out"
    ),
    Column(
        "evaluation_bytes",
        "eval.",
        "bytes",
        "network, a device",
        "a device's bytes sent and received for evaluation, told apart by the device",
    ),
    Column(
        "paper_bytes",
        "paper",
        "bytes",
        "network, a device",
        "modelled as the authors of AdaSplit do: non-zero activations x 4 bytes a device",
    ),
    Column(
        "client_flops",
        "client",
        "flops",
        "compute",
        "modelled: multiply-adds of the lower segment's graphs x samples, a device",
    ),
    Column("total_flops", "total", "flops", "compute", "modelled: the same, all devices and the hub"),
    Column(
        "peak_rss_bytes", "memory", "memory", "board", "measured: peak resident memory of the largest device process"
    ),
    Column("cpu_seconds", "CPU", "seconds", "board", "measured: processor time of a device process"),
    Column("joules", "energy", "joules", "board", "a device's energy"),
    Column("seconds", "time", "seconds", "", "measured: wall clock, all rounds"),
)


SIMULATED = {
    "sent_bytes": f"{SOURCE}: a device's frames, without MQTT and TCP, which are not there, evaluation left out",
    "received_bytes": f"{SOURCE}: a device's frames, evaluation left out",
    "cpu_seconds": "measured: the thread's processor time in a device's turns",
}
"""How these were obtained where devices were simulated."""


class Headed(Protocol):
    """A column of any table."""

    @property
    def heading(self) -> str:
        """What stands above it."""
        ...


C_co = TypeVar("C_co", bound=Headed, covariant=True)


@dataclass(frozen=True)
class Block(Generic[C_co]):
    """Some columns of a table: `cells` holds a line of texts for each row."""

    columns: tuple[C_co, ...]
    units: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Sheet(Generic[C_co]):
    """A table before it is printed: names of the rows, blocks of columns, the legend and the footnotes."""

    names: tuple[str, ...]
    blocks: tuple[Block[C_co], ...]
    legend: tuple[tuple[str, str], ...]
    notes: tuple[tuple[str, str], ...]
    recorded: tuple[bool, ...] = ()
    """Of each row whether it is for reference; empty where none can be."""


def lay_out(rows: Sequence[Row], width: int = 80, budgets: Budgets | None = None) -> Sheet[Column]:
    """Choose units, texts and footnotes for a table of at most `width` characters a line; with `budgets`, the C3-Scores are worked out first."""
    rows = rows if budgets is None else score(rows, budgets)
    reasons = _reasons(rows)
    across = max(1, (width - NAME_WIDTH) // CELL_WIDTH)
    names = tuple(row.method + (f" {RECORDED}" if row.reference else "") for row in rows)
    blocks = tuple(_block(COLUMNS[i : i + across], rows, reasons) for i in range(0, len(COLUMNS), across))
    recorded = tuple(bool(row.reference) for row in rows)
    return Sheet(names, blocks, _legend(rows, budgets), _notes(rows, reasons), recorded)


def render(rows: Sequence[Row], width: int = 80, budgets: Budgets | None = None) -> str:
    """The table as plain text of at most `width` characters a line, legend and footnotes below."""
    return printed(lay_out(rows, width, budgets), "method", NAME_WIDTH, CELL_WIDTH, width)


def printed(
    sheet: Sheet[Headed], head: str, name_width: int, cell_width: int, width: int = 80, before: Sequence[str] = ()
) -> str:
    """A table as plain text, legend and footnotes below.

    Args:
        sheet: the table.
        head: what stands above the names.
        name_width: of the column of the names, in characters.
        cell_width: of every other one.
        width: where lines of words end.
        before: paragraphs that go ahead of it.
    """
    paragraphs = [*before]
    paragraphs += ["\n".join(_lines(block, sheet.names, head, name_width, cell_width)) for block in sheet.blocks]
    indent = 2 + max(len(key) for key, _ in sheet.legend)
    for pairs in (sheet.legend, sheet.notes):
        lines = [_wrapped(key, text, indent if pairs is sheet.legend else 2, width) for key, text in pairs]
        paragraphs += ["\n".join(lines)] if lines else []
    return "\n\n".join(paragraphs) + "\n"


def mark_of(number: int) -> str:
    """The footnote mark of a reason, the first one 0."""
    return MARKS[number] if number < len(MARKS) else f"({number + 1})"


def rich_table(rows: Sequence[Row], width: int = 80, budgets: Budgets | None = None) -> Group:
    """The same table for a terminal: what this run measured stands out, the reference rows are dim."""
    sheet = lay_out(rows, width, budgets)
    parts: list[Table | Text] = []
    for block in sheet.blocks:
        table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
        table.add_column("method", width=NAME_WIDTH - 1, no_wrap=True)
        for column, unit in zip(block.columns, block.units, strict=True):
            table.add_column(
                Text.assemble(column.heading, "\n", (unit, "dim not bold")),
                justify="right",
                width=CELL_WIDTH - 1,
                no_wrap=True,
            )
        for name, recorded, cells in zip(sheet.names, sheet.recorded, block.cells, strict=True):
            table.add_row(*map(Text, (_short(name, NAME_WIDTH), *cells)), style="dim" if recorded else "bold cyan")
        parts += [table, Text()]
    indent = 2 + max(len(key) for key, _ in sheet.legend)
    notes = [_wrapped(k, t, indent, width) for k, t in sheet.legend] + [
        _wrapped(k, t, 2, width) for k, t in sheet.notes
    ]
    return Group(*parts, Text("\n".join(notes), style="dim"))


def figure(value: float) -> str:
    """Three significant digits, at most three after the point; only a true nothing is "0"."""
    if value == 0:
        return "0"
    if abs(value) < 0.001:
        return "<0.001"
    decimals = min(3, max(0, 2 - math.floor(math.log10(abs(value)))))
    return f"{value:.{decimals}f}"


def unit_of(family: str, values: Sequence[float]) -> tuple[float, str]:
    """The unit in which the largest of the values reads best: its size and its name."""
    largest = max(map(abs, values), default=0.0)
    units = FAMILIES[family]
    fitting = [unit for unit in units if largest >= unit[0]]
    return fitting[0] if fitting else units[-1]


def human(value: float | None, family: str) -> str:
    """One figure with its unit, "2.15 MB", or a dash."""
    if value is None:
        return MISSING
    size, name = unit_of(family, [value])
    return f"{figure(value / size)} {name}".rstrip()


def _units(rows: Sequence[Row]) -> dict[str, tuple[float, str]]:
    """One unit for all columns of a family, so that they can be compared at a glance."""
    values: dict[str, list[float]] = {family: [] for family in FAMILIES}
    for column in COLUMNS:
        values[column.family] += [v for row in rows if (v := getattr(row, column.field)) is not None]
    return {family: unit_of(family, found) for family, found in values.items()}


def _block(columns: tuple[Column, ...], rows: Sequence[Row], reasons: dict[str, str]) -> Block[Column]:
    units = _units(rows)
    texts = [[_cell(row, column, units[column.family][0], reasons) for row in rows] for column in columns]
    empty = [all(getattr(row, column.field) is None for row in rows) for column in columns]
    names = tuple("" if none else units[column.family][1] for column, none in zip(columns, empty, strict=True))
    return Block(columns, names, tuple(zip(*texts, strict=True)))


def _cell(row: Row, column: Column, size: float, reasons: dict[str, str]) -> str:
    value = getattr(row, column.field)
    if value is None:
        return MISSING + reasons[_reason(row, column.field)]
    return f"{100 * value:.1f}" if column.family == "share" else figure(value / size)


def _reason(row: Row, name: str) -> str:
    if name == "joules":
        return row.energy_reason or row.missing.get(name, "not recorded")
    return row.missing.get(name, "not recorded")


def _reasons(rows: Sequence[Row]) -> dict[str, str]:
    """A footnote mark for every different reason, in the order they are met."""
    found = [_reason(row, column.field) for column in COLUMNS for row in rows if getattr(row, column.field) is None]
    return {reason: mark_of(number) for number, reason in enumerate(dict.fromkeys(found))}


def _legend(rows: Sequence[Row], budgets: Budgets | None) -> tuple[tuple[str, str], ...]:
    own = [row for row in rows if not row.reference] or list(rows)
    return tuple((column.heading, _how(column, own, budgets)) for column in COLUMNS)


def _how(column: Column, rows: Sequence[Row], budgets: Budgets | None) -> str:
    if column.field in SIMULATED and {row.bytes_source for row in rows} == {SOURCE}:
        return SIMULATED[column.field]
    if column.field in {"sent_bytes", "received_bytes"}:
        sources = sorted({row.bytes_source for row in rows if row.bytes_source})
        counted = [
            "counted by the kernel (TCP_INFO)" if source.endswith("TCP_INFO") else f"counted by {source}"
            for source in sources
        ]
        return f"{' and '.join(counted) or 'not counted'}: {column.how}"
    if column.field == "joules":
        known = sorted({f"{row.energy_class}, {row.energy_source}" for row in rows if row.joules is not None})
        return f"{'; '.join(known)}: {column.how}" if known else "a device's energy: not known, the footnote says why"
    if column.field == "c3" and budgets is not None and budgets.bytes is not None and budgets.flops is not None:
        limits = f"B_max {human(budgets.bytes, 'bytes')}, C_max {human(budgets.flops, 'flops')}"
        return f"{column.how}: accuracy x exp(-(B/B_max + C/C_max)/8), {limits} ({budgets.origin})"
    return column.how


def _notes(rows: Sequence[Row], reasons: dict[str, str]) -> tuple[tuple[str, str], ...]:
    missing = [(mark, reason) for reason, mark in reasons.items()]
    sources: dict[str, list[str]] = {}
    for row in rows:
        if row.reference:
            sources.setdefault(row.reference, []).append(row.method)
    recorded = [
        (RECORDED, f"for reference, not from this run's devices: {', '.join(names)} ({source})")
        for source, names in sources.items()
    ]
    words = [(row.method, text) for row in rows for text in (row.note, row.coding) if text]
    return (*recorded, *missing, *words)


def _lines(block: Block[Headed], names: Sequence[str], head: str, name_width: int, cell_width: int) -> list[str]:
    def line(name: str, cells: Sequence[str]) -> str:
        return (_short(name, name_width).ljust(name_width) + "".join(cell.rjust(cell_width) for cell in cells)).rstrip()

    heads = [line(head, [column.heading for column in block.columns])]
    if any(block.units):
        heads.append(line("", block.units))
    rule = "-" * (name_width + cell_width * len(block.columns))
    return [*heads, rule, *(line(name, cells) for name, cells in zip(names, block.cells, strict=True))]


def _short(name: str, width: int) -> str:
    """The name cut to its column, the dagger kept."""
    if len(name) < width:
        return name
    mark = f" {RECORDED}" if name.endswith(RECORDED) else ""
    return name[: width - 2 - len(mark)] + "…" + mark


def _wrapped(key: str, text: str, indent: int, width: int) -> str:
    return textwrap.fill(f"{key.ljust(indent - 1)} {text}", width, subsequent_indent=" " * indent)
