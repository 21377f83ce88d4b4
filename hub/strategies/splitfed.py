"""SplitFed: When Federated Learning Meets Split Learning (Thapa et al., 2020, arXiv 2004.12088).

    every round
        all devices load the mean of the lower segments
        for every step, all devices at once:
            a = M_c(x) goes up, the hub steps on CE(M_s(a), y), ∂CE/∂a comes down, the device steps
        lower segments ← Σ δ_i · lower segment of device i,  δ_i = n_i / Σ n, n training samples
    v1  the hub has a copy of M_s for each device, which learns from that device alone; at the end of the round
        every copy ← Σ δ_i · copy of device i
    v2  the hub has one M_s, which learns from one device after the other

In v2 a step's devices follow each other in the order of the fleet [ours]; in the authors' code a device has its whole epoch
before the next, in an order drawn anew each round. There the mean has no weights, for equal shares, and both sides begin
with fresh Adam moments: the device each round, the hub each batch [code]. Here moments last [ours]: a device keeps its own, and
v1's copies average theirs as they do their weights, so that between rounds all copies are one and the same, and so is the checkpoint.

The mean is over the devices that gave their lower segment; both sides use the same. A device that did not give counts for
nothing in v1, and its copy starts the next round from the mean like all others; v2 has learned what it has learned. Who was
away gets the mean with its next order. Where nobody gave, the lower segments stay and v1's copies are averaged all the same [ours].

v1 holds four times the upper segment in memory for every device of the fleet: weights, gradients and two moments.
"""

# ruff: noqa: A002, ARG002  arguments are the contract's, letters the paper's

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import nn

from hub.segment import UpperSegment, average
from hub.strategies.averaging import shares
from hub.strategies.base import AdamOptions, Batch, Fleet, Learned, Lower, Order, Orders
from hub.strategies.checkpoint import BRIEF
from hub.strategies.sides import Averaging


@dataclass(frozen=True)
class SplitFedOptions(AdamOptions):
    """How SplitFed shares the hub's segment."""

    version: Literal["v1", "v2"] = "v1"
    """v1: a copy of the upper segment for each device, averaged every round. v2: one for all."""


@dataclass
class State:
    """What changes in a run."""

    fleet: Fleet
    seed: int
    upper: UpperSegment
    """v1: the copy of the first device of the fleet, which between two rounds is like all others; v2: the one for all."""
    others: tuple[UpperSegment, ...] = field(default_factory=tuple, metadata=BRIEF)
    """v1: the copies of the other devices, in the order of the fleet."""
    mean: Lower | None = None
    """The mean of the lower segments; None while every device still has the first one."""
    samples: int = 0

    @property
    def copies(self) -> tuple[UpperSegment, ...]:
        """All that the hub has."""
        return (self.upper, *self.others)


class SplitFed(Averaging):
    """The strategy."""

    options: ClassVar[type] = SplitFedOptions
    objective = "gradient"

    def init(self, fleet: Fleet, upper: nn.Module, *, rounds: int, seed: int) -> State:
        """A fresh hub; its copies draw different noise for dropout."""
        others = len(fleet) - 1 if self.o.version == "v1" else 0
        first, *more = (self.segment(fleet, upper, seed + i) for i in range(1 + others))
        return State(fleet, seed, first, tuple(more))

    def turn(self, state: State, round: int, turn: int, present: Collection[str]) -> tuple[State, Orders | None]:
        """One turn: a round of exchanges for everybody."""
        if turn > 0:
            return state, None
        steps = state.fleet.steps
        order = Order(
            kind="exchange",
            first_step=0,
            steps=steps,
            send=tuple(range(steps)),
            settings=self.o.settings,
            state=state.mean,
            give=("lower",),
        )
        return state, dict.fromkeys(sorted(present), order)

    def learn(
        self, state: State, round: int, step: int, batches: Mapping[str, Batch]
    ) -> tuple[State, dict[str, Learned]]:
        """A step on CE of the device's copy, or of the one for all; its gradient goes down."""
        ((device, batch),) = batches.items()
        i = state.fleet.index(device)
        copy = state.copies[i % len(state.copies)]
        loss, gradient = copy.step(i, batch.smashed, batch.labels, gradient=True)
        state.samples += len(batch.labels)
        return state, {device: Learned(loss, gradient)}

    def settle(
        self,
        state: State,
        round: int,
        turn: int,
        reports: Mapping[str, Mapping[str, Any]],
        states: Mapping[str, Lower],
    ) -> State:
        """Average both sides over who came."""
        state = super().settle(state, round, turn, reports, states)
        if self.o.version == "v1":
            weights = shares(state.fleet, states or dict.fromkeys(state.fleet.names))
            average(state.copies, [weights.get(name, 0.0) for name in state.fleet.names])
        return state

    def samples(self, state: State) -> int:
        """Of all copies."""
        return state.samples

    def load(self, fleet: Fleet, upper: nn.Module, saved: Mapping[str, Any]) -> State:
        """Take what `save` gave; all copies become the one that it has."""
        state: State = super().load(fleet, upper, saved)
        average(state.copies, [1.0] + [0.0] * len(state.others))
        return state
