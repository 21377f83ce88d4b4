"""SCAFFOLD: Stochastic Controlled Averaging for Federated Learning (Karimireddy et al., 2020, arXiv 1910.06378), option II.

    every round, on every device i of S, those that are there:
        y ← x
        K times: y ← y − η (∇CE(M(x; y), y) + c − c_i)
        c_i⁺ = c_i − c + (x − y) / (K η)
        y − x and c_i⁺ − c_i go up;  c_i ← c_i⁺
    the hub:  x ← x + η_g mean (y − x),  c ← c + |S| / N · mean (c_i⁺ − c_i)      N devices in the fleet

c_i is the gradient device i met on its last way, c what the fleet met: their difference corrects the drift of a device
towards its own optimum. Steps are plain SGD, for which (x − y) / (K η) is that gradient. With all controls zero, as in the
first round, it is FedAvg. x, c down and y, c_i⁺ − c_i up are 4 |W| a device a round.

The paper's means are uniform and so is the default; `weights = "samples"` is ours: x by the samples of who came, and c
the mean of the c_i by the samples of the whole fleet, so that the corrections still cancel. K is one number in the paper;
here it is the batches of the device's own epoch; a device whose means did not carry them all puts those it did in its place.

Who is away or lost has no part in the means and gets the current x and c with its next order. A lost device may have
moved its c_i without the hub's knowing, and c would be off for good. So the hub keeps every c_i and sends it along (|W|
more, once) to a device that was lost, and to all after it was restarted itself; a board whose memory is new says so in its
report, and its c_i began at zero. If nobody came everything stays; until for the
first time somebody has, each device goes on from its own weights. Where η_g is not 1, the update needs x, and the first
turn of all asks one device for it (|W| more up, once); the running statistics of batch norm are then plain means (ours).
"""

# ruff: noqa: A002, ARG002, RUF002  arguments are the contract's, letters the paper's

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from torch import nn

from edge.wire.toml_fields import Range
from hub.strategies.averaging import mean, moved, shares
from hub.strategies.base import Fleet, Lower, Order, Orders
from hub.strategies.checkpoint import BRIEF
from hub.strategies.sides import Uncut, UncutOptions, ask_for_weights


@dataclass(frozen=True)
class ScaffoldOptions(UncutOptions):
    """How the devices train between two averages, and how those are taken."""

    lr: Annotated[float, Range(1e-6, 10)] = 0.03
    """η, the devices' learning rate. The default is ours: with larger ones the controls soon overshoot."""

    lr_global: Annotated[float, Range(0, 10)] = 1.0
    """η_g, the share of the mean change that the hub takes."""

    weights: Literal["uniform", "samples"] = "uniform"
    """How devices count in the means: alike, or by their samples as in FedAvg."""


@dataclass
class State:
    """What changes in a run."""

    fleet: Fleet
    weights: Lower | None = None
    """x; None until the first have come, while every device has the bundle's."""
    controls: dict[str, np.ndarray] = field(default_factory=dict)
    """c_i of each device that ever came, float32, flat (W,); those of the others are zero."""
    agreed: set[str] = field(default_factory=set, metadata=BRIEF)
    """Devices whose c_i is surely that of the hub."""
    settled: set[str] = field(default_factory=set, metadata=BRIEF)
    """Devices of this turn whose c_i will be, if they come."""
    told: set[str] = field(default_factory=set, metadata=BRIEF)
    """Devices of this turn that were sent their c_i."""
    trained: int = -1
    """The last round in which the devices were told to train."""


class Scaffold(Uncut):
    """The strategy."""

    options: ClassVar[type] = ScaffoldOptions
    objective = "control_variates"
    optimizer = "sgd"

    def init(self, fleet: Fleet, upper: nn.Module, *, rounds: int, seed: int) -> State:
        """All controls are zero, on the hub and on the devices."""
        return State(fleet, agreed=set(fleet.names))

    def turn(self, state: State, round: int, turn: int, present: Collection[str]) -> tuple[State, Orders | None]:
        """One turn a round, and where η_g is not 1 one before the first: who is asked for its weights."""
        if state.weights is None and self.o.lr_global != 1:
            return state, ask_for_weights(state.fleet, turn, present)
        if state.trained == round:
            return state, None
        state.trained = round
        common = self._common(state) if state.controls else None
        orders = {name: self._order(state, name, round, common) for name in sorted(present)}
        state.told = {name for name, order in orders.items() if "state.own" in (order.state or {})}
        state.settled = {name for name in present if name in state.agreed or state.controls}
        state.agreed = state.agreed.difference(present)
        return state, orders

    def settle(
        self,
        state: State,
        round: int,
        turn: int,
        reports: Mapping[str, Mapping[str, Any]],
        states: Mapping[str, Lower],
    ) -> State:
        """The means: x from the weights of who came, c_i from their changes."""
        if not states:
            return state
        lowers = {name: {key: given[key] for key in given if key != "change"} for name, given in states.items()}
        if state.trained < round:
            state.weights = next(iter(lowers.values()))
            return state
        p = self._shares(state.fleet, states)
        if state.weights is None or self.o.lr_global == 1:
            state.weights = mean(lowers, p)
        else:
            state.weights = moved(state.weights, lowers, p, {name: self.o.lr_global * p[name] for name in p})
        for name, given in states.items():
            forgotten = reports.get(name, {}).get("started_over") and name not in state.told
            own = np.float32(0) if forgotten else state.controls.get(name, np.float32(0))
            # In float32 like the device's own sum, so that both stay the same to the last bit.
            state.controls[name] = own + given["change"]
        state.agreed |= state.settled & states.keys()
        return state

    def load(self, fleet: Fleet, upper: nn.Module, saved: Mapping[str, Any]) -> State:
        """Take what `save` gave; the devices may have gone on since, so each is sent its c_i again."""
        state: State = super().load(fleet, upper, saved)
        state.agreed = set()
        return state

    def _shares(self, fleet: Fleet, names: Collection[str]) -> dict[str, float]:
        named = dict.fromkeys(names)
        return shares(fleet, named) if self.o.weights == "samples" else dict.fromkeys(named, 1 / len(named))

    def _common(self, state: State) -> np.ndarray:
        """c, which is the mean of all c_i: adding |S| / N · mean (c_i⁺ − c_i) keeps it so."""
        p = self._shares(state.fleet, state.fleet.names)
        return mean({name: {"c": control} for name, control in state.controls.items()}, p)["c"]

    def _order(self, state: State, name: str, round: int, common: np.ndarray | None) -> Order:
        # In round 0 every device has x, c and c_i already.
        load = dict(state.weights or {}) if round else {}
        if common is not None:
            load["state.common"] = common
            if name not in state.agreed:
                load["state.own"] = state.controls.get(name, np.zeros_like(common))
        steps = self.steps(state.fleet, name)
        return Order(
            kind="local",
            first_step=0,
            steps=steps,
            # The bundle's own default of the momentum would be 0.9.
            settings={
                "lr": self.o.lr,
                "momentum": 0.0,
                "weight_decay": self.o.weight_decay,
                "local_steps": float(steps),
            },
            state=load or None,
            give=("lower",),
        )
