import pytest

from benchmarks.spread import percentile, ratio


def test_percentiles_lie_between_neighbours():
    assert percentile([4.0, 1.0, 2.0, 3.0], 50) == 2.5
    assert percentile([0.0, 10.0, 20.0], 10) == pytest.approx(2.0)
    assert percentile([7.0], 90) == 7.0


def test_a_ratio_is_of_medians_and_its_range_of_turns():
    found = ratio([1.0, 2.0, 6.0], [2.0, 4.0, 4.0])
    assert found.middle == 0.5  # 2 / 4
    assert found.low == pytest.approx(0.5)  # turn by turn 0.5, 0.5, 1.5
    assert found.high == pytest.approx(1.3)


def test_turns_belong_together():
    with pytest.raises(ValueError, match="shorter"):
        ratio([1.0, 2.0], [1.0])
