"""Handwritten digits of scikit-learn: 1797 pictures of 8x8, for quick tests."""

import numpy as np
from sklearn.datasets import load_digits

from hub.datasets.federation import Federation, Request
from hub.datasets.shares import hold_out, share


def digits(request: Request) -> Federation:
    """Pictures `(1, 8, 8)` in [0, 1], 10 classes; a fifth of every class is for testing."""
    bunch = load_digits()
    x = (bunch.images[:, None] / 16).astype(np.float32)
    y = bunch.target.astype(np.int64)
    train, test = hold_out(y, np.random.default_rng(request.seed))
    return share(
        request,
        (x[train], y[train]),
        (x[test], y[test]),
        [str(c) for c in range(10)],
        "Handwritten digits of scikit-learn, 8x8.",
    )
