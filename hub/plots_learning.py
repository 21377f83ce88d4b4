"""How a run learned: the losses on both sides, and who was asked to send."""

from collections.abc import Callable, Iterable
from statistics import fmean

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle

from hub.drawing import (
    HALF,
    SERIES,
    STYLE,
    WIDE,
    Drawing,
    canvas,
    drawing_of,
    height_for,
    legend,
    names_axis,
    rounds_axis,
    shade_local,
)
from hub.runlog import Record, RunLog


def hub_loss(log: RunLog, width: float = HALF) -> Drawing | None:
    """The hub's mean loss by round."""
    points = [(r["round"], r["loss"]) for r in log.rounds if r.get("loss") is not None]
    if not points:
        return None
    with mpl.rc_context(STYLE):
        figure, axes = canvas(width, 2.8)
        shade_local(axes, log)
        axes.plot(*zip(*points, strict=True), color=SERIES[0], lw=2, marker="o", ms=3)
        axes.set(ylabel="loss of the upper segment")
        axes.set_ylim(bottom=0)
        rounds_axis(axes, log)
        return drawing_of(figure)


def device_loss(log: RunLog, width: float = HALF) -> Drawing | None:
    """The devices' own loss by round: mean and range."""
    by_round = _by_round(log, lambda record: record.get("loss"))
    if not by_round:
        return None
    with mpl.rc_context(STYLE):
        figure, axes = canvas(width, 2.8)
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
        return drawing_of(figure)


def selections(log: RunLog, width: float = WIDE) -> Drawing | None:
    """Who was selected how often in which round, and who was late, as a map of devices by rounds."""
    counts = {r["round"]: r["selected"] for r in log.rounds if r.get("selected")}
    most = max((count for selected in counts.values() for count in selected.values()), default=0)
    if not most:
        return None
    names = sorted({*log.devices, *(name for selected in counts.values() for name in selected)})
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure, axes = canvas(width, height_for(names, 0.9))
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
        return drawing_of(figure)


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
