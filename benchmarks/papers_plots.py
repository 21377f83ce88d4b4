"""The plots of `papers`: SVG files, made of recorded rows; the same rows give the same bytes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from benchmarks import runs
from benchmarks.papers_rows import METHODS, OURS, REFERENCES, SENSITIVE, SWEEPS, TASKS
from benchmarks.results import Row, Run
from benchmarks.runs import by_method, c3, limits, mean, moved, scored

# Okabe and Ito, safe for the colour-blind.
_COLOURS = {
    "AdaSplit": "#d55e00",
    "frozen": "#cc79a7",
    "gradient": "#0072b2",
    "local": "#009e73",
    "averaging": "#555555",
}
_FAMILIES = {
    "adasplit": "AdaSplit",
    "frozen": "frozen",
    "split_learning": "gradient",
    "parallel_split_learning": "gradient",
    "splitfed": "gradient",
    "locfedmix": "gradient",
    "locsplitfed": "local",
    "one_shot": "local",
}
"""What a strategy's lower segment learns from; those not named average whole models."""
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "cutlayer",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "figure.facecolor": "white",
}
"""Of every plot."""
_DASHES = {"local only": (0, (1, 2)), "centralised": (0, (5, 3))}

PLOTS: dict[str, str] = {
    "papers-bytes.svg": "Accuracy after the last round against bytes a device sent and received",
    "papers-seconds.svg": "The same against seconds of the whole run, on a machine that did other work too",
    "papers-c3.svg": "C3-Score by task and method",
    "papers-sensitivity.svg": "Accuracy against bytes as one setting of AdaSplit changes",
}
"""Files, and what they show."""


def write(measured: Sequence[Run], folder: Path) -> None:
    """Draw all plots into the folder."""
    drawn = {task.name: runs.last_rows(measured, task.name, [*METHODS, *REFERENCES], task.rounds)[0] for task in TASKS}
    with mpl.rc_context(STYLE):
        known = {name: rows for name, rows in drawn.items() if rows}
        megabytes = _against(known, "MB a device, sent and received", lambda group: moved(group) / 1e6)
        seconds = _against(known, "wall seconds of a run", lambda group: mean(group, "seconds"))
        figures = zip(PLOTS, (megabytes, seconds, _c3(known), _sensitivity(measured)), strict=True)
        for name, figure in figures:
            figure.savefig(folder / name, metadata={"Date": None}, bbox_inches="tight")


def grid(panels: int, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels of a height in inches; places that are left over are empty."""
    lines = -(-panels // columns)
    figure = Figure(figsize=(4 * columns, height * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).flatten().tolist()
    for empty in axes[panels:]:
        empty.set_axis_off()
    return figure, axes


def _against(drawn: Mapping[str, Sequence[Row]], label: str, cost: Callable[[Sequence[Row]], float]) -> Figure:
    """Accuracy after the last round against what it cost, a panel a task."""
    figure, axes = grid(len(drawn) + 1, 3, 3.4)
    for (name, rows), panel in zip(drawn.items(), axes, strict=False):
        groups = {group[0]["method"]: group for group in by_method(rows)}
        for reference, dashes in _DASHES.items():
            if reference in groups:
                panel.axhline(100 * mean(groups[reference], "accuracy_last"), color="black", lw=0.9, ls=dashes)
        for number, method in enumerate(METHODS, 1):
            if method in groups:
                panel.plot(
                    cost(groups[method]),
                    100 * mean(groups[method], "accuracy_last"),
                    marker=f"${number}$",
                    ms=8,
                    color=_colour(method),
                    ls="none",
                )
        panel.set(xscale="log", title=_title(name), xlabel=label, ylabel="accuracy, %")
        plain_numbers(panel)
    handles = [_handle(f"${number}$", name) for number, name in enumerate(METHODS, 1)]
    handles += [Line2D([], [], color="black", lw=0.9, ls=dashes, label=name) for name, dashes in _DASHES.items()]
    axes[len(drawn)].set_axis_off()
    axes[len(drawn)].legend(handles=handles, loc="center", frameon=False, ncols=2, fontsize=8)
    return figure


def plain_numbers(panel: Axes, steps: Sequence[float] = (1, 2, 5)) -> None:
    """Plain numbers on a logarithmic axis, at these steps and their tens."""
    panel.xaxis.set_major_locator(LogLocator(subs=steps))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_locator(NullLocator())


def _handle(marker: str, name: str) -> Line2D:
    return Line2D([], [], color=_colour(name), marker=marker, ls="none", label=name)


def _colour(name: str) -> str:
    return colour_of(METHODS[name].strategy)


def colour_of(strategy: str) -> str:
    """The colour of a strategy's family."""
    return _COLOURS[_FAMILIES.get(strategy, "averaging")]


def _c3(drawn: Mapping[str, Sequence[Row]]) -> Figure:
    figure, axes = grid(len(drawn), max(1, len(drawn)), 0.8 + 0.17 * len(METHODS))
    figure.set_figwidth(2.3 * len(drawn) + 1.5)
    names = list(METHODS)
    for place, ((task, rows), panel) in enumerate(zip(drawn.items(), axes, strict=False)):
        most = limits(rows)
        for group in filter(scored, by_method(rows)):
            name, score = group[0]["method"], c3(group, most)
            panel.barh(names.index(name), score, color=_colour(name), height=0.7)
            panel.text(score + 0.01, names.index(name), f"{score:.2f}", va="center", fontsize=7)
        panel.set(
            title=_title(task).replace(", ", ",\n"), xlim=(0, 1.1), ylim=(len(names) - 0.5, -0.5), xticks=(0, 0.5, 1)
        )
        panel.set_yticks(range(len(names)), names if place == 0 else [""] * len(names))
        panel.grid(visible=False)
    return figure


def _sensitivity(measured: Sequence[Run]) -> Figure:
    groups = {
        name: group
        for sweep in SWEEPS.values()
        for group in by_method(runs.last_rows(measured, SENSITIVE.name, [OURS, *sweep.rows])[0])
        for name in [group[0]["method"]]
    }
    found = {
        key: runs.same_seeds({name: groups.get(name if method else OURS, []) for name, method in sweep.rows.items()})
        for key, sweep in SWEEPS.items()
    }
    figure, axes = grid(len(found), 3, 3.0)
    for (key, points), panel in zip(found.items(), axes, strict=False):
        places = [(moved(group) / 1e6, 100 * mean(group, "accuracy_last")) for group in points.values()]
        panel.plot(
            *zip(*places, strict=True) if places else ([], []),
            "o-" if key != "switches" else "o",
            color=_COLOURS["AdaSplit"],
            lw=1,
        )
        for name, place in zip(points, places, strict=True):
            panel.annotate(name.removeprefix(f"{key} "), place, xytext=(4, 4), textcoords="offset points", fontsize=8)
        panel.set(xscale="log", title=key, xlabel="MB a device, sent and received", ylabel="accuracy, %")
        plain_numbers(panel)
        panel.margins(x=0.2, y=0.2)
    return figure


def _title(name: str) -> str:
    return next(task.title for task in TASKS if task.name == name)
