"""A decoder that tries to get the samples back from smashed data; what it fails to is a measure of privacy."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  the name everybody reads
from torch import Tensor, nn

from export.cuts.calibration import Array

WIDTH = 64
BATCH = 64
STEPS_LIMIT = 100_000
HELD_OUT = 4
"""One sample of so many judges the decoder and is never learnt from."""


class Upsampled(nn.Module):
    """Convolutions, with the grid of the smashed data stretched to that of the samples: (batch, c, …) to (batch, *shape)."""

    def __init__(self, channels: int, shape: Sequence[int]) -> None:
        super().__init__()
        convolution = nn.Conv1d if len(shape) == 2 else nn.Conv2d
        self.size = tuple(shape[1:])
        self.first = convolution(channels, WIDTH, 3, padding=1)
        self.second = convolution(WIDTH, WIDTH, 3, padding=1)
        self.last = convolution(WIDTH, shape[0], 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return samples."""
        x = F.interpolate(torch.relu(self.first(x)), self.size)
        return self.last(torch.relu(self.second(x)))


def make(smashed: Sequence[int], shape: Sequence[int], vocabulary: int | None) -> nn.Module:
    """A decoder for smashed data of one shape and samples of another (without batch).

    Pictures and series from feature maps by convolutions, tokens place by place where there is a vector for each, else two layers.
    For tokens it gives logits (batch, places, vocabulary).
    """
    if vocabulary is not None and len(smashed) == 2 and smashed[0] == shape[0]:
        return nn.Sequential(nn.Linear(smashed[1], 2 * WIDTH), nn.ReLU(), nn.Linear(2 * WIDTH, vocabulary))
    if vocabulary is None and len(smashed) == len(shape) and len(shape) in (2, 3):
        return Upsampled(smashed[0], shape)
    out = (*shape, vocabulary) if vocabulary is not None else tuple(shape)
    inner, outer = int(np.prod(smashed)), int(np.prod(out))
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inner, 4 * WIDTH), nn.ReLU(), nn.Linear(4 * WIDTH, outer), nn.Unflatten(1, out)
    )


def reconstruction_error(
    smashed: Array,
    x: Array,
    *,
    seconds: float,
    seed: int = 0,
    vocabulary: int | None = None,
    most_steps: int = STEPS_LIMIT,
    now: Callable[[], float] = time.monotonic,
) -> float:
    """NMSE of a decoder on samples it has not learnt from: its squared error over that of the mean of those it has.

    Args:
        smashed: (n, *smashed).
        x: (n, *input), the samples they were made of.
        seconds: how long it trains.
        seed: of its weights and batches.
        vocabulary: number of tokens, where x are token ids; errors are then of one-hot codes.
        most_steps: it ends after so many steps, if it does before its time is over.
        now: the clock.
    """
    until = now() + seconds
    held = len(x) // HELD_OUT
    inputs, scale = _scaled(smashed)
    wanted, level, spread = (torch.from_numpy(x), 0.0, 1.0) if vocabulary else _targets(x, held)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = make(smashed.shape[1:], x.shape[1:], vocabulary)
        optimizer = torch.optim.Adam(decoder.parameters(), 2e-3)
        rng = np.random.default_rng([seed, 6])
        for _ in range(most_steps):
            if now() >= until:
                break
            rows = torch.from_numpy(rng.integers(held, len(x), min(BATCH, len(x) - held)))
            optimizer.zero_grad()
            out = decoder(inputs[rows] / scale)
            if vocabulary:
                loss = F.cross_entropy(out.flatten(0, -2), wanted[rows].flatten())
            else:
                loss = F.mse_loss(out, (wanted[rows] - level) / spread)
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        out = decoder(inputs[:held] / scale)
        if vocabulary:
            return _token_error(out.softmax(-1), wanted, held, vocabulary)
        error = ((out * spread + level - wanted[:held]) ** 2).sum()
        return float(error / ((wanted[:held] - level) ** 2).sum().clamp_min(1e-12))


def _scaled(smashed: Array) -> tuple[Tensor, float]:
    inputs = torch.from_numpy(np.ascontiguousarray(smashed, np.float32))
    return inputs, max(float(inputs.std()), 1e-6)


def _targets(x: Array, held: int) -> tuple[Tensor, Tensor, float]:
    """Samples, the mean of those that are learnt from, and the spread around it."""
    wanted = torch.from_numpy(np.ascontiguousarray(x, np.float32))
    level = wanted[held:].mean(0)
    return wanted, level, max(float((wanted[held:] - level).std()), 1e-6)


def _token_error(shares: Tensor, wanted: Tensor, held: int, vocabulary: int) -> float:
    truth = F.one_hot(wanted[:held], vocabulary).float()
    mean = torch.stack([F.one_hot(column, vocabulary).float().mean(0) for column in wanted[held:].T])
    return float(((shares - truth) ** 2).sum() / ((mean - truth) ** 2).sum().clamp_min(1e-12))
