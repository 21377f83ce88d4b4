"""The C3-Score as bars: what a method reached, and what its bytes and its operations take away from that."""

import matplotlib as mpl

from hub.drawing import MUTED, SERIES, STYLE, WIDE, Drawing, canvas, drawing_of, legend, names_axis
from hub.runlog import RunLog
from hub.summary import Budgets, Row, moved


def c3_bars(log: RunLog, width: float = WIDE) -> Drawing | None:
    """A bar as long as the accuracy for every row that has a score, the run's own on top.

    Nothing for a row alone: there is nothing to compare it with, and against budgets that are its own figures its score
    says no more than its accuracy.
    """
    rows, budgets = log.scored()
    bars = [(row.method, *_parts(row, row.c3, budgets)) for row in rows if row.c3 is not None]
    if rows[0].c3 is None or len(bars) < 2:
        return None
    names, scores, by_bytes, by_flops = zip(*bars, strict=True)
    lines = range(len(bars))
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure, axes = canvas(width, 0.9 + 0.36 * len(bars))
        axes.barh(lines, scores, height=0.62, color=SERIES[0], label="C3-Score")
        ends = list(scores)
        for taken, colour, label in (
            (by_bytes, SERIES[1], "taken away for bytes"),
            (by_flops, SERIES[3], "taken away for operations"),
        ):
            axes.barh(lines, taken, left=ends, height=0.62, color=colour, alpha=0.45, label=label)
            ends = [end + part for end, part in zip(ends, taken, strict=True)]
        for line, score, accuracy in zip(lines, scores, ends, strict=True):
            axes.text(accuracy + 0.01, line, f"{score:.3f}", va="center", fontweight="bold")
            axes.text(accuracy + 0.068, line, f"of accuracy {accuracy:.3f}", va="center", color=MUTED)
        names_axis(axes, names)
        axes.set(
            xlim=(0, 1.2), xticks=[i / 5 for i in range(6)], xlabel="C3-Score; the whole bar is the accuracy, 0 to 1"
        )
        legend(axes)
        return drawing_of(figure)


def _parts(row: Row, score: float, budgets: Budgets) -> tuple[float, float, float]:
    """The score, and what bytes and operations took away from the accuracy: each by its share of the exponent."""
    used_bytes, used_flops = _share(moved(row), budgets.bytes), _share(row.client_flops, budgets.flops)
    taken = (row.accuracy_last or 0.0) - score
    for_bytes = taken * used_bytes / (used_bytes + used_flops) if taken else 0.0
    return score, for_bytes, taken - for_bytes


def _share(used: float | None, limit: float | None) -> float:
    return used / limit if used and limit else 0.0
