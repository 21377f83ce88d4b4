"""What a run cost each device: bytes by kind, the time of a step, memory."""

from collections.abc import Callable

import matplotlib as mpl

from hub.drawing import (
    GRID,
    HALF,
    SERIES,
    STYLE,
    Drawing,
    canvas,
    drawing_of,
    height_for,
    legend,
    names_axis,
    rounds_axis,
)
from hub.runlog import Record, RunLog
from hub.summary import evaluation, training_received, training_sent
from hub.table import unit_of


def bytes_over_rounds(log: RunLog, width: float = HALF) -> Drawing | None:
    """What a device had sent and received by then, mean of the devices, by kind."""
    kinds = {kind: log.mean_by_round(_of_kind(kind)) for kind in _known_kinds(log)}
    rounds = sorted(set.intersection(*map(set, kinds.values()))) if kinds else []
    if not rounds:
        return None
    with mpl.rc_context(STYLE):
        figure, axes = canvas(width, max(3.0, height_for(list(log.devices), 0.9)) if len(log.devices) < 16 else 3.6)
        size, unit = unit_of("bytes", [sum(kind[number] for kind in kinds.values()) for number in rounds])
        stacked = [[kind[number] / size for number in rounds] for kind in kinds.values()]
        axes.stackplot(rounds, stacked, colors=[KINDS[kind] for kind in kinds], labels=kinds, alpha=0.85, lw=0)
        axes.set(ylabel=f"{unit} a device, since the start")
        rounds_axis(axes, log)
        legend(axes)
        return drawing_of(figure)


def bytes_by_device(log: RunLog, width: float = HALF) -> Drawing | None:
    """What each device sent and received in the whole run, by kind."""
    kinds = _known_kinds(log)
    parts = {name: [_kinds(record)[kind] for kind in kinds] for name, record in log.latest.items()}
    known = {name: [part or 0.0 for part in found] for name, found in parts.items() if None not in found}
    if not kinds or not known:
        return None
    names = list(known)
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure, axes = canvas(width, max(3.0, height_for(names, 0.9)))
        size, unit = unit_of("bytes", [sum(found) for found in known.values()])
        left = [0.0] * len(names)
        for i, kind in enumerate(kinds):
            widths = [known[name][i] / size for name in names]
            axes.barh(range(len(names)), widths, left=left, height=0.66, color=KINDS[kind], alpha=0.85, label=kind)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        names_axis(axes, names)
        axes.set(xlabel=f"{unit}, whole run")
        return drawing_of(figure)


def step_time(log: RunLog, width: float = HALF) -> Drawing | None:
    """Median time of a training step on each device, as last reported."""
    return _dots(log, "step_seconds", 1e-3, "median step, ms", width)


def memory(log: RunLog, width: float = HALF) -> Drawing | None:
    """Peak resident memory of each device process."""
    return _dots(log, "peak_rss_bytes", 2**20, "peak resident memory, MiB", width)


KINDS = dict(zip(("training, sent", "evaluation", "sent again by TCP", "training, received"), SERIES, strict=True))
"""Kinds of bytes, and their colours."""


def _kinds(record: Record) -> dict[str, float | None]:
    """Bytes by kind; what TCP sent again is taken out of training, though some of it may have been evaluation's."""
    sent, again = training_sent(record), record.get("socket_retransmitted")
    first = None if sent is None else max(0.0, sent - (again or 0))
    return dict(zip(KINDS, (first, evaluation(record), again, training_received(record)), strict=True))


def _known_kinds(log: RunLog) -> list[str]:
    """Those that some device counted: a simulated one has no TCP that could send again."""
    found = [_kinds(record) for record in log.latest.values()]
    return [kind for kind in KINDS if any(kinds[kind] is not None for kinds in found)]


def _of_kind(kind: str) -> Callable[[Record], float | None]:
    return lambda record: _kinds(record)[kind]


def _dots(log: RunLog, field: str, size: float, label: str, width: float) -> Drawing | None:
    values = {device: record[field] / size for device, record in log.latest.items() if record.get(field) is not None}
    if not values:
        return None
    names = list(values)
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure, axes = canvas(width, max(1.8, height_for(names, 0.7)))
        axes.hlines(range(len(names)), 0, list(values.values()), color=GRID, lw=2)
        axes.scatter(list(values.values()), range(len(names)), color=SERIES[0], s=34, zorder=3, clip_on=False)
        names_axis(axes, names)
        axes.set(xlabel=label)
        axes.set_xlim(left=0)
        return drawing_of(figure)
