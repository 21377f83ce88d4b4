"""The tables of `budget`, at most 100 columns wide, from recorded rows and nothing else."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks import markdown, runs
from benchmarks.budget_plots import FILE, WHAT
from benchmarks.budget_rows import METHODS, TASKS, UNCOMPRESSED
from benchmarks.papers_rows import SEQUENTIAL
from benchmarks.papers_tables import percent, sizes
from benchmarks.results import Row, Run
from benchmarks.runs import LACKING, by_method, mean, moved, same_seeds


@dataclass(frozen=True)
class Wish:
    """Accuracy that is to be reached for a part of another method's bytes."""

    method: str
    points: float
    """How much less accurate it may be, percent points."""
    part: int
    title: str
    heading: str


WISHES = (
    Wish(UNCOMPRESSED, 0.5, 30, "uncompressed AdaSplit's", "to uncompr."),
    Wish(SEQUENTIAL, 1.0, 500, "sequential split learning's", "to seq. SL"),
)


def tables(measured: Sequence[Run], words: Sequence[str]) -> str:
    """After the words and the plot, for each task a table and what was wanted; the overshoot of all; the sources."""
    parts = [*(markdown.paragraph(part) for part in words), f"![{WHAT}]({FILE})"]
    sources: dict[str, Run] = {}
    every: list[Row] = []
    for task in TASKS:
        rows, from_ = runs.last_rows(measured, task.name, list(METHODS), task.rounds)
        if rows:
            groups = {group[0]["method"]: group for group in by_method(rows)}
            parts += [f"## {task.title}", sizes(rows), _table(groups), *_wanted(groups)]
            sources |= {run.id: run for run in from_}
            every += rows
    parts += [markdown.paragraph(_overshoot(every)), "## Where the rows come from"]
    parts += [markdown.birth(replace(source, partial="", ended=True)) for source in sources.values()]
    return "\n\n".join(parts)


def _table(groups: Mapping[str, Sequence[Row]]) -> str:
    heads = ["method, kB", "n", "last %", "sent", "recv.", "budget", "wire", "samples", "over"]
    return markdown.table(heads, [_line(group) for group in groups.values()])


def _line(group: Sequence[Row]) -> list[str]:
    cells = [group[0]["method"], str(len(group)), percent(group, "accuracy_last")]
    cells += [_kilobytes(mean(group, key)) for key in ("sent_bytes", "received_bytes")]
    if "budget" not in group[0]:
        return [*cells, *[LACKING] * 4]
    cells += [_kilobytes(mean(group, "budget")), _kilobytes(max(row["wire_bytes"] for row in group))]
    return [*cells, f"{mean(group, 'samples'):.0f}", str(_over(group))]


def _kilobytes(amount: float) -> str:
    return f"{amount / 1e3:.1f}" if amount < 1e5 else f"{amount / 1e3:.0f}"


def _over(rows: Sequence[Row]) -> int:
    """Runs in which a device spent more than it had."""
    return sum(bool(row.get("over")) for row in rows)


def _overshoot(rows: Sequence[Row]) -> str:
    limited = [row for row in rows if "budget" in row]
    return f"Overshoot: {_over(limited)} of {len(limited)} runs with a budget (wanted: 0)." if limited else ""


def _wanted(groups: Mapping[str, Sequence[Row]]) -> list[str]:
    """A table of differences and multiples for what of the wanted methods is there, and which rows met it."""
    wishes = [wish for wish in WISHES if wish.method in groups]
    if not wishes:
        return []
    heads = ["method", *(part for wish in wishes for part in (wish.heading, "bytes", "wanted"))]
    lines = [
        [name, *(cell for wish in wishes for cell in _compared(group, groups[wish.method], wish))]
        for name, group in groups.items()
    ]
    told = " ".join(_told(wish, groups) for wish in wishes)
    return [
        markdown.paragraph(
            f"Wanted: {told} Bytes are sent and received. Points are differences of the same seeds, their mean and ± their deviation; "
            "met is said of the means, whatever the deviation."
        ),
        markdown.table(heads, lines),
    ]


def _told(wish: Wish, groups: Mapping[str, Sequence[Row]]) -> str:
    asked = f"{wish.title} accuracy (within {wish.points:g} points) at 1/{wish.part} of its bytes"
    others = {name: group for name, group in groups.items() if name != wish.method}
    met = [name for name, group in others.items() if _met(group, groups[wish.method], wish)]
    return f"{asked}: {'met by ' + '; '.join(met) if met else 'missed by all'}."


def _met(group: Sequence[Row], other: Sequence[Row], wish: Wish) -> bool:
    points, part = compare(group, other)
    return bool(points) and statistics.fmean(points) >= -wish.points and part >= wish.part


def _compared(group: Sequence[Row], other: Sequence[Row], wish: Wish) -> list[str]:
    points, part = compare(group, other)
    if not points or group is other:
        return [LACKING] * 3
    deviation = f" ± {statistics.stdev(points):.1f}" if len(points) > 1 else ""
    verdict = "met" if _met(group, other, wish) else "missed"
    return [
        f"{statistics.fmean(points):+.1f}{deviation}",
        f"1/{part:.0f}" if part >= 1 else f"x {1 / part:.1f}",
        verdict,
    ]


def compare(group: Sequence[Row], other: Sequence[Row]) -> tuple[list[float], float]:
    """Of the seeds that both have: percent points that the one is above the other, and how many times the other's bytes are its own."""
    both = same_seeds({"ours": group, "theirs": other})
    if len(both) < 2:
        return [], 0.0
    theirs = {row["seed"]: row["accuracy_last"] for row in both["theirs"]}
    points = [100 * (row["accuracy_last"] - theirs[row["seed"]]) for row in both["ours"]]
    return points, moved(both["theirs"]) / moved(both["ours"])
