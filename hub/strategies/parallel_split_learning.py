"""Parallel split learning (Jeon and Kim, ICOIN 2020 [recalled]): all devices at once, one hub step for all, no averaging.

    for every step of the round, every device i:
        s_i = M_c,i(x_i) goes up
        the hub takes one step on Σ_i δ_i L_i,  L_i = CE(M_s(s_i), y_i)
        ∂L_i/∂s_i comes down, the device steps

δ_i = n_i / Σ n, n training samples, over the devices whose smashed data are there in this very step: the shares always sum to
1, and one device alone is plain split learning. What comes down is the gradient of L_i, not of δ_i L_i [3rd, as LocFedMix-SL]:
a device steps as far in a large fleet as in a small one, whatever its share.

The batches go through the upper segment one after the other, so its batch norm sees each by itself [ours]. Every device
does all steps of the round; small ones recycle their data.

Each device keeps its own lower segment, and its optimizer's moments. One that is away at the start of a round sits it
out; one that is lost in it is missing from the sums from then on. Newcomers are served with the lower segment of the device
that has the most samples of those that are there [ours].
"""

# ruff: noqa: A002, ARG002  arguments are the contract's

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from hub.segment import UpperSegment
from hub.strategies.averaging import shares
from hub.strategies.base import AdamOptions, Batch, Fleet, Learned, Order, Orders
from hub.strategies.sides import Cut


@dataclass(frozen=True)
class ParallelSplitLearningOptions(AdamOptions):
    """How both sides learn."""


@dataclass
class State:
    """What changes in a run."""

    fleet: Fleet
    seed: int
    upper: UpperSegment


class ParallelSplitLearning(Cut):
    """The strategy."""

    options: ClassVar[type] = ParallelSplitLearningOptions
    together: ClassVar[bool] = True

    @property
    def objective(self) -> str:
        """The gradient from above and nothing else."""
        return "gradient"

    def init(self, fleet: Fleet, upper: nn.Module, *, rounds: int, seed: int) -> State:
        """A fresh hub."""
        return State(fleet, seed, self.segment(fleet, upper, seed))

    def turn(self, state: State, round: int, turn: int, present: Collection[str]) -> tuple[State, Orders | None]:
        """One turn for the whole round, the same for everybody."""
        names = [name for name in state.fleet.names if name in present]
        if turn or not names:
            return state, None
        return state, {name: self._order(state, round, name) for name in names}

    def learn(
        self, state: State, round: int, step: int, batches: Mapping[str, Batch]
    ) -> tuple[State, dict[str, Learned]]:
        """One hub step on Σ δ_i L_i over the devices that are there."""
        lessons = self._gather(state, batches, shares(state.fleet, batches))
        state.upper.apply()
        return state, lessons

    def _order(self, state: State, round: int, name: str) -> Order:
        steps = state.fleet.steps
        return Order(kind="exchange", first_step=0, steps=steps, send=tuple(range(steps)), settings=self.o.settings)

    def _gather(self, state: State, batches: Mapping[str, Batch], share: Mapping[str, float]) -> dict[str, Learned]:
        """Gather the gradients of Σ δ_i L_i for the hub's step; what each device is to know."""
        lessons = {}
        for name, batch in batches.items():
            loss, gradient = state.upper.accumulate(
                state.fleet.index(name), batch.smashed, batch.labels, weight=share[name], gradient=True
            )
            lessons[name] = Learned(loss, None if gradient is None else gradient / share[name])
        return lessons
