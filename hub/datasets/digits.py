"""Handwritten digits of scikit-learn: 1797 pictures of 8x8, for quick tests."""

import numpy as np
from sklearn.datasets import load_digits

from hub.datasets.federation import Federation, Labels, Request, Samples
from hub.datasets.shares import hold_out, share


def load() -> tuple[Samples, Labels]:
    """All pictures (1797, 1, 8, 8) in [0, 1] and their labels (1797,)."""
    bunch = load_digits()
    return (bunch.images[:, None] / 16).astype(np.float32), bunch.target.astype(np.int64)


def digits(request: Request) -> Federation:
    """Pictures `(1, 8, 8)` in [0, 1], 10 classes; a fifth of every class is for testing."""
    x, y = load()
    train, test = hold_out(y, np.random.default_rng(request.seed))
    return share(
        request,
        (x[train], y[train]),
        (x[test], y[test]),
        [str(c) for c in range(10)],
        "Handwritten digits of scikit-learn, 8x8.",
    )
