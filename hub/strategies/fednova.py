"""FedNova: Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization (Wang et al., 2020, arXiv 2007.07481).

    every round, on every device that is there:
        w_i ← w
        τ_i times: w_i ← w_i − η (∇CE(M(x; w_i), y), with momentum ρ)
        w_i goes up
    the hub, over the devices that came:
        d_i = (w − w_i) / a_i         a_i = τ_i, with momentum (τ_i − ρ(1 − ρ^τ_i) / (1 − ρ)) / (1 − ρ)
        w ← w − (Σ p_i a_i) · Σ p_i d_i        p_i = n_i / Σ n

a_i is by how much the gradients of a device weigh in its change: FedAvg gives devices with more steps a larger say than
their samples, FedNova takes it back. With equal steps it is FedAvg. Steps are SGD, for which a_i holds; the momentum
starts anew every round, as a_i assumes. τ_i are the batches of the device's E own epochs, or what it reports where its
means did not carry them all.

Weights travel as in FedAvg. The update needs w, and before the first round only the devices know it, so the first turn
asks one of them: |W| more up, once. Batch norm's running statistics, which the update could make negative, are averaged
by p_i (ours).

A device that is away or lost has no part in the sums, p_i being among those that came, and gets the current weights with
its next order. If nobody came the weights stay; if nobody tells the hub its first ones, nobody trains in that round.
"""

# ruff: noqa: A002, ARG002, RUF001, RUF002  arguments are the contract's, letters the paper's

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from torch import nn

from edge.wire.toml_fields import Range
from hub.strategies.averaging import moved, shares
from hub.strategies.base import Fleet, Lower, Order, Orders
from hub.strategies.sides import Uncut, UncutOptions, ask_for_weights, done


@dataclass(frozen=True)
class FedNovaOptions(UncutOptions):
    """How the devices train between two averages."""

    lr: Annotated[float, Range(0, 10)] = 0.05
    """Learning rate. The default is ours."""

    momentum: Annotated[float, Range(0, 0.999)] = 0.9
    """ρ; 0 is plain SGD. The default is ours."""


@dataclass
class State:
    """What changes in a run."""

    fleet: Fleet
    weights: Lower | None = None
    """w; None until a device has told it."""
    trained: int = -1
    """The last round in which the devices were told to train."""


class FedNova(Uncut):
    """The strategy."""

    options: ClassVar[type] = FedNovaOptions
    objective = "whole"
    optimizer = "sgd"

    def init(self, fleet: Fleet, upper: nn.Module, *, rounds: int, seed: int) -> State:
        """Nothing is known yet."""
        return State(fleet)

    def turn(self, state: State, round: int, turn: int, present: Collection[str]) -> tuple[State, Orders | None]:
        """One turn a round, and one before the first: who is asked for its weights."""
        if state.weights is None:
            return state, ask_for_weights(state.fleet, turn, present)
        if state.trained == round:
            return state, None
        state.trained = round
        # In round 0 every device has w already.
        weights = state.weights if round else None
        return state, {name: self._order(state.fleet, name, weights) for name in sorted(present)}

    def settle(
        self,
        state: State,
        round: int,
        turn: int,
        reports: Mapping[str, Mapping[str, Any]],
        states: Mapping[str, Lower],
    ) -> State:
        """The normalised mean over who came."""
        if not states:
            return state
        if state.weights is None:
            state.weights = next(iter(states.values()))
            return state
        p = shares(state.fleet, states)
        a = {name: self._weight(done(reports.get(name, {}), self.steps(state.fleet, name))) for name in p}
        effective = sum(p[name] * a[name] for name in p)
        rates = {name: effective * p[name] / a[name] for name in p}
        state.weights = moved(state.weights, states, p, rates)
        return state

    def _order(self, fleet: Fleet, name: str, weights: Lower | None) -> Order:
        return Order(
            kind="local",
            first_step=0,
            steps=self.steps(fleet, name),
            settings={"lr": self.o.lr, "momentum": self.o.momentum, "weight_decay": self.o.weight_decay},
            state=weights,
            give=("lower",),
        )

    def _weight(self, steps: int) -> float:
        """a_i."""
        rho = self.o.momentum
        return (steps - rho * (1 - rho**steps) / (1 - rho)) / (1 - rho)
