"""FedAvg: Communication-Efficient Learning of Deep Networks from Decentralized Data (McMahan et al., 2017, arXiv 1602.05629).

    every round, on every device that is there:
        w_i ← w
        for every batch of E local epochs: w_i ← w_i − η ∇CE(M(x; w_i), y)
        w_i goes up
    the hub:  w ← Σ n_i w_i / Σ n_i over the devices that came

The whole model M trains on the device; only weights travel, |W| down and |W| up a device a round, and nothing down in
the first. An epoch is the device's own batches, as in the paper, so devices with more samples do more steps; E of them make
a round. The paper steps by plain SGD; Adam as the default is ours: rounds of a few steps get further with it. Moments start
anew every round.

A device that is away or lost has no part in the mean and gets the current weights with its next order. If nobody came
the weights stay; until for the first time somebody has, each device goes on from its own.
"""

# ruff: noqa: A002, ARG002, RUF002  arguments are the contract's, letters the paper's

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from torch import nn

from edge.wire.toml_fields import Range
from hub.strategies.averaging import mean, shares
from hub.strategies.base import Fleet, Lower, Order, Orders
from hub.strategies.sides import Uncut, UncutOptions


@dataclass(frozen=True)
class FedAvgOptions(UncutOptions):
    """How the devices train between two averages."""

    optimizer: Literal["sgd", "adam"] = "adam"
    """What the devices step by; the bundle must be built for it."""

    lr: Annotated[float, Range(0, 10)] = 1e-3
    """Learning rate; sgd wants a larger one."""

    momentum: Annotated[float, Range(0, 0.999)] = 0.0
    """Of sgd."""

    def problems(self) -> Iterator[str]:
        """Sentences about options that do not go together."""
        if self.optimizer == "adam" and self.momentum:
            yield f"momentum = {self.momentum}: only sgd has it; leave it at 0, or set optimizer = 'sgd'"


@dataclass
class State:
    """What changes in a run."""

    fleet: Fleet
    weights: Lower | None = None
    """w, the mean; None until somebody has come, while every device has the bundle's."""


class FedAvg(Uncut):
    """The strategy."""

    options: ClassVar[type] = FedAvgOptions
    objective = "whole"

    @property
    def optimizer(self) -> str:
        """The option."""
        return self.o.optimizer

    def init(self, fleet: Fleet, upper: nn.Module, *, rounds: int, seed: int) -> State:
        """Nothing is known yet."""
        return State(fleet)

    def turn(self, state: State, round: int, turn: int, present: Collection[str]) -> tuple[State, Orders | None]:
        """One turn a round: all train from w and give what they come to."""
        if turn:
            return state, None
        return state, {name: self._order(state, name) for name in sorted(present)}

    def settle(
        self,
        state: State,
        round: int,
        turn: int,
        reports: Mapping[str, Mapping[str, Any]],
        states: Mapping[str, Lower],
    ) -> State:
        """The mean over who came, by their samples."""
        if states:
            state.weights = mean(states, shares(state.fleet, states))
        return state

    def _order(self, state: State, name: str) -> Order:
        return Order(
            kind="local",
            first_step=0,
            steps=self.steps(state.fleet, name),
            settings=self._settings(),
            state=state.weights,
            give=("lower",),
        )

    def _settings(self) -> dict[str, float]:
        settings = {"lr": self.o.lr, "weight_decay": self.o.weight_decay}
        # The bundle's own default would be 0.9.
        return settings if self.o.optimizer == "adam" else {**settings, "momentum": self.o.momentum}
