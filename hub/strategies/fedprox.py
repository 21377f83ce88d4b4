"""FedProx: Federated Optimization in Heterogeneous Networks (Li et al., 2020, arXiv 1812.06127).

    every round, on every device that is there:
        w_i ← w
        for every batch of a local epoch: w_i ← w_i − η ∇[ CE(M(x; w_i), y) + μ/2 ‖w_i − w‖² ]
        w_i goes up
    the hub:  w ← Σ n_i w_i / Σ n_i over the devices that came

FedAvg but for the term, which holds heterogeneous devices together; with μ = 0 it is FedAvg. Devices may do different
amounts of work, and here do, each its own epoch. μ = 0.01 is the value of the AdaSplit authors' runs of FedProx. Adam as
the default is ours; the term then passes through its moments like the rest of the gradient. Bytes and lost devices are
as in FedAvg: the device keeps the w of the round's start itself, so nothing more is sent.
"""

# ruff: noqa: RUF002  letters are the paper's

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from edge.wire.toml_fields import Range
from hub.strategies.fedavg import FedAvg, FedAvgOptions


@dataclass(frozen=True)
class FedProxOptions(FedAvgOptions):
    """How the devices train between two averages."""

    # The fields of FedAvg stand here again because what is written under a field is shown to the user, and is read here.
    optimizer: Literal["sgd", "adam"] = "adam"
    """What the devices step by; the bundle must be built for it."""

    lr: Annotated[float, Range(0, 10)] = 1e-3
    """Learning rate; sgd wants a larger one."""

    momentum: Annotated[float, Range(0, 0.999)] = 0.0
    """Of sgd."""

    weight_decay: Annotated[float, Range(0, 1)] = 1e-5
    """Added to the gradient."""

    epochs: Literal["own", "longest"] = "own"
    """Steps of a round: each device's own batches once, or as many as the device with the most has (others recycle their samples)."""

    mu: Annotated[float, Range(0, 1000)] = 0.01
    """μ, the weight of the term; 0 is FedAvg."""


class FedProx(FedAvg):
    """The strategy."""

    options: ClassVar[type] = FedProxOptions
    objective = "proximal"
    o: FedProxOptions

    def __init__(self, options: FedProxOptions) -> None:
        super().__init__(options)

    def _settings(self) -> dict[str, float]:
        return {**super()._settings(), "mu": self.o.mu}
