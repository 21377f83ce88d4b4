"""What a device minimises. A new objective is one class here and one row in `OBJECTIVES`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F  # noqa: N812  the name everybody reads
from torch import Tensor, nn

from edge.wire.manifest import Setting
from export.corrections import ControlVariates, Correction, Fresh, Proximal
from export.heads import Classifier, Place, decoder, projection


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
    """Which graphs a bundle has, which extra module the device trains, the loss, and what happens to its gradient."""

    kinds: ClassVar[tuple[str, ...]]
    settings: ClassVar[dict[str, Setting]]
    whole: ClassVar[bool]
    """Whether the device trains the whole model, uncut."""

    @property
    def correction(self) -> Correction | None:
        """With one, the optimizer's moments start anew with every order, and the bundle has a `begin` graph."""

    def head(self, place: Place) -> nn.Module:
        """Return the module that the device trains beside the lower segment."""

    def loss(self, given: Given) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar to minimise and further scalars to report."""


class Gradient:
    """The gradient from above and nothing else: split learning as first published."""

    kinds: ClassVar[tuple[str, ...]] = ("forward", "backward", "evaluate")
    settings: ClassVar[dict[str, Setting]] = {}
    whole: ClassVar[bool] = False

    @property
    def correction(self) -> Correction | None:
        """None: the gradient is taken as it is."""
        return None

    def head(self, place: Place) -> nn.Module:  # noqa: ARG002  nothing to add
        """Return an empty module."""
        return nn.Identity()

    def loss(self, given: Given) -> tuple[Tensor, dict[str, Tensor]]:
        """Return <smashed, gradient>, whose derivative is the chain rule through the cut."""
        return _from_above(given), {}


class Contrastive(Gradient):
    """Supervised NT-Xent on a projection of the smashed data (AdaSplit, arXiv 2112.01637, and its authors' code).

    Local steps minimise L_c = NTXent(H(a), y) + beta * sum|a|; backward steps minimise <a, gradient from above> + local_weight * L_c.
    """

    kinds: ClassVar[tuple[str, ...]] = ("local", "forward", "backward", "evaluate")
    settings: ClassVar[dict[str, Setting]] = {
        "temperature": Setting(0.07, 1e-3, 100.0),
        "beta": Setting(0.0, 0.0, 1e3),
        "local_weight": Setting(1.0, 0.0, 1e3),
    }

    def head(self, place: Place) -> nn.Module:
        """Return the projection head H."""
        return projection(place)

    def loss(self, given: Given) -> tuple[Tensor, dict[str, Tensor]]:
        """Return L_c, with the term of the gradient from above in a backward step."""
        contrastive = nt_xent(given.head(given.smashed), given.y, given.setting["temperature"])
        local = contrastive + given.setting["beta"] * given.smashed.abs().sum()
        metrics = {"contrastive": contrastive}
        if given.down is None:
            return local, metrics
        return _from_above(given) + given.setting["local_weight"] * local, metrics


class Auxiliary(Gradient):
    """Cross-entropy through a small classifier of its own (LocSplitFed, Han et al., 2021); nothing comes down at the cut."""

    kinds: ClassVar[tuple[str, ...]] = ("local", "forward", "evaluate")

    def head(self, place: Place) -> nn.Module:
        """Return the classifier."""
        return Classifier(place)

    def loss(self, given: Given) -> tuple[Tensor, dict[str, Tensor]]:
        """Return CE(classifier(a), y)."""
        loss = cross_entropy(given.head(given.smashed), given.y)
        return loss, {"cross_entropy": loss}


class Rebuilding(Gradient):
    """The gradient from above, and the mean squared error of a decoder that rebuilds the sample (LocFedMix-SL, WWW 2022).

    Minimises <a, gradient from above> + local_weight * mean (x - h(a))^2. That the error is a mean over the elements is our choice.
    """

    settings: ClassVar[dict[str, Setting]] = {"local_weight": Setting(1.0, 0.0, 1e3)}

    def head(self, place: Place) -> nn.Module:
        """Return the decoder h."""
        return decoder(place)

    def loss(self, given: Given) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of both."""
        error = (given.x - given.head(given.smashed)).square().mean()
        return _from_above(given) + given.setting["local_weight"] * error, {"rebuilding": error}


class Whole(Gradient):
    """Cross-entropy of the whole model on the device: what federated averaging and its kin train."""

    kinds: ClassVar[tuple[str, ...]] = ("local", "evaluate", "begin")
    whole: ClassVar[bool] = True
    rule: ClassVar[Correction] = Fresh()

    @property
    def correction(self) -> Correction | None:
        """The rule of the method."""
        return self.rule

    def loss(self, given: Given) -> tuple[Tensor, dict[str, Tensor]]:
        """Return CE(logits, y); the smashed data of an uncut model are its logits."""
        loss = cross_entropy(given.smashed, given.y)
        return loss, {"cross_entropy": loss}


class Near(Whole):
    """The same with FedProx's term."""

    rule: ClassVar[Correction] = Proximal()


class Steered(Whole):
    """The same with SCAFFOLD's control variates."""

    kinds: ClassVar[tuple[str, ...]] = (*Whole.kinds, "end")
    rule: ClassVar[Correction] = ControlVariates()


def _from_above(given: Given) -> Tensor:
    if given.down is None:
        raise ValueError("this objective has no local step")
    return (given.smashed * given.down).sum()


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the mean cross-entropy of logits (batch, classes) with labels (batch,), without indexing."""
    chosen = (y[:, None] == torch.arange(logits.shape[1], device=logits.device)[None, :]).to(logits.dtype)
    return -(F.log_softmax(logits, 1) * chosen).sum(1).mean()


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


OBJECTIVES: dict[str, Objective] = {
    "contrastive": Contrastive(),
    "gradient": Gradient(),
    "auxiliary": Auxiliary(),
    "decoder": Rebuilding(),
    "whole": Whole(),
    "proximal": Near(),
    "control_variates": Steered(),
}
