import numpy as np
import pytest

from edge.profile.spread import drift, spread


def test_of_equal_times_all_figures_are_the_same():
    found = spread([0.25] * 40)
    assert (found.median, found.low, found.high, found.p95, found.quiet) == (0.25,) * 5
    assert found.precision == 0


def test_percentiles_by_hand():
    found = spread([float(number) for number in range(101)])
    assert (found.quiet, found.median, found.p95) == (10.0, 50.0, 95.0)


def test_the_interval_holds_the_median_in_about_95_of_100_cases():
    # Gamma distributed times, whose median is known by simulation of a million: 2.674.
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(300):
        found = spread(rng.gamma(3.0, 1.0, 100).tolist())
        inside += found.low <= 2.674 <= found.high
    assert 270 <= inside <= 297


def test_more_times_make_the_interval_narrower():
    rng = np.random.default_rng(2)
    few, many = (spread(rng.normal(10, 1, count).tolist()) for count in (50, 5000))
    assert many.precision < few.precision / 4


def test_times_that_resemble_their_neighbours_are_known_less_well():
    """A board whose clock changes now and then: as many times, far fewer independent ones."""
    rng = np.random.default_rng(3)
    alone = rng.normal(10, 1, 1000)
    in_runs = np.repeat(rng.normal(10, 1, 100), 10)
    assert spread(in_runs.tolist()).precision > 1.8 * spread(alone.tolist()).precision


def test_the_same_times_give_the_same_interval():
    times = np.random.default_rng(4).gamma(3.0, 1.0, 77).tolist()
    assert spread(times) == spread(times)


def test_one_time_is_its_own_interval():
    assert spread([0.5]).low == spread([0.5]).high == 0.5


@pytest.mark.parametrize(
    ("times", "ratio"),
    [([1.0] * 3 + [9.0] * 3 + [2.0] * 3, 2.0), ([4.0] * 9, 1.0), ([1.0, 5.0], 1.0), ([0.0] * 9, 1.0)],
)
def test_drift_is_the_last_third_over_the_first(times, ratio):
    assert drift(times) == ratio
