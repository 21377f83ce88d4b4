import pytest

from hub.sparsity import FIRST, MOST, steered


def test_beta_rises_with_the_square_of_what_is_too_much_and_falls_the_same_way():
    assert steered(1e-3, 0.6, 0.4) == pytest.approx(2.25e-3)
    assert steered(1e-3, 0.4, 0.6) == pytest.approx(1e-3 / 2.25)
    assert steered(1e-3, 0.3, 0.3) == 1e-3


def test_one_step_is_bounded():
    assert steered(1e-3, 1.0, 0.1) == pytest.approx(4e-3)
    assert steered(1e-3, 0.0, 0.1) == pytest.approx(1e-3 / 4)
    assert steered(MOST, 1.0, 0.1) == MOST


def test_from_nothing_it_begins_small_and_goes_back_to_nothing():
    assert steered(0.0, 0.8, 0.4) == pytest.approx(4 * FIRST)
    assert steered(FIRST, 0.2, 0.4) == 0.0


def test_it_finds_the_share_that_is_wanted():
    """Activations of which half are not zero without β, and a quarter with 10^-4."""
    beta, share = 0.0, 0.5
    for _ in range(25):
        beta = steered(beta, share, 0.2)
        share = 0.5 / (1 + beta / 1e-4)
    assert share == pytest.approx(0.2, rel=0.03)
