"""Every layer family of the README: activations and gradients of the exported graph against PyTorch float64."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  the name everybody reads
from torch import nn

from tests.export.compare import assert_layer, assert_segment

CONVOLUTIONS = {
    "1d": (nn.Conv1d(4, 6, 5, padding=2), (4, 20)),
    "1d stride 2, few channels": (nn.Conv1d(4, 6, 3, stride=2, padding=1), (4, 21)),
    "1d stride 3, rest dropped": (nn.Conv1d(4, 6, 4, stride=3), (4, 21)),
    "1d stride and dilation, many channels": (nn.Conv1d(12, 6, 3, stride=2, padding=2, dilation=3), (12, 30)),
    "1d groups": (nn.Conv1d(8, 12, 3, groups=4, padding=1), (8, 15)),
    "1d depthwise, stride": (nn.Conv1d(6, 6, 3, groups=6, stride=2), (6, 16)),
    "1d 1x1": (nn.Conv1d(10, 6, 1), (10, 9)),
    "1d 1x1 stride": (nn.Conv1d(10, 6, 1, stride=2), (10, 9)),
    "2d": (nn.Conv2d(3, 5, 3, padding=1), (3, 8, 9)),
    "2d many channels": (nn.Conv2d(12, 5, 3, padding=1), (12, 7, 6)),
    "2d stride (2, 1)": (nn.Conv2d(12, 5, (3, 2), stride=(2, 1), padding=(1, 0)), (12, 8, 7)),
    "2d stride 3 beyond the kernel": (nn.Conv2d(9, 5, 2, stride=3), (9, 9, 10)),
    "2d many places": (nn.Conv2d(9, 4, 5, padding=2), (9, 12, 12)),
    "2d many places, dilation": (nn.Conv2d(8, 5, (3, 2), padding=(1, 0), dilation=(2, 1)), (8, 12, 14)),
    "2d dilation": (nn.Conv2d(9, 4, 3, dilation=2, padding=2), (9, 8, 8)),
    "2d padding beyond the kernel": (nn.Conv2d(9, 4, 2, padding=2), (9, 5, 5)),
    "2d groups, stride": (nn.Conv2d(8, 12, 3, groups=2, stride=2, padding=1), (8, 9, 8)),
    "2d depthwise": (nn.Conv2d(6, 6, 3, groups=6, padding=1), (6, 7, 7)),
    "2d depthwise, stride": (nn.Conv2d(6, 6, 3, groups=6, stride=2, padding=1), (6, 8, 7)),
    "2d depthwise, rows that the stride does not divide": (nn.Conv2d(6, 6, 3, groups=6, stride=2), (6, 9, 8)),
    "2d depthwise, rows beyond the last window": (nn.Conv2d(6, 6, (5, 3), groups=6, stride=(4, 1)), (6, 12, 9)),
    "2d depthwise, dilation": (
        nn.Conv2d(6, 6, 3, groups=6, stride=(2, 1), padding=(2, 1), dilation=(2, 1)),
        (6, 8, 7),
    ),
    "2d depthwise, wide": (nn.Conv2d(4, 4, 3, groups=4), (4, 5, 70)),
    "2d depthwise, multiplier 2": (nn.Conv2d(6, 12, 3, groups=6, stride=2, padding=1), (6, 8, 8)),
    "2d same": (nn.Conv2d(3, 5, 5, padding="same"), (3, 8, 8)),
    "2d without bias": (nn.Conv2d(16, 4, 1, bias=False), (16, 5, 5)),
    "transposed": (nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1), (6, 5, 5)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(name):
    layer, shape = CONVOLUTIONS[name]
    assert_layer(layer, shape, kinds=("backward",))


POOLS = {
    "max 1d, tiling": (nn.MaxPool1d(2), (3, 12)),
    "max 1d, tiling with a rest": (nn.MaxPool1d(3), (3, 11)),
    "max 2d, overlapping": (nn.MaxPool2d(3, 2, 1), (3, 9, 8)),
    "max 2d, tiling": (nn.MaxPool2d(2), (3, 8, 6)),
    "max 2d, ceil": (nn.MaxPool2d(3, 2, ceil_mode=True), (3, 8, 8)),
    "max 2d, dilation": (nn.MaxPool2d(2, 1, dilation=2), (3, 7, 7)),
    "average 1d": (nn.AvgPool1d(3, 2, 1), (3, 12)),
    "average 2d, padding not counted": (nn.AvgPool2d(3, 2, 1, count_include_pad=False), (3, 9, 8)),
    "average 2d, ceil": (nn.AvgPool2d(3, 2, 1, ceil_mode=True), (3, 8, 8)),
    "average 2d, tiling": (nn.AvgPool2d(2), (3, 8, 6)),
    "adaptive average to 1": (nn.AdaptiveAvgPool1d(1), (3, 12)),
    "adaptive average to (3, 5)": (nn.AdaptiveAvgPool2d((3, 5)), (3, 8, 9)),
    "adaptive average 1d to 5": (nn.AdaptiveAvgPool1d(5), (3, 12)),
    "adaptive max to 1": (nn.AdaptiveMaxPool2d(1), (3, 6, 6)),
    "adaptive max 1d": (nn.AdaptiveMaxPool1d(4), (3, 12)),
}


@pytest.mark.parametrize("name", POOLS)
def test_pool(name):
    layer, shape = POOLS[name]
    assert_layer(layer, shape, kinds=("backward",))


class Ties(nn.Module):
    """A pool of weights among which the maximum of a window stands more than once, whatever the sample is."""

    def __init__(self, pool: nn.Module, *weights: list[float]) -> None:
        super().__init__()
        self.pool, self.weights = pool, nn.Parameter(torch.tensor(weights))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(x * 0.0 + self.weights)


TIES = {
    "windows of two": (nn.MaxPool1d(2), [[1.0, 1, 0, 2, 3, 3]]),
    "windows of three": (nn.MaxPool1d(3), [[1.0, 1, 0, 3, 5, 5]]),
    "2 x 2": (nn.MaxPool2d(2), [[1.0, 2, 0, 0], [2, 2, 0, 0]]),
    "2 x 3, of another height": (nn.MaxPool2d((2, 3)), [[1.0, 0, 7, 2, 2, 2], [7, 7, 7, 1, 2, 0]]),
    "windows that overlap": (nn.MaxPool1d(3, 2, 1), [[1.0, 1, 0, 3, 3, 3]]),
}


@pytest.mark.parametrize("name", TIES)
def test_of_equal_maxima_the_first_gets_the_gradient(name):
    pool, weights = TIES[name]
    shape = (1, len(weights), len(weights[0])) if isinstance(pool, nn.MaxPool2d) else (1, len(weights[0]))
    assert_layer(Ties(pool, *weights), shape, kinds=("backward",))


NORMS = {
    "batch 1d": (lambda: nn.BatchNorm1d(4), (4, 9)),
    "batch 2d": (lambda: nn.BatchNorm2d(4, momentum=0.3), (4, 5, 5)),
    "batch without affine": (lambda: nn.BatchNorm2d(4, affine=False), (4, 5, 5)),
    "batch without statistics": (lambda: nn.BatchNorm2d(4, track_running_stats=False), (4, 5, 5)),
    "group": (lambda: nn.GroupNorm(2, 6), (6, 5, 5)),
    "group without affine": (lambda: nn.GroupNorm(3, 6, affine=False), (6, 10)),
    "instance": (lambda: nn.InstanceNorm2d(4, affine=True), (4, 5, 5)),
    "layer": (lambda: nn.LayerNorm(12), (7, 12)),
    "layer over two dimensions": (lambda: nn.LayerNorm((7, 12)), (7, 12)),
    "layer without affine": (lambda: nn.LayerNorm(12, elementwise_affine=False), (7, 12)),
    "layer without bias": (lambda: nn.LayerNorm(12, bias=False), (7, 12)),
    "RMS": (lambda: nn.RMSNorm(12), (7, 12)),
    "local response 2d": (lambda: nn.LocalResponseNorm(4, 0.1, 0.75, 1.0), (8, 5, 5)),
    "local response 1d": (lambda: nn.LocalResponseNorm(3, 0.1, 0.6, 2.0), (8, 9)),
}


@pytest.mark.parametrize("name", NORMS)
def test_norm_in_training_and_evaluation(name):
    make, shape = NORMS[name]
    assert_layer(make(), shape, kinds=("forward", "backward", "evaluate"))


def test_batch_norm_of_vectors():
    assert_layer(nn.BatchNorm1d(6), (6,), batches=(5, 8))


class TwoNorms(nn.Module):
    """Two batch norms of one batch, and a third of as many channels, all with statistics of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.BatchNorm1d(4), nn.BatchNorm1d(4, affine=False)
        self.third = nn.BatchNorm1d(4)

    def forward(self, x):
        return self.third(torch.tanh(self.first(x)) * 2 + 1) + self.second(x)


def test_batch_norms_side_by_side():
    # onnxruntime writes a batch's statistics over an input of the node: no two norms may lend each other theirs.
    assert_segment(TwoNorms(), (4, 9))


def test_frozen_batch_norm_uses_and_keeps_its_statistics():
    class Frozen(nn.BatchNorm2d):
        def forward(self, x):
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.1, self.eps)

    assert_layer(Frozen(4), (4, 5, 5))


ACTIVATIONS = [
    nn.ReLU(),
    nn.ReLU(inplace=True),
    nn.LeakyReLU(0.1),
    nn.LeakyReLU(0.1, inplace=True),
    nn.PReLU(),
    nn.ELU(0.7),
    nn.CELU(0.7),
    nn.SELU(),
    nn.GELU(),
    nn.GELU("tanh"),
    nn.SiLU(),
    nn.Mish(),
    nn.Tanh(),
    nn.Sigmoid(),
    nn.Hardswish(),
    nn.Hardsigmoid(),
    nn.Hardtanh(-0.5, 0.7),
    nn.ReLU6(),
    nn.Softplus(),
    nn.Softplus(beta=2.0, threshold=1.0),
    nn.Softsign(),
    nn.Softmax(-1),
    nn.LogSoftmax(1),
    nn.LogSigmoid(),
    nn.Hardshrink(0.3),
    nn.Softshrink(0.3),
    nn.Tanhshrink(),
    nn.GLU(1),
]


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=str)
def test_activation(layer):
    assert_layer(layer, (4, 6), batches=(5,), kinds=("backward",))


DROPOUTS = {
    "elements": (nn.Dropout(0.3), (4, 6)),
    "channels 2d": (nn.Dropout2d(0.3), (4, 5, 5)),
    "channels 1d": (nn.Dropout1d(0.3), (4, 5)),
    "alpha": (nn.AlphaDropout(0.3), (4, 6)),
    "nothing dropped": (nn.Dropout(0.0), (4, 6)),
}


@pytest.mark.parametrize("name", DROPOUTS)
def test_dropout_with_shared_noise(name):
    layer, shape = DROPOUTS[name]
    assert_layer(layer, shape, kinds=("forward", "backward", "evaluate"))


class Attention(nn.Module):
    def __init__(self, dropout=0.0, batch_first=True, need_weights=False):
        super().__init__()
        self.heads = nn.MultiheadAttention(8, 2, dropout, batch_first=batch_first)
        self.batch_first = batch_first
        self.need_weights = need_weights

    def forward(self, x):
        x = x if self.batch_first else x.transpose(0, 1)
        y = self.heads(x, x, x, need_weights=self.need_weights)[0]
        return y if self.batch_first else y.transpose(0, 1)


@pytest.mark.parametrize(
    "options", [{}, {"dropout": 0.2}, {"need_weights": True, "dropout": 0.2}, {"batch_first": False}]
)
def test_attention(options):
    assert_layer(Attention(**options), (6, 8))


class Causal(nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x, x + 1.0, 2.0 * x, is_causal=True)


def test_causal_attention():
    assert_layer(Causal(), (2, 6, 8), kinds=("backward",))


@pytest.mark.parametrize("norm_first", [True, False])
def test_encoder_layer(norm_first):
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.2, "gelu", batch_first=True, norm_first=norm_first)
    assert_layer(layer, (6, 8))


class Tokens(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.embedding = nn.Embedding(11, 6, **options)
        self.linear = nn.Linear(6, 3)

    def forward(self, tokens):
        return torch.tanh(self.linear(self.embedding(tokens)))


@pytest.mark.parametrize("options", [{}, {"padding_idx": 3}])
def test_embedding(options):
    torch.manual_seed(0)
    assert_segment(Tokens(**options), (7,), dtype=torch.int64)


class Joined(nn.Module):
    """Residual sum, concatenation, parts, views."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv1d(4, 4, 3, padding=1)
        self.b = nn.Linear(10, 6)

    def forward(self, x):
        y = torch.cat([x + torch.relu(self.a(x)), x[:, 1:3] * 2.0, x.flip(1)], 1)
        left, right = y.chunk(2, dim=1)
        z = torch.stack([left.mean(-1), right.amax(-1), left[:, :, 3]], 1)
        halves = y[:, ::2, 1:].sum(-1) / 3.0 + y.std(-1)[:, :5]
        return torch.cat([self.b(y).flatten(1), z.reshape(x.shape[0], -1), halves, y.permute(0, 2, 1)[:, 2]], 1)


def test_sums_joins_parts_and_views():
    assert_layer(Joined(), (4, 10), kinds=("backward", "evaluate"))


def test_linear_of_vectors_and_sequences():
    assert_layer(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4, bias=False)), (6,))
    assert_layer(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)), (7, 6))


def test_squeeze_and_excite():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 6, 1)

        def forward(self, x):
            return x * torch.sigmoid(self.fc(self.pool(x)))

    assert_layer(Gate(), (6, 5, 5))


class Picked(nn.Module):
    """Picks, for all channels alike, the places where the first channels are largest."""

    def forward(self, x):
        places = x[:, :2].reshape(len(x), 2, 2, -1).amax(3).argmax(2, keepdim=True).reshape(len(x), 1, 2)
        return x.gather(2, places.expand(len(x), x.shape[1], 2)) * x[:, :, :2]


@pytest.mark.parametrize("places", [10, 80])
def test_picking_by_one_index_for_all_channels(places):
    assert_layer(Picked(), (4, places), kinds=("backward", "evaluate"))
