import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.wire.codec import encode
from edge.wire.frames import WireError
from edge.wire.messages import Activation, Order, Repeats, pack, unpack

SMASHED, LABELS = np.array([[0.0, 1.5], [2.0, 0.0]], np.float32), np.array([6, 0])


def activation(repeats=None, rows=2, **changes):
    values = {"bundle": b"\xab\xcd\xef\x01", "order": 9, "round": 2, "step": 3, "purpose": "train"}
    return Activation(**values | changes, smashed=SMASHED[:rows], labels=LABELS[:rows], repeats=repeats)


def repeats(numbers, known, uploads, upload=300):
    return Repeats(upload, *(np.array(part, np.int64) for part in (numbers, known, uploads)))


def integers(*numbers):
    return encode(np.array(numbers, np.int64), "integers")


GOLDEN = (
    b"\x01\x2c\x01\x00\x00"  # the form, upload 300
    b"\x00\x01\x02\x03\x00\x07\x05"  # integers of rank 1, two of them, three bytes, of type u8: 7 and 5 are sent
    b"\x00\x01\x01\x03\x02\xe8\x03"  # one of type u16: 1000 is known
    b"\x00\x01\x01\x02\x00\x0c"  # it came twelve uploads ago
)


def test_the_bytes_behind_an_activation():
    bare, whole = pack(activation()), pack(activation(repeats([7, 5], [1000], [288])))
    assert whole == bare + GOLDEN
    assert unpack(bare).repeats is None


@given(st.data())
def test_what_is_known_comes_back_as_it_was(data):
    numbers = data.draw(st.lists(st.integers(0, 2**32 - 1), unique=True, min_size=2, max_size=40))
    upload = data.draw(st.integers(2, 2**32 - 1))
    uploads = [data.draw(st.integers(1, upload - 1)) for _ in numbers[2:]]
    back = unpack(pack(activation(repeats(numbers[:2], numbers[2:], uploads, upload)))).repeats
    assert back.upload == upload
    assert back.numbers.tolist() == numbers[:2]
    assert back.known.tolist() == numbers[2:]
    assert back.uploads.tolist() == uploads


def test_a_batch_of_which_all_is_known_has_no_row_whatever_the_codec():
    message = activation(repeats([], [3, 4], [1, 2]), rows=0)
    for codec in ("float32", "entropy:1.5", "quantised:1"):
        back = unpack(pack(Activation(**{**vars(message), "codec": codec})))
        assert back.smashed.shape == (0, 2)
        assert back.labels.shape == (0,)
        assert back.repeats.known.tolist() == [3, 4]
    assert len(pack(message)) < 70


def test_the_first_samples_keep_their_numbers_and_what_is_known_stays():
    cut = activation(repeats([7, 5], [1000], [288])).first(1)
    assert (cut.repeats.numbers.tolist(), cut.repeats.known.tolist(), cut.labels.tolist()) == ([7], [1000], [6])


@pytest.mark.parametrize(
    ("behind", "said"),
    [
        (b"\x02" + GOLDEN[1:], "25 bytes too many"),  # a form of later
        (b"\x01\x2c", "cut off"),
        (GOLDEN[:-1], "payload of 2 bytes"),
        (GOLDEN + b"x", "1 bytes too many"),
        (GOLDEN[:5] + integers(7) + integers(1000) + integers(12), "1 numbers of samples for an activation of 2"),
        (GOLDEN[:5] + integers(7, 5, 3) + integers() + integers(), "3 numbers of samples for an activation of 2"),
        (GOLDEN[:5] + integers(7, 5) + integers(1000, 1) + integers(12), "2 known samples with 1 uploads"),
        (GOLDEN[:5] + integers(7, 5) + integers(7) + integers(12), "comes twice"),
        (GOLDEN[:5] + integers(7, 7) + integers(1) + integers(12), "comes twice"),
        (GOLDEN[:5] + integers(7, 5) + integers(-1) + integers(12), "number outside 0"),
        (GOLDEN[:5] + integers(7, 5) + integers(2**32) + integers(12), "number outside 0"),
        (GOLDEN[:5] + integers(7, 5) + integers(1) + integers(0), "0 to 0 uploads ago, this is upload 300"),
        (GOLDEN[:5] + integers(7, 5) + integers(1) + integers(300), "300 to 300 uploads ago"),
        (GOLDEN[:5] + integers(7, 5) + integers(1) + integers(-(2**62)), "uploads ago"),
        (b"\x01\0\0\0\0" + integers(7, 5) + integers() + integers(), "upload 0"),
        (GOLDEN[:5] + encode(np.float32([7, 5]), "float32") + integers() + integers(), "lists of whole numbers"),
        (GOLDEN[:5] + encode(np.array([[7, 5]]), "integers") + integers() + integers(), "lists of whole numbers"),
        (GOLDEN[:5] + integers(7, 5) + b"\x00\x01\xff\xff\xff\xff\x0f\x03\x00\x01\x02", "takes 34359738360 bytes"),
        (GOLDEN[:5] + integers(7, 5) + b"\x00\x01\xff\xff\x3f\x03\x00\x01\x02", "its shape needs"),
    ],
)
def test_damage_is_refused(behind, said):
    with pytest.raises(WireError, match=said):
        unpack(pack(activation()) + behind)


def test_more_samples_than_a_batch_has_are_refused():
    many = np.arange(65_535)
    with pytest.raises(WireError, match="batch of 65537 samples, the limit is 65536"):
        pack(activation(Repeats(9, np.array([70_000, 70_001]), many, np.ones(65_535, np.int64))))


def test_an_evaluation_knows_nothing():
    with pytest.raises(WireError, match="to evaluate has known samples"):
        pack(activation(repeats([7, 5], [], []), purpose="evaluate"))
    with pytest.raises(WireError, match="to evaluate has known samples"):
        unpack(pack(activation(purpose="evaluate")) + GOLDEN)


ORDER = Order(b"\xab\xcd\xef\x01", 9, 2, "local", 0, 8, (0, 3), {}, "float32", 32, 5)


def test_an_order_says_what_may_be_skipped_only_where_something_may():
    assert b"skip" not in pack(ORDER)
    assert b"forget" not in pack(ORDER)
    asked = Order(**{**vars(ORDER), "skip_below": 0.2, "refresh_rounds": 8, "forget": (3, 70)})
    back = unpack(pack(asked))
    assert (back.skip_below, back.refresh_rounds, back.forget) == (0.2, 8, (3, 70))
    assert unpack(pack(Order(**{**vars(ORDER), "forget": None}))).forget is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"skip_below": -0.1}, "skip_below = -0.1"),
        ({"skip_below": float("nan")}, "not a finite number"),
        ({"skip_below": 0.1, "kind": "exchange"}, "is exchange"),
        ({"forget": (3, 3)}, "ascending"),
        ({"forget": tuple(range(4097))}, "4096"),
        ({"refresh_rounds": -1}, "refresh_rounds"),
    ],
)
def test_an_order_with_nonsense_is_refused(changes, said):
    with pytest.raises(WireError, match=said):
        pack(Order(**{**vars(ORDER), **changes}))
