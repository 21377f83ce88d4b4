"""What the activations came to behind the codec, round by round under the accuracy: bits, non-zeros, the quantiser's step."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hub.coding import Coded
from hub.drawing import INK, MUTED, SERIES, STYLE, WIDE, Drawing, drawing_of, legend, rounds_axis, shade_local
from hub.plots_accuracy import MOST_LINES
from hub.runlog import RunLog

Value = Callable[[Coded], float | None]

PANELS: tuple[tuple[str, tuple[tuple[str, Value], ...]], ...] = (
    (
        "bits an element",
        (("payload", lambda coded: coded.bits), ("all that was sent, on the socket", lambda coded: coded.socket_bits)),
    ),
    (
        "not zero, %",
        (
            ("of the activation", lambda coded: _percent(coded.nonzero)),
            ("behind the quantiser", lambda coded: _percent(coded.left)),
        ),
    ),
    ("D", (("", lambda coded: coded.step),)),
    ("D, std. dev.", (("", lambda coded: coded.deviations),)),
)
"""Below one another: the name of an axis, and what is drawn on it."""
ROW = 1.55
"""Inches of a panel."""


def coding_over_rounds(log: RunLog, width: float = WIDE) -> Drawing | None:
    """Accuracy, and below it what activations came to: each device thinly, the mean of those that sent in a round over them."""
    coding = {name: coded for name, coded in log.coding().items() if coded}
    panels = [(label, lines) for label, kinds in PANELS if (lines := _known(coding, kinds))]
    if not panels:
        return None
    evaluated = [r for r in log.rounds if r.get("accuracy") is not None]
    rows = len(panels) + bool(evaluated)
    with mpl.rc_context({**STYLE, "axes.labelsize": 8.5}):
        figure = Figure(figsize=(width, ROW * rows + 0.3), layout="constrained")
        figure.patch.set_visible(False)
        every = list(figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0])
        if evaluated:
            _accuracy(every[0], [r["round"] for r in evaluated], [100 * r["accuracy"] for r in evaluated])
        for axes, (label, lines) in zip(every[-len(panels) :], panels, strict=True):
            for colour, (name, value) in zip(SERIES, lines.items(), strict=False):
                _draw(axes, coding, value, colour, name)
            axes.set(ylabel=label)
            axes.set_ylim(bottom=0)
            if any(lines):
                legend(axes)
        for axes in every:
            axes.patch.set_visible(False)
            shade_local(axes, log, named=axes is every[0])
            rounds_axis(axes, log)
            axes.set_xlabel("round" if axes is every[-1] else "")
        figure.align_ylabels(every)
        return drawing_of(figure)


def _accuracy(axes: Axes, rounds: Sequence[int], percent: Sequence[float]) -> None:
    axes.plot(rounds, percent, color=INK, lw=1.8, marker="o", ms=2.6)
    axes.set(ylim=(0, 100), ylabel="accuracy, %")


def _known(coding: Mapping[str, Sequence[Coded]], kinds: Sequence[tuple[str, Value]]) -> dict[str, Value]:
    every = [one for coded in coding.values() for one in coded]
    return {name: value for name, value in kinds if any(value(one) is not None for one in every)}


def _draw(axes: Axes, coding: Mapping[str, Sequence[Coded]], value: Value, colour: str, name: str) -> None:
    found: dict[int, list[float]] = {}
    for coded in coding.values():
        points = [(one.round, figure) for one in coded if (figure := value(one)) is not None]
        for number, figure in points:
            found.setdefault(number, []).append(figure)
        if points and len(coding) <= MOST_LINES:
            axes.plot(*zip(*points, strict=True), color=colour if name else MUTED, lw=0.6, alpha=0.35)
    means = [(number, fmean(found[number])) for number in sorted(found)]
    axes.plot(*zip(*means, strict=True), color=colour, lw=1.8, marker="o", ms=2.6, label=name or None)


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
