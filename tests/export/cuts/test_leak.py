import itertools

import numpy as np
import pytest

from export.cuts.decoder import reconstruction_error
from export.cuts.leak import Leak, distance_correlation


def test_a_copy_gives_away_all_and_noise_nothing():
    rng = np.random.default_rng(0)
    x, other = rng.standard_normal((200, 5)), rng.standard_normal((200, 300))
    assert distance_correlation(x, -3 * x + 1) == pytest.approx(1)
    # without the correction of its bias it would be near 1 in 300 dimensions
    assert distance_correlation(x, other) < 0.2


def test_by_hand():
    # Four points on a line against themselves with two swapped; Székely and Rizzo's formula, worked with fractions.
    x, y = np.array([[0.0], [1], [2], [4]]), np.array([[1.0], [0], [2], [4]])
    a, b = (np.abs(v - v.T) for v in (x, y))
    n = 4

    def centred(d, i, j):
        return d[i, j] - d[i].sum() / (n - 2) - d[:, j].sum() / (n - 2) + d.sum() / ((n - 1) * (n - 2))

    def product(p, q):
        return sum(centred(p, i, j) * centred(q, i, j) for i, j in itertools.permutations(range(n), 2))

    wanted = max(0.0, product(a, b) / np.sqrt(product(a, a) * product(b, b))) ** 0.5
    assert distance_correlation(x, y) == pytest.approx(wanted)


def test_tokens_are_alike_or_not():
    tokens = np.array([[1, 2], [900, 2], [1, 3], [7, 8], [1, 2], [5, 2]])
    codes = np.concatenate([np.eye(1000)[column] for column in tokens.T], axis=1)
    assert distance_correlation(tokens, codes, tokens=True) == pytest.approx(1)


def test_constant_smashed_data_give_nothing_away():
    assert distance_correlation(np.arange(8.0)[:, None], np.ones((8, 3))) == 0


@pytest.mark.parametrize(("shape", "smashed"), [((2, 8, 8), (2, 8, 8)), ((6,), (6,))])
def test_a_decoder_rebuilds_a_copy_and_nothing_from_noise(shape, smashed):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((256, *shape)).astype(np.float32)
    seen = reconstruction_error(x.reshape(256, *smashed), x, seconds=1e9, most_steps=400)
    blind = reconstruction_error(rng.standard_normal((256, *smashed)).astype(np.float32), x, seconds=1e9, most_steps=40)
    assert seen < 0.3
    assert blind > 0.9


def test_a_decoder_of_tokens():
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 10, (256, 4))
    smashed = np.eye(10, dtype=np.float32)[tokens]
    assert reconstruction_error(smashed, tokens, seconds=1e9, most_steps=300, vocabulary=10) < 0.1


def test_its_time_is_bounded():
    moments = iter(range(1000))
    x = np.zeros((16, 3), np.float32)
    reconstruction_error(x, x, seconds=5, now=lambda: float(next(moments)))
    assert next(moments) < 10


def test_the_worse_of_both_counts():
    assert Leak("float32", 0.4, 0.3, 100, 1.0).worst == ("reconstruction", 0.7)
    assert Leak("float32", 0.8, 1.2, 100, 1.0).worst == ("distance correlation", 0.8)
    assert Leak("float32", 0.8, None, 100, 0.0).worst == ("distance correlation", 0.8)
