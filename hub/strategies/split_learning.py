"""Sequential split learning (Gupta and Raskar, 2018, arXiv 1810.06060): one lower segment travels from device to device.

    for every device in turn:
        load the weights its predecessor left
        for every batch: a = M_c(x) goes up, the hub steps on CE(M_s(a), y), ∂CE/∂a comes down, the device steps
        hand the weights on

A device takes its turn for a whole local epoch (`turns = "epoch"`) or for one batch (`turns = "batch"`: less forgetting on
heterogeneous devices, more weights on the wire). Optimizer moments stay where they are.

A device that is away is skipped and gets the current weights when it is back; one that is lost in its turn leaves the
weights as they were before it. No device's share is made longer to match the others': each does its own batches.
"""

# ruff: noqa: A002, ARG002  arguments are the contract's

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import nn

from hub.segment import UpperSegment
from hub.strategies.base import AdamOptions, Fleet, Lower, Order, Orders, Stand
from hub.strategies.checkpoint import BRIEF
from hub.strategies.sides import Cut


@dataclass(frozen=True)
class SplitLearningOptions(AdamOptions):
    """How split learning goes from device to device."""

    turns: Literal["epoch", "batch"] = "epoch"
    """How long a device keeps the lower segment: a local epoch, or one batch."""


@dataclass
class State:
    """What changes in a run."""

    fleet: Fleet
    seed: int
    upper: UpperSegment
    lower: Lower | None = None
    """The lower segment that travels; None while every device still has the first one."""
    holder: str | None = None
    """The device that trained it last and still has it."""
    queue: list[tuple[str, range]] = field(default_factory=list, metadata=BRIEF)
    """Who has a turn yet in this round, and which steps."""


class SplitLearning(Cut):
    """The strategy."""

    options: ClassVar[type] = SplitLearningOptions
    objective = "gradient"
    answers: ClassVar[bool] = True

    def init(self, fleet: Fleet, upper: nn.Module, *, rounds: int, seed: int) -> State:
        """A fresh hub."""
        return State(fleet, seed, self.segment(fleet, upper, seed))

    def turn(self, state: State, round: int, turn: int, present: Collection[str]) -> tuple[State, Orders | None]:
        """The next device that is there."""
        if turn == 0:
            state.queue = self._round(state.fleet)
        while state.queue:
            name, steps = state.queue.pop(0)
            if name in present:
                return state, {name: self._order(state, name, steps)}
        return state, None

    def settle(
        self,
        state: State,
        round: int,
        turn: int,
        reports: Mapping[str, Mapping[str, Any]],
        states: Mapping[str, Lower],
    ) -> State:
        """The weights the device left are those the next one gets."""
        for name, lower in states.items():
            state.lower, state.holder = lower, name
        return state

    def stand(self, state: State, device: str, present: Collection[str]) -> Stand:
        """There is one lower segment, and everybody is evaluated with it as the last turn left it."""
        return Stand(None if device == state.holder else state.lower)

    def _round(self, fleet: Fleet) -> list[tuple[str, range]]:
        if self.o.turns == "epoch":
            return [(member.name, range(member.batches)) for member in fleet.members]
        return [
            (member.name, range(step, step + 1))
            for step in range(fleet.steps)
            for member in fleet.members
            if step < member.batches
        ]

    def _order(self, state: State, name: str, steps: range) -> Order:
        return Order(
            kind="exchange",
            first_step=steps.start,
            steps=len(steps),
            send=tuple(steps),
            settings=self.o.settings,
            state=None if name == state.holder else state.lower,
            give=("lower",),
        )
