"""What the devices have spent of their budgets, over the rounds."""

import matplotlib as mpl

from edge.wire.budget import EFFORT
from hub.drawing import INK, SERIES, STYLE, WIDE, Drawing, canvas, drawing_of, legend, rounds_axis
from hub.runlog import RunLog
from hub.table import unit_of

WAYS = {"up": "sent", "down": "received"}
"""With IP and TCP headers."""
WORDS = {"cpu_seconds": "CPU seconds", "joules": "joules"}


def budget_over_rounds(log: RunLog, width: float = WIDE) -> Drawing | None:
    """Bytes of each device's run, with headers, a thin line a device, against the budget of a run; None without one."""
    limits = {way: limit for way in WAYS if (limit := _limit(log, way))}
    if not limits:
        return None
    with mpl.rc_context(STYLE):
        figure, axes = canvas(width, 3.0)
        size, unit = unit_of("bytes", list(limits.values()))
        for color, (way, limit) in zip(SERIES, limits.items(), strict=False):
            for place, records in enumerate(log.devices.values()):
                points = [
                    (r["round"], r["budget"][f"{way}_spent"] / size)
                    for r in records
                    if f"{way}_spent" in r.get("budget", {})
                ]
                label = f"{WAYS[way]}, each device" if place == 0 else None
                axes.plot(*zip(*points, strict=True), color=color, lw=0.9, alpha=0.7, label=label)
            axes.axhline(limit / size, color=color, lw=1.4, ls="--", label=f"budget, {WAYS[way]}")
        axes.set(ylabel=f"{unit} of a device, with headers")
        axes.set_ylim(bottom=0)
        rounds_axis(axes, log)
        legend(axes)
        return drawing_of(figure)


def effort_over_rounds(log: RunLog, width: float = WIDE) -> Drawing | None:
    """Joules and CPU seconds of each round in percent of what it might take, a thin line a device; None without such a budget."""
    series = {what: _shares(log, what) for what in EFFORT}
    known = {what: found for what, found in series.items() if found}
    if not known:
        return None
    with mpl.rc_context(STYLE):
        figure, axes = canvas(width, 2.6)
        for color, (what, devices) in zip(SERIES, known.items(), strict=False):
            for place, points in enumerate(devices):
                label = f"{WORDS[what]}, each device" if place == 0 else None
                axes.plot(*zip(*points, strict=True), color=color, lw=0.9, alpha=0.7, marker="o", ms=2, label=label)
        axes.axhline(100, color=INK, lw=1.4, ls="--", label="budget of a round")
        axes.set(ylabel="% of a round's budget")
        axes.set_ylim(bottom=0)
        rounds_axis(axes, log)
        legend(axes)
        return drawing_of(figure)


def _shares(log: RunLog, what: str) -> list[list[tuple[int, float]]]:
    """By device, the rounds in which it did steps, and what these took in percent; devices that measure none are left out."""
    found = []
    for records in log.devices.values():
        points = [
            (record["round"], 100 * spent / limit)
            for record in records
            if record.get("steps")
            and (limit := record.get("budget", {}).get(EFFORT[what]))
            and (spent := record["budget"].get(f"{what}_spent")) is not None
        ]
        found += [points] if points else []
    return found


def _limit(log: RunLog, way: str) -> float | None:
    """The budget of a run, where every device has the same."""
    found = {record.get("budget", {}).get(f"{way}_per_run") for record in log.latest.values()}
    return found.pop() if len(found) == 1 else None
