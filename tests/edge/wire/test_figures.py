"""What an activation came to, read off the message."""

from dataclasses import replace

import numpy as np
import pytest

from edge.wire.coder import Coder
from edge.wire.figures import Figures, figures_of
from edge.wire.messages import Activation, pack

ACTIVATION = Activation(bytes(4), 9, 2, 3, "train", np.zeros((1, 4), np.float32), np.array([1]))


def came_to(values, codec):
    smashed = np.array(values, np.float32)
    labels = np.zeros(len(smashed), np.int64)
    return figures_of(smashed, pack(replace(ACTIVATION, smashed=smashed, labels=labels, codec=codec)))


@pytest.mark.parametrize(("codec", "size"), [("float32", 4), ("float16", 2)])
def test_without_a_quantiser_there_are_bytes_and_no_step(codec, size):
    assert came_to([[0, 1, -2, 0], [3, 0, 4, 5]], codec) == Figures(8, 5, 8 * size)


@pytest.mark.parametrize("codec", ["quantised:2", "entropy:2"])
def test_the_step_is_what_the_codec_took_and_small_values_are_zero_behind_it(codec):
    """The values have a standard deviation of √5: the step is 4.47, and what is below half of it is zero."""
    found = came_to([[-3, -1, 1, 3.0]] * 3, codec)
    deviation = 5**0.5
    assert found.elements == found.nonzeros == 12
    assert found.step == pytest.approx(2 * deviation, rel=1e-6)
    assert found.deviations == pytest.approx(2, rel=1e-6)
    assert found.left == 6  # the threes


@pytest.mark.parametrize("deviations", [0.5, 1.5])
def test_it_agrees_with_the_coder(deviations):
    values = np.maximum(np.random.default_rng(0).normal(size=(16, 64)), 0)
    coder = Coder(deviations)
    for _ in range(3):  # with its table, and with its name only
        found = came_to(values, coder)
        assert (found.elements, found.payload_bytes, found.step) == (1024, coder.sent.payload_bytes, coder.sent.step)
        assert found.left == round(1024 * coder.sent.nonzero_share)
        assert found.deviations == pytest.approx(deviations, rel=1e-5)
        coder.known(coder.sent.table)


@pytest.mark.parametrize("codec", ["quantised:1", "entropy:1"])
def test_equal_values_have_no_deviation_to_measure_by(codec):
    assert came_to([[3.0, 3.0]], codec) == Figures(2, 2, came_to([[3.0, 3.0]], codec).payload_bytes, 3.0, 1.0, 2)
    assert came_to([[0.0, 0.0]], codec).left == 0
