"""How the report's plots look, and how a matplotlib figure becomes an SVG: inside a page in the page's colours, or alone in a file."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from hub.runlog import RunLog

# Colours nobody would choose, each a stand-in for a variable of the page's style sheet: the page turns dark, the plots with it.
INK, MUTED, GRID, SHADE = "#010203", "#040506", "#070809", "#0a0b0c"
SERIES = ("#100001", "#100002", "#100003", "#100004")
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    SHADE: "--shade",
    **{colour: f"--series-{i + 1}" for i, colour in enumerate(SERIES)},
}
LIGHT = {
    "--page": "#ffffff",
    "--ink": "#1b1f24",
    "--muted": "#57606a",
    "--grid": "#e4e7eb",
    "--shade": "#f1f3f6",
    "--series-1": "#0072b2",
    "--series-2": "#d55e00",
    "--series-3": "#00855f",
    "--series-4": "#b65d94",
}
"""What the variables are on a light page and in a file of its own; the series follow Okabe and Ito, safe for the colour-blind."""
DARK = {
    "--page": "#14171b",
    "--ink": "#e8eaed",
    "--muted": "#a2abb5",
    "--grid": "#2b3138",
    "--shade": "#1d2229",
    "--series-1": "#56b4e9",
    "--series-2": "#ff9248",
    "--series-3": "#3fcf9f",
    "--series-4": "#e7a1cb",
}
FONTS = 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif'
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
MARGIN = 8
"""Points around a plot in a file of its own."""
DASHES = (0, (5, 3))


def shade_local(axes: Axes, log: RunLog, *, name_below: bool = False, named: bool = True) -> None:
    """A grey ground behind the rounds of the local phase, named at its top, or below where curves start at the top."""
    height, side = (0.015, "bottom") if name_below else (0.985, "top")
    top = axes.get_xaxis_transform()
    for first, last in _spans([r["round"] for r in log.rounds if r.get("phase") == "local"]):
        axes.axvspan(first - 0.5, last + 0.5, color=SHADE, lw=0, zorder=0)
        axes.annotate(
            "local phase" if named else "",
            (first - 0.5, height),
            (3, 0),
            xycoords=top,
            textcoords="offset points",
            va=side,
            color=MUTED,
            fontsize=8,
        )


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


def amount_axis(axes: Axes, largest: float, own: float) -> None:
    """What was spent on x: from 0, or logarithmic where the references would press this run against the left edge."""
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


def legend(axes: Axes) -> None:
    """The key above the plot, where no curve can run into it, in as many columns as there is room for."""
    _, labels = axes.get_legend_handles_labels()
    room = axes.figure.bbox.width / axes.figure.dpi - 0.9
    columns = next((n for n in range(len(labels), 1, -1) if _width(labels, n) <= room), 1)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.02), ncols=columns, columnspacing=1.4)


def _width(labels: Sequence[str], columns: int) -> float:
    """Inches of a key, roughly: 0.062 a letter and 0.42 for line and space; filled column by column, the first the fullest."""
    lengths = list(map(len, labels))
    lines, longer = divmod(len(labels), columns)
    starts = [column * lines + min(column, longer) for column in range(columns + 1)]
    return sum(0.42 + 0.062 * max(lengths[first:end]) for first, end in pairwise(starts))


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of that many inches with one plot, no ground of its own; no pyplot, no state that outlives it."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.subplots()
    axes.patch.set_visible(False)
    return figure, axes


@dataclass(frozen=True)
class Drawing:
    """A plot as matplotlib wrote it, its colours still stand-ins."""

    svg: str
    wide: bool

    def in_page(self, name: str) -> str:
        """An `<svg>` element: ids that are unique in the page by the plot's name, colours and letters of the page, no header."""
        svg = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", self.svg)
        svg = re.sub(r'\bid="', f'id="{name}-', svg)
        svg = re.sub(r'href="#', f'href="#{name}-', svg).replace("url(#", f"url(#{name}-")
        svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # it would hold for the whole page
        svg = re.sub(
            r'^<svg width="[^"]*" height="[^"]*"', f'<svg class="{"wide" if self.wide else "half"}" role="img"', svg
        )
        return _coloured(svg, {colour: f"var({variable})" for colour, variable in VARIABLES.items()})

    def alone(self) -> str:
        """A file that can be read by itself: the colours of the light page on its white ground."""
        width, height = map(float, re.findall(r'viewBox="0 0 (\S+) (\S+)"', self.svg)[0])
        size = f"{width + 2 * MARGIN:g}pt", f"{height + 2 * MARGIN:g}pt"
        box = f"{-MARGIN} {-MARGIN} {width + 2 * MARGIN:g} {height + 2 * MARGIN:g}"
        fonts = FONTS.replace('"', "'")
        svg = (
            '<?xml version="1.0" encoding="utf-8"?>\n'
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" version="1.1" '
            f'width="{size[0]}" height="{size[1]}" viewBox="{box}" font-family="{fonts}">\n'
            f'<rect x="{-MARGIN}" y="{-MARGIN}" width="100%" height="100%" fill="{LIGHT["--page"]}"/>'
            f"{self.svg.partition('>')[2]}"
        )
        return _coloured(svg, {colour: LIGHT[variable] for colour, variable in VARIABLES.items()})


def drawing_of(figure: Figure) -> Drawing:
    """The figure as text, without a date or anything else that another run of the same program would write differently."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = text.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    return Drawing(svg, wide=figure.get_figwidth() == WIDE)


def _coloured(svg: str, colours: Mapping[str, str]) -> str:
    for stand_in, colour in colours.items():
        svg = svg.replace(stand_in, colour)
    return svg
