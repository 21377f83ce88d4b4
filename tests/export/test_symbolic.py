import pytest

from export.symbolic import BATCH, Ratio, Size, fit_float, fit_integer, fixed

BATCHES = (7, 11, 13)


@pytest.mark.parametrize("size", [Size(0, 1), Size(3, 2), Size(-1, 1), Size(0, 0, 1), Size(0, -1, 1), Size(0, 0, 4)])
def test_a_polynomial_is_found(size):
    assert fit_integer([size.at(batch) for batch in BATCHES], BATCHES) == size


def test_a_constant_stays_an_integer():
    assert fit_integer([5, 5, 5], BATCHES) == 5


def test_what_is_no_polynomial_is_not_found():
    assert fit_integer([batch // 2 for batch in BATCHES], BATCHES) is None
    assert fit_integer([7, 11, 14], BATCHES) is None


def test_floats():
    assert fit_float([0.5] * 3, BATCHES) == 0.5
    assert fit_float([2.0 * batch for batch in BATCHES], BATCHES) == Size(0, 2)
    assert fit_float([3.0 / batch for batch in BATCHES], BATCHES) == Ratio(3.0, BATCH)
    assert fit_float([batch**0.5 for batch in BATCHES], BATCHES) is None


def test_arithmetic():
    assert Size(1, 3) == BATCH * 3 + 1
    assert (BATCH * BATCH).at(5) == 25
    with pytest.raises(ValueError, match="not a quadratic"):
        _ = BATCH * BATCH * BATCH
    with pytest.raises(TypeError, match="depends on the batch size"):
        fixed(BATCH)
