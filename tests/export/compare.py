"""What the tests of single layers share: export a small lower segment, compare it with PyTorch."""

import numpy as np
import torch
from torch import nn

from export.check import GRADIENT_LIMIT, distance, make_inputs
from export.graphs import make_graph
from export.heads import Place
from export.objectives import OBJECTIVES
from export.optimizers import OPTIMIZERS
from export.reference import Reference
from export.runtime import Runner
from export.step import Learner, StepMaker


class Scaled(nn.Module):
    """Puts a trained factor before a layer, so that the layer's gradient with respect to its input is compared too."""

    def __init__(self, shape, layer):
        super().__init__()
        self.factor = nn.Parameter(1.0 + 0.1 * torch.arange(float(np.prod(shape))).sin().reshape(shape))
        self.layer = layer

    def forward(self, x):
        return self.layer(x * self.factor)


def step_maker(
    lower, shape, objective="gradient", optimizer="sgd", dtype=torch.float32, channels_last=False, classes=4
):
    x = torch.zeros(2, *shape, dtype=dtype)
    with torch.no_grad():
        smashed = tuple(lower.eval()(x).shape[1:])
    goal = OBJECTIVES[objective]
    head = goal.head(Place(shape, x.is_floating_point(), smashed, channels_last, classes))
    return StepMaker(Learner(lower, head, goal), OPTIMIZERS[optimizer], x, smashed)


def assert_layer(layer, shape, batches=(5, 1), kinds=("backward", "evaluate"), limit=GRADIENT_LIMIT):
    """The layer, exported, gives PyTorch's activations, gradients and running statistics."""
    torch.manual_seed(0)
    assert_segment(Scaled(shape, layer), shape, batches, kinds, limit)


def assert_segment(
    lower, shape, batches=(5, 1), kinds=("backward", "evaluate"), limit=GRADIENT_LIMIT, dtype=torch.float32
):
    steps = step_maker(lower, shape, dtype=dtype)
    truth, control = Reference(steps, torch.float64), Reference(steps, torch.float32)
    for kind in kinds:
        graph = make_graph(steps, kind)
        runner = Runner(graph.checked)
        for seed, batch in enumerate(batches, 1):
            arrays = make_inputs(steps, graph, seed, batch)
            given = runner.run(arrays)
            if kind in ("forward", "evaluate"):
                assert distance(given["up.smashed"], truth.smash(kind, arrays, graph.noise)) < 1e-5, (kind, batch)
                continue
            right = truth.learn(arrays, graph.noise)
            shared = control.learn(arrays, graph.noise)
            floor = 1e-3 * np.linalg.norm(right["check.gradient"])
            for piece in steps.slices:
                if piece.state == "weights":
                    part = slice(piece.offset, piece.offset + piece.size)
                    error = distance(given["check.gradient"][part], right["check.gradient"][part], floor)
                    own = distance(shared["check.gradient"][part], right["check.gradient"][part], floor)
                    assert error <= max(limit, 3 * own), (
                        f"batch {batch}: {piece.name} is off by {error:.1e} (float32: {own:.1e})"
                    )
            if "state.buffers.next" in right:
                assert distance(given["state.buffers.next"], right["state.buffers.next"]) < 1e-5
