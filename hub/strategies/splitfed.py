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
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from hub.segment import Tuning, UpperSegment, average
from hub.strategies.averaging import mean, shares
from hub.strategies.base import (
    AdamOptions,
    Batch,
    Fleet,
    Learned,
    Lower,
    Order,
    Orders,
    Stand,
    arrays,
    check,
    same_fleet,
    tensors,
)


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
    copies: tuple[UpperSegment, ...]
    """v1: one for each device, in the order of the fleet; v2: one."""
    lower: Lower | None = None
    """The mean of the lower segments; None while every device still has the first one."""
    samples: int = 0


class SplitFed:
    """The strategy."""

    options: ClassVar[type] = SplitFedOptions
    together: ClassVar[bool] = False
    objective = "gradient"
    optimizer = "adam"

    def __init__(self, options: SplitFedOptions) -> None:
        check(options)
        self.o = options

    def init(self, fleet: Fleet, upper: nn.Module, *, rounds: int, seed: int) -> State:
        """A fresh hub; its copies draw different noise for dropout."""
        tuning = Tuning(self.o.lr, self.o.weight_decay)
        copies = len(fleet) if self.o.version == "v1" else 1
        return State(fleet, seed, tuple(UpperSegment(upper, len(fleet), tuning, seed + i) for i in range(copies)))

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
            settings={"lr": self.o.lr, "weight_decay": self.o.weight_decay},
            state=state.lower,
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
        if states:
            state.lower = mean(states, shares(state.fleet, states))
        if self.o.version == "v1":
            weights = shares(state.fleet, states or dict.fromkeys(state.fleet.names))
            average(state.copies, [weights.get(name, 0.0) for name in state.fleet.names])
        return state

    def end_round(self, state: State, round: int) -> State:
        """Nothing: the learning rate is constant."""
        return state

    def stand(self, state: State, device: str, present: Collection[str]) -> Stand:
        """The mean, for everybody."""
        return Stand(state.lower)

    def predict(self, state: State, device: str, smashed: Tensor) -> Tensor:
        """Logits; between rounds the same upper segment for everybody."""
        return state.copies[0].predict(None, smashed)

    def samples(self, state: State) -> int:
        """Of all copies."""
        return state.samples

    def save(self, state: State) -> dict[str, Any]:
        """Everything between two rounds; of the copies, which are equal then, the first."""
        return {
            "fleet": list(state.fleet.names),
            "seed": state.seed,
            "upper": state.copies[0].save(),
            "lower": None if state.lower is None else tensors(state.lower),
            "samples": state.samples,
        }

    def load(self, fleet: Fleet, upper: nn.Module, saved: Mapping[str, Any]) -> State:
        """Take what `save` gave."""
        same_fleet(fleet, saved["fleet"])
        state = self.init(fleet, upper, rounds=0, seed=saved["seed"])
        for copy in state.copies:
            copy.load(saved["upper"])
        state.lower = None if saved["lower"] is None else arrays(saved["lower"])
        state.samples = saved["samples"]
        return state
