"""One-shot split learning: smashed data travel once, when the devices are done (the idea of Ampere, Zhang et al., 2025, arXiv 2507.07130).

    all rounds but the last   every device trains its lower segment M_c and a small classifier H on CE(H(a), y) and sends no smashed
                              data; (M_c, H) ← Σ δ_i · (M_c, H) of device i,  δ_i = n_i / Σ n, n training samples
    the last round            every device sends (a, y), a = M_c(x), for each of its training samples once, and learns nothing;
                              the hub keeps them, and then trains `hub_epochs` epochs on all of them shuffled together

That the device's part is trained first with a local loss, that activations are transferred once, and that the hub trains on those
of all devices consolidated, is the abstract's; the rest is ours, and so are the defaults. With `average` off every device keeps a
lower segment of its own, and nothing but the last round uses the network.

Before the last round the hub has learned nothing: an evaluation until then is of an untrained upper segment, and its accuracy is
chance. The loss that is told of the last round is that of the untrained segment too. Each batch is learned `hub_epochs` times:
that is what `replay` is to other strategies.

The mean is over the devices that gave; who was away gets it with its next order. Of a device that is away or lost in the last
round the hub learns what came, or nothing. A run of one round sends the smashed data of the untrained lower segments.
"""

# ruff: noqa: A002, ARG002  arguments are the contract's, letters the paper's

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np
import torch.nn.functional as F  # noqa: N812  the name everybody reads
from torch import nn

from edge.wire.toml_fields import Range
from hub.segment import Replay, UpperSegment
from hub.strategies.base import AdamOptions, Batch, Fleet, Learned, Lower, Member, Order, Orders
from hub.strategies.checkpoint import BRIEF
from hub.strategies.sides import Averaging, without_head


@dataclass(frozen=True)
class OneShotOptions(AdamOptions):
    """How devices train, and what the hub does with what they send."""

    average: bool = True
    """Whether devices average their lower segments and classifiers every round; else nothing is sent before the last."""

    hub_epochs: Annotated[int, Range(1, 100_000)] = 20
    """Epochs of the hub on all that was sent."""

    keep_megabytes: Annotated[float, Range(0, 1e6)] = 1024.0
    """Memory (10^6 bytes) for what was sent; the oldest samples make way, and are never learned."""


@dataclass
class State:
    """What changes in a run; what was sent is used up before the round ends."""

    fleet: Fleet
    rounds: int
    seed: int
    upper: UpperSegment
    sent: Replay = field(metadata=BRIEF)
    mean: Lower | None = None
    """The mean of what devices train, classifier included; None while there is none."""


class OneShot(Averaging):
    """The strategy."""

    options: ClassVar[type] = OneShotOptions
    objective = "auxiliary"

    def init(self, fleet: Fleet, upper: nn.Module, *, rounds: int, seed: int) -> State:
        """A fresh hub."""
        return State(fleet, rounds, seed, self.segment(fleet, upper, seed), self._nothing())

    def turn(self, state: State, round: int, turn: int, present: Collection[str]) -> tuple[State, Orders | None]:
        """One turn: everybody trains for a round, or in the last sends what it has."""
        if turn > 0:
            return state, None
        members = [member for member in state.fleet.members if member.name in present]
        if _is_last(state, round):
            return state, {member.name: self._forward(state, member) for member in members}
        return state, {member.name: self._local(state) for member in members}

    def learn(
        self, state: State, round: int, step: int, batches: Mapping[str, Batch]
    ) -> tuple[State, dict[str, Learned]]:
        """Keep it; the loss is that before the hub has learned."""
        ((device, batch),) = batches.items()
        state.sent.add(state.fleet.index(device), batch.smashed, batch.labels)
        return state, {device: Learned(float(F.cross_entropy(state.upper.predict(None, batch.smashed), batch.labels)))}

    def end_round(self, state: State, round: int) -> State:
        """After the last round, the hub's epochs; then what was sent is forgotten."""
        if _is_last(state, round):
            for _ in range(self.o.hub_epochs):
                for smashed, labels in state.sent.epoch(np.random.default_rng([state.seed, 4, state.upper.steps])):
                    state.upper.step(0, smashed, labels)
            state.sent = self._nothing()
        return state

    def _nothing(self) -> Replay:
        return Replay(int(self.o.keep_megabytes * 1e6))

    def _local(self, state: State) -> Order:
        return Order(
            kind="local",
            first_step=0,
            steps=state.fleet.steps,
            settings=self.o.settings,
            state=state.mean,
            give=("head", "lower") if self.o.average else (),
        )

    def _forward(self, state: State, member: Member) -> Order:
        return Order(
            kind="forward",
            first_step=0,
            steps=member.batches,
            send=tuple(range(member.batches)),
            state=without_head(state.mean),
        )


def _is_last(state: State, round: int) -> bool:
    return round >= state.rounds - 1
