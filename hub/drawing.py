"""How the report's plots look, and how a matplotlib figure becomes an `<svg>` that takes its colours from the page's style sheet."""

import io
import re
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from hub.runlog import RunLog

# Colours nobody would choose, each a stand-in for a variable of the page's style sheet: the page turns dark, the plots with it. The series follow Okabe and Ito, safe for the colour-blind.
INK, MUTED, GRID, SHADE = "#010203", "#040506", "#070809", "#0a0b0c"
SERIES = ("#100001", "#100002", "#100003", "#100004")
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    SHADE: "--shade",
    **{colour: f"--series-{i + 1}" for i, colour in enumerate(SERIES)},
}
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "cutlayer",
    "text.parse_math": False,  # a device may be called "$1$"
    "font.size": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "ytick.major.size": 0,
    "text.color": INK,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "legend.handlelength": 1.4,
    "legend.borderpad": 0,
    "legend.borderaxespad": 0.2,
}
WIDE, HALF = 10.0, 4.9
"""Inches: the page's width and half of it."""
DASHES = (0, (5, 3))


def shade_local(axes: Axes, log: RunLog, *, name_below: bool = False) -> None:
    """A grey ground behind the rounds of the local phase, named at its top, or below where curves start at the top."""
    height, side = (0.015, "bottom") if name_below else (0.985, "top")
    top = axes.get_xaxis_transform()
    for first, last in _spans([r["round"] for r in log.rounds if r.get("phase") == "local"]):
        axes.axvspan(first - 0.5, last + 0.5, color=SHADE, lw=0, zorder=0)
        axes.text(first - 0.3, height, "local phase", transform=top, va=side, color=MUTED, fontsize=8)


def _spans(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """First and last of each unbroken stretch of rounds."""
    firsts = [n for n in numbers if n - 1 not in numbers]
    lasts = [n for n in numbers if n + 1 not in numbers]
    return list(zip(firsts, lasts, strict=True))


def rounds_axis(axes: Axes, log: RunLog) -> None:
    """Rounds from the first to the last on x, whole numbers only."""
    last = max((r["round"] for r in log.rounds), default=1)
    first = min((r["round"] for r in log.rounds), default=1)
    axes.set_xlim(first - 0.5, last + 0.5)
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10, steps=[1, 2, 5, 10]))


def bytes_axis(axes: Axes, largest: float, own: float) -> None:
    """From 0, or logarithmic where the references would press this run against the left edge."""
    if largest < 4 * own:
        axes.set_xlim(left=0)
        return
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def names_axis(axes: Axes, names: Sequence[str]) -> None:
    """Devices on y, the first on top; of a large fleet not every one is named."""
    every = 1 + (len(names) - 1) // 40
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(range(0, len(names), every), names[::every])


def height_for(names: Sequence[str], margin: float) -> float:
    """Inches for one line a device; a large fleet is pressed together."""
    return margin + min(8.0, 0.23 * len(names))


def legend(axes: Axes, columns: int = 6) -> None:
    """The key above the plot, where no curve can run into it."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.02), ncols=columns, columnspacing=1.4)


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of that many inches with one plot, no ground of its own; no pyplot, no state that outlives it."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.subplots()
    axes.patch.set_visible(False)
    return figure, axes


def svg_of(figure: Figure, name: str) -> str:
    """The figure as an `<svg>` element: ids that are unique in the page, colours of the page, no header, no metadata."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = text.getvalue()
    width = "wide" if figure.get_figwidth() == WIDE else "half"
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", svg)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg).replace("url(#", f"url(#{name}-")
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # it would hold for the whole page
    svg = re.sub(r'^<svg width="[^"]*" height="[^"]*"', f'<svg class="{width}" role="img"', svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg
