"""The zoo, whole: every model's bundle graphs pass their check."""

import pytest
import torch

from export.bundle import BuildSpec, example_input, prepare
from export.check import check_graphs
from export.cut import load_factory
from export.graphs import make_graph

ZOO = ["wearable", "lenet", "digits", "depthwise", "resnet", "transformer"]


@pytest.mark.parametrize("name", ZOO)
def test_each_model_takes_its_own_example_and_knows_its_cut(name):
    model = load_factory(f"export.models:{name}", classes=3)
    x = example_input(model, None, None)
    with torch.no_grad():
        assert model.eval()(x).shape == (2, 3)
    assert prepare(BuildSpec(f"export.models:{name}")).halves.cut == model.default_cut


@pytest.mark.parametrize(
    ("name", "cut", "optimizer"),
    [
        ("wearable", "pool2", "adamw"),
        ("lenet", "pool1", "sgd"),
        ("depthwise", "block1", "adam"),
        ("transformer", "blocks.0", "adam"),
    ],
)
def test_local_step_against_pytorch(name, cut, optimizer):
    steps = prepare(BuildSpec(f"export.models:{name}", cut, optimizer=optimizer)).steps
    report = check_graphs(steps, {"local": make_graph(steps, "local")})
    assert report.failures == []
