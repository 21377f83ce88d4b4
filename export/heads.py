"""What an objective trains on the device beside the lower segment, and never in the model that is served."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  the name everybody reads
from torch import Tensor, nn

from export.errors import ExportError


@dataclass(frozen=True)
class Place:
    """Where a head sits.

    Attributes:
        input: Shape of a sample.
        floats: Whether a sample is of floats; token ids are not.
        smashed: Shape of the smashed data of a sample.
        channels_last: Whether smashed data (A, B) are places by features, as in a transformer, and not channels by places.
        classes: Number of labels.
    """

    input: tuple[int, ...]
    floats: bool
    smashed: tuple[int, ...]
    channels_last: bool
    classes: int

    @property
    def channels(self) -> int:
        """Features at one place, or all of them where there are no places."""
        return self.smashed[-1] if self.channels_last else self.smashed[0]


class Projection(nn.Module):
    """1x1 convolution to 128, LeakyReLU(0.01), global max-pool, Linear to 64.

    Takes (batch, channels, *places), or (batch, places, channels) with ``channels_last``; a 1x1 convolution is a
    linear map of the channels at every place, so one weight (128, channels) serves all ranks.
    """

    def __init__(self, channels: int, *, channels_last: bool) -> None:
        super().__init__()
        self.channels_last = channels_last
        self.mix = nn.Conv1d(channels, 128, 1)
        self.out = nn.Linear(128, 64)

    def forward(self, smashed: Tensor) -> Tensor:
        """Return (batch, 64).

        LeakyReLU keeps order, so the maximum comes first; and only the place of each maximum has a gradient, so the
        channels at that place are picked first and mixed again: the gradient of the mix never exists at all places.
        """
        places = smashed.flatten(1, -2).transpose(1, 2) if self.channels_last else smashed.flatten(2)
        best = F.conv1d(places.detach(), self.mix.weight.detach()).max(-1).indices
        picked = places.gather(2, best[:, None, :].expand(-1, places.shape[1], -1))
        mixed = (picked * self.mix.weight[:, :, 0].t()).sum(1) + self.mix.bias
        return self.out(F.leaky_relu(mixed, 0.01))


def projection(place: Place) -> nn.Module:
    """Return the projection head H of the AdaSplit authors' code: to 64 features."""
    if len(place.smashed) == 1:
        return nn.Sequential(nn.Linear(place.smashed[0], 256), nn.LeakyReLU(0.01), nn.Linear(256, 64))
    return Projection(place.channels, channels_last=place.channels_last)


class Classifier(nn.Module):
    """The auxiliary classifier of LocSplitFed: mean over the places, Linear to the classes. Its size is our choice."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.channels_last = place.channels_last
        self.flat = len(place.smashed) == 1
        self.linear = nn.Linear(place.channels, place.classes)

    def forward(self, smashed: Tensor) -> Tensor:
        """Return logits (batch, classes)."""
        if self.flat:
            return self.linear(smashed)
        return self.linear(smashed.flatten(1, -2).mean(1) if self.channels_last else smashed.flatten(2).mean(2))


class Decoder(nn.Module):
    """The decoder h of LocFedMix-SL in the manner of InfoPro: upsample, conv 3 to 16, ReLU, conv 3 to the input's channels.

    The layers are our choice. Upsampling is linear along each axis (`align_corners=False`), written as a product with a constant
    matrix (places of the input, places of the smashed data), so that it needs no operator of its own on a board.
    """

    def __init__(self, place: Place) -> None:
        super().__init__()
        ranks = len(place.input) - 1
        conv = {1: nn.Conv1d, 2: nn.Conv2d}[ranks]
        self.first: nn.Module = conv(place.channels, 16, 3, padding=1)
        self.second: nn.Module = conv(16, place.input[0], 3, padding=1)
        for axis, (fine, coarse) in enumerate(zip(place.input[1:], place.smashed[1:], strict=True)):
            self.register_buffer(f"spread{axis}", interpolation(fine, coarse))

    def forward(self, smashed: Tensor) -> Tensor:
        """Return (batch, *input)."""
        x = smashed @ self.get_buffer("spread0").t()
        if smashed.dim() == 4:
            x = self.get_buffer("spread0") @ smashed @ self.get_buffer("spread1").t()
        return self.second(torch.relu(self.first(x)))


class FlatDecoder(nn.Module):
    """The same for smashed data without places: Linear to 256, ReLU, Linear to the sample."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.shape = place.input
        self.first = nn.Linear(math.prod(place.smashed), 256)
        self.second = nn.Linear(256, math.prod(place.input))

    def forward(self, smashed: Tensor) -> Tensor:
        """Return (batch, *input)."""
        return self.second(torch.relu(self.first(smashed.flatten(1)))).reshape(-1, *self.shape)


def decoder(place: Place) -> nn.Module:
    """Return a decoder that suits the smashed data.

    Raises:
        ExportError: the samples are token ids, which have no distance.
    """
    if not place.floats:
        raise ExportError("the objective 'decoder' rebuilds samples of floats, not token ids: take another objective")
    grid = len(place.smashed) == len(place.input) in (2, 3) and not place.channels_last
    return Decoder(place) if grid else FlatDecoder(place)


def interpolation(fine: int, coarse: int) -> Tensor:
    """Return the matrix (fine, coarse) of linear interpolation, samples at the middles of their cells, ends held."""
    at = ((torch.arange(fine, dtype=torch.float64) + 0.5) * (coarse / fine) - 0.5).clamp(0, coarse - 1)
    return (1 - (at[:, None] - torch.arange(coarse, dtype=torch.float64)).abs()).clamp(min=0).float()


def channels_last(lower: nn.Module) -> bool:
    """Tell whether (batch, A, B) smashed data are places by features (a sequence), judged by the last layer that knows."""
    sequence = (nn.Linear, nn.LayerNorm, nn.Embedding, nn.MultiheadAttention, nn.TransformerEncoderLayer)
    grid = (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.MaxPool1d, nn.AvgPool1d)  # noqa: SLF001  the only common bases
    known = [module for module in lower.modules() if isinstance(module, sequence + grid)]
    return bool(known) and isinstance(known[-1], sequence)
