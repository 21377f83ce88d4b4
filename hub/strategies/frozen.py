"""Masks only: nothing but the hub learns (an ablation of AdaSplit, Chopra et al., 2021, arXiv 2112.01637).

    every iteration
        every device sends (a, y), a = M_c(x) through the lower segment it was built with
        for each the hub takes a step on  CE(M_s(a; U ⊙ σ(V_i)), y) + λ Σ_all devices Σ σ(V)

It is AdaSplit with κ = 0, η = 1 and `frozen`, and runs on AdaSplit's class. In the authors' own runs it was more accurate than
AdaSplit itself, 89.38 to 88.88 % on Mixed-NonIID and 93.02 to 91.63 % on Mixed-CIFAR, for 4.5 times the bytes: whoever quotes
AdaSplit must quote this beside it. The figures are those of their notebooks, means of 5 [code].

Devices train nothing and have no projection head, so the bundle is that of split learning (objective 'gradient') and not AdaSplit's.
Devices that are away or lost are served as AdaSplit serves them: who comes back goes on, for there is nothing to catch up on.
"""

# ruff: noqa: RUF001, RUF002  letters are the paper's

from dataclasses import asdict, dataclass
from typing import Annotated, ClassVar, Literal

from edge.wire.toml_fields import Range
from hub.strategies.adasplit import AdaSplit, AdaSplitOptions
from hub.strategies.base import check


@dataclass(frozen=True)
class FrozenOptions:
    """How the hub learns from devices that do not."""

    eta: Annotated[float, Range(0, 1)] = 1.0
    """η, the share of the devices that send in an iteration; at least one does, chosen by AdaSplit's bandit."""

    select_every: Annotated[int, Range(1, 1_000_000)] = 1
    """Iterations that one selection, and so one order, serves; more spare slow links a message each."""

    masks: bool = True
    """Whether each device has a soft mask of its own on the upper segment."""

    mask_weight: Annotated[float, Range(0, 1)] = 1e-3
    """λ, the weight of Σ σ(V)."""

    lr: Annotated[float, Range(0, 10)] = 1e-3
    """Adam's learning rate on the hub at the start."""

    weight_decay: Annotated[float, Range(0, 1)] = 1e-5
    """Added to the gradient."""

    schedule: Literal["cosine", "constant"] = "cosine"
    """How the learning rate goes on from round to round."""

    t_max: Annotated[int | None, Range(1, 1_000_000)] = None
    """Rounds of half a period of the cosine that the learning rate follows; unset, two more than the run has (22 at the paper's 20)."""

    replay: Annotated[int, Range(0, 10_000)] = 0
    """Further hub steps for each received batch, on samples received before. Ours."""

    replay_megabytes: Annotated[float, Range(0, 1e6)] = 256.0
    """Memory (10^6 bytes) for what was received, part of every checkpoint; the oldest samples make way."""


class Frozen(AdaSplit):
    """The strategy."""

    options: ClassVar[type] = FrozenOptions
    objective = "gradient"

    def __init__(self, options: FrozenOptions) -> None:
        check(options)
        super().__init__(AdaSplitOptions(kappa=0.0, frozen=True, **asdict(options)))
