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
from typing import Annotated, ClassVar

from torch import nn

from edge.wire.toml_fields import Range
from hub.segment import Replay, UpperSegment
from hub.strategies.base import AdamOptions, Batch, Fleet, Learned, Lower, Order, Orders
from hub.strategies.sides import Averaging


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
    mean: Lower | None = None
    """The mean of what devices train, classifier included; None while every device still has the first one."""


class LocSplitFed(Averaging):
    """The strategy."""

    options: ClassVar[type] = LocSplitFedOptions
    objective = "auxiliary"

    def init(self, fleet: Fleet, upper: nn.Module, *, rounds: int, seed: int) -> State:
        """A fresh hub."""
        return State(fleet, seed, self.segment(fleet, upper, seed), Replay(int(self.o.replay_megabytes * 1e6)))

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
            settings=self.o.settings,
            state=state.mean,
            give=("head", "lower"),
        )
        return state, dict.fromkeys(sorted(present), order)

    def learn(
        self, state: State, round: int, step: int, batches: Mapping[str, Batch]
    ) -> tuple[State, dict[str, Learned]]:
        """A hub step on CE, and `replay` more on what came before."""
        state, learned = super().learn(state, round, step, batches)
        if self.o.replay:
            ((device, batch),) = batches.items()
            state.upper.learn_again(state.replay, self.o.replay)
            state.replay.add(state.fleet.index(device), batch.smashed, batch.labels)
        return state, learned
