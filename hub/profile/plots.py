"""What a profile measured, drawn. Every function gives None where there is nothing to draw."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from edge.wire.profile import Profile, Share, Stage
from hub.drawing import DASHES, GRID, HALF, INK, MUTED, SERIES, STYLE, WIDE, Drawing, canvas, drawing_of, legend
from hub.profile.comparison import Entry, entries
from hub.profile.facts import threads_of
from hub.profile.read import Shown, course, items, memory, number, plain, words
from hub.profile.tables import asked_for, configuration, configurations, label, milliseconds, order, peaks, rank
from hub.table import figure as digits
from hub.table import human

TOP = 8
"""Operators of a graph that have a bar of their own."""
MOST_ROWS = 40
"""Lines of a drawing; beyond, the slowest."""
BAR = 0.8
"""Share of a line that its bars fill."""
NEAR = 30.0
"""Degrees above the highest temperature up to which a threshold is drawn."""


@dataclass(frozen=True)
class Bars:
    """What the bars of the stages show: the axis, how long a bar is with its whisker down and up, and the word for none."""

    axis: str
    of: Callable[[Stage], tuple[float, float, float] | None]
    absent: str


def _time(row: Stage) -> tuple[float, float, float]:
    (down,), (up,) = _whiskers([row])
    return 1e3 * row.median_seconds, down, up


def _joules(row: Stage) -> tuple[float, float, float] | None:
    if row.joules is None:
        return None
    unsure = row.joules_uncertainty or 0.0
    return 1e3 * row.joules, 1e3 * min(unsure, row.joules), 1e3 * unsure


TIME = Bars("ms a repetition: median and interval", _time, "not measured")
ENERGY = Bars("mJ a repetition: mean, and what it may be off by", _joules, "not known")


def stages(profile: Profile) -> Drawing | None:
    """Medians of the stages with their intervals: a panel for each number of threads, a colour for each batch size."""
    return _stages(profile, TIME) if profile.stages else None


def energy(profile: Profile) -> Drawing | None:
    """The joules of the stages in the same way."""
    return _stages(profile, ENERGY) if any(row.joules is not None for row in profile.stages) else None


def _stages(profile: Profile, bars: Bars) -> Drawing:
    everything = asked_for(profile)
    names = [label(row) for row in sorted(everything, key=order)]
    names = list(dict.fromkeys(names))
    batches, threads = sorted({row.batch for row in everything}), sorted({row.threads for row in everything})
    columns = min(2, len(threads))
    lines = math.ceil(len(threads) / columns)
    height = lines * (0.4 + len(names) * (0.14 + 0.13 * len(batches))) + 0.75
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        drawn = Figure(figsize=(WIDE, height), layout="constrained")
        drawn.patch.set_visible(False)
        panels = list(drawn.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flat)
        for panel, count in zip(panels, threads, strict=False):
            _stage_panel(panel, profile, bars, names, batches, count)
        for panel in panels[len(threads) :]:
            panel.set_visible(False)
        for panel in panels[: len(threads)][-columns:]:
            panel.set_xlabel(bars.axis)
            panel.tick_params(labelbottom=True)  # what shares an axis names it only below, where a panel may be hidden
        if len(batches) > 1:
            handles, labels = panels[0].get_legend_handles_labels()
            drawn.legend(handles, labels, loc="outside upper left", ncols=len(labels), columnspacing=1.4)
        return drawing_of(drawn)


def _stage_panel(
    axes: Axes, profile: Profile, bars: Bars, names: Sequence[str], batches: Sequence[int], threads: int
) -> None:
    axes.patch.set_visible(False)
    everything = {(label(row), row.batch, row.threads): one for row in profile.stages if (one := bars.of(row))}
    thick = BAR / len(batches)
    for place, batch in enumerate(batches):
        at = [line - BAR / 2 + (place + 0.5) * thick for line in range(len(names))]
        found = [everything.get((name, batch, threads)) for name in names]
        there = [(y, one) for y, one in zip(at, found, strict=True) if one is not None]
        axes.barh(
            [y for y, _ in there], [one[0] for _, one in there], thick * 0.9, color=_colour(place), alpha=_alpha(place),
            xerr=[[one[1] for _, one in there], [one[2] for _, one in there]], ecolor=INK, capsize=2, error_kw={"lw": 1},
            label=f"batch {batch}",
        )  # fmt: skip
        size = 7 if len(batches) > 1 else 8
        for y, (value, _, up) in there:
            _word(axes, digits(value), value + up, y, size)
    for line, name in enumerate(names):
        absent = [place for place, batch in enumerate(batches) if (name, batch, threads) not in everything]
        if len(absent) == len(batches):
            _word(axes, bars.absent, 0, line, 8)
        else:
            for place in absent:
                _word(axes, bars.absent, 0, line - BAR / 2 + (place + 0.5) * thick, 7)
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(0, 1.14 * max((value + up for value, _, up in everything.values()), default=0) or 1.0)
    axes.set_title(threads_of(threads), fontsize=9, loc="left", color=MUTED)


def _word(axes: Axes, text: str, x: float, y: float, size: float) -> None:
    """A word to the right of a place."""
    axes.annotate(text, (x, y), (4, 0), textcoords="offset points", va="center", fontsize=size, color=MUTED)


def _alpha(place: int) -> float:
    """There are four colours; what comes after them is paler."""
    return 1.0 if place < len(SERIES) else 0.5


def _whiskers(rows: Sequence[Stage]) -> list[list[float]]:
    down = [1e3 * max(0.0, row.median_seconds - row.low_seconds) for row in rows]
    return [down, [1e3 * max(0.0, row.high_seconds - row.median_seconds) for row in rows]]


def _colour(place: int) -> str:
    return SERIES[place % len(SERIES)]


def batches(profile: Profile) -> Drawing | None:
    """Milliseconds a sample of the longest graph over the batch size, a line for each number of threads."""
    kind = next(
        (name for name in ("local", "forward", "backward") if any(s.stage == name for s in profile.stages)), None
    )
    rows = [row for row in profile.stages if row.stage == kind and row.batch > 0]
    if len({row.batch for row in rows}) < 2:
        return None
    with mpl.rc_context(STYLE):
        drawn, axes = canvas(HALF, 2.6)
        for place, threads in enumerate(sorted({row.threads for row in rows})):
            line = sorted((row for row in rows if row.threads == threads), key=lambda row: row.batch)
            values = [1e3 * row.median_seconds / row.batch for row in line]
            spread = [[side / row.batch for side, row in zip(sides, line, strict=True)] for sides in _whiskers(line)]
            axes.errorbar(
                [row.batch for row in line], values, yerr=spread, color=_colour(place), alpha=_alpha(place), marker="o", ms=4, lw=1.6, capsize=2,
                label=threads_of(threads),
            )  # fmt: skip
        sizes = sorted({row.batch for row in rows})
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, list(map(str, sizes)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("batch size")
        axes.set_ylabel(f"ms a sample, {kind}")
        axes.set_ylim(bottom=0)
        legend(axes)
        return drawing_of(drawn)


def operators(profile: Profile) -> dict[str, Drawing]:
    """By stage, what its operators take of it: bars for the largest, for up to four batch sizes and threads."""
    return {stage: _operators(profile, stage) for stage in sorted({row.stage for row in profile.shares}, key=rank)}


def _operators(profile: Profile, stage: str) -> Drawing:
    rows = [row for row in profile.shares if row.stage == stage]
    shown = configurations(rows)
    shown = shown if len(shown) <= len(SERIES) else [shown[0], shown[1], shown[-2], shown[-1]]
    by = {(row.batch, row.threads, row.op): row for row in rows}
    most = {row.op: max(r.share for r in rows if r.op == row.op) for row in rows}
    names = sorted(most, key=lambda op: -most[op])[:TOP]
    thick = BAR / len(shown)
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        drawn, axes = canvas(HALF, 0.75 + (len(names) + 1) * max(0.22, 0.12 * len(shown)))
        for place, (batch, threads) in enumerate(shown):
            here = [by.get((batch, threads, op)) for op in names]
            rest = sum(r.share for r in rows if (r.batch, r.threads) == (batch, threads) and r.op not in names)
            values = [100 * (row.share if row else 0.0) for row in here] + ([100 * rest] if len(most) > TOP else [])
            at = [line - BAR / 2 + (place + 0.5) * thick for line in range(len(values))]
            axes.barh(at, values, thick * 0.9, color=_colour(place), label=configuration(batch, threads))
            for y, value, row in zip(at, values, [*here, None], strict=False):
                axes.annotate(
                    _share_words(value, row, alone=len(shown) == 1), (value, y), (4, 0), textcoords="offset points", va="center",
                    fontsize=7, color=MUTED,
                )  # fmt: skip
        labels = [plain(op, 26) for op in names] + (["all others"] if len(most) > TOP else [])
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.45, -0.55)
        axes.set_xlim(0, min(1.25, 1.0 if len(shown) > 1 else 1.25) * 100 * max(0.05, max(most.values()) * 1.12))
        axes.set_xlabel("% of the seconds of all operators")
        if len(shown) > 1:
            legend(axes)
        return drawing_of(drawn)


def _share_words(value: float, row: Share | None, *, alone: bool) -> str:
    if not alone or row is None:
        return f"{value:.0f} %" if value >= 0.5 or not value else "<1 %"
    return f"{value:.0f} %, {milliseconds(row.seconds)} ms in {row.calls} call{'' if row.calls == 1 else 's'}"


def peaks_of_memory(profile: Profile) -> Drawing | None:
    """Highest peak of each stage, what of it is its own, and the lines that it must stay left of."""
    found, room = peaks(profile), memory(profile)
    if not found:
        return None
    found = sorted(found, key=lambda peak: -peak.bytes)[:MOST_ROWS] if len(found) > MOST_ROWS else found
    mebibyte = 2.0**20
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        drawn, axes = canvas(WIDE, 0.9 + 0.24 * len(found))
        lines = range(len(found))
        axes.plot(
            [max(1, p.bytes) / mebibyte for p in found], lines, "o", ms=7, color=SERIES[0], label="peak of the process"
        )
        own = [
            (p.own_bytes / mebibyte, line)
            for line, p in zip(lines, found, strict=True)
            if p.own_bytes and p.own_bytes >= mebibyte
        ]  # less would stretch the axis
        if own:
            axes.plot(*zip(*own, strict=True), "o", ms=5, color=SERIES[2], label="the stage's own, from 1 MiB on")
        for line, peak in zip(lines, found, strict=True):
            axes.annotate(
                digits(peak.bytes / mebibyte), (peak.bytes / mebibyte, line), (8, 0),
                textcoords="offset points", va="center", fontsize=7.5, color=MUTED,
            )  # fmt: skip
        for size, name, colour, style in (
            (room.limit, "MemoryMax", SERIES[1], "-"),
            (room.available, "free to take on the board", MUTED, DASHES),
            (room.total, "the board's memory", INK, "-"),
        ):
            if size:
                axes.axvline(size / mebibyte, color=colour, lw=1.4, ls=style, label=f"{name}, {human(size, 'memory')}")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("MiB, logarithmic")
        axes.set_yticks(lines, [peak.stage for peak in found])
        axes.set_ylim(len(found) - 0.4, -0.6)
        legend(axes)
        return drawing_of(drawn)


def temperature_and_clock(profile: Profile) -> Drawing | None:
    """The processor's temperature above, the first clock below, over the seconds of the measurement."""
    points = course(profile)
    warm = [(seconds, celsius) for seconds, celsius, _ in points if celsius is not None]
    fast = [(seconds, hertz / 1e6) for seconds, _, hertz in points if hertz is not None]
    panels = [part for part in ((warm, "°C", SERIES[1]), (fast, "MHz", SERIES[0])) if part[0]]
    if not panels:
        return None
    with mpl.rc_context(STYLE):
        drawn = Figure(figsize=(WIDE, 0.6 + 1.25 * len(panels)), layout="constrained")
        drawn.patch.set_visible(False)
        axes = drawn.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for one, (line, unit, colour) in zip(axes, panels, strict=True):
            one.patch.set_visible(False)
            whole = [(s, c if unit == "°C" else h and h / 1e6) for s, c, h in points]
            one.plot(
                [s for s, _ in whole], [math.nan if v is None else v for _, v in whole], color=colour, lw=1.6,
                drawstyle="default" if unit == "°C" else "steps-post", marker="o" if len(line) < 40 else None, ms=3,
            )  # fmt: skip
            one.set_ylabel(unit)
            one.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
        if warm:
            for celsius, name in _thresholds(profile, max(value for _, value in warm)):
                axes[0].axhline(celsius, color=INK, lw=1, ls=DASHES)
                axes[0].annotate(
                    name, (0, celsius), (2, 3), xycoords=axes[0].get_yaxis_transform(), textcoords="offset points",
                    ha="left", fontsize=7.5, color=MUTED,
                )  # fmt: skip
            low, high = axes[0].get_ylim()
            axes[0].set_ylim(low, high + 0.12 * (high - low))
        if fast:
            axes[-1].set_ylim(0, 1.1 * (max(value for _, value in fast) or 1))
        axes[-1].set_xlabel("seconds since the start")
        drawn.align_ylabels()
        return drawing_of(drawn)


def _thresholds(profile: Profile, warmest: float) -> list[tuple[float, str]]:
    """Temperatures at which the clock is lowered, as far as the course comes near them."""
    found = {}
    for zone in items(profile.conditions, "thermal_before", "zones"):
        for trip in items(zone, "trips"):
            if isinstance(trip, list | tuple) and len(trip) == 2 and trip[0] == "passive":
                celsius = number({"": trip[1]}, "")
                if celsius is not None and celsius <= warmest + NEAR:
                    found[celsius] = f"{celsius:.0f} °C: {plain(words(zone, 'kind'), 24)} lowers the clock"
    return sorted(found.items())


def whole_steps(profile: Profile) -> Drawing | None:
    """Medians of whole steps, from what they take undisturbed to the 95th percentile; the slowest of many."""
    rows = sorted(profile.steps, key=lambda row: -row.median_seconds)[:MOST_ROWS]
    rows = [row for row in profile.steps if row in rows]
    if not rows:
        return None
    kinds = list(dict.fromkeys(row.kind for row in profile.steps))
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        drawn, axes = canvas(WIDE, 0.9 + 0.22 * len(rows))
        high = 1e3 * max(row.p95_seconds for row in rows) or 1.0
        for place, kind in enumerate(kinds):
            here = [(line, row) for line, row in enumerate(rows) if row.kind == kind]
            down = [1e3 * max(0.0, row.median_seconds - row.quiet_seconds) for _, row in here]
            more = [1e3 * max(0.0, row.p95_seconds - row.median_seconds) for _, row in here]
            axes.barh(
                [line for line, _ in here], [1e3 * row.median_seconds for _, row in here], 0.7, color=_colour(place), xerr=[down, more],
                ecolor=INK, error_kw={"lw": 1}, capsize=2, label=plain(kind, 24),
            )  # fmt: skip
            for line, row in here:
                end = 1e3 * max(row.p95_seconds, row.median_seconds)
                axes.annotate(
                    milliseconds(row.median_seconds), (end, line), (4, 0), textcoords="offset points", va="center", fontsize=7.5,
                    color=MUTED,
                )  # fmt: skip
        axes.set_xlim(0, 1.1 * high)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_yticks(
            range(len(rows)), [f"{plain(row.cut, 24)}, {configuration(row.batch, row.threads)}" for row in rows]
        )
        axes.set_xlabel("ms a step: median; the whisker goes from the 10th to the 95th percentile")
        legend(axes)
        return drawing_of(drawn)


def compared(shown: Sequence[Shown]) -> Drawing | None:
    """Medians of all profiles on one logarithmic axis, with their intervals; the slowest of many."""
    found = {name: row for name, row in entries(shown).items() if sum(one is not None for one in row) > 1}
    if not found:
        return None
    slowest = sorted(found, key=lambda name: -max(e.median_seconds for e in found[name] if e))[:MOST_ROWS]
    names = [name for name in found if name in slowest]
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        drawn, axes = canvas(WIDE, 0.9 + len(names) * (0.16 + 0.07 * len(shown)))
        thick = 0.6 / len(shown)
        for line, name in enumerate(names):
            ends = [1e3 * e.median_seconds for e in found[name] if e and e.median_seconds > 0]
            if ends:
                axes.plot([min(ends), max(ends)], [line, line], color=GRID, lw=4, solid_capstyle="round", zorder=1)
        for place, one in enumerate(shown):
            here = [(line, entry) for line, name in enumerate(names) if (entry := found[name][place])]
            rows = [(line + (place + 0.5) * thick - 0.3, entry) for line, entry in here if entry.median_seconds > 0]
            axes.errorbar(
                [1e3 * entry.median_seconds for _, entry in rows], [y for y, _ in rows], xerr=_spread([e for _, e in rows]),
                fmt="odsv"[place % 4], ms=5, color=_colour(place), alpha=_alpha(place), lw=0, elinewidth=1.2, capsize=2, label=plain(one.name, 40),
            )  # fmt: skip
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("ms: median and interval, logarithmic")
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        legend(axes)
        return drawing_of(drawn)


def _spread(rows: Sequence[Entry]) -> list[list[float]]:
    """Milliseconds below and above; none where no interval is known. On a logarithmic axis nothing reaches 0."""
    pairs = [(e.low_seconds or e.median_seconds, e.median_seconds, e.high_seconds or e.median_seconds) for e in rows]
    return [
        [1e3 * max(0.0, min(middle - low, 0.999 * middle)) for low, middle, _ in pairs],
        [1e3 * max(0.0, high - middle) for _, middle, high in pairs],
    ]
