"""The hub's upper segment: its weights, a soft mask of them for each device, the optimizer, and what was received before.

With masks, device i is served by θ_i = U ⊙ σ(V_i): U is shared, V_i has the shape of every parameter, biases included, starts
from N(0, 1) and is never thresholded. One step minimises, over U and all V together,

    L = CE(M(a; θ_i), y) + λ Σ_all devices Σ σ(V)

All V move at every step, whoever's batch it was; the gradients of the masks are written out, in few and large operations:

    dL/dU = g ⊙ σ(V_i)       dL/dV_j = λ σ'(V_j) + [j = i] g ⊙ U ⊙ σ'(V_j)       with g = dCE/dθ_i, σ' = σ(1 - σ)
"""

# ruff: noqa: RUF002  the letters are the paper's

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  the name everybody reads
from torch import Tensor, nn

_BYTES_BESIDE = 16  # label and device number of a sample
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Tuning:
    """How the upper segment is optimised: Adam with weight decay added to the gradient (`torch.optim.Adam`)."""

    lr: float = 1e-3
    weight_decay: float = 1e-5
    masks: bool = False
    mask_weight: float = 1e-3
    """λ, the price of an open mask."""


class UpperSegment:
    """An upper segment that learns. Changes in place; `save` and `load` are exact.

    All parameters lie in one vector of P numbers, of which the module's own are views, so that a step has few, large operations.
    """

    def __init__(self, module: nn.Module, devices: int, tuning: Tuning, seed: int) -> None:
        self.tuning = tuning
        self.module = copy.deepcopy(module)
        self.effective = _flatten(self.module)
        """θ of the device served last; the module computes with it."""
        self.weights = self.effective.detach().clone() if tuning.masks else self.effective
        """U, (P,); without masks, the same tensor as θ."""
        generator = torch.Generator().manual_seed(seed)
        self.logits = torch.randn(devices, len(self.weights), generator=generator) if tuning.masks else None
        """V, (devices, P); None without masks."""
        self.steps = 0
        self.samples = 0
        """Samples that went forward and backward, replayed ones included."""
        self._seed = seed
        self._trains = False
        """Whether the whole module is known to be in training mode."""
        self._gathered = 0
        """Batches since the last step; a checkpoint is made between steps, and has none."""
        trained = [self.weights] if self.logits is None else [self.weights, self.logits]
        for tensor in trained:
            if tensor is not self.effective:  # of whose gradient the module's are views
                tensor.grad = torch.zeros_like(tensor)
        self.optimizer = torch.optim.Adam(trained, lr=tuning.lr, weight_decay=tuning.weight_decay, fused=True)

    def step(
        self, device: int, smashed: Tensor, labels: Tensor, *, gradient: bool = False
    ) -> tuple[float, Tensor | None]:
        """One optimizer step on one batch; see `accumulate`."""
        result = self.accumulate(device, smashed, labels, gradient=gradient)
        self.apply()
        return result

    def accumulate(
        self, device: int, smashed: Tensor, labels: Tensor, *, weight: float = 1.0, gradient: bool = False
    ) -> tuple[float, Tensor | None]:
        """Add the gradients of weight · CE on one batch to those that `apply` will use.

        Args:
            device: whose mask; any number without masks.
            smashed: (batch, *smashed) float32.
            labels: (batch,) int64 classes, or (batch, classes) float32 probabilities.
            weight: of this batch in the sum.
            gradient: whether the gradient of weight · CE with respect to `smashed` is wanted.

        Returns:
            CE itself, and that gradient, of the shape of `smashed`, or None.
        """
        self._serve(device)
        self._train(len(labels))
        smashed = smashed.detach().clone().requires_grad_(gradient)
        with torch.random.fork_rng(devices=[]):
            # Dropout: a function of the seed, the step and the place in it. torch keeps 32 bits, in which multiples of the golden
            # ratio lie farthest apart: no two batches share their noise. Not torch.manual_seed: that writes down the call stack for
            # each kind of accelerator there might be, every time.
            torch.default_generator.manual_seed(self._seed * 1_000_003 + self.steps + self._gathered * 2_654_435_761)
            loss = F.cross_entropy(self.module(smashed), labels)
        if self.logits is not None:
            self.effective.grad.zero_()
        (loss if weight == 1.0 else weight * loss).backward()
        self._spread(device)
        self.samples += len(labels)
        self._gathered += 1
        return float(loss.detach()), smashed.grad

    def apply(self) -> None:
        """One optimizer step on what was accumulated, and the masks' own term."""
        if self.logits is not None:
            open_share = torch.sigmoid(self.logits)
            self.logits.grad.add_(open_share.addcmul(open_share, open_share, value=-1), alpha=self.tuning.mask_weight)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)
        self.steps += 1
        self._gathered = 0

    def learn_again(self, replay: "Replay", times: int) -> None:
        """Take so many further steps on batches drawn from what was received before; none where nothing was."""
        for _ in range(times if len(replay) else 0):
            rng = np.random.default_rng([self._seed, 2, self.steps])
            self.step(*replay.draw(rng, one_device=self.logits is not None))

    @torch.no_grad()
    def predict(self, device: int | None, smashed: Tensor) -> Tensor:
        """Logits (batch, classes) in evaluation mode; for None, a device without a mask, with the mean of all masks."""
        self._serve(device)
        self.module.eval()
        self._trains = False
        logits: Tensor = self.module(smashed)
        return logits

    def set_lr(self, lr: float) -> None:
        """Learning rate of the steps to come."""
        self.optimizer.param_groups[0]["lr"] = lr

    def learned(self) -> dict[str, Tensor]:
        """Every tensor that steps change, by name and not copied: weights, masks, buffers, Adam's moments and its count."""
        found = {f"buffer.{name}": buffer for name, buffer in self.module.named_buffers()}
        for number, tensor in enumerate(self.optimizer.param_groups[0]["params"]):
            moments = self.optimizer.state[tensor]
            if not moments:  # Adam makes them at its first step; zeros mean the same
                moments.update(
                    step=torch.zeros(()), exp_avg=torch.zeros_like(tensor), exp_avg_sq=torch.zeros_like(tensor)
                )
            found |= {f"{number}": tensor, **{f"{number}.{name}": moment for name, moment in moments.items()}}
        return found

    def save(self) -> dict[str, Any]:
        """Everything that changes, as tensors and plain values."""
        return {
            "weights": self.weights.clone(),
            "logits": None if self.logits is None else self.logits.clone(),
            "buffers": {name: buffer.clone() for name, buffer in self.module.named_buffers()},
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "steps": self.steps,
            "samples": self.samples,
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        """Take what `save` gave.

        Raises:
            ValueError: it belongs to another model, fleet or choice of masks.
        """
        self._fits(saved)
        with torch.no_grad():
            self.weights.copy_(saved["weights"])
            if self.logits is not None:
                self.logits.copy_(saved["logits"])
            for name, buffer in self.module.named_buffers():
                buffer.copy_(saved["buffers"][name])
        self.optimizer.load_state_dict(copy.deepcopy(saved["optimizer"]))
        self.steps, self.samples = saved["steps"], saved["samples"]

    def _fits(self, saved: Mapping[str, Any]) -> None:
        for name, mine in (("weights", self.weights), ("logits", self.logits)):
            shapes = [None if tensor is None else tuple(tensor.shape) for tensor in (saved[name], mine)]
            if shapes[0] != shapes[1]:
                raise ValueError(f"the checkpoint's {name} have shape {shapes[0]}; this upper segment's {shapes[1]}")

    @torch.no_grad()
    def _serve(self, device: int | None) -> None:
        if self.logits is None:
            return
        if device is None:
            torch.mul(self.weights, torch.sigmoid(self.logits).mean(0), out=self.effective)
        else:
            torch.mul(self.weights, torch.sigmoid(self.logits[device]), out=self.effective)

    @torch.no_grad()
    def _spread(self, device: int) -> None:
        """From dCE/dθ to dCE/dU and dCE/dV."""
        if self.logits is None:
            return  # θ is U
        gradient = self.effective.grad
        open_share = torch.sigmoid(self.logits[device])
        self.weights.grad += gradient * open_share
        self.logits.grad[device] += gradient * self.weights * open_share * (1 - open_share)

    def _train(self, samples: int) -> None:
        if not self._trains:  # telling every module at every batch would be a fiftieth of a small step
            self.module.train()
        self._trains = samples > 1
        if samples == 1:  # one sample has no variance: batch norm would refuse it or divide by zero
            for module in self.module.modules():
                if isinstance(module, _NORMS):
                    module.eval()


@torch.no_grad()
def average(segments: Sequence[UpperSegment], weights: Sequence[float]) -> None:
    """Give all segments the weighted mean of what they learned, Adam's moments included; their counter of steps becomes the largest.

    Args:
        segments: of one model and one fleet.
        weights: one a segment, summing to 1; a segment of weight 0 receives and gives nothing.
    """
    learned = [segment.learned() for segment in segments]
    for name in learned[0]:
        giving = zip(weights, learned, strict=True)
        mean = sum(weight * tensors[name].double() for weight, tensors in giving if weight)
        for tensors in learned:
            tensors[name].copy_(mean if tensors[name].is_floating_point() else mean.round())
    for segment in segments:
        segment.steps = max(other.steps for other in segments)


def _flatten(module: nn.Module) -> Tensor:
    """Lay the module's parameters and gradients out in one vector (P,), which is returned; the module sees views of it."""
    parameters = list(module.parameters())
    flat = torch.cat([p.detach().reshape(-1) for p in parameters]) if parameters else torch.zeros(0)
    flat.grad = torch.zeros_like(flat)
    offset = 0
    for p in parameters:
        p.data = flat[offset : offset + p.numel()].view(p.shape)
        p.grad = flat.grad[offset : offset + p.numel()].view(p.shape)
        offset += p.numel()
    return flat


class Replay:
    """Samples of smashed data received before, in bounded memory; the oldest make way for new ones."""

    def __init__(self, maximum_bytes: int) -> None:
        self._maximum_bytes = maximum_bytes
        self._samples: tuple[Tensor, Tensor, Tensor] | None = None
        """Smashed data (capacity, *smashed), labels (capacity,), device numbers (capacity,)."""
        self._received = 0
        self._batch = 0

    def __len__(self) -> int:
        return 0 if self._samples is None else min(self._received, len(self._samples[1]))

    def add(self, device: int, smashed: Tensor, labels: Tensor) -> None:
        """Keep a batch: smashed (batch, *smashed), labels (batch,)."""
        self._batch = max(self._batch, len(labels))
        self._make_room(smashed, len(labels))
        if self._samples is None:
            return
        capacity = len(self._samples[1])
        kept = min(len(labels), capacity)
        places = torch.arange(self._received, self._received + kept) % capacity
        given = (smashed[-kept:].detach(), labels[-kept:], torch.full((kept,), device))
        for mine, new in zip(self._samples, given, strict=True):
            mine[places] = new
        self._received += kept

    def draw(self, rng: np.random.Generator, *, one_device: bool) -> tuple[int, Tensor, Tensor]:
        """A batch as large as the largest received, without repetition.

        Args:
            rng: what draws it.
            one_device: draw from the samples of one device, each device as likely as it has samples; else from all.

        Returns:
            Number of the device of the first sample, smashed data (batch, *smashed) and labels (batch,).

        Raises:
            IndexError: nothing was received yet.
        """
        if self._samples is None or len(self) == 0:
            raise IndexError("nothing was received yet: there is nothing to replay")
        smashed, labels, devices = (tensor[: len(self)] for tensor in self._samples)
        device = int(devices[rng.integers(len(self))])
        places = torch.nonzero(devices == device)[:, 0] if one_device else torch.arange(len(self))
        drawn = places[torch.from_numpy(rng.permutation(len(places))[: self._batch])]
        return int(devices[drawn[0]]), smashed[drawn], labels[drawn]

    def epoch(self, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """All samples once, shuffled: smashed data and labels in batches as large as the largest received, but for the last."""
        if self._samples is not None:
            smashed, labels, _ = self._samples
            for places in torch.from_numpy(rng.permutation(len(self))).split(self._batch):
                yield smashed[places], labels[places]

    def save(self) -> dict[str, Any]:
        """Everything that was kept."""
        samples = None if self._samples is None else tuple(tensor[: len(self)].clone() for tensor in self._samples)
        return {"samples": samples, "received": self._received, "batch": self._batch}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Take what `save` gave."""
        self._samples = saved["samples"]
        self._received, self._batch = saved["received"], saved["batch"]

    def _make_room(self, smashed: Tensor, samples: int) -> None:
        """Double the memory until the bound is reached."""
        capacity = 0 if self._samples is None else len(self._samples[1])
        limit = self._maximum_bytes // (smashed[0].nbytes + _BYTES_BESIDE)
        if self._received + samples <= capacity or capacity >= limit:
            return
        more = min(limit, max(self._received + samples, 2 * capacity)) - capacity
        old = self._samples or (smashed[:0], torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
        x, y, device = (torch.cat([part, part.new_zeros((more, *part.shape[1:]))]) for part in old)
        self._samples = (x, y, device)
