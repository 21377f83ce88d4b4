"""What a cut costs: multiply-adds, parameters, bytes of activations. The table one chooses a cut from."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from export.cut import legal_cuts, segment_below, trace_layers
from export.step import StepMaker
from export.trace import traceable_torch


@dataclass(frozen=True)
class Cost:
    """Cost of a lower segment, per sample.

    Attributes:
        forward: Multiply-adds of a forward pass (matrix products and convolutions; elementwise work is not counted).
        training: Multiply-adds of a training step of the segment alone, estimated as three forward passes less the
            gradient with respect to the input, which nobody needs.
        parameters: Number of parameters.
        smashed_shape: Shape of the smashed data without batch.
        smashed_bytes: Bytes of the smashed data in float32.
        activation_bytes: Bytes of all layers' outputs, which a training step keeps for its backward pass.
    """

    forward: int
    training: int
    parameters: int
    smashed_shape: tuple[int, ...]
    smashed_bytes: int
    activation_bytes: int


@dataclass(frozen=True)
class Cut:
    """One point at which a model may be cut, and what lies below it."""

    name: str
    cost: Cost


def cuts(model: nn.Module, example: Tensor) -> list[Cut]:
    """Return every legal cut of ``model`` from the input upwards, with its cost; ``example`` is a batch (batch, *input).

    Raises:
        ExportError: The model cannot be traced.
    """
    traced = trace_layers(model)
    return [Cut(name, cost_below(segment_below(traced, name), example)) for name in legal_cuts(traced)]


def cost_below(lower: nn.Module, example: Tensor) -> Cost:
    """Return the cost of a lower segment."""
    sizes: list[int] = []
    output, forward, first = _run(lower, example[:1], sizes)
    return Cost(
        forward=forward,
        training=3 * forward - first,
        parameters=sum(parameter.numel() for parameter in lower.parameters()),
        smashed_shape=tuple(output.shape[1:]),
        smashed_bytes=4 * output[0].numel(),
        activation_bytes=sum(sizes),
    )


def training_cost(steps: StepMaker) -> float:
    """Return the multiply-adds per sample of one step, forward and backward, head included, as counted over two samples.

    A local step where the objective has one, else a backward step.
    """
    tensors = steps.inputs("local" if "local" in steps.learner.objective.kinds else "backward", 2)
    setting = {name: torch.tensor(entry.default) for name, entry in steps.settings.items()}
    learner = copy.deepcopy(steps.learner).train()
    counter = FlopCounterMode(display=False)
    with traceable_torch(), torch.random.fork_rng(devices=[]), counter:
        learner(tensors["batch.x"], tensors["batch.y"], tensors.get("down.gradient"), setting)[0].backward()
    return counter.get_total_flops() / 2 / 2


def _run(module: nn.Module, x: Tensor, sizes: list[int]) -> tuple[Tensor, int, int]:
    """Return output, multiply-adds, and the multiply-adds of the first layer that has any."""
    firsts: list[int] = []
    counter = FlopCounterMode(display=False)

    def after(_: nn.Module, __: object, output: object) -> None:
        if isinstance(output, Tensor):
            sizes.append(output.numel() * output.element_size())
        if not firsts and counter.get_total_flops():
            firsts.append(counter.get_total_flops() // 2)

    leaves = [part for part in module.modules() if not any(True for _ in part.children())]
    hooks = [leaf.register_forward_hook(after) for leaf in leaves]
    training = module.training
    try:
        with torch.no_grad(), traceable_torch(), counter:
            output = module.eval()(x)
    finally:
        module.train(training)
        for hook in hooks:
            hook.remove()
    return output, counter.get_total_flops() // 2, firsts[0] if firsts else 0
