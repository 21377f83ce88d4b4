"""The Pareto front of the cuts, and the one to take: most rounds a day within link, budget, memory and leak."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from export.cuts.board import BoardCost
from export.cuts.candidates import Candidate
from export.cuts.leak import Leak
from export.cuts.link import Budget, Link
from export.cuts.rounds import RoundCost

DAY_SECONDS = 86_400.0
ALIKE = 0.02
"""Cuts whose rounds a day differ by less than this share are alike: the one with fewer bytes is taken."""


@dataclass(frozen=True)
class Option:
    """A cut that can be exported, with what it costs."""

    candidate: Candidate
    board: BoardCost
    round: RoundCost
    batch: int = 32
    """Samples of an activation."""

    @property
    def name(self) -> str:
        """The layer."""
        return self.candidate.name

    @property
    def leak(self) -> Leak | None:
        """Behind the codec of the round; None where it was not measured."""
        return self.candidate.leaks[0] if self.candidate.leaks else None

    @property
    def step_seconds(self) -> float:
        """One step of training: all graphs of it once."""
        return sum(cost.seconds for cost in self.board.steps.values())

    @property
    def costs(self) -> tuple[float, ...]:
        """What is to be small: seconds of a round's computing, bytes of a round, and the leak."""
        known = (self.leak.worst[1],) if self.leak else ()
        return (self.round.compute_seconds, self.round.bytes, *known)


@dataclass(frozen=True)
class Limits:
    """What a choice must keep to; None: there is no such limit."""

    link: Link | None = None
    budget: Budget | None = None
    memory_bytes: int | None = None
    max_leak: float | None = None
    rounds: int = 20
    """Of a run, for budgets of a run."""


@dataclass(frozen=True)
class Choice:
    """What was chosen, and why; no option where none is within the limits."""

    option: Option | None
    why: str
    rounds_per_day: float = 0.0
    refused: dict[str, str] = field(default_factory=dict)
    """Cuts that break a limit, and which."""


def front(options: Sequence[Option]) -> set[str]:
    """Names of the cuts that no other is at least as good as in everything and better in something."""

    def beaten(costs: tuple[float, ...]) -> bool:
        return any(
            all(mine <= theirs for mine, theirs in zip(other.costs, costs, strict=True)) and other.costs != costs
            for other in options
        )

    return {option.name for option in options if not beaten(option.costs)}


def rounds_per_day(option: Option, limits: Limits) -> tuple[float, str]:
    """How many rounds a day there can be, and what keeps them from being more: `time` or `budget`."""
    by_time = DAY_SECONDS / option.round.seconds if option.round.seconds > 0 else math.inf
    if limits.budget is None:
        return by_time, "time"
    by_budget = limits.budget.rounds_per_day(option.round.bytes, limits.rounds)
    return (by_budget, "budget") if by_budget < by_time else (by_time, "time")


def choose(options: Sequence[Option], limits: Limits) -> Choice:
    """The cut with the most rounds a day within the limits; among those alike the one with the fewest bytes."""
    refused = {option.name: text for option in options if (text := _breaks(option, limits))}
    left = [option for option in options if option.name not in refused]
    if not left:
        first = "; ".join(f"{name}: {text}" for name, text in list(refused.items())[:3])
        return Choice(None, f"no cut is within the limits: {first or 'none can be exported'}", 0.0, refused)
    pace = {option.name: rounds_per_day(option, limits) for option in left}
    best = max(many for many, _ in pace.values())
    alike = [option for option in left if pace[option.name][0] >= (1 - ALIKE) * best]
    taken = min(alike, key=lambda option: (option.round.bytes, option.round.compute_seconds))
    others = sorted((option for option in left if option is not taken), key=lambda option: -pace[option.name][0])
    many, what = pace[taken.name]
    return Choice(taken, _sentence(taken, many, what, limits, others, pace), many, refused)


def _breaks(option: Option, limits: Limits) -> str:
    """Which limit a cut breaks; empty where it breaks none."""
    peak = option.board.peak_bytes
    if limits.memory_bytes is not None and peak is not None and peak > limits.memory_bytes:
        return f"its step needs {megabytes(peak)} of memory, the board has {megabytes(limits.memory_bytes)}"
    if limits.max_leak is not None and option.leak is not None and option.leak.worst[1] > limits.max_leak:
        what, number = option.leak.worst
        return f"its leak is {number:.2f} ({what}), the limit is {limits.max_leak:g}"
    if limits.budget is not None and limits.budget.rounds_per_day(option.round.bytes, limits.rounds) <= 0:
        return f"a round takes {kilobytes(option.round.bytes)}, more than the budget of {limits.budget.text} pays for"
    return ""


def _sentence(
    taken: Option,
    many: float,
    what: str,
    limits: Limits,
    others: Sequence[Option],
    pace: dict[str, tuple[float, str]],
) -> str:
    link = "" if limits.link is None else f" and {_seconds(taken.round.link_seconds or 0.0)} on {limits.link.text}"
    held = f"the budget of {limits.budget.text}" if what == "budget" and limits.budget else "time"
    text = (
        f"{taken.name}: {_many(many)} rounds a day, limited by {held}: a round computes for "
        f"{_seconds(taken.round.compute_seconds)}{link} and takes {kilobytes(taken.round.bytes)}"
    )
    if not others:
        return f"{text}; it is the only one within the limits."
    second = others[0]
    return (
        f"{text}; the next, {second.name}, comes to {_many(pace[second.name][0])} rounds a day with "
        f"{_seconds(second.round.compute_seconds)} and {kilobytes(second.round.bytes)}."
    )


def _many(number: float) -> str:
    return "any number of" if math.isinf(number) else f"{number:,.0f}" if number >= 10 else f"{number:.1f}"


def _seconds(number: float) -> str:
    return f"{number:.3g} s" if number >= 1 else f"{1e3 * number:.3g} ms"


def kilobytes(number: float) -> str:
    """Bytes in words."""
    return f"{number / 1e6:.2f} MB" if number >= 1e6 else f"{number / 1e3:.1f} kB"


def megabytes(number: float) -> str:
    """Bytes of memory in words."""
    return f"{number / 2**20:.0f} MiB"
