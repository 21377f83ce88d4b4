"""What smashed data give away of the samples they were made of: two figures from 0 (nothing) to 1 (all).

distance correlation   between sample and smashed data, over pairs of samples (Székely, Rizzo and Bakirov, 2007), without the bias
                       that few samples of many dimensions bring (Székely and Rizzo, 2014: "Partial distance correlation", eq. 2.1)
reconstruction         1 - NMSE of what a decoder makes of the smashed data of other samples; NMSE is its mean squared error against
                       that of the mean sample (`decoder`)

Both are of what the hub receives: behind the codec. A decoder trained for longer, or on more samples, may see more: the figure is a
lower bound, and no promise of privacy.
"""

from dataclasses import dataclass

import numpy as np
from torch import nn

from export.cuts.calibration import Array, Calibration
from export.cuts.coded import decoded
from export.cuts.decoder import reconstruction_error
from export.cuts.smashed import smash

SAMPLES = 400
"""For the distance correlation: its matrices have the square of it."""


@dataclass(frozen=True)
class Leak:
    """What a cut gives away behind a codec."""

    codec: str
    correlation: float
    """Distance correlation, 0 to 1."""
    nmse: float | None
    """Of the decoder, against predicting the mean; None where none was trained."""
    samples: int
    seconds: float
    """That the decoder had."""

    @property
    def rebuilt(self) -> float | None:
        """Share of the samples' variance that the decoder rebuilds."""
        return None if self.nmse is None else max(0.0, 1.0 - self.nmse)

    @property
    def worst(self) -> tuple[str, float]:
        """The larger of both figures, and its name."""
        rebuilt = self.rebuilt or 0.0
        return (
            ("reconstruction", rebuilt) if rebuilt >= self.correlation else ("distance correlation", self.correlation)
        )


def leak(
    lower: nn.Module, data: Calibration, codec: str, *, seconds: float, seed: int = 0, vocabulary: int | None = None
) -> Leak:
    """Measure what a lower segment's smashed data give away.

    Args:
        lower: as it is when it sends.
        data: samples; a quarter is kept for judging the decoder.
        codec: which one they go through.
        seconds: that the decoder may train; 0: none is trained.
        seed: of the decoder.
        vocabulary: number of tokens, where samples are token ids.
    """
    rows = np.random.default_rng([seed, 5]).permutation(len(data.x))
    x = data.x[rows]
    smashed = decoded_batches(smash(lower, x), codec)
    few = min(SAMPLES, len(x))
    correlation = distance_correlation(_flat(x[:few]), _flat(smashed[:few]), tokens=x.dtype.kind in "iu")
    nmse = reconstruction_error(smashed, x, seconds=seconds, seed=seed, vocabulary=vocabulary) if seconds > 0 else None
    return Leak(codec, correlation, nmse, len(x), seconds)


def decoded_batches(smashed: Array, codec: str, batch: int = 32) -> Array:
    """What the hub has of smashed data that travel in batches."""
    if codec == "float32":
        return smashed
    return np.concatenate([decoded(smashed[at : at + batch], codec) for at in range(0, len(smashed), batch)])


def distance_correlation(x: Array, y: Array, *, tokens: bool = False) -> float:
    """The bias-corrected distance correlation of paired samples (n, p) and (n, q), n at least 4; 0 where it comes out below.

    Args:
        x: samples.
        y: the other ones.
        tokens: whether x are token ids: as far from each other as their one-hot codes are.
    """
    a = _centred(np.sqrt(2.0 * (x[:, None] != x[None]).sum(-1)) if tokens else _distances(x))
    b = _centred(_distances(y))
    spread = np.sqrt((a * a).sum() * (b * b).sum())
    squared = float((a * b).sum() / spread) if spread > 0 else 0.0
    return float(np.sqrt(max(0.0, squared)))


def _distances(x: Array) -> Array:
    values = x.astype(np.float64)
    squares = (values * values).sum(1)
    return np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * values @ values.T, 0.0))


def _centred(distances: Array) -> Array:
    """U-centred: rows, columns and the whole have the mean 0 without the diagonal, which is 0."""
    n = len(distances)
    rows = distances.sum(1) / (n - 2)
    centred = distances - rows[:, None] - rows[None] + distances.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(centred, 0.0)
    return centred


def _flat(array: Array) -> Array:
    return array.reshape(len(array), -1)
