"""Which devices send: an upper confidence bound on the hub's loss (AdaSplit), or chance.

Over the iterations t of the global phase, S_i[t] is 1 where device i was selected and its activation came, else 0, and

    L_i[0] = L_i[1] = 100
    L_i[t] = mean cross entropy of its batch where S_i[t] = 1, else (L_i[t-1] + L_i[t-2]) / 2
    l_i = Σ γ^(T-1-t) L_i[t]      s_i = Σ γ^(T-1-t) S_i[t] + 1e-15
    A_i = l_i / s_i + sqrt(2 ln T / s_i)

A device with a high loss, or not heard for long, scores high. Equations from the code of AdaSplit's authors (arXiv 2112.01637);
that S_i[0] = S_i[1] = 0, so that everybody is heard before anybody is heard twice, is our reading.
"""

# ruff: noqa: RUF002  the letters are the paper's

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FIRST_LOSS = 100.0
HISTORY = 2048
"""Iterations remembered at most, as in the authors' code."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class History:
    """What the bandit has seen: `losses` L and `selected` S, both (iterations, devices), oldest first."""

    losses: Array
    selected: Array

    @classmethod
    def empty(cls, devices: int) -> "History":
        """The two iterations that the recursion starts from."""
        return cls(np.full((2, devices), FIRST_LOSS), np.zeros((2, devices)))

    def after(self, losses: Mapping[int, float]) -> "History":
        """The history one iteration later; `losses` are those of the devices that were selected and came."""
        loss, selected = (self.losses[-1] + self.losses[-2]) / 2, np.zeros(self.losses.shape[1])
        for device, value in losses.items():
            loss[device], selected[device] = value, 1.0
        return History(
            np.vstack([self.losses, loss])[-HISTORY:],
            np.vstack([self.selected, selected])[-HISTORY:],
        )

    def scores(self, gamma: float) -> Array:
        """A of every device, (devices,)."""
        iterations = len(self.losses)
        discount = gamma ** np.arange(iterations - 1, -1, -1, dtype=np.float64)
        s = discount @ self.selected + 1e-15
        scores: Array = discount @ self.losses / s + np.sqrt(2 * np.log(iterations) / s)
        return scores


def largest(
    scores: Sequence[float] | Array, k: int, candidates: Collection[int], rng: np.random.Generator
) -> list[int]:
    """The k candidates with the largest scores, in ascending order; ties are broken by chance."""
    shuffled = rng.permutation(sorted(candidates))
    best = sorted(shuffled.tolist(), key=lambda device: -scores[device])
    return sorted(best[:k])


def by_chance(k: int, candidates: Collection[int], rng: np.random.Generator) -> list[int]:
    """Any k of the candidates, in ascending order."""
    return sorted(rng.permutation(sorted(candidates))[:k].tolist())
