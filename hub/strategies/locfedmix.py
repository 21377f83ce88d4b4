"""LocFedMix-SL (Oh et al., WWW 2022, DOI 10.1145/3485447.3512153): parallel split learning and three remedies.

    for every step of the round, every device i (`hub.strategies.parallel_split_learning`):
        s_i = M_c,i(x_i) goes up
        mix   s̃_ij = λ s_i + (1-λ) s_j with n_s partners j ≠ i, the labels' probabilities alike, λ ~ Beta(α, α)
              the hub takes one step on Σ_i δ_i (L_i + mean_j L̃_ij): n B + n n_s B samples
              ∂L_i/∂s_i comes down, of the un-mixed loss alone
        loc   the device steps on <s_i, ∂L_i/∂s_i> + local_weight · ‖x_i - h_i(s_i)‖², h_i a small decoder (objective `decoder`)
    fed   every T_c rounds: M_c and h become Σ_i δ_i M_c,i and Σ_i δ_i h_i over the devices that gave theirs

The remedies are known from the abstract; the round, n_s, α and T_c from others' accounts of the paper [3rd]. Sources disagree
on the mixed terms' gradient: with `mix_gradient` the device gets that of the whole sum, by s_i wherever it takes part, over δ_i.
Each remedy has a switch: all off is parallel SL, `fed` alone is SplitFed.

Ours: partners are drawn anew in every step, from those that are there, none twice (fewer where fewer are there; nobody mixes
alone); one λ a pair; of batches that differ in length the first min(B_i, B_j) samples are mixed; the upper segment's batch
norm sees mixtures too. The decoder's error is a mean over the elements. Its step waits for the gradient, and one backward pass
serves both; where it ran while the hub computes [3rd] the device would do a pass more, to hide 1 ms of a step of the demo's
in which 0.2 MB travel each way.

A device that is away misses the mean, and gets it, in place of what it had, with its next order; so does one that was lost
before it reported. If nobody gives weights, the mean stays as it was. Optimizer moments stay where they are. Newcomers are
served with the last mean.
"""

# ruff: noqa: A002, ARG002, RUF001, RUF002  arguments are the contract's, letters the paper's

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  the name everybody reads
from torch import Tensor, nn

from edge.wire.toml_fields import Range
from hub.strategies import parallel_split_learning
from hub.strategies.averaging import mean, shares
from hub.strategies.base import Batch, Fleet, Learned, Lower, Order, Stand
from hub.strategies.parallel_split_learning import ParallelSplitLearning, ParallelSplitLearningOptions
from hub.strategies.sides import without_head


@dataclass(frozen=True)
class LocFedMixOptions(ParallelSplitLearningOptions):
    """Which remedies, and how strong."""

    loc: bool = True
    """Whether a decoder on each device rebuilds the samples, and the lower segment learns from it too."""

    local_weight: Annotated[float, Range(0, 1e3)] = 1.0
    """Weight of the decoder's error beside the gradient from above."""

    fed: bool = True
    """Whether the lower segments, and the decoders, are averaged."""

    fed_every: Annotated[int, Range(1, 1_000_000)] = 1
    """T_c, rounds from one averaging to the next."""

    mix: bool = True
    """Whether the hub also learns from mixtures of the devices' smashed data."""

    partners: Annotated[int, Range(1, 1000)] = 1
    """n_s, devices with whose data each device's are mixed."""

    alpha: Annotated[float, Range(0.01, 100)] = 1.0
    """α of Beta(α, α), from which the ratio of a mixture comes; 1 makes all ratios as likely, more favours halves."""

    mix_gradient: bool = False
    """Whether the gradient that comes down includes the mixed terms."""

    def problems(self) -> Iterator[str]:
        """Sentences about options that do not go together."""
        if self.mix_gradient and not self.mix:
            yield "mix_gradient = true: there are no mixed terms with mix = false"


@dataclass
class State(parallel_split_learning.State):
    """What changes in a run."""

    mean: Lower | None = None
    """What the devices gave last, averaged; None before."""
    behind: set[str] = field(default_factory=set)
    """Devices that are not known to have the mean."""


class LocFedMix(ParallelSplitLearning):
    """The strategy."""

    options: ClassVar[type] = LocFedMixOptions
    o: LocFedMixOptions

    @property
    def objective(self) -> str:
        """With the decoder, or without."""
        return "decoder" if self.o.loc else "gradient"

    def init(self, fleet: Fleet, upper: nn.Module, *, rounds: int, seed: int) -> State:
        """A fresh hub."""
        return State(fleet, seed, self.segment(fleet, upper, seed))

    def settle(
        self,
        state: Any,
        round: int,
        turn: int,
        reports: Mapping[str, Mapping[str, Any]],
        states: Mapping[str, Lower],
    ) -> State:
        """Fed: average what was given; from now on everybody is behind."""
        state.behind -= {*reports, *states}
        if states:
            state.mean, state.behind = mean(states, shares(state.fleet, states)), set(state.fleet.names)
        return state

    def stand(self, state: Any, device: str, present: Collection[str]) -> Stand:
        """The mean, for who is to get it or is new; else its own."""
        if state.mean is None or (device in state.fleet.names and device not in state.behind):
            return super().stand(state, device, present)
        return Stand(without_head(state.mean))

    def pairs(self, state: parallel_split_learning.State, names: Sequence[str]) -> list[tuple[str, str, float]]:
        """Who is mixed with whom in the hub's next step: (i, j, λ), a function of the seed and of the steps so far."""
        rng = np.random.default_rng([state.seed, 3, state.upper.steps])
        found: list[tuple[str, str, float]] = []
        for name in names:
            others = [other for other in names if other != name]
            chosen = rng.permutation(len(others))[: self.o.partners]
            found += [(name, others[place], float(rng.beta(self.o.alpha, self.o.alpha))) for place in chosen]
        return found

    def _order(self, state: Any, round: int, name: str) -> Order:
        order = super()._order(state, round, name)
        averaged = self.o.fed and (round + 1) % self.o.fed_every == 0
        return replace(
            order,
            settings={**order.settings, **({"local_weight": self.o.local_weight} if self.o.loc else {})},
            state=state.mean if name in state.behind else None,
            give=(("head", "lower") if self.o.loc else ("lower",)) if averaged else (),
        )

    def _gather(
        self, state: parallel_split_learning.State, batches: Mapping[str, Batch], share: Mapping[str, float]
    ) -> dict[str, Learned]:
        lessons = super()._gather(state, batches, share)
        if self.o.mix and len(batches) > 1:
            for name, gradient in self._mix(state, batches, share).items():
                lessons[name] = replace(lessons[name], gradient=lessons[name].gradient + gradient / share[name])
        return lessons

    def _mix(
        self, state: parallel_split_learning.State, batches: Mapping[str, Batch], share: Mapping[str, float]
    ) -> dict[str, Tensor]:
        """Gather the gradients of Σ δ_i mean_j L̃_ij for the hub's step; those by s_i, where devices are to get them."""
        classes = state.upper.predict(None, next(iter(batches.values())).smashed[:1]).shape[1]
        partners = min(self.o.partners, len(batches) - 1)
        pull = {name: torch.zeros_like(batch.smashed) for name, batch in batches.items()}
        for i, j, ratio in self.pairs(state, list(batches)):
            size = min(len(batches[i].labels), len(batches[j].labels))
            parts = {i: ratio, j: 1 - ratio}
            smashed = sum(part * batches[name].smashed[:size] for name, part in parts.items())
            labels = sum(part * F.one_hot(batches[name].labels[:size], classes) for name, part in parts.items())
            _, gradient = state.upper.accumulate(
                state.fleet.index(i), smashed, labels, weight=share[i] / partners, gradient=self.o.mix_gradient
            )
            if gradient is not None:
                for name, part in parts.items():
                    pull[name][:size] += part * gradient
        return pull if self.o.mix_gradient else {}
