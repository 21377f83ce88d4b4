"""What a device minimises. A new objective is one class here and one row in `OBJECTIVES`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F  # noqa: N812  the name everybody reads
from torch import Tensor, nn

from edge.wire.manifest import Setting


@dataclass(frozen=True)
class Given:
    """What one training step has in hand.

    Attributes:
        x: Input batch (batch, *input).
        y: Labels (batch,) int64.
        smashed: Output of the lower segment (batch, *smashed).
        down: Gradient of the hub's loss with respect to `smashed`, same shape; None in a local step.
        head: The objective's own module, trained on the device.
        setting: Hyperparameters as scalar tensors.
    """

    x: Tensor
    y: Tensor
    smashed: Tensor
    down: Tensor | None
    head: Callable[[Tensor], Tensor]
    setting: Mapping[str, Tensor]


class Objective(Protocol):
    """Which graphs a bundle has, which extra module the device trains, and the loss."""

    kinds: ClassVar[tuple[str, ...]]
    settings: ClassVar[dict[str, Setting]]

    def head(self, smashed: tuple[int, ...], *, channels_last: bool) -> nn.Module:
        """Return the module that the device trains beside the lower segment; ``smashed`` is a shape without batch."""

    def loss(self, given: Given) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar to minimise and further scalars to report."""


class Contrastive:
    """Supervised NT-Xent on a projection of the smashed data (AdaSplit, arXiv 2112.01637, and its authors' code).

    Local steps minimise L_c = NTXent(H(a), y) + beta * sum|a|; backward steps minimise <a, gradient from above> + local_weight * L_c.
    """

    kinds: ClassVar[tuple[str, ...]] = ("local", "forward", "backward", "evaluate")
    settings: ClassVar[dict[str, Setting]] = {
        "temperature": Setting(0.07, 1e-3, 100.0),
        "beta": Setting(0.0, 0.0, 1e3),
        "local_weight": Setting(1.0, 0.0, 1e3),
    }

    def head(self, smashed: tuple[int, ...], *, channels_last: bool) -> nn.Module:
        """Return the projection head H of the authors' code: to 64 features."""
        if len(smashed) == 1:
            return nn.Sequential(nn.Linear(smashed[0], 256), nn.LeakyReLU(0.01), nn.Linear(256, 64))
        return Projection(smashed[-1] if channels_last else smashed[0], channels_last=channels_last)

    def loss(self, given: Given) -> tuple[Tensor, dict[str, Tensor]]:
        """Return L_c, with the term of the gradient from above in a backward step."""
        contrastive = nt_xent(given.head(given.smashed), given.y, given.setting["temperature"])
        local = contrastive + given.setting["beta"] * given.smashed.abs().sum()
        metrics = {"contrastive": contrastive}
        if given.down is None:
            return local, metrics
        return (given.smashed * given.down).sum() + given.setting["local_weight"] * local, metrics


class Gradient:
    """The gradient from above and nothing else: split learning as first published."""

    kinds: ClassVar[tuple[str, ...]] = ("forward", "backward", "evaluate")
    settings: ClassVar[dict[str, Setting]] = {}

    def head(self, smashed: tuple[int, ...], *, channels_last: bool) -> nn.Module:  # noqa: ARG002  nothing to project
        """Return an empty module."""
        return nn.Identity()

    def loss(self, given: Given) -> tuple[Tensor, dict[str, Tensor]]:
        """Return <smashed, gradient>, whose derivative is the chain rule through the cut."""
        if given.down is None:
            raise ValueError("the objective 'gradient' has no local step")
        return (given.smashed * given.down).sum(), {}


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


def nt_xent(z: Tensor, y: Tensor, temperature: Tensor | float) -> Tensor:
    """Return the supervised NT-Xent loss of projections ``z`` (batch, features) with labels ``y`` (batch,).

    For every ordered pair (q, p) of one label, q != p: -log(e^s(q,p) / (e^s(q,p) + sum over n of another label e^s(q,n))),
    s = cosine / temperature, averaged over the pairs. Other positives are not in the denominator. A batch without a
    pair gives 0; so does an anchor without negatives.
    """
    unit = F.normalize(z, dim=1)
    similarity = unit @ unit.t() / temperature
    row = torch.arange(z.shape[0], device=z.device)
    alike = y[:, None] == y[None, :]
    positive = (alike & (row[:, None] != row[None, :])).to(z.dtype)
    negative = 1.0 - alike.to(z.dtype)
    crowd = negative.sum(1)
    # log-sum-exp of the negatives, shifted by their largest; an anchor without negatives must not meet log(0).
    shift = (similarity - alike.to(z.dtype) * 1e9).amax(1, keepdim=True).detach()
    total = (negative * torch.exp(torch.clamp(similarity - shift, max=0.0))).sum(1)
    lonely = (crowd == 0).to(z.dtype)
    log_total = torch.log(total + lonely) + torch.clamp(shift[:, 0], min=-1e8)
    pairs = F.softplus(log_total[:, None] - similarity) * (positive * (1.0 - lonely)[:, None])
    return pairs.sum() / torch.clamp(positive.sum(), min=1.0)


OBJECTIVES: dict[str, Objective] = {"contrastive": Contrastive(), "gradient": Gradient()}


def channels_last(lower: nn.Module) -> bool:
    """Tell whether (batch, A, B) smashed data are places by features (a sequence), judged by the last layer that knows."""
    sequence = (nn.Linear, nn.LayerNorm, nn.Embedding, nn.MultiheadAttention, nn.TransformerEncoderLayer)
    grid = (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.MaxPool1d, nn.AvgPool1d)  # noqa: SLF001  the only common bases
    known = [module for module in lower.modules() if isinstance(module, sequence + grid)]
    return bool(known) and isinstance(known[-1], sequence)
