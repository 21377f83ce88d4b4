"""Optimizers as functions of flat vectors, with the semantics of ``torch.optim``. One function and one row each.

Every hyperparameter is an input of the graph, Adam's eps included: an optimiser of graphs may take ``x + 1e-8`` for ``x``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edge.wire.manifest import Setting

Vectors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Optimizer:
    """An update rule.

    Attributes:
        moments: State vectors of the length of the weights, all starting at zero, and their names in ``torch.optim``.
        counts: Whether ``steps``, the number of updates so far, is part of the state.
        settings: Its hyperparameters.
        update: From state, gradient and settings to the new state.
        reference: Makes the same optimizer of ``torch.optim``, for the check.
    """

    moments: dict[str, str]
    counts: bool
    settings: dict[str, Setting]
    update: Callable[[Vectors, Tensor, Vectors], dict[str, Tensor]]
    reference: Callable[[Sequence[Tensor], Mapping[str, float]], torch.optim.Optimizer]


def sgd(state: Vectors, gradient: Tensor, setting: Vectors) -> dict[str, Tensor]:
    """Return weights and momentum after one step of ``torch.optim.SGD`` (no dampening, no Nesterov)."""
    decayed = gradient + setting["weight_decay"] * state["weights"]
    momentum = setting["momentum"] * state["momentum"] + decayed
    return {"weights": state["weights"] - setting["lr"] * momentum, "momentum": momentum}


def adam(state: Vectors, gradient: Tensor, setting: Vectors) -> dict[str, Tensor]:
    """Return the state after one step of ``torch.optim.Adam``: weight decay is added to the gradient."""
    return _adam(state, gradient + setting["weight_decay"] * state["weights"], state["weights"], setting)


def adamw(state: Vectors, gradient: Tensor, setting: Vectors) -> dict[str, Tensor]:
    """Return the state after one step of ``torch.optim.AdamW``: weight decay shrinks the weights."""
    return _adam(state, gradient, state["weights"] * (1.0 - setting["lr"] * setting["weight_decay"]), setting)


def _adam(state: Vectors, gradient: Tensor, weights: Tensor, setting: Vectors) -> dict[str, Tensor]:
    steps = state["steps"] + 1.0
    beta1, beta2 = setting["beta1"], setting["beta2"]
    moment1 = beta1 * state["moment1"] + (1.0 - beta1) * gradient
    moment2 = beta2 * state["moment2"] + (1.0 - beta2) * (gradient * gradient)
    # 1 - beta**steps loses half its digits in float32; scalars cost nothing in float64.
    correction1 = 1.0 - torch.pow(beta1.double(), steps.double())
    correction2 = 1.0 - torch.pow(beta2.double(), steps.double())
    rate = (setting["lr"].double() * torch.sqrt(correction2) / correction1).to(gradient.dtype)
    # lr * (m / c1) / (sqrt(v / c2) + eps), with both corrections taken out of the vectors.
    eps = (setting["eps"].double() * torch.sqrt(correction2)).to(gradient.dtype)
    return {
        "weights": weights - rate * (moment1 / (torch.sqrt(moment2) + eps)),
        "moment1": moment1,
        "moment2": moment2,
        "steps": steps,
    }


_ADAM = {
    "lr": Setting(1e-3, 0.0, 10.0),
    "beta1": Setting(0.9, 0.0, 0.999999),
    "beta2": Setting(0.999, 0.0, 0.999999),
    "eps": Setting(1e-8, 1e-20, 1.0),
}

_SGD = {"lr": Setting(1e-2, 0.0, 10.0), "momentum": Setting(0.9, 0.0, 0.999999), "weight_decay": Setting(0.0, 0.0, 1.0)}
_MOMENTS = {"moment1": "exp_avg", "moment2": "exp_avg_sq"}


def _torch_sgd(weights: Sequence[Tensor], setting: Mapping[str, float]) -> torch.optim.Optimizer:
    return torch.optim.SGD(weights, **setting)


def _torch_adam(kind: type) -> Callable[[Sequence[Tensor], Mapping[str, float]], torch.optim.Optimizer]:
    def make(weights: Sequence[Tensor], setting: Mapping[str, float]) -> torch.optim.Optimizer:
        betas = (setting["beta1"], setting["beta2"])
        return kind(weights, setting["lr"], betas, setting["eps"], setting["weight_decay"])

    return make


OPTIMIZERS = {
    "sgd": Optimizer({"momentum": "momentum_buffer"}, counts=False, settings=_SGD, update=sgd, reference=_torch_sgd),
    "adam": Optimizer(
        _MOMENTS,
        counts=True,
        settings={**_ADAM, "weight_decay": Setting(1e-5, 0.0, 1.0)},
        update=adam,
        reference=_torch_adam(torch.optim.Adam),
    ),
    "adamw": Optimizer(
        _MOMENTS,
        counts=True,
        settings={**_ADAM, "weight_decay": Setting(1e-2, 0.0, 1.0)},
        update=adamw,
        reference=_torch_adam(torch.optim.AdamW),
    ),
}
