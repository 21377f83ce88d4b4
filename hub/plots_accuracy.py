"""What accuracy a run reached, and what that took: against rounds, bytes, seconds and joules."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import matplotlib as mpl
from matplotlib.axes import Axes

from edge.memory_link import SOURCE
from hub.drawing import (
    DASHES,
    MUTED,
    SERIES,
    STYLE,
    WIDE,
    Drawing,
    amount_axis,
    canvas,
    drawing_of,
    legend,
    rounds_axis,
    shade_local,
)
from hub.runlog import Record, RunLog
from hub.summary import Row, moved, training_received, training_sent
from hub.table import unit_of

MOST_LINES = 24
"""With more devices, single lines are a smear: the range is drawn instead."""


def accuracy_over_rounds(log: RunLog, width: float = WIDE) -> Drawing | None:
    """Mean accuracy by round, each device's own thinly behind it, the references as dashed lines."""
    evaluated = [r for r in log.rounds if r.get("accuracy") is not None]
    if not evaluated:
        return None
    with mpl.rc_context(STYLE):
        figure, axes = canvas(width, 3.4)
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
        _draw_references(axes, [Reference(row) for row in _with_accuracy(log.references)])
        axes.set(ylim=(0, 100), ylabel="accuracy, %")
        rounds_axis(axes, log)
        legend(axes)
        return drawing_of(figure)


def accuracy_over_bytes(log: RunLog, width: float = WIDE) -> Drawing | None:
    """Mean accuracy against the bytes a device had sent and received for training by then; what moves no byte is a line."""
    references = [
        Reference(
            row, flow or None, "reference" if flow else f"reference, {'no bytes' if flow == 0 else 'bytes not known'}"
        )
        for row in _with_accuracy(log.references)
        for flow in [moved(row)]
    ]
    spent = log.mean_by_round(_moved)
    return _against(
        log, spent, "bytes", lambda unit: f"sent and received for training, {unit} a device", references, width
    )


def accuracy_over_seconds(log: RunLog, width: float = WIDE) -> Drawing | None:
    """Mean accuracy against the seconds the rounds had taken by then; those of the references were spent elsewhere."""
    spent, label = _seconds(log)
    references = [Reference(row) for row in _with_accuracy(log.references)]
    return _against(log, spent, "seconds", lambda unit: f"{label}, {unit} since the start", references, width)


def accuracy_over_joules(log: RunLog, width: float = WIDE) -> Drawing | None:
    """Mean accuracy against a device's energy by then, mean of the devices that know theirs."""
    known = {name: record["energy"] for name, record in log.latest.items() if _joules(record) is not None}
    classes = sorted({_class(energy) for energy in known.values()})
    spent = log.mean_by_round(lambda record: _joules(record) if record["device"] in known else None)
    some = "" if len(known) == len(log.devices) else f"\nmean of {len(known)} of {len(log.devices)} devices"
    references = [
        Reference(row, row.joules if [row.energy_class] == classes else None) for row in _with_accuracy(log.references)
    ]
    return _against(
        log,
        spent,
        "joules",
        lambda unit: f"energy ({' and '.join(classes)}), {unit} a device since the start{some}",
        references,
        width,
    )


@dataclass(frozen=True)
class Reference:
    """A reference in a plot: a mark where what it spent can be compared, a line across where it cannot."""

    row: Row
    spent: float | None = None
    remark: str = "reference"

    @property
    def label(self) -> str:
        """Its name in the key."""
        return f"{self.row.method} ({self.remark})"

    @property
    def percent(self) -> float:
        """Its accuracy after the last round."""
        return 100 * (self.row.accuracy_last or 0)


def _against(
    log: RunLog,
    spent: Mapping[int, float],
    family: str,
    label: Callable[[str], str],
    references: Sequence[Reference],
    width: float,
) -> Drawing | None:
    """Mean accuracy against what was spent by the end of each round; `label` names the axis, given the unit."""
    points = [
        (spent[r["round"]], 100 * r["accuracy"])
        for r in log.rounds
        if r.get("accuracy") is not None and spent.get(r["round"])
    ]
    if not points:
        return None
    largest = max([x for x, _ in points] + [reference.spent for reference in references if reference.spent])
    size, unit = unit_of(family, [largest])
    with mpl.rc_context({**STYLE, "axes.grid.axis": "both"}):
        figure, axes = canvas(width, 3.4)
        axes.plot(
            [x / size for x, _ in points],
            [y for _, y in points],
            color=SERIES[0],
            lw=2,
            marker="o",
            ms=3.2,
            label=f"{log.row.method}, round by round",
        )
        _draw_references(axes, references, size)
        amount_axis(axes, largest / size, points[-1][0] / size)
        axes.set(ylim=(0, 100), ylabel="accuracy, %", xlabel=label(unit))
        legend(axes)
        return drawing_of(figure)


def _draw_references(axes: Axes, references: Sequence[Reference], size: float = 1.0) -> None:
    for colour, marker, reference in zip(SERIES[1:], "sD^", references, strict=False):
        if reference.spent is None:
            axes.axhline(reference.percent, color=colour, lw=1.4, ls=DASHES, label=reference.label)
        else:
            axes.plot(
                [reference.spent / size],
                [reference.percent],
                color=colour,
                marker=marker,
                ms=7,
                ls="",
                label=reference.label,
                clip_on=False,
                zorder=4,
            )


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


def _seconds(log: RunLog) -> tuple[dict[int, float], str]:
    """Seconds since the start by the end of each round, and by which clock they were told."""
    simulated = log.row.bytes_source == SOURCE
    trained = [r.get("training_seconds") for r in log.rounds]
    known = [seconds for seconds in trained if seconds is not None]
    # A simulation's clock stands still while somebody works, unless it counts what steps and frames take.
    if len(known) == len(trained) and (all(known) or not simulated):
        clock = "the simulation's clock" if simulated else "wall clock"
        return _cumulated(log, known), f"training by {clock}, evaluation left out"
    whole = [r["seconds"] for r in log.rounds]
    return _cumulated(log, whole), f"wall clock{' of the simulation' if simulated else ''}, evaluation included"


def _cumulated(log: RunLog, seconds: Sequence[float]) -> dict[int, float]:
    return dict(zip([r["round"] for r in log.rounds], accumulate(seconds), strict=True))


def _moved(record: Record) -> float | None:
    sent, received = training_sent(record), training_received(record)
    return None if sent is None or received is None else sent + received


def _joules(record: Record) -> float | None:
    joules: float | None = (record.get("energy") or {}).get("joules")
    return joules


def _class(energy: Mapping[str, object]) -> str:
    return str(energy.get("class") or energy.get("kind") or "of unknown class")


def _with_accuracy(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row.accuracy_last is not None]
