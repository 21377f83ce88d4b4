import numpy as np
import pytest

from edge.wire.frames import DATA_OVERHEAD
from edge.wire.manifest import Slice
from export.cuts import coded
from export.cuts.smashed import Smashed
from export.errors import ExportError


def sent(count):
    rng = np.random.default_rng(0)
    for _ in range(count):
        smashed = rng.standard_normal((8, 50)).astype(np.float32)
        yield Smashed(smashed, np.arange(8), smashed / 10)


def test_float32_is_four_bytes_an_element_and_little_on_top():
    found = coded.sizes(list(sent(3)), "float32")
    assert 0 < found.activation - 4 * 400 < 80
    assert 0 < found.gradient - 4 * 400 < 80
    assert found.table == 0


def test_a_table_goes_along_once():
    found = coded.sizes(list(sent(6)), "entropy:1")
    # 400 elements of a normal distribution in steps of one deviation: 2.1 bits each are 105 bytes
    assert 105 < found.activation < 2.2 * 105
    assert found.activation + found.table < 1600 / 4
    assert found.table > 0


def test_frames():
    assert coded.framed(8192) == 8192 + DATA_OVERHEAD
    assert coded.framed(8193) == 8193 + 2 * DATA_OVERHEAD


def test_weights_are_those_of_the_parts():
    slices = [Slice("a", "weights", 0, (10, 10), "lower"), Slice("b", "weights", 100, (50,), "head")]
    assert coded.weights(slices, ()) == 0
    assert 400 < coded.weights(slices, ("lower",)) < 460
    assert 600 < coded.weights(slices, ("head", "lower")) < 680


def test_an_unknown_codec():
    with pytest.raises(ExportError, match="unknown codec"):
        coded.check_codec("zip:1")
