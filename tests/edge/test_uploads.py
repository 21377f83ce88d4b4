import numpy as np
import pytest

from edge.uploads import LEAST_SAMPLES, fit
from edge.wire.messages import Activation, pack

RNG = np.random.default_rng(0)


def activation(samples, codec="float32"):
    smashed = np.maximum(0, RNG.standard_normal((samples, 10, 20))).astype(np.float32)
    return Activation(b"abcd", 1, 0, 0, "train", smashed, np.arange(samples) % 7, codec)


def fitted(message, room, codec, **options):
    return fit(message, room, codec, lambda text: text, **options)


def test_what_fits_goes_up_as_it_is():
    message = activation(8)
    found = fitted(message, len(pack(message)), "float32")
    assert pack(found) == pack(message)


def test_samples_are_dropped_first_from_the_end():
    message = activation(32)
    room = len(pack(message)) // 2
    found = fitted(message, room, "float32")
    assert len(pack(found)) <= room
    assert 14 <= len(found.labels) <= 16
    np.testing.assert_array_equal(found.smashed, message.smashed[: len(found.labels)])
    np.testing.assert_array_equal(found.labels, message.labels[: len(found.labels)])


def test_the_step_stays_while_some_samples_fit():
    found = fitted(activation(32, "quantised:1"), 700, "quantised:1")
    assert found.codec == "quantised:1"
    assert LEAST_SAMPLES <= len(found.labels) < 32


def test_with_too_few_samples_it_is_coded_more_coarsely():
    fine = len(pack(activation(LEAST_SAMPLES, "quantised:0.5")))
    found = fitted(activation(32, "quantised:0.5"), fine * 2 // 3, "quantised:0.5")
    assert found.codec in ("quantised:1", "quantised:2", "quantised:4")
    assert len(found.labels) >= LEAST_SAMPLES


def test_where_nothing_helps_there_is_nothing():
    assert fitted(activation(32, "quantised:1"), 30, "quantised:1") is None
    assert fitted(activation(32), 1000, "float32") is None


def test_where_a_gradient_is_to_come_back_all_samples_stay():
    message = activation(32, "quantised:0.5")
    room = len(pack(message)) * 2 // 3
    found = fitted(message, room, "quantised:0.5", whole=True)
    assert len(found.labels) == 32
    assert len(pack(found)) <= room
    assert fitted(activation(32), 4000, "float32", whole=True) is None


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_a_small_batch_may_stay_small(samples):
    message = activation(samples)
    assert len(fitted(message, len(pack(message)), "float32").labels) == samples
