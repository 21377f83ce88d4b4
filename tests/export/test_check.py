"""The check itself: it passes what is right and fails what is not."""

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from export.check import check_graphs, distance, make_inputs
from export.errors import ExportError
from export.graphs import Graph, make_graph
from export.models import Digits, Wearable
from export.runtime import Runner
from tests.export.compare import step_maker


def lower():
    torch.manual_seed(0)
    model = Digits()
    return nn.Sequential(model.conv1, model.relu1, model.pool1)


@pytest.fixture(scope="module")
def local():
    steps = step_maker(lower(), (1, 8, 8), "contrastive", "adam")
    return steps, make_graph(steps, "local")


def test_a_right_graph_passes(local):
    steps, graph = local
    report = check_graphs(steps, {"local": graph})
    assert report.failures == []
    assert report.summary()["gradient"] < 2e-5
    assert report.rows[-1].what == "20 steps in place, bit by bit"


def spoiled(model, op, number):
    """Replace the constant operand of the first node of a kind."""
    wrong = onnx.ModelProto()
    wrong.CopyFrom(model)
    names = {tensor.name for tensor in wrong.graph.initializer}
    node = next(node for node in wrong.graph.node if node.op_type == op and names.intersection(node.input))
    place = next(place for place, name in enumerate(node.input) if name in names)
    wrong.graph.initializer.append(numpy_helper.from_array(np.array(number, np.float32), "spoiled"))
    node.input[place] = "spoiled"
    return wrong


def test_a_wrong_graph_fails(local):
    steps, graph = local
    wrong = Graph("local", spoiled(graph.model, "Sub", 1.01), spoiled(graph.checked, "Sub", 1.01), {})
    report = check_graphs(steps, {"local": wrong})
    assert not report.passed
    assert "limit" in report.failures[0]
    assert "20 steps, weights" in report.failures[-1]


def test_paths_that_part_at_a_kink_are_named_and_no_failure():
    """The head's maximum falls on another place in one of twenty steps here; PyTorch's float32 does the same elsewhere."""
    torch.manual_seed(0)
    model = Wearable()
    below = nn.Sequential(model.conv1, model.relu1, model.pool1, model.conv2, model.relu2, model.pool2)
    steps = step_maker(below, (6, 100), "contrastive", "adam")
    report = check_graphs(steps, {"local": make_graph(steps, "local")})
    assert report.failures == []
    course = next(row for row in report.rows if row.what == "20 steps, weights")
    assert course.ours <= course.limit or "each step is right by itself" in course.note


def test_a_parameter_without_gradient_stays_finite(local):
    """The trap of an optimiser of graphs that drops eps: 0 / 0."""
    steps, graph = local
    arrays = make_inputs(steps, graph, 0, 1)  # a single sample has no pair, so every gradient is zero
    after = Runner(graph.model).run(arrays)
    assert np.isfinite(after["state.weights.next"]).all()
    assert np.allclose(after["state.weights.next"], arrays["state.weights"], atol=2e-3)


@pytest.mark.parametrize("batch", [1, 2, 5, 33])
def test_any_batch_size(local, batch):
    steps, graph = local
    arrays = make_inputs(steps, graph, 1, batch)
    results = Runner(graph.model).run(arrays)
    assert results["up.smashed"].shape == (batch, 16, 4, 4)
    share = (results["up.smashed"] != 0).mean()
    assert results["metric.nonzero"] == pytest.approx(share, abs=1e-6)


def test_smashed_data_are_those_before_the_update(local):
    steps, graph = local
    arrays = make_inputs(steps, graph, 1, 5)
    forward = Runner(make_graph(steps, "forward").model).run(arrays)["up.smashed"]
    assert np.array_equal(Runner(graph.model).run(arrays)["up.smashed"], forward)


def test_not_finite_is_infinitely_far():
    assert distance(np.array([1.0, np.nan]), np.array([1.0, 2.0])) == float("inf")
    assert distance(np.array([1.0, 2.2]), np.array([0.0, 2.0])) == pytest.approx(np.sqrt(1.04) / 2)


def test_names_of_the_graph_route_themselves(local):
    _, graph = local
    assert [name for name in graph.inputs if not name.startswith("setting.")] == [
        "batch.x",
        "batch.y",
        "state.weights",
        "state.moment1",
        "state.moment2",
        "state.steps",
    ]
    assert graph.outputs[:5] == [f"state.{name}.next" for name in ("weights", "moment1", "moment2", "steps")] + [
        "up.smashed"
    ]


class Scan(nn.Module):
    def forward(self, x):
        return torch.cumprod(x, 1)


class Item(nn.Module):
    def forward(self, x):
        return x * x.sum().item()


class Halving(nn.Module):
    def forward(self, x):
        return x + x[: x.shape[0] // 2].sum()


class Named(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.first, self.inner = nn.Linear(4, 4), inner

    def forward(self, x):
        return self.inner(self.first(x))


@pytest.mark.parametrize(
    ("inner", "texts"),
    [
        (Scan(), ["the layer 'inner' uses the operator aten.cumprod", "cut below it"]),
        (Item(), ["the layer 'inner' uses the value of a tensor (.item()", "compute with the tensor itself"]),
        (Halving(), ["depend on the batch size", "remove branches"]),
        (nn.BatchNorm1d(4, momentum=None), ["the layer 'inner' has momentum=None", "give it a momentum"]),
        (nn.RReLU(), ["the layer 'inner' uses the operator"]),
    ],
)
def test_refusal(inner, texts):
    with pytest.raises(ExportError) as refused:
        make_graph(step_maker(Named(inner), (4,)), "backward")
    for text in texts:
        assert text in str(refused.value)


def test_a_segment_without_parameters_is_refused():
    with pytest.raises(ExportError, match="has no trainable parameter: cut higher up"):
        step_maker(nn.Flatten(), (4, 2))


def test_frozen_parameters_are_constants_of_the_graph():
    frozen = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    frozen[0].requires_grad_(requires_grad=False)
    steps = step_maker(frozen, (4,))
    assert [piece.name for piece in steps.slices] == ["lower.2.weight", "lower.2.bias"]
    assert check_graphs(steps, {"backward": make_graph(steps, "backward")}).passed
