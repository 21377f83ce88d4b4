"""The report's plots by name, and which of them a run has something for."""

from collections.abc import Callable, Mapping

from hub.drawing import HALF, WIDE, Drawing
from hub.plots_accuracy import accuracy_over_bytes, accuracy_over_joules, accuracy_over_rounds, accuracy_over_seconds
from hub.plots_budget import budget_over_rounds, effort_over_rounds
from hub.plots_c3 import c3_bars
from hub.plots_coding import coding_over_rounds
from hub.plots_devices import bytes_by_device, bytes_over_rounds, memory, step_time
from hub.plots_learning import device_loss, hub_loss, selections
from hub.runlog import RunLog

Plot = Callable[[RunLog, float], Drawing | None]
"""Draws a run so many inches wide; `None` where the run has nothing to show. The same run gives the same bytes."""

PLOTS: Mapping[str, Plot] = {
    "accuracy": accuracy_over_rounds,
    "accuracy-bytes": accuracy_over_bytes,
    "accuracy-seconds": accuracy_over_seconds,
    "accuracy-joules": accuracy_over_joules,
    "hub-loss": hub_loss,
    "device-loss": device_loss,
    "selections": selections,
    "bytes-rounds": bytes_over_rounds,
    "bytes-devices": bytes_by_device,
    "budget": budget_over_rounds,
    "coding": coding_over_rounds,
    "effort": effort_over_rounds,
    "step-time": step_time,
    "memory": memory,
    "c3": c3_bars,
}
"""By the names of their files."""

PAIRS = (
    ("accuracy-seconds", "accuracy-joules"),
    ("hub-loss", "device-loss"),
    ("bytes-rounds", "bytes-devices"),
    ("step-time", "memory"),
)
"""Those that stand side by side in the page."""


def draw(log: RunLog) -> dict[str, Drawing]:
    """All plots that the run has something for; one whose neighbour is missing takes the whole width."""
    halves = {name for pair in PAIRS for name in pair}
    drawn = {name: plot(log, HALF if name in halves else WIDE) for name, plot in PLOTS.items()}
    for pair in PAIRS:
        there = [name for name in pair if drawn[name]]
        if len(there) == 1:
            drawn[there[0]] = PLOTS[there[0]](log, WIDE)
    return {name: drawing for name, drawing in drawn.items() if drawing}
