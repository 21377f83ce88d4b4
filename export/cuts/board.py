"""What the steps of each cut take on a board: measured there where its profile has the cut, else predicted from its operators."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.wire.profile import Operator, Profile, ProfileError, Step
from export.cuts.candidates import Candidate, Wish
from export.cuts.operators import Model, learn
from export.cuts.rounds import Cost
from export.errors import ExportError
from export.machine import this_machine

NO_METER = "cuts reads no meter: joules come with a profile of the board"


@dataclass(frozen=True)
class BoardCost:
    """Costs of a cut's graphs by kind on a board, and the source of the seconds."""

    steps: Mapping[str, Cost]
    peak_bytes: int | None
    source: str
    """`measured` or `predicted`."""


def read_profile(path: Path) -> Profile:
    """The profile in a file.

    Raises:
        ExportError: there is none, or not one that this release reads.
    """
    try:
        return Profile.parse(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ExportError(f"there is no profile of a board at {path}") from error
    except (ProfileError, UnicodeDecodeError) as error:
        raise ExportError(f"{path} is no profile of a board: {error}") from error


def profile_of(wish: Wish, found: Sequence[Candidate]) -> Profile:
    """What was measured on this machine, as the profile of a board."""
    steps: list[Step] = []
    operators: dict[tuple[str, str, str], Operator] = {}
    for candidate in found:
        if candidate.measured is None:
            continue
        for kind, timing in candidate.measured.timings.items():
            steps.append(
                Step(
                    *_key(wish, candidate.name, kind),
                    repeats=len(timing.seconds),
                    median_seconds=timing.median,
                    p95_seconds=timing.p95,
                    quiet_seconds=timing.quiet,
                    joules_why=NO_METER,
                    peak_bytes=candidate.measured.peak_bytes,
                    own_bytes=candidate.measured.own_bytes,
                )
            )
            operators |= {operator.signature: operator for operator in timing.operators}
    version = next((each.measured.onnxruntime for each in found if each.measured), None)
    return Profile(this_machine(version), tuple(steps), tuple(operators.values()))


def on_board(profile: Profile, wish: Wish, found: Sequence[Candidate]) -> dict[str, BoardCost]:
    """Costs of every cut that could be exported, by name.

    Raises:
        ExportError: the profile neither has the cuts nor operators to predict them from.
    """
    known = {step.key: step for step in profile.steps}
    model = _model(profile, wish, found, known)
    return {candidate.name: _cost(profile, wish, candidate, known, model) for candidate in found if candidate.measured}


def _cost(
    profile: Profile, wish: Wish, candidate: Candidate, known: Mapping[Any, Step], model: Model | None
) -> BoardCost:
    assert candidate.measured is not None  # noqa: S101  for mypy: the caller has looked
    keys = {kind: _key(wish, candidate.name, kind) for kind in wish.round.runs}
    if all(key in known for key in keys.values()):
        steps = {kind: known[key] for kind, key in keys.items()}
        peaks = [step.peak_bytes for step in steps.values() if step.peak_bytes is not None]
        costs = {kind: Cost(step.median_seconds, step.joules) for kind, step in steps.items()}
        return BoardCost(costs, max(peaks, default=None), "measured")
    if model is None:
        batches = sorted({step.batch for step in profile.steps if step.model == wish.spec.model})
        has = f"batches of {', '.join(map(str, batches))}" if batches else "nothing"
        raise ExportError(
            f"the profile of {profile.name} has no time for the cut '{candidate.name}' of {wish.spec.model} "
            f"(objective {wish.round.objective}, batch {wish.batch}, {wish.threads} threads; it has {has} of this model) "
            "and no operators to predict it from"
        )
    watts = _watts(profile)
    costs = {}
    for kind in wish.round.runs:
        seconds = model.predict(candidate.measured.timings[kind].operators).seconds
        costs[kind] = Cost(seconds, None if watts is None else watts * seconds)
    return BoardCost(costs, candidate.measured.peak_bytes, "predicted")


def _model(profile: Profile, wish: Wish, found: Sequence[Candidate], known: Mapping[Any, Step]) -> Model | None:
    """A model of the board's operators; whole steps of it that were seen say how much its profiler leaves out."""
    if not profile.operators:
        return None
    times = {operator.signature: operator.seconds for operator in profile.operators}
    steps: list[tuple[float, list[Operator]]] = []
    for candidate in found:
        for kind, timing in candidate.measured.timings.items() if candidate.measured else ():
            step = known.get(_key(wish, candidate.name, kind))
            here = [
                Operator(*each.signature, times[each.signature]) for each in timing.operators if each.signature in times
            ]
            if step is not None and len(here) == len(timing.operators):
                steps.append((step.median_seconds, here))
    return learn(steps or [(0.0, list(profile.operators))])


def _watts(profile: Profile) -> float | None:
    """Mean power of the steps whose energy was measured."""
    rows = [(step.joules, step.median_seconds) for step in profile.steps if step.joules is not None]
    seconds = sum(taken for _, taken in rows)
    return sum(joules for joules, _ in rows) / seconds if seconds > 0 else None


def _key(wish: Wish, cut: str, kind: str) -> tuple[str, str, str, str, str, int, int]:
    spec = wish.spec
    return spec.model, cut, wish.round.objective, spec.optimizer, kind, wish.batch, wish.threads
