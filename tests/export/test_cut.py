import pytest
import torch
from torch import nn

from export.cost import cuts
from export.cut import load_factory, split
from export.errors import ExportError
from export.models import ResNet, Transformer, Wearable


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(4, 4)
        self.inner = Choosing()

    def forward(self, x):
        return self.inner(self.gate(x))


class Choosing(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.middle = nn.ReLU()
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.middle(self.first(x)))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.act, self.second = nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 6)

    def forward(self, x):
        return self.act(self.second(self.act(self.first(x))))


class SequenceFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.turn, self.out = Turn(), nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.turn(x))


class Turn(nn.Module):
    def forward(self, x):
        return x.transpose(0, 1)


def test_upper_of_lower_is_the_model():
    torch.manual_seed(0)
    model, x = ResNet().eval(), torch.randn(2, 3, 32, 32)
    halves = split(model, "stage1", x)
    assert halves.smashed_shape == (16, 32, 32)
    assert torch.equal(halves.upper.eval()(halves.lower.eval()(x)), model(x))


def test_segments_keep_the_names_of_the_parameters():
    halves = split(Wearable(), "pool1", torch.zeros(2, 6, 100))
    assert list(halves.lower.state_dict()) == ["conv1.weight", "conv1.bias"]
    assert sorted(halves.upper.state_dict())[:2] == ["conv2.bias", "conv2.weight"]


def test_only_points_with_one_tensor_are_listed():
    names = [cut.name for cut in cuts(ResNet(), torch.zeros(1, 3, 32, 32))]
    assert "stage1.0" in names
    assert "stage1.0.relu2" in names
    assert "stage1.0.conv1" not in names


def test_cost_by_hand():
    found = {cut.name: cut.cost for cut in cuts(Wearable(), torch.zeros(1, 6, 100))}
    cost = found["pool1"]
    assert cost.forward == 100 * 32 * 6 * 5
    assert cost.training == 2 * cost.forward  # forward and weight gradient: nobody needs the input's
    assert cost.parameters == 32 * 6 * 5 + 32
    assert cost.smashed_shape == (32, 50)
    assert cost.smashed_bytes == 4 * 32 * 50
    assert cost.activation_bytes == 4 * (32 * 100 + 32 * 100 + 32 * 50)
    assert found["conv2"].training == 3 * (96_000 + 50 * 64 * 32 * 5) - 96_000


def test_a_layer_called_twice_has_two_names():
    names = [cut.name for cut in cuts(Twice(), torch.zeros(1, 4))]
    assert names == ["first", "act#1", "second"]


def test_encoder_layers_are_taken_whole():
    names = [cut.name for cut in cuts(Transformer(), torch.zeros(1, 64, dtype=torch.int64))]
    assert names == ["embedding", "positions", "blocks.0", "blocks.1", "norm", "mean"]


REFUSALS = {
    "unknown layer": (
        Wearable(),
        "pool9",
        (6, 100),
        "there is no layer 'pool9' to cut at; possible cuts: conv1, relu1, pool1",
    ),
    "two tensors": (ResNet(), "stage1.0.conv1", (3, 32, 32), r"2 values cross there \('stem', 'stage1.0.conv1'\)"),
    "branch": (Branching(), "gate", (4,), "the model cannot be traced: in 'inner'"),
    "tied": (Tied(), "middle", (4,), "the parameter 'first.weight' is also used above the cut"),
    "batch not first": (
        SequenceFirst(),
        "turn",
        (5, 4),
        "the first dimension of the smashed data at 'turn' must be the batch",
    ),
    "wrong input": (Wearable(), "pool1", (5, 100), r"does not take an input of shape \(5, 100\)"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusal(case):
    model, cut, shape, text = REFUSALS[case]
    with pytest.raises(ExportError, match=text):
        split(model, cut, torch.zeros(3, *shape))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("export.models", "must be named as package.module:factory"),
        ("no.such:thing", "there is no module 'no' to import"),
        ("export.models:vgg", "module 'export.models' has no 'vgg'"),
        ("builtins:dict", "returned a dict, not a torch.nn.Module"),
    ],
)
def test_factory_refusal(path, text):
    with pytest.raises(ExportError, match=text):
        load_factory(path)


def test_factory_arguments():
    assert load_factory("export.models:lenet", classes=3).fc3.out_features == 3
    with pytest.raises(ExportError, match=r"could not be made: .*colour"):
        load_factory("export.models:lenet", colour=3)
