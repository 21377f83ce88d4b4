"""The plot of `budget`: an SVG file, made of recorded rows; the same rows give the same bytes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from benchmarks import runs
from benchmarks.budget_rows import CURVE, METHODS, TASKS, UNCOMPRESSED
from benchmarks.papers_plots import STYLE, colour_of, grid, plain_numbers
from benchmarks.results import Row, Run
from benchmarks.runs import by_method, mean, moved

FILE = "budget.svg"
WHAT = "Accuracy after the last round against kB a device sent and received; the line joins the budgets"


def write(measured: Sequence[Run], folder: Path) -> None:
    """Draw it into the folder: a panel a task, and one with the names."""
    drawn = {task.title: runs.last_rows(measured, task.name, list(METHODS), task.rounds)[0] for task in TASKS}
    known = {title: rows for title, rows in drawn.items() if rows}
    with mpl.rc_context(STYLE):
        figure, axes = grid(len(known) + 1, 2, 3.6)
        for (title, rows), panel in zip(known.items(), axes, strict=False):
            _task(panel, {group[0]["method"]: group for group in by_method(rows)})
            panel.set(xscale="log", title=title, xlabel="kB a device, sent and received", ylabel="accuracy, %")
            plain_numbers(panel, (1, 3))
        axes[len(known)].set_axis_off()
        axes[len(known)].legend(handles=_names(), loc="center", frameon=False, ncols=1, fontsize=8)
        figure.savefig(folder / FILE, metadata={"Date": None}, bbox_inches="tight")


def _task(panel: Axes, groups: Mapping[str, Sequence[Row]]) -> None:
    curve = sorted(_place(groups[name]) for name in CURVE if name in groups)
    panel.plot([x for x, _ in curve], [y for _, y in curve], color=_colour(UNCOMPRESSED), lw=1)
    if UNCOMPRESSED in groups:
        panel.axhline(_place(groups[UNCOMPRESSED])[1], color=_colour(UNCOMPRESSED), lw=0.8, ls=(0, (5, 3)))
    for number, name in enumerate(METHODS, 1):
        if name in groups:
            x, y = _place(groups[name])
            panel.plot(x, y, marker=f"${number}$", ms=8 if number < 10 else 11, color=_colour(name), ls="none")


def _place(group: Sequence[Row]) -> tuple[float, float]:
    """Bytes in kB, and accuracy in percent."""
    return moved(group) / 1e3, 100 * mean(group, "accuracy_last")


def _colour(name: str) -> str:
    method = METHODS[name].trained
    return "black" if method.codec.endswith(("topk:0.1", "topk:0.03")) else colour_of(method.strategy)


def _names() -> list[Line2D]:
    return [
        Line2D([], [], color=_colour(name), marker=f"${number}$", ms=8 if number < 10 else 11, ls="none", label=name)
        for number, name in enumerate(METHODS, 1)
    ]
