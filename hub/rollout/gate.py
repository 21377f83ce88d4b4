"""Is a device worse off on the new release? Compared with itself on the one before, and with those that still run that."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from edge.wire.updates import Figures

STEPS = 8
"""Fewer steps on either side say nothing."""


@dataclass(frozen=True)
class Margins:
    """How much worse is borne."""

    slower: float = 1.5
    """Times as long as a step may take."""
    worse: float = 0.25
    """Share of the loss of before by which it may be higher."""


@dataclass(frozen=True)
class Drift:
    """What has happened meanwhile to devices that were not updated: nobody's release is to blame for that."""

    step: float = 1.0
    """Times as long as their steps take."""
    loss: float = 0.0
    """By so much their loss has risen."""


def drift(controls: Iterable[tuple[Figures, Figures]]) -> Drift:
    """Of devices that still run the release before: their figures when the rollout began, and now.

    What has become better excuses nothing, and is not counted.
    """
    steps, losses = [], []
    for then, now in controls:
        if _enough(then, now) and then.step_seconds and now.step_seconds:
            steps.append(now.step_seconds / then.step_seconds)
        if _comparable(then, now) and then.loss is not None and now.loss is not None:
            losses.append(now.loss - then.loss)
    return Drift(max(1.0, median(steps)) if steps else 1.0, max(0.0, median(losses)) if losses else 0.0)


def judge(before: Figures | None, now: Figures, meanwhile: Drift, margins: Margins) -> str:
    """Why a device is worse off than before; empty where it is not, or where nobody can tell."""
    if before is None or not _enough(before, now):
        return ""
    if before.step_seconds and now.step_seconds is not None:
        limit = before.step_seconds * meanwhile.step * margins.slower
        if now.step_seconds > limit:
            return (
                f"a step takes {_milliseconds(now.step_seconds)}, before it was {_milliseconds(before.step_seconds)} "
                f"(limit {_milliseconds(limit)})"
            )
    if _comparable(before, now) and before.loss is not None and now.loss is not None:
        most = before.loss + meanwhile.loss + margins.worse * abs(before.loss)
        if now.loss > most:
            return f"the loss is {_loss(now.loss)}, before it was {_loss(before.loss)} (limit {_loss(most)})"
    return ""


def settled(before: Figures | None, now: Figures) -> bool:
    """Whether there is as much to compare as there will be: nothing was known before, or enough is known now."""
    return before is None or before.steps < STEPS or now.steps >= STEPS


def _enough(before: Figures, now: Figures) -> bool:
    return before.steps >= STEPS and now.steps >= STEPS


def _comparable(before: Figures, now: Figures) -> bool:
    """Losses of other graphs are other losses."""
    return _enough(before, now) and before.bundle == now.bundle


def _loss(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 1e6 else f"{value:.1e}"


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.4g} ms"
