import bz2
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge.wire.codec import Quantised, decode, encode, pack_varint, parse_codec, step_of, unpack_varint
from edge.wire.frames import WireError

floats = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6),
    elements=st.floats(-1e6, 1e6, width=32),
)


def back(array, codec):
    packed = encode(array, codec)
    values, end = decode(packed)
    assert end == len(packed)
    assert values.shape == np.shape(array)
    return values


@given(floats)
def test_float32_comes_back_exactly(array):
    values = back(array, "float32")
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, array)


@given(floats.filter(lambda array: np.abs(array).max(initial=0) < 65504))
def test_float16_comes_back_rounded(array):
    np.testing.assert_array_equal(back(array, "float16"), array.astype(np.float16).astype(np.float32))


@given(floats, st.sampled_from([0.1, 0.5, 1.0, 2.0]))
def test_quantised_is_off_by_half_a_step_at_most_and_keeps_zero(array, deviations):
    values = back(array, f"quantised:{deviations}")
    step = Quantised(deviations)._step(array)
    assert np.all(np.abs(values - array) <= step * 0.5001)
    assert np.all(values[array == 0] == 0)


@given(
    hnp.arrays(
        st.sampled_from([np.int8, np.uint8, np.int32, np.int64, np.bool_]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
    )
)
def test_integers_come_back_exactly_whatever_the_codec(array):
    values = back(array, "quantised:1")
    assert values.dtype == np.int64
    np.testing.assert_array_equal(values, array.astype(np.int64))


def test_the_bytes_of_a_tensor():
    assert encode(np.array([1, 200]), "integers").hex() == "000102030001c8"
    assert encode(np.array([-1, 200]), "integers").hex() == "0001020503ffffc800"
    assert encode(np.array([[1.5]], np.float32), "float32").hex() == "01020101040000c03f"
    assert encode(np.array(1.5), "float16").hex() == "020002003e"
    packed = encode(np.array([0, 3, 0, 3], np.float32), "quantised:2")  # deviation 1.5, step 3
    assert packed[:11].hex() == "0301040c000040400100" + packed[10:11].hex()
    assert zlib.decompress(packed[10:], -15) == bytes([0, 1, 0, 1])


def test_quantising_by_hand():
    array = np.array([0, 0, 2, -2, 0.4, 0.6], np.float32)
    step = 0.5 * array.std()
    np.testing.assert_allclose(back(array, "quantised:0.5"), np.rint(array / step) * step, rtol=1e-6)


def test_a_constant_tensor_stays_as_it_is():
    np.testing.assert_array_equal(back(np.full((3, 4), -7.25, np.float32), "quantised:0.5"), np.full((3, 4), -7.25))
    np.testing.assert_array_equal(back(np.zeros(9, np.float32), "quantised:0.5"), np.zeros(9))


def test_an_outlier_widens_the_step_so_that_16_bits_hold_it():
    array = np.zeros(1_000_000, np.float32)
    array[0], array[1] = 1000.0, 0.01
    values = back(array, "quantised:0.001")
    assert values[0] == pytest.approx(1000, abs=0.02)
    assert values[1] == 0


def test_sparse_activations_shrink_at_least_tenfold():
    rng = np.random.default_rng(1)
    array = np.maximum(rng.standard_normal((32, 32, 50)), 0).astype(np.float32)
    assert len(encode(array, "quantised:0.5")) < array.nbytes / 13
    assert len(encode(array, "quantised:2")) < array.nbytes / 23
    repeated = np.tile(array[:1], (32, 1, 1))
    assert len(encode(repeated, "quantised:0.5")) < array.nbytes / 100


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("codec", ["float32", "float16", "quantised:1"])
def test_what_is_not_finite_is_not_sent(bad, codec):
    with pytest.raises(WireError, match=r"shape \(2,\) holds NaN or infinity"):
        encode(np.array([1.0, bad]), codec)


def test_float16_refuses_what_it_cannot_hold_and_says_what_to_do():
    assert back(np.array([65504.0]), "float16")[0] == 65504
    with pytest.raises(WireError, match="up to 65504, not 70000: use float32"):
        encode(np.array([7e4]), "float16")


@pytest.mark.parametrize(
    ("array", "codec", "words"),
    [
        (np.array(["a"]), "float32", "was given <U1"),
        (np.array([1e300]), "float32", "float32 does not hold 1e\\+300"),
        (np.array([3.4e38, -3.4e38]), "quantised:1", "too large for a step"),
        (np.array([2**64 - 1], np.uint64), "float32", "64 bits"),
        (np.zeros((1,) * 9), "float32", "rank 9, the limit is 8"),
        (np.array([1.0]), "integers", "was given float64"),
    ],
)
def test_what_cannot_be_coded_is_named(array, codec, words):
    with pytest.raises(WireError, match=words):
        encode(array, codec)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gzip", "unknown codec 'gzip'; there are entropy, float16, float32"),
        ("float32:1", "takes no parameter"),
        ("quantised", "write quantised:STEP"),
        ("quantised:", "write quantised:STEP"),
        ("quantised:-1", "write quantised:STEP"),
        ("quantised:nan", "write quantised:STEP"),
        ("quantised:1e9", "write quantised:STEP with a step of 0.001 to 64 deviations"),
        ("entropy", "write entropy:STEP"),
        ("topk:0", "write topk:SHARE with a share"),
        ("uniform:17", "write uniform:BITS with 1 to 16 bits"),
    ],
)
def test_a_codec_that_does_not_exist_is_refused(text, words):
    with pytest.raises(WireError, match=words):
        parse_codec(text)


def tensor(number, shape, payload, length=None):
    head = bytes([number, len(shape)]) + b"".join(map(pack_varint, shape))
    return head + pack_varint(len(payload) if length is None else length) + payload


def quantised(step, width=1, coder=0, body=None, count=4):
    body = deflated(bytes(count)) if body is None else body
    return tensor(3, [4], struct.pack("<fBB", step, width, coder) + body)


def deflated(raw):
    compressor = zlib.compressobj(9, wbits=-15)
    return compressor.compress(raw) + compressor.flush()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "cut off"),
        (b"\x01\x02\x05", "cut off"),
        (tensor(99, [1], b"1234"), "unknown codec number 99"),
        (tensor(1, [1] * 9, b"1234"), "rank 9"),
        (tensor(1, [2], b"1234"), "4 bytes, its shape needs 8"),
        (tensor(2, [2], b"123"), "3 bytes, its shape needs 4"),
        (tensor(1, [1], b"1234", length=5), "payload of 5 bytes, 4 are there"),
        (tensor(1, [0xFFFFFFFF, 0xFFFFFFFF], b""), "the limit is"),
        (tensor(1, [0, 0xFFFFFFFF, 0xFFFFFFFF], b""), "the limit is"),
        (tensor(0, [1], b""), "unknown type of integers"),
        (tensor(0, [1], b"\x09\x01"), "unknown type of integers"),
        (tensor(0, [2], b"\x02\x01"), "its shape needs 4"),
        (tensor(1, [1], struct.pack("<f", float("nan"))), "NaN or infinity"),
        (tensor(2, [1], b"\x00\x7c"), "NaN or infinity"),
        (tensor(3, [1], b"123"), "cut off"),
        (quantised(0.0), "step 0.0"),
        (quantised(-1.0), "step -1.0"),
        (quantised(float("nan")), "step nan"),
        (quantised(float("inf")), "step inf"),
        (quantised(1.0, width=3), "width 3"),
        (quantised(1.0, coder=7), "coder 7"),
        (quantised(1.0, body=b"\xff\xff"), "damaged deflate"),
        (quantised(1.0, coder=2, body=b"\xff\xff"), "damaged bz2"),
        (quantised(1.0, count=5), "5 bytes, its shape needs 4"),
        (quantised(1.0, count=3), "3 bytes, its shape needs 4"),
        (quantised(1.0, body=deflated(bytes(1 << 24))), "does not end after 4 bytes"),
        (quantised(1.0, coder=2, body=bz2.compress(bytes(1 << 24))), "does not end after 4 bytes"),
        (quantised(1.0, body=deflated(bytes(4)) + b"more"), "does not end after 4 bytes"),
        (quantised(3e38, width=2, body=deflated(b"\x00\x70" * 4)), "NaN or infinity"),
    ],
)
def test_a_damaged_tensor_is_refused(data, words):
    with pytest.raises(WireError, match=words):
        decode(data)


def test_the_limit_counts_decoded_bytes():
    packed = encode(np.zeros(1000, np.float32), "quantised:1")
    assert len(packed) < 40
    with pytest.raises(WireError, match="takes 4000 bytes, the limit is 3999"):
        decode(packed, limit=3999)


@given(st.integers(0, 0xFFFFFFFF), st.binary(max_size=3))
def test_varints_come_back(value, before):
    data = before + pack_varint(value)
    assert unpack_varint(data, len(before)) == (value, len(data))


def test_a_varint_that_goes_on_for_ever_is_refused():
    with pytest.raises(WireError, match="above"):
        unpack_varint(b"\xff" * 9, 0)


@given(st.binary(max_size=60))
def test_random_bytes_raise_nothing_but_wire_errors(data):
    try:
        values, _ = decode(data)
    except WireError:
        return
    assert np.isfinite(values).all()


@pytest.mark.parametrize("codec", ["float32", "float16", "quantised:1", "integers"])
def test_how_an_array_lies_in_memory_does_not_matter(codec):
    array = np.arange(24, dtype=np.int64 if codec == "integers" else np.float32).reshape(2, 3, 4)
    laid = [
        array.transpose(2, 0, 1)[::2, :, ::-1],
        np.asfortranarray(array),
        array[:, 1],
        array.astype(array.dtype.newbyteorder(">")),
    ]
    for other in laid:
        assert encode(other, codec) == encode(np.array(other, array.dtype, order="C"), codec)


def test_what_is_decoded_has_memory_of_its_own():
    for codec in ("float32", "float16", "quantised:1"):
        values, _ = decode(bytearray(encode(np.ones(3, np.float32), codec)))
        values += 1
        assert values.tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("codec", "step"),
    [("quantised:0.5", 0.5), ("entropy:3", 3.0), ("float32", None), ("uniform:2", None), ("topk:0.1", None)],
)
def test_only_a_quantiser_has_a_step(codec, step):
    assert step_of(codec) == (codec.partition(":")[0], step)
