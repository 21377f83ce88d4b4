"""The report's plots: matplotlib figures as SVG that lives inside a page and takes its colours from the page's style sheet.

Every function takes a run and gives an `<svg>`, or `None` where the run has nothing to show. The same run gives the same bytes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle

from hub.drawing import (
    DASHES,
    GRID,
    HALF,
    MUTED,
    SERIES,
    STYLE,
    WIDE,
    bytes_axis,
    canvas,
    height_for,
    legend,
    names_axis,
    rounds_axis,
    shade_local,
    svg_of,
)
from hub.runlog import Record, RunLog
from hub.summary import Row, evaluation, moved, training_received, training_sent
from hub.table import unit_of

MOST_LINES = 24
"""With more devices, single lines are a smear: the range is drawn instead."""


def accuracy_over_rounds(log: RunLog) -> str | None:
    """Mean accuracy by round, each device's own thinly behind it, the references as dashed lines."""
    evaluated = [r for r in log.rounds if r.get("accuracy") is not None]
    if not evaluated:
        return None
    with mpl.rc_context(STYLE):
        figure, axes = canvas(WIDE, 3.4)
        shade_local(axes, log)
        _own_accuracies(axes, evaluated, list(log.devices))
        axes.plot(
            [r["round"] for r in evaluated],
            [100 * r["accuracy"] for r in evaluated],
            color=SERIES[0],
            lw=2.4,
            marker="o",
            ms=3.2,
            label="mean of the devices",
        )
        for colour, row in zip(SERIES[1:], _with_accuracy(log.references), strict=False):
            axes.axhline(
                100 * (row.accuracy_last or 0),
                color=colour,
                lw=1.4,
                ls=DASHES,
                label=f"{row.method} (reference)",
            )
        axes.set(ylim=(0, 100), ylabel="accuracy, %")
        rounds_axis(axes, log)
        legend(axes)
        return svg_of(figure, "accuracy")


def accuracy_over_bytes(log: RunLog) -> str | None:
    """Mean accuracy against the bytes a device had sent and received for training by then; what moves no byte is a line."""
    flow = _mean_by_round(log, _moved)
    points = [
        (flow[r["round"]], 100 * r["accuracy"])
        for r in log.rounds
        if r.get("accuracy") is not None and flow.get(r["round"])
    ]
    if not points:
        return None
    references = [(row, 100 * (row.accuracy_last or 0), moved(row)) for row in _with_accuracy(log.references)]
    with mpl.rc_context({**STYLE, "axes.grid.axis": "both"}):
        figure, axes = canvas(WIDE, 3.4)
        largest = max([x for x, _ in points] + [where for _, _, where in references if where])
        size, unit = unit_of("bytes", [largest])
        axes.plot(
            [x / size for x, _ in points],
            [y for _, y in points],
            color=SERIES[0],
            lw=2,
            marker="o",
            ms=3.2,
            label="this run, round by round",
        )
        for colour, marker, (row, accuracy, where) in zip(SERIES[1:], "sD^", references, strict=False):
            if where:
                axes.plot(
                    [where / size],
                    [accuracy],
                    color=colour,
                    marker=marker,
                    ms=7,
                    ls="",
                    label=f"{row.method} (reference)",
                    clip_on=False,
                    zorder=4,
                )
            elif where == 0:
                axes.axhline(accuracy, color=colour, lw=1.4, ls=DASHES, label=f"{row.method} (reference, no bytes)")
        bytes_axis(axes, largest / size, points[-1][0] / size)
        axes.set(ylim=(0, 100), ylabel="accuracy, %", xlabel=f"sent and received for training, {unit} a device")
        legend(axes)
        return svg_of(figure, "accuracy-bytes")


def hub_loss(log: RunLog) -> str | None:
    """The hub's mean loss by round."""
    points = [(r["round"], r["loss"]) for r in log.rounds if r.get("loss") is not None]
    if not points:
        return None
    with mpl.rc_context(STYLE):
        figure, axes = canvas(HALF, 2.8)
        shade_local(axes, log)
        axes.plot(*zip(*points, strict=True), color=SERIES[0], lw=2, marker="o", ms=3)
        axes.set(ylabel="loss of the upper segment")
        axes.set_ylim(bottom=0)
        rounds_axis(axes, log)
        return svg_of(figure, "hub-loss")


def device_loss(log: RunLog) -> str | None:
    """The devices' own loss by round: mean and range."""
    by_round = _by_round(log, lambda record: record.get("loss"))
    if not by_round:
        return None
    with mpl.rc_context(STYLE):
        figure, axes = canvas(HALF, 2.8)
        shade_local(axes, log, name_below=True)
        rounds = list(by_round)
        axes.fill_between(
            rounds,
            [min(v) for v in by_round.values()],
            [max(v) for v in by_round.values()],
            color=SERIES[2],
            alpha=0.22,
            lw=0,
            label="lowest to highest",
        )
        axes.plot(rounds, [fmean(v) for v in by_round.values()], color=SERIES[2], lw=2, label="mean of the devices")
        axes.set(ylabel="loss on the devices")
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
        rounds_axis(axes, log)
        legend(axes)
        return svg_of(figure, "device-loss")


def selections(log: RunLog) -> str | None:
    """Who was selected how often in which round, and who was late, as a map of devices by rounds."""
    counts = {r["round"]: r["selected"] for r in log.rounds if r.get("selected")}
    most = max((count for selected in counts.values() for count in selected.values()), default=0)
    if not most:
        return None
    names = sorted({*log.devices, *(name for selected in counts.values() for name in selected)})
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure, axes = canvas(WIDE, height_for(names, 0.9))
        shade_local(axes, log)
        cells = [
            (number, names.index(name), count / most)
            for number, selected in counts.items()
            for name, count in selected.items()
            if count
        ]
        _draw_cells(axes, cells)
        late = [(r["round"], names.index(name)) for r in log.rounds for name in r.get("late") or () if name in names]
        if late:
            axes.scatter(
                [x for x, _ in late],
                [y for _, y in late],
                marker="x",
                s=22,
                color=SERIES[1],
                lw=1.6,
                zorder=4,
                label="late",
            )
        names_axis(axes, names)
        rounds_axis(axes, log)
        _key_of_cells(axes, most)
        return svg_of(figure, "selections")


def bytes_over_rounds(log: RunLog) -> str | None:
    """What a device had sent and received by then, mean of the devices, by kind."""
    kinds = [_mean_by_round(log, _of_kind(i)) for i in range(len(KINDS))]
    rounds = [number for number in kinds[0] if all(number in kind for kind in kinds)]
    if not rounds:
        return None
    with mpl.rc_context(STYLE):
        figure, axes = canvas(HALF, max(3.0, height_for(list(log.devices), 0.9)) if len(log.devices) < 16 else 3.6)
        size, unit = unit_of("bytes", [sum(kind[number] for kind in kinds) for number in rounds])
        stacked = [[kind[number] / size for number in rounds] for kind in kinds]
        axes.stackplot(rounds, stacked, colors=SERIES, labels=KINDS, alpha=0.85, lw=0)
        axes.set(ylabel=f"{unit} a device, since the start")
        rounds_axis(axes, log)
        legend(axes, columns=2)
        return svg_of(figure, "bytes-rounds")


def bytes_by_device(log: RunLog) -> str | None:
    """What each device sent and received in the whole run, by kind."""
    parts = {name: _kinds(record) for name, record in log.latest.items()}
    known = {name: [part or 0.0 for part in kinds] for name, kinds in parts.items() if None not in kinds}
    if not known:
        return None
    names = list(known)
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure, axes = canvas(HALF, max(3.0, height_for(names, 0.9)))
        size, unit = unit_of("bytes", [sum(kinds) for kinds in known.values()])
        left = [0.0] * len(names)
        for i, (kind, colour) in enumerate(zip(KINDS, SERIES, strict=True)):
            widths = [known[name][i] / size for name in names]
            axes.barh(range(len(names)), widths, left=left, height=0.66, color=colour, alpha=0.85, label=kind)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        names_axis(axes, names)
        axes.set(xlabel=f"{unit}, whole run")
        return svg_of(figure, "bytes-devices")


def step_time(log: RunLog) -> str | None:
    """Median time of a training step on each device, as last reported."""
    return _dots(log, "step_seconds", 1e-3, "median step, ms", "step-time")


def memory(log: RunLog) -> str | None:
    """Peak resident memory of each device process."""
    return _dots(log, "peak_rss_bytes", 2**20, "peak resident memory, MiB", "memory")


KINDS = ("training, sent", "evaluation", "sent again by TCP", "training, received")


def _kinds(record: Record) -> list[float | None]:
    """Bytes by kind; what TCP sent again is taken out of training, though some of it may have been evaluation's."""
    sent, again = training_sent(record), record.get("socket_retransmitted")
    first = None if sent is None else max(0.0, sent - (again or 0))
    return [first, evaluation(record), again, training_received(record)]


def _of_kind(kind: int) -> Callable[[Record], float | None]:
    return lambda record: _kinds(record)[kind]


def _moved(record: Record) -> float | None:
    sent, received = training_sent(record), training_received(record)
    return None if sent is None or received is None else sent + received


def _dots(log: RunLog, field: str, size: float, label: str, name: str) -> str | None:
    values = {device: record[field] / size for device, record in log.latest.items() if record.get(field) is not None}
    if not values:
        return None
    names = list(values)
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure, axes = canvas(HALF, max(1.8, height_for(names, 0.7)))
        axes.hlines(range(len(names)), 0, list(values.values()), color=GRID, lw=2)
        axes.scatter(list(values.values()), range(len(names)), color=SERIES[0], s=34, zorder=3, clip_on=False)
        names_axis(axes, names)
        axes.set(xlabel=label)
        axes.set_xlim(left=0)
        return svg_of(figure, name)


def _own_accuracies(axes: Axes, evaluated: Sequence[Record], names: Sequence[str]) -> None:
    if len(names) > MOST_LINES:
        own = [(r["round"], list(r["accuracies"].values())) for r in evaluated if r.get("accuracies")]
        low, high = [100 * min(v) for _, v in own], [100 * max(v) for _, v in own]
        axes.fill_between(
            [n for n, _ in own], low, high, color=MUTED, alpha=0.18, lw=0, label="lowest to highest device"
        )
        return
    for i, name in enumerate(names):
        points = [(r["round"], 100 * r["accuracies"][name]) for r in evaluated if name in (r.get("accuracies") or {})]
        if points:
            axes.plot(
                *zip(*points, strict=True), color=MUTED, lw=0.8, alpha=0.55, label="each device" if not i else None
            )


def _draw_cells(axes: Axes, cells: Iterable[tuple[int, int, float]]) -> None:
    rectangles, colours = [], []
    for number, line, share in cells:
        rectangles.append(Rectangle((number - 0.45, line - 0.42), 0.9, 0.84))
        colours.append((*mpl.colors.to_rgb(SERIES[0]), 0.2 + 0.8 * share))
    axes.add_collection(PatchCollection(rectangles, facecolors=colours, edgecolors="none"))


def _key_of_cells(axes: Axes, most: int) -> None:
    steps = sorted({1, (1 + most) // 2, most})
    for count in steps:
        axes.scatter(
            [],
            [],
            marker="s",
            s=60,
            color=(
                *mpl.colors.to_rgb(SERIES[0]),
                0.2 + 0.8 * (count / most),
            ),  # in this order: 0.8 * 12 / 12 is more than 0.8
            label=f"selected {count}x",
        )
    legend(axes)


def _by_round(log: RunLog, value: Callable[[Record], float | None]) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    for records in log.devices.values():
        for record in records:
            if (figure := value(record)) is not None:
                found.setdefault(record["round"], []).append(figure)
    return dict(sorted(found.items()))


def _mean_by_round(log: RunLog, value: Callable[[Record], float | None]) -> dict[int, float]:
    """Mean over the devices of a counter at the end of each round; a device that was silent keeps its last figure."""
    series = {
        name: {r["round"]: v for r in records if (v := value(r)) is not None} for name, records in log.devices.items()
    }
    last: dict[str, float] = {}
    means: dict[int, float] = {}
    for number in sorted({n for points in series.values() for n in points}):
        last.update({name: points[number] for name, points in series.items() if number in points})
        means[number] = fmean(last.get(name, 0.0) for name in series)
    return means


def _with_accuracy(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row.accuracy_last is not None]


PLOTS: Mapping[str, Callable[[RunLog], str | None]] = {
    plot.__name__: plot
    for plot in (
        accuracy_over_rounds,
        accuracy_over_bytes,
        hub_loss,
        device_loss,
        selections,
        bytes_over_rounds,
        bytes_by_device,
        step_time,
        memory,
    )
}
