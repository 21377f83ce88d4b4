"""Tables and machine facts as markdown of at most 100 columns."""

import textwrap
from collections.abc import Sequence

from benchmarks.results import Run

WIDTH = 100


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with the first column to the left and the others to the right.

    Raises:
        ValueError: it would be wider than 100 columns.
    """
    widths = [max(2, *(len(row[place]) for row in (headings, *rows))) for place in range(len(headings))]
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [_line(cells, widths) for cells in (headings, rule, *rows)]
    if len(lines[0]) > WIDTH:
        raise ValueError(f"the table has {len(lines[0])} columns; the limit is {WIDTH}")
    return "\n".join(lines)


def verdict(measured: float, at_most: float, *, unit: str = "") -> str:
    """The wanted figure beside whether it was met."""
    return f"≤ {at_most:g}{unit} {'met' if measured <= at_most else 'missed'}"


def spread(middle: float, low: float, high: float) -> str:
    """A figure with the range that most of its repeats fell into."""
    return f"{middle:.2f} ({low:.2f}–{high:.2f})"  # noqa: RUF001  the dash of a range


def paragraph(text: str) -> str:
    """Text in lines of at most 100 columns."""
    return textwrap.fill(" ".join(text.split()), WIDTH, break_long_words=False, break_on_hyphens=False)


def birth(run: Run) -> str:
    """When, where and with what a run was measured."""
    fact = run.machine
    commit = f"commit {fact['commit']}" if fact.get("commit") else "no commit"
    versions = ", ".join(f"{name} {fact[name]}" for name in ("python", "torch", "onnxruntime", "numpy") if fact[name])
    warning = f" **Not for quoting: {run.partial}.**" if run.partial else ""
    broken = "" if run.ended else " **Broken off before its end.**"
    return paragraph(
        f"Run {run.id}, {run.date}, on {fact['cpu']} ({fact['architecture']}), {fact['cores']} cores, "
        f"{fact['memory_mib'] / 1024:.1f} GiB, {fact['kernel']}, load {fact['load']} at the start; {versions}; {commit}."
        f"{warning}{broken}"
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = cells[0].ljust(widths[0])
    rest = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return "| " + " | ".join([first, *rest]) + " |"
