"""FedProx: Federated Optimization in Heterogeneous Networks (Li et al., 2020, arXiv 1812.06127).

    every round, on every device that is there:
        w_i ← w
        for every batch of E local epochs: w_i ← w_i − η ∇[ CE(M(x; w_i), y) + μ/2 ‖w_i − w‖² ]
        w_i goes up
    the hub:  w ← Σ n_i w_i / Σ n_i over the devices that came

FedAvg but for the term, which holds heterogeneous devices together; with μ = 0 it is FedAvg. Devices may do different
amounts of work, and here do, each its own epoch. μ = 0.01 is the value of the AdaSplit authors' runs of FedProx. Adam as
the default is ours; the term then passes through its moments like the rest of the gradient. Bytes and lost devices are
as in FedAvg: the device keeps the w of the round's start itself, so nothing more is sent.
"""

# ruff: noqa: RUF002  letters are the paper's

from dataclasses import dataclass
from typing import Annotated, ClassVar

from edge.wire.toml_fields import Range
from hub.strategies.fedavg import FedAvg, FedAvgOptions


@dataclass(frozen=True)
class FedProxOptions(FedAvgOptions):
    """How the devices train between two averages."""

    mu: Annotated[float, Range(0, 1000)] = 0.01
    """μ, the weight of the term; 0 is FedAvg."""


class FedProx(FedAvg):
    """The strategy."""

    options: ClassVar[type] = FedProxOptions
    objective = "proximal"

    def _settings(self) -> dict[str, float]:
        return {**super()._settings(), "mu": self.o.mu}
