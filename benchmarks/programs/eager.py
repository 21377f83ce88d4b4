"""The opponent, on request: the same training step in PyTorch eager, in a process that imports nothing it does not need."""

import io
import itertools
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  the name everybody reads
from torch import Tensor, nn

from benchmarks.answering import memory, serve, timed, told
from edge.wire.manifest import Manifest
from export.cut import load_factory, split
from export.heads import Place, channels_last, projection
from export.objectives import nt_xent

Loss = Callable[[Tensor, Tensor, float], Tensor]


class Trainer:
    """Lower segment, head and Adam as PyTorch's documentation would write them."""

    loss: Loss = staticmethod(nt_xent)

    def __init__(self, words: dict[str, Any]) -> None:
        torch.set_num_threads(words["threads"])
        manifest, weights = _read(words["bundle"])
        with np.load(words["batches"]) as file:
            x, y = torch.from_numpy(file["x"]), torch.from_numpy(file["y"])
        halves = split(load_factory(manifest.model), manifest.cut, x[0, :2])
        place = Place(manifest.input.shape, True, halves.smashed_shape, channels_last(halves.lower), manifest.classes)
        head = projection(place)
        _fill(halves.lower, head, manifest, weights)
        self.setting = {name: setting.default for name, setting in manifest.settings.items()}
        self.lower, self.head = self.shaped(halves.lower.train(), head.train())
        self.optimizer = self.adam([*self.lower.parameters(), *self.head.parameters()])
        self.batches = itertools.cycle([(self.placed(a), b) for a, b in zip(x, y, strict=True)])
        self.last = 0.0

    def shaped(self, lower: nn.Module, head: nn.Module) -> tuple[nn.Module, nn.Module]:
        """Return the modules that are trained."""
        return lower, head

    def placed(self, x: Tensor) -> Tensor:
        """Return a batch as it lies in memory before the step."""
        return x

    def adam(self, parameters: list[Tensor], **options: Any) -> torch.optim.Optimizer:
        """Return the optimizer."""
        setting = self.setting
        betas = (setting["beta1"], setting["beta2"])
        return torch.optim.Adam(
            parameters, setting["lr"], betas, setting["eps"], weight_decay=setting["weight_decay"], **options
        )

    def step(self) -> None:
        """Forward, contrastive loss, backward, update."""
        x, y = next(self.batches)
        self.optimizer.zero_grad()
        loss = self.loss(self.head(self.lower(x)), y, self.setting["temperature"])
        loss.backward()
        self.optimizer.step()
        self.last = loss.item()

    def forward(self) -> None:
        """The lower segment in training mode."""
        with torch.inference_mode():
            self.lower(next(self.batches)[0])


class Tuned(Trainer):
    """The same model with what PyTorch offers by a word: channels_last for images, fused Adam."""

    def shaped(self, lower: nn.Module, head: nn.Module) -> tuple[nn.Module, nn.Module]:
        """Images in channels_last."""
        self.images = any(isinstance(module, nn.Conv2d) for module in lower.modules())
        return (lower.to(memory_format=torch.channels_last) if self.images else lower), head

    def placed(self, x: Tensor) -> Tensor:
        """In channels_last before the clock starts."""
        return x.to(memory_format=torch.channels_last) if self.images else x

    def adam(self, parameters: list[Tensor], **_options: Any) -> torch.optim.Optimizer:
        """All parameters in one kernel."""
        return super().adam(parameters, fused=True)


class Rewritten(Tuned):
    """Tuned, and the loss, the head and LRN written anew for speed: the same numbers by other operators."""

    @staticmethod
    def loss(z: Tensor, y: Tensor, temperature: float) -> Tensor:
        """NT-Xent in few operators."""
        unit = F.normalize(z, dim=1)
        similarity = unit @ unit.t() / temperature
        alike = y[:, None] == y[None, :]
        negatives = similarity.masked_fill(alike, -1e30).logsumexp(1, keepdim=True)
        pairs = alike & ~alike.all(1, keepdim=True)
        pairs.fill_diagonal_(fill_value=False)
        return (F.softplus(negatives - similarity) * pairs).sum() / (alike.sum() - len(y)).clamp(min=1)

    def shaped(self, lower: nn.Module, head: nn.Module) -> tuple[nn.Module, nn.Module]:
        """With the head that was fastest for the kind of smashed data."""
        for name, module in list(lower.named_modules()):
            if isinstance(module, nn.LocalResponseNorm):
                lower.set_submodule(name, ResponseNorm(module))
        lower, head = super().shaped(lower, head)
        return lower, (ImageHead if self.images else SequenceHead)(head)


class ImageHead(nn.Module):
    """The projection head for (batch, channels, height, width) in channels_last; same parameters, same values.

    LeakyReLU rises everywhere, so the largest can be taken before it, which leaves it one place to work on.
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.mix, self.out = head.mix, head.out

    def forward(self, smashed: Tensor) -> Tensor:
        """Return (batch, 64)."""
        mixed = F.conv2d(smashed, self.mix.weight[..., None], self.mix.bias)
        return self.out(F.leaky_relu(F.adaptive_max_pool2d(mixed, 1).flatten(1), 0.01))


class SequenceHead(nn.Module):
    """The same for (batch, channels, length), or (batch, places, features): one matrix product for all places."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.mix, self.out, self.features_last = head.mix, head.out, head.channels_last

    def forward(self, smashed: Tensor) -> Tensor:
        """Return (batch, 64)."""
        places = smashed if self.features_last else smashed.transpose(1, 2)
        mixed = F.linear(places, self.mix.weight[..., 0], self.mix.bias)
        return self.out(F.leaky_relu(mixed.max(1).values, 0.01))


class ResponseNorm(nn.Module):
    """LocalResponseNorm with its moving sum over channels as a 1x1 convolution: PyTorch's own pools in three dimensions."""

    def __init__(self, norm: nn.LocalResponseNorm) -> None:
        super().__init__()
        if norm.beta != 0.75:
            raise ValueError(f"beta is {norm.beta}; only 0.75, as AlexNet has it, is made of square roots")
        self.size, self.alpha, self.k = norm.size, norm.alpha, norm.k

    def forward(self, x: Tensor) -> Tensor:
        """Return an array of the same shape."""
        place = torch.arange(x.shape[1])
        ahead = place[None, :] - place[:, None] + self.size // 2
        band = ((ahead >= 0) & (ahead < self.size)) * (self.alpha / self.size)
        root = (F.conv2d(x * x, band[..., None, None]) + self.k).rsqrt()
        return x * (root * root.sqrt())


METHODS: dict[str, type[Trainer]] = {"default": Trainer, "tuned": Tuned, "rewritten": Rewritten}


def _read(bundle: str) -> tuple[Manifest, np.ndarray]:
    with zipfile.ZipFile(bundle) as archive:
        manifest = Manifest.parse(archive.read("manifest.json"))
        return manifest, np.load(io.BytesIO(archive.read("state/weights.npy")), allow_pickle=False)


def _fill(lower: nn.Module, head: nn.Module, manifest: Manifest, weights: np.ndarray) -> None:
    """Give the modules the bundle's initial weights, so that both contestants start at the same point."""
    named = dict(lower.named_parameters()) | {f"head.{name}": value for name, value in head.named_parameters()}
    with torch.no_grad():
        for piece in (piece for piece in manifest.slices if piece.state == "weights"):
            value = named.pop(piece.name)
            part = weights[piece.offset : piece.offset + value.numel()]
            value.copy_(torch.from_numpy(part).view(piece.shape))
    if named:
        raise ValueError(f"the bundle has no weights for {', '.join(named)}")


if __name__ == "__main__":
    words = told()
    trainer = METHODS[words["method"]](words)
    serve(
        {
            "step": lambda count: timed(trainer.step, count) | {"loss": trainer.last},
            "forward": lambda count: timed(trainer.forward, count),
            "memory": memory,
        }
    )
