"""Small models for the demo, the benchmarks and the tests. A user's own model needs nothing of this but a factory."""

import math

import torch
from torch import Tensor, nn


class Wearable(nn.Module):
    """1-D CNN for windows of a wearable's motion sensors: (batch, 6, 100) to (batch, classes)."""

    input_shape = (6, 100)
    default_cut = "pool1"

    def __init__(self, classes: int = 7, channels: int = 6) -> None:
        super().__init__()
        self.input_shape = (channels, 100)
        self.conv1 = nn.Conv1d(channels, 32, 5, padding=2)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool1d(2)
        self.conv2 = nn.Conv1d(32, 64, 5, padding=2)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool1d(2)
        self.conv3 = nn.Conv1d(64, 128, 5, padding=2)
        self.relu3 = nn.ReLU()
        self.average = nn.AdaptiveAvgPool1d(1)
        self.linear = nn.Linear(128, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, classes)."""
        x = self.pool1(self.relu1(self.conv1(x)))
        x = self.pool2(self.relu2(self.conv2(x)))
        return self.linear(self.average(self.relu3(self.conv3(x))).flatten(1))


class LeNet(nn.Module):
    """The network of the AdaSplit authors' runs: (batch, channels, size, size) to (batch, classes); theirs are 32 wide."""

    default_cut = "pool1"

    def __init__(self, classes: int = 10, channels: int = 3, size: int = 32) -> None:
        super().__init__()
        self.input_shape = (channels, size, size)
        self.conv1 = nn.Conv2d(channels, 20, 5, padding=2)
        self.relu1 = nn.ReLU()
        self.norm1 = nn.LocalResponseNorm(4, 0.001 / 9, 0.75, 1)
        self.pool1 = nn.MaxPool2d(3, 2, 1)
        self.conv2 = nn.Conv2d(20, 50, 5, padding=2)
        self.relu2 = nn.ReLU()
        self.norm2 = nn.LocalResponseNorm(4, 0.001 / 9, 0.75, 1)
        self.pool2 = nn.MaxPool2d(3, 2, 1)
        halved = -(-size // 2)
        self.fc1 = nn.Linear(50 * (-(-halved // 2)) ** 2, 800)
        self.fc2 = nn.Linear(800, 500)
        self.fc3 = nn.Linear(500, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, classes)."""
        x = self.pool1(self.norm1(self.relu1(self.conv1(x))))
        x = self.pool2(self.norm2(self.relu2(self.conv2(x)))).flatten(1)
        return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x)))))


class Digits(nn.Module):
    """CNN for the 8x8 digits of scikit-learn: (batch, 1, 8, 8) to (batch, classes)."""

    input_shape = (1, 8, 8)
    default_cut = "pool1"

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.linear = nn.Linear(128, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, classes)."""
        x = self.pool1(self.relu1(self.conv1(x)))
        return self.linear(self.pool2(self.relu2(self.conv2(x))).flatten(1))


class Inverted(nn.Module):
    """Inverted residual block of MobileNetV2: expand, depthwise, project; the sum with the input where shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int = 4) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = nn.Sequential(nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6())
        depthwise = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False)
        self.depthwise = nn.Sequential(depthwise, nn.BatchNorm2d(hidden), nn.ReLU6())
        self.project = nn.Sequential(nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, outputs, height / stride, width / stride)."""
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class Depthwise(nn.Module):
    """MobileNet-like net: (batch, 3, 32, 32) to (batch, classes)."""

    input_shape = (3, 32, 32)
    default_cut = "block2"

    def __init__(self, classes: int = 10, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU6())
        self.block1 = Inverted(width, 24, 2)
        self.block2 = Inverted(24, 24, 1)
        self.block3 = Inverted(24, 48, 2)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(48, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, classes)."""
        x = self.block3(self.block2(self.block1(self.stem(x))))
        return self.linear(self.average(x).flatten(1))


class Residual(nn.Module):
    """Basic block of a ResNet."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, outputs, height / stride, width / stride)."""
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(y + self.shortcut(x))


class ResNet(nn.Module):
    """Small ResNet with batch norm: (batch, 3, 32, 32) to (batch, classes)."""

    input_shape = (3, 32, 32)
    default_cut = "stage1"

    def __init__(self, classes: int = 10, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.stage1 = nn.Sequential(Residual(width, width, 1), Residual(width, width, 1))
        self.stage2 = nn.Sequential(Residual(width, 2 * width, 2), Residual(2 * width, 2 * width, 1))
        self.stage3 = Residual(2 * width, 4 * width, 2)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, classes)."""
        x = self.stage3(self.stage2(self.stage1(self.stem(x))))
        return self.linear(self.average(x).flatten(1))


class Positions(nn.Module):
    """Adds the sinusoidal code of Vaswani et al. (2017) to (batch, places, features)."""

    code: Tensor

    def __init__(self, places: int, features: int) -> None:
        super().__init__()
        turns = torch.arange(places)[:, None] * torch.exp(torch.arange(0, features, 2) * (-math.log(1e4) / features))
        self.register_buffer("code", torch.stack([torch.sin(turns), torch.cos(turns)], dim=-1).flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return an array of the same shape."""
        return x + self.code


class Transformer(nn.Module):
    """Text classifier: token ids (batch, 64) int64 to (batch, classes)."""

    input_dtype = "int64"
    default_cut = "blocks.0"

    def __init__(self, classes: int = 4, vocabulary: int = 1000, places: int = 64, features: int = 64) -> None:
        super().__init__()
        self.input_shape = (places,)
        self.input_limit = vocabulary
        self.embedding = nn.Embedding(vocabulary, features)
        self.positions = Positions(places, features)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(features, 4, 4 * features, 0.1, "gelu", batch_first=True) for _ in range(2)
        )
        self.norm = nn.LayerNorm(features)
        self.linear = nn.Linear(features, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (batch, classes)."""
        x = self.positions(self.embedding(tokens))
        for block in self.blocks:
            x = block(x)
        return self.linear(self.norm(x).mean(1))


wearable = Wearable
lenet = LeNet
digits = Digits
depthwise = Depthwise
resnet = ResNet
transformer = Transformer
