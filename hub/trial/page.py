"""A trial's page, trial.html: link and training on one time axis, the table, and how it was done."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib as mpl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hub.drawing import DARK, FONTS, GRID, INK, LIGHT, MUTED, SERIES, SHADE, STYLE, WIDE, Drawing, drawing_of, legend
from hub.table import unit_of
from hub.trial.report import Found, lay_out, summary

NAME = "trial.html"
UP, DOWN, GONE, LATE = SERIES[0], SERIES[1], SERIES[1], SERIES[3]
LINE, BAR = 0.23, 0.62
"""Inches of a device's line, and the share of it that is drawn."""


def write(found: Found) -> Path:
    """Write the page into the trial's folder; returns its path. The same folder gives the same bytes."""
    environment = Environment(
        loader=FileSystemLoader([Path(__file__).parent, Path(__file__).parents[1]]),  # the hub's style sheet
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sheet = lay_out(found)
    # The texts in the plot went through matplotlib's XML escaping.
    svg = Markup(timeline(found).in_page("timeline"))  # noqa: S704
    text = environment.get_template("report.html.j2").render(
        title=f"Trial on {found.facts['scenario']}",
        summary=summary(found),
        svg=svg,
        sheet=sheet,
        facts=_facts(found),
        files=found.log.configuration,
        compared=found.against is not None,
        light=LIGHT,
        dark=DARK,
        fonts=FONTS,
    )
    path = found.folder / NAME
    path.write_text(text, "utf-8")
    return path


@dataclass(frozen=True)
class Panel:
    """One plot of the column: its height in inches, and what draws it."""

    inches: float
    draw: Callable[[Axes, Found], None]


def timeline(found: Found) -> Drawing:
    """Link above, training below, over the seconds since the links opened."""
    lines = min(6.0, LINE * len(found.devices))
    panels = [
        Panel(1.5, _delivered),
        Panel(0.3 + lines, _outages),
        Panel(1.7, _accuracy),
        Panel(0.3 + lines, _taking_part),
    ]
    if any(second[way]["rate"] is not None for second in found.seconds for way in ("up", "down")):
        panels.insert(0, Panel(1.0, _rate))
    with mpl.rc_context(STYLE):
        heights = [panel.inches for panel in panels]
        # Room for a key above each, and for the axis below the last.
        figure = Figure(figsize=(WIDE, sum(heights) + 0.45 * len(panels) + 0.3), layout="constrained")
        figure.patch.set_visible(False)
        axes = figure.subplots(len(panels), 1, sharex=True, gridspec_kw={"height_ratios": heights}, squeeze=False)
        for panel, (one,) in zip(panels, axes, strict=True):
            one.patch.set_visible(False)
            panel.draw(one, found)
        last = axes[-1][0]
        last.set_xlim(0, end_of(found))
        last.set_xlabel("seconds since the links opened")
        last.xaxis.set_major_locator(MaxNLocator(nbins=12))
        figure.align_ylabels()
        return drawing_of(figure)


def end_of(found: Found) -> float:
    """Where the time axis ends."""
    return float(max([second["seconds"] for second in found.seconds] + [found.training[1], 1.0]))


def by_second(found: Found, value: Callable[[Mapping[str, Any]], float | None]) -> tuple[list[float], list[float]]:
    """The ends of the seconds, and the sum of a value over the devices in each; NaN where no device has it."""
    times, sums = [], []
    for at, records in groupby(found.seconds, key=lambda second: second["seconds"]):
        known = [one for record in records if (one := value(record)) is not None]
        times.append(float(at))
        sums.append(sum(known) if known else math.nan)
    return times, sums


def _rate(axes: Axes, found: Found) -> None:
    devices = len(found.devices)
    series = {way: by_second(found, lambda second, way=way: second[way]["rate"]) for way in ("up", "down")}  # type: ignore[misc]
    largest = max((v for _, values in series.values() for v in values if not math.isnan(v)), default=0.0) / devices
    size, unit = next(((s, u) for s, u in ((1e6, "Mbit/s"), (1e3, "kbit/s")) if largest >= s), (1.0, "bit/s"))
    for (way, (times, values)), colour in zip(series.items(), (UP, DOWN), strict=True):
        means = [value / devices / size for value in values]
        axes.step([0.0, *times], [*means[:1], *means], where="pre", color=colour, lw=1.6, label=f"link's rate {way}")
    axes.set_ylabel(f"{unit}\na device")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
    legend(axes)


def _delivered(axes: Axes, found: Found) -> None:
    series = {way: by_second(found, lambda second, way=way: second[way]["delivered_bytes"]) for way in ("up", "down")}  # type: ignore[misc]
    size, unit = unit_of("bytes", [value for _, values in series.values() for value in values])
    for (way, (times, values)), colour in zip(series.items(), (UP, DOWN), strict=True):
        scaled = [value / size for value in values]
        axes.step([0.0, *times], [*scaled[:1], *scaled], where="pre", color=colour, lw=1.4, label=f"delivered {way}")
    axes.set_ylabel(f"{unit} a second,\nall devices")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    legend(axes)


def _outages(axes: Axes, found: Found) -> None:
    for line, name in enumerate(found.devices):
        _bars(axes, line, found.outages(name), GONE, "the link is gone" if line == 0 else "")
        _bars(
            axes, line, found.offline(name), INK, "the hub takes the device for gone" if line == 0 else "", height=0.2
        )
    _devices(axes, found)


def _accuracy(axes: Axes, found: Found) -> None:
    for one in found.rounds:
        axes.axvline(one.span[1], color=GRID, lw=0.8, zorder=0)
    other = found.against
    if other:
        # As if both had begun to train at the same moment.
        shift = found.training[0] - other.training[0]
        points = [(r.span[1] + shift, 100 * r.accuracy) for r in other.rounds if r.accuracy is not None]
        points = [(x, y) for x, y in points if x <= end_of(found)]
        axes.plot(*_columns(points), color=MUTED, lw=1.2, ls=(0, (5, 3)), label="on a link without faults")
    points = [(one.span[1], 100 * one.accuracy) for one in found.rounds if one.accuracy is not None]
    axes.plot(*_columns(points), color=SERIES[2], lw=1.8, marker="o", ms=3.5, label="accuracy at the end of a round")
    if not points:
        axes.text(0.5, 0.5, "never evaluated", transform=axes.transAxes, ha="center", color=MUTED)
    else:
        legend(axes)
    axes.set_ylabel("accuracy, %")
    axes.set_ylim(0, 100)


def _taking_part(axes: Axes, found: Found) -> None:
    for line, name in enumerate(found.devices):
        first = line == 0
        here = [one.span for one in found.rounds if name in one.took_part]
        late = [one.span for one in found.rounds if name in one.late]
        away = [one.span for one in found.rounds if name not in one.took_part | one.late]
        _bars(axes, line, here, SERIES[2], "took part in the round" if first else "", edge=True)
        _bars(axes, line, away, SHADE, "not in the round" if first else "", edge=True)
        _bars(axes, line, late, LATE, "given up as late" if first else "", height=0.3)
    _devices(axes, found)
    # A number where it has room: 2 % of the width since the last one.
    room, last = 0.02 * end_of(found), -1.0
    for one in found.rounds:
        middle = sum(one.span) / 2
        if middle - last < room:
            continue
        last = middle
        axes.annotate(
            str(one.number), (middle, 1), (0, 1), xycoords=("data", "axes fraction"),
            textcoords="offset points", ha="center", va="bottom", fontsize=7, color=MUTED,
        )  # fmt: skip


def _bars(
    axes: Axes,
    line: int,
    spans: Sequence[tuple[float, float]],
    colour: str,
    label: str,
    *,
    height: float = BAR,
    edge: bool = False,
) -> None:
    bars = [(start, end - start) for start, end in spans]
    # Without a bar the key still says what its colour would mean.
    axes.broken_barh(
        bars,
        (line - height / 2, height),
        facecolors=colour,
        edgecolors=GRID,
        lw=0.6 if edge else 0,
        label=label or None,
    )


def _devices(axes: Axes, found: Found) -> None:
    every = 1 + (len(found.devices) - 1) // 30
    axes.set_ylim(len(found.devices) - 0.4, -0.6)
    axes.set_yticks(range(0, len(found.devices), every), found.devices[::every])
    axes.grid(visible=False)
    above = 1 + 0.5 / len(found.devices)  # half a line, for the numbers of the rounds
    axes.legend(loc="lower left", bbox_to_anchor=(0, above), ncols=3, columnspacing=1.4)


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _facts(found: Found) -> list[tuple[str, str]]:
    facts = found.facts
    told = {
        "scenario": f"{facts['scenario']}, seed {facts['seed']}",
        "source": facts["source"],
        "links": facts["how"],
        "congestion control": facts["congestion"],
        "broker": facts["broker"],
        "training's seed": facts["training_seed"],
        "deadlines": ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in facts["deadlines"].items()),
        "hub": found.log.run.get("machine"),
    }
    return [(key, _words(value)) for key, value in told.items() if value is not None]


def _words(value: Any) -> str:
    return ", ".join(f"{key} {part}" for key, part in value.items()) if isinstance(value, Mapping) else str(value)
