import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge.wire.codec import decode, encode
from edge.wire.frames import WireError
from edge.wire.sparse import RandTopK, TopK
from edge.wire.uniform import Uniform

floats = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6),
    elements=st.floats(-1e6, 1e6, width=32),
)


@given(floats, st.sampled_from(["topk", "randtopk"]), st.sampled_from([0.01, 0.3, 1.0]))
def test_what_is_kept_is_right_and_the_rest_is_zero(array, name, share):
    packed = encode(array, f"{name}:{share}")
    values, end = decode(packed)
    assert (end, values.shape) == (len(packed), array.shape)
    kept = values != 0
    np.testing.assert_allclose(values[kept], array[kept], rtol=1e-3, atol=1e-7)
    if share == 1:
        np.testing.assert_allclose(values, array, rtol=1e-3, atol=1e-7)


def test_the_largest_of_each_sample_are_kept():
    array = np.array([[1, -9, 2, 8, 0, 0], [0, 0.5, 0.25, 0.125, 0, 0]], np.float32)
    values, _ = decode(encode(array, "topk:0.3"))
    assert values.tolist() == [[0, -9, 0, 8, 0, 0], [0, 0.5, 0.25, 0, 0, 0]]


def test_the_bytes_of_kept_values():
    # float16, two of them, at 1 and 3: gaps 1 and 1, as a Rice code 0 and 0 above 1.
    assert TopK(0.5).encode(np.array([0, 1, 0, -2], np.float32)).hex() == "00020002c0003c00c0"


def test_randtopk_keeps_as_many_but_now_and_then_others():
    array = np.abs(np.random.default_rng(0).standard_normal((64, 500))).astype(np.float32) + 0.1
    top = decode(encode(array, "topk:0.1"))[0] != 0
    some = decode(encode(array, "randtopk:0.1"))[0] != 0
    assert (top.sum(axis=1) == 50).all()
    assert (some.sum(axis=1) == 50).all()
    assert 0.07 < 1 - (top & some).sum() / top.sum() < 0.13
    assert encode(array, "randtopk:0.1") == encode(array, RandTopK(0.1))
    assert (decode(encode(array, RandTopK(0.1, others=0.0)))[0] != 0).tolist() == top.tolist()


@given(floats, st.integers(1, 16))
def test_uniform_levels_are_off_by_half_a_level_at_most(array, bits):
    values, _ = decode(encode(array, f"uniform:{bits}"))
    span = float(np.ptp(array)) if array.size else 0.0
    largest = np.abs(array).max(initial=0)
    assert values.shape == array.shape
    assert np.all(np.abs(values - array) <= 0.501 * span / (2**bits - 1) + 1e-6 * largest + 1e-7)


def test_the_bytes_of_uniform_levels():
    packed = Uniform(2).encode(np.array([1, 2, 3, 4, 1], np.float32))
    assert packed.hex() == "020000803f0000803f1b00"


@given(st.sampled_from([6, 7]), st.binary(max_size=60))
def test_damaged_payloads_raise_nothing_but_wire_errors(number, payload):
    try:
        values, _ = decode(bytes([number, 2, 3, 4, len(payload)]) + payload)
    except WireError:
        return
    assert values.shape == (3, 4)
    assert np.isfinite(values).all()


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ("0605", "unknown kind"),
        ("06000d", "13 kept values of 12"),
        ("060001002880003c", "places of kept values are not in 0 to 11"),
        ("060001001680", "1 kept values in 0 bytes"),
        ("0702", "cut off"),
        ("07110000803f0000803f", "17 bits"),
        ("0702000080ff0000803f000000", "2 bits from -inf"),
    ],
)
def test_what_is_wrong_is_named(payload, words):
    data = bytes.fromhex(payload)
    with pytest.raises(WireError, match=words):
        decode(bytes([data[0], 2, 3, 4, len(data) - 1]) + data[1:])
