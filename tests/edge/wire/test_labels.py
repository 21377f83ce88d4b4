import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.wire import labels
from edge.wire.codec import decode, encode
from edge.wire.frames import WireError


@given(st.lists(st.integers(0, 255), min_size=1, max_size=700))
def test_labels_come_back(values):
    packed = encode(np.array(values), "labels")
    back, end = decode(packed)
    assert end == len(packed)
    assert back.dtype == np.int64
    assert back.tolist() == values


def test_the_bytes_of_labels():
    # 2 + 0 * 3 + 1 * 9 = 11, below 27: one byte.
    assert encode(np.array([2, 0, 1]), "labels").hex() == "05010302020b"
    assert encode(np.zeros(9, np.int64), "labels").hex() == "0501090100"
    assert len(labels.pack(np.arange(32) % 7)) == 1 + 12  # 32 x 2.81 bits


def test_what_labels_cannot_shorten_stays_integers():
    for values in ([-1, 2], [1, 200], [1, 70_000], []):
        assert encode(np.array(values, np.int64), "labels") == encode(np.array(values, np.int64), "integers")


@pytest.mark.parametrize(
    ("payload", "count", "words"),
    [
        (b"", 3, "cut off"),
        (b"\x02", 3, "0 bytes, 3 below 3 need 1"),
        (b"\x02\x0b\x00", 3, "2 bytes"),
        (b"\x02\xff", 3, "beyond 2"),
        (b"\x00", 65_537, "the limit is 65536"),
    ],
)
def test_damaged_labels_are_refused(payload, count, words):
    with pytest.raises(WireError, match=words):
        labels.unpack(payload, count)
