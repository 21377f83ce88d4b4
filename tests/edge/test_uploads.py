import numpy as np
import pytest

from edge.uploads import COARSE, COARSEST, FINEST, LEAST_SAMPLES, fit, share
from edge.wire.coder import Coder, stream_codec
from edge.wire.messages import Activation, pack, unpack


def activation(samples, seed=0):
    smashed = np.maximum(0, np.random.default_rng(seed).standard_normal((samples, 10, 40))).astype(np.float32)
    return Activation(b"abcd", 1, 0, 0, "train", smashed, np.arange(samples) % 7)


def stream():
    """What codecs stand for in one device's stream, and its coder."""
    coder = Coder()
    return (lambda text: stream_codec(text, coder)), coder


def plain(text):
    return text


def sized(samples, codec):
    return len(pack(Activation(**{**vars(activation(samples)), "codec": codec})))


def step_in_deviations(found, message):
    """Of what was sent, from the values that came out: multiples of the step but for the smallest four."""
    values = np.unique(unpack(found.data).smashed)
    gaps = np.diff(values[3:])
    return float(np.median(gaps)) / float(message.smashed[: len(found.message.labels)].std())


def test_without_a_step_samples_are_dropped_from_the_end():
    message = activation(32)
    room = sized(32, "float32") // 2
    found = fit(message, room, "float32", plain)
    assert len(found.data) <= room
    assert 14 <= len(found.message.labels) <= 16
    np.testing.assert_array_equal(unpack(found.data).smashed, message.smashed[: len(found.message.labels)])
    np.testing.assert_array_equal(found.message.labels, message.labels[: len(found.message.labels)])


@pytest.mark.parametrize("whole", [True, False])
def test_with_room_to_spare_the_step_is_as_fine_as_it_pays(whole):
    made, _ = stream()
    message = activation(32)
    found = fit(message, 1_000_000, "entropy:1.5", made, whole=whole)
    assert len(found.message.labels) == 32
    assert step_in_deviations(found, message) == pytest.approx(FINEST, rel=0.01)


def test_a_finer_step_is_not_made_coarser():
    made, _ = stream()
    message = activation(32)
    found = fit(message, 1_000_000, "entropy:0.25", made)
    assert step_in_deviations(found, message) == pytest.approx(0.25, rel=0.01)


def test_the_room_is_filled_with_a_finer_step_while_all_samples_fit():
    made, coder = stream()
    for seed in range(5):  # the estimate learns
        fit(activation(32, seed), 1_000_000, "entropy:1", made)
        coder.known(coder.sent.table)
    between = (sized(32, "entropy:1.2") + sized(32, "entropy:0.8")) // 2
    message = activation(32, 9)
    found = fit(message, between, "entropy:1.5", made)
    assert len(found.message.labels) == 32
    assert 0.9 * between <= len(found.data) <= between
    assert 0.6 < coder.deviations < 1.2


def test_before_the_step_grows_beyond_two_deviations_samples_are_dropped():
    made, coder = stream()
    room = sized(32, "entropy:2") // 2
    found = fit(activation(32), room, "entropy:1.5", made)
    assert coder.deviations == COARSE
    assert LEAST_SAMPLES <= len(found.message.labels) < 24
    assert 0.7 * room <= len(found.data) <= room


def test_with_too_few_samples_it_is_coded_more_coarsely():
    room = sized(LEAST_SAMPLES, "quantised:3")
    chosen = []
    found = fit(activation(32), room, "quantised:1", lambda text: chosen.append(text) or text)
    assert len(found.data) <= room
    assert len(found.message.labels) == LEAST_SAMPLES
    assert COARSE < float(chosen[-1].partition(":")[2]) <= COARSEST


def test_where_nothing_helps_there_is_nothing():
    made, _ = stream()
    assert fit(activation(32), 30, "entropy:1", made) is None
    assert fit(activation(32), 30, "quantised:1", plain) is None
    assert fit(activation(32), 1000, "float32", plain) is None


@pytest.mark.parametrize("codec", ["entropy:0.5", "quantised:0.5"])
def test_where_a_gradient_is_to_come_back_all_samples_stay(codec):
    made, _ = stream()
    room = sized(32, codec) * 2 // 3
    found = fit(activation(32), room, codec, made, whole=True)
    assert len(found.message.labels) == 32
    assert len(found.data) <= room
    assert fit(activation(32), 4000, "float32", plain, whole=True) is None


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_a_small_batch_may_stay_small(samples):
    found = fit(activation(samples), int(1.03 * sized(samples, "float32")), "float32", plain)
    assert len(found.message.labels) == samples


def test_what_an_order_may_spend_is_shared_by_samples():
    # 35 samples are batches of 32 and 3; what else is in a message is worth one sample.
    assert share(3700, [0, 1], samples=35, batch=32) == 3300
    assert share(400, [1], samples=35, batch=32) == 400
    assert share(3700, [2, 3, 4], samples=64, batch=32) == 1233
    assert share(3700, [], samples=35, batch=32) == 3700
