"""Activations of a segment that has learnt a little, in PyTorch: what an untrained one gives codes to other bytes."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  the name everybody reads
from torch import nn

from export.bundle import Prepared
from export.cuts.calibration import Array, Calibration
from export.errors import ExportError

LR = 1e-3
"""Adam's learning rate, as that of the strategies."""


@dataclass(frozen=True)
class Smashed:
    """What one step sends and gets."""

    activation: Array
    labels: Array
    gradient: Array | None
    """None where none comes down."""


@dataclass(frozen=True)
class Trained:
    """Both segments after their steps."""

    lower: nn.Module
    sent: tuple[Smashed, ...]
    """Of the last steps."""


def train(
    prepared: Prepared,
    data: Calibration,
    *,
    batch: int = 32,
    steps: int = 60,
    kept: int = 16,
    seed: int = 0,
    frozen: bool = False,
) -> Trained:
    """Train a copy of both segments on calibration data for `steps`, and keep what the last `kept` of them send.

    With an objective of its own the lower segment learns from that and the upper one from what it is sent; with the gradient from
    above both learn together. Both by Adam. A frozen lower segment stays as it is. The caller's modules and generators do too.

    Raises:
        ExportError: activations or gradients are not finite.
    """
    learner, upper = copy.deepcopy(prepared.steps.learner), copy.deepcopy(prepared.halves.upper)
    local = "local" in learner.objective.kinds
    setting = {name: torch.tensor(entry.default) for name, entry in prepared.steps.settings.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sent = list(
            _steps(learner, upper, data, setting, local=local, batch=batch, steps=steps, seed=seed, frozen=frozen)
        )
    arrays = [array for each in sent for array in (each.activation, each.gradient) if array is not None]
    if not all(np.isfinite(array).all() for array in arrays):
        raise ExportError(
            f"{steps} steps of training on the calibration data, cut at '{prepared.halves.cut}', come to values that are not finite: "
            "scale the samples as the devices will"
        )
    return Trained(learner.lower, tuple(sent[-kept:]))


def _steps(
    learner: nn.Module,
    upper: nn.Module,
    data: Calibration,
    setting: dict[str, torch.Tensor],
    *,
    local: bool,
    batch: int,
    steps: int,
    seed: int,
    frozen: bool,
) -> Iterator[Smashed]:
    optimizers = [
        torch.optim.Adam(parameters, LR)
        for module in ((upper,) if frozen else (learner, upper))
        if (parameters := [p for p in module.parameters() if p.requires_grad])
    ]
    learner.train()
    upper.train()
    for step in range(steps):
        x, y = (torch.from_numpy(array) for array in data.batch(step, batch, seed))
        for optimizer in optimizers:
            optimizer.zero_grad()
        if local:
            loss, smashed, _ = learner(x, y, None, setting)
            loss.backward()
            F.cross_entropy(upper(smashed.detach()), y).backward()
            gradient = None
        else:
            # The objective's own part, if it has one, is little beside this: it is left out.
            smashed = learner.lower(x)
            smashed.retain_grad()
            F.cross_entropy(upper(smashed), y).backward()
            gradient = smashed.grad.numpy().copy()
        for optimizer in optimizers:
            optimizer.step()
        yield Smashed(smashed.detach().numpy().copy(), y.numpy(), gradient)


def smash(lower: nn.Module, x: Array, batch: int = 64) -> Array:
    """The smashed data of samples, in evaluation mode."""
    lower.eval()
    with torch.no_grad():
        parts = [lower(torch.from_numpy(x[at : at + batch])).numpy() for at in range(0, len(x), batch)]
    return np.concatenate(parts)
