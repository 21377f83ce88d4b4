"""LocSplitFed: split federated learning with a local loss (Han, Bhatti, Lee and Moon, 2021).

    every round
        all devices load the mean of the lower segments M_c and auxiliary classifiers H
        for every step, every device:
            a = M_c(x) goes up; the device steps M_c and H on CE(H(a), y), and waits for nothing
            the hub steps M_s on CE(M_s(a), y); nothing comes down
        (M_c, H) ← Σ δ_i · (M_c, H) of device i,  δ_i = n_i / Σ n, n training samples

That both segments learn in parallel from local losses and no gradient comes down is the abstract's ("Accelerating Federated Split
Learning via Local-Loss-Based Training"); the rest of the algorithm is recalled. The hub has one M_s, which learns from
one activation after the other in the order of the fleet; Adam's moments stay where they are; the classifier's size
(`export.heads.Classifier`), and the hub's further steps on what it has received (`replay`), are ours.

The mean is over the devices that gave. One that is lost in the round gives nothing, though the hub has learned what it sent;
who was away gets the mean with its next order.
"""

# ruff: noqa: A002, ARG002  arguments are the contract's, letters the paper's

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from torch import Tensor, nn

from edge.wire.toml_fields import Range
from hub.segment import Replay, Tuning, UpperSegment
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
class LocSplitFedOptions(AdamOptions):
    """How both sides learn."""

    replay: Annotated[int, Range(0, 10_000)] = 0
    """Further hub steps for each received batch, on samples received before. Ours."""

    replay_megabytes: Annotated[float, Range(0, 1e6)] = 256.0
    """Memory (10^6 bytes) for what was received, part of every checkpoint; the oldest samples make way."""


@dataclass
class State:
    """What changes in a run."""

    fleet: Fleet
    seed: int
    upper: UpperSegment
    replay: Replay
    trained: Lower | None = None
    """The mean of what devices train, classifier included; None while every device still has the first one."""


class LocSplitFed:
    """The strategy."""

    options: ClassVar[type] = LocSplitFedOptions
    together: ClassVar[bool] = False
    objective = "auxiliary"
    optimizer = "adam"

    def __init__(self, options: LocSplitFedOptions) -> None:
        check(options)
        self.o = options

    def init(self, fleet: Fleet, upper: nn.Module, *, rounds: int, seed: int) -> State:
        """A fresh hub."""
        segment = UpperSegment(upper, len(fleet), Tuning(self.o.lr, self.o.weight_decay), seed)
        return State(fleet, seed, segment, Replay(int(self.o.replay_megabytes * 1e6)))

    def turn(self, state: State, round: int, turn: int, present: Collection[str]) -> tuple[State, Orders | None]:
        """One turn: everybody trains for a round and sends every batch."""
        if turn > 0:
            return state, None
        steps = state.fleet.steps
        order = Order(
            kind="local",
            first_step=0,
            steps=steps,
            send=tuple(range(steps)),
            settings={"lr": self.o.lr, "weight_decay": self.o.weight_decay},
            state=state.trained,
            give=("head", "lower"),
        )
        return state, dict.fromkeys(sorted(present), order)

    def learn(
        self, state: State, round: int, step: int, batches: Mapping[str, Batch]
    ) -> tuple[State, dict[str, Learned]]:
        """A hub step on CE, and `replay` more on what came before."""
        ((device, batch),) = batches.items()
        i = state.fleet.index(device)
        loss, _ = state.upper.step(i, batch.smashed, batch.labels)
        if self.o.replay:
            state.upper.learn_again(state.replay, self.o.replay)
            state.replay.add(i, batch.smashed, batch.labels)
        return state, {device: Learned(loss)}

    def settle(
        self,
        state: State,
        round: int,
        turn: int,
        reports: Mapping[str, Mapping[str, Any]],
        states: Mapping[str, Lower],
    ) -> State:
        """Average what was given; with nothing given the mean stays."""
        if states:
            state.trained = mean(states, shares(state.fleet, states))
        return state

    def end_round(self, state: State, round: int) -> State:
        """Nothing: the learning rate is constant."""
        return state

    def stand(self, state: State, device: str, present: Collection[str]) -> Stand:
        """The mean of the lower segments, for everybody."""
        return Stand(without_head(state.trained))

    def predict(self, state: State, device: str, smashed: Tensor) -> Tensor:
        """Logits; the same upper segment for everybody."""
        return state.upper.predict(None, smashed)

    def samples(self, state: State) -> int:
        """As the upper segment counted them."""
        return state.upper.samples

    def save(self, state: State) -> dict[str, Any]:
        """Everything between two rounds, what was received included."""
        return {
            "fleet": list(state.fleet.names),
            "seed": state.seed,
            "upper": state.upper.save(),
            "replay": state.replay.save(),
            "trained": None if state.trained is None else tensors(state.trained),
        }

    def load(self, fleet: Fleet, upper: nn.Module, saved: Mapping[str, Any]) -> State:
        """Take what `save` gave."""
        same_fleet(fleet, saved["fleet"])
        state = self.init(fleet, upper, rounds=0, seed=saved["seed"])
        state.upper.load(saved["upper"])
        state.replay.load(saved["replay"])
        state.trained = None if saved["trained"] is None else arrays(saved["trained"])
        return state


def without_head(trained: Lower | None) -> Lower | None:
    """The lower segment of what a device trains: all that an evaluation or a `forward` order needs."""
    if trained is None:
        return None
    return {name: array for name, array in trained.items() if not name.startswith("head.")}
