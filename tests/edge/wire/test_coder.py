import numpy as np
import pytest

from edge.wire.codec import decode, encode
from edge.wire.coder import Coder, estimate
from edge.wire.frames import WireError
from edge.wire.messages import Activation, pack, unpack
from edge.wire.tables import Tables

SHAPE = (16, 8, 40)


def activations(seed=0, scale=1.0, shape=SHAPE):
    noise = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    smooth = noise + np.roll(noise, 1, axis=2) + np.roll(noise, 2, axis=2)
    return np.maximum(smooth, 0) * np.float32(scale)


def test_the_table_goes_along_until_it_is_known_and_comes_again_when_it_is_lost():
    coder, tables = Coder(1.0), Tables()
    lengths = []
    for seed in range(4):
        packed = encode(activations(seed), coder)
        decode(packed, tables=tables)
        lengths.append(len(packed))
        assert coder.sent.embedded == (seed < 2)
        if seed == 1:
            coder.known(coder.sent.table)
    assert len(tables) == 1
    assert max(lengths[2:]) < min(lengths[:2])
    assert lengths[0] - lengths[2] > len(coder.table.data) / 2
    with pytest.raises(WireError, match="is not known here"):
        decode(packed, tables=Tables())
    coder.forget()
    values, _ = decode(encode(activations(9), coder))
    assert coder.sent.embedded
    assert np.abs(values - activations(9)).max() < activations(9).std() * 1.001


def test_figures_of_what_was_sent():
    coder = Coder(1.0)
    array = activations()
    packed = encode(array, coder)
    sent = coder.sent
    assert (sent.elements, sent.table) == (array.size, coder.table.id)
    assert sent.step == pytest.approx(array.std())
    assert sent.nonzero_share == (np.abs(array) > array.std() / 2).mean()
    assert sent.payload_bytes == len(packed) - 7  # codec, rank, three dimensions, two bytes of length
    assert sent.bits / 8 < sent.payload_bytes < sent.bits / 8 + len(coder.table.data) + 100


def test_a_step_may_be_given_and_then_holds():
    coder = Coder(1.0)
    coder.step = 0.25
    values, _ = decode(encode(activations(), coder))
    assert coder.sent.step == 0.25
    assert np.abs(values - activations()).max() <= 0.25


def test_one_table_serves_batches_of_every_length_and_scale():
    coder, tables = Coder(1.0), Tables()
    for seed, batch in enumerate([16, 16, 3, 7]):
        array = activations(seed, scale=1 + seed)[:batch]
        values, _ = decode(encode(array, coder), tables=tables)
        assert values.shape == array.shape
        coder.known(coder.sent.table)
    assert len(tables) == 1


def test_tensors_of_another_kind_get_a_table_of_their_own():
    coder = Coder(1.0)
    encode(activations(), coder)
    first = coder.table.id
    other = np.random.default_rng(3).standard_normal((16, 4, 6, 6)).astype(np.float32)
    values, _ = decode(encode(other, coder))
    assert coder.table.id != first
    assert values.shape == other.shape


def test_a_new_table_comes_when_the_step_is_another_one():
    coder = Coder(1.0)
    encode(activations(), coder)
    first = coder.table.id
    coder.deviations = 0.25
    encode(activations(1), coder)
    assert coder.table.id != first


def test_small_tensors_have_no_table():
    coder = Coder(1.0)
    values, _ = decode(encode(activations()[:1, :2, :5], coder))
    assert (coder.sent.table, coder.sent.embedded, coder.table) == (None, False, None)
    assert values.shape == (1, 2, 5)


def test_what_is_not_finite_is_refused():
    with pytest.raises(WireError, match="holds NaN or infinity"):
        encode(np.array([np.nan], np.float32), Coder())


def test_the_estimate_is_the_entropy_of_the_symbols_and_learns():
    assert estimate(np.array([0, 1, 2, 3] * 50, np.float32), 1.0) == pytest.approx(400)
    assert estimate(np.zeros(9, np.float32), 1.0) == 0
    assert estimate(np.zeros(0, np.float32), 1.0) == 0
    coder = Coder(1.0)
    for seed in range(6):
        encode(activations(seed, shape=(32, 8, 100)), coder)
        coder.known(coder.sent.table)
    array = activations(9, shape=(32, 8, 100))
    for deviations in (1.0, 1.1):
        guessed = coder.expect(array, deviations)
        coder.deviations = deviations
        assert guessed == pytest.approx(len(encode(array, coder)), rel=0.06)
    named = coder.expect(array, 1.1)
    coder.forget()  # the table goes along again
    assert coder.expect(array, 1.1) == named + len(coder.table.data)


def test_an_activation_may_carry_a_coder():
    coder, tables = Coder(1.0), Tables()
    labels = np.arange(16) % 7
    for seed in range(2):
        message = Activation(b"abcd", 1, 2, 3, "train", activations(seed), labels, coder)
        packed = pack(message)
        back = unpack(packed, tables=tables)
        coder.known(coder.sent.table)
        np.testing.assert_array_equal(back.labels, labels)
        assert np.abs(back.smashed - message.smashed).max() <= coder.sent.step * 1.001
    with pytest.raises(WireError, match="is not known here") as caught:
        unpack(packed)
    assert caught.value.reason == "table"
