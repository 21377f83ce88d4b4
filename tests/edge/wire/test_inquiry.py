import random
import struct
import zlib

import pytest

from edge.wire.frames import WireError
from edge.wire.inquiry import PACKED_LIMIT, TEXT_LIMIT, Answer, Inquiry
from edge.wire.messages import pack, unpack

ASKED = Inquiry(7, batches=(1, 32), threads=(1, 2), codecs=("entropy:1", "float32"), seconds=3.0, limit_seconds=600.0)


def test_the_bytes_of_a_question_are_these():
    expected = b'\x0a{"batches":[1,32],"codecs":["entropy:1","float32"],"limit_seconds":600.0,"number":7,"seconds":3.0,"threads":[1,2]}'
    assert unpack(expected) == ASKED
    assert unpack(pack(ASKED)) == ASKED


def test_the_bytes_of_an_answer_are_these():
    assert pack(Answer(258, reason="no ☂")) == b"\x0b\x02\x01\x00\x00\x01no \xe2\x98\x82"
    assert unpack(b"\x0b\x02\x01\x00\x00\x01no \xe2\x98\x82") == Answer(258, reason="no ☂")
    stored = "7801010100feff7b007c007c"  # a zlib stream of one stored block
    assert unpack(b"\x0b\x02\x01\x00\x00\x00" + bytes.fromhex(stored)) == Answer(258, text="{")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"batches": (32, 1)}, "inquiry.batches is not in ascending order"),
        ({"batches": (0,)}, "inquiry.batches = 0 is not a whole number from 1 to 65536"),
        ({"batches": tuple(range(1, 10))}, "inquiry.batches is not a list of up to 8 entries"),
        ({"threads": (65,)}, "inquiry.threads = 65 is not a whole number from 1 to 64"),
        ({"codecs": ("mp3",)}, "unknown codec 'mp3'"),
        ({"seconds": 0.01}, "inquiry.seconds = 0.01 is not a number from 0.05 to 600"),
        ({"limit_seconds": 1e6}, "inquiry.limit_seconds = 1000000.0 is not a number from 1 to 86400"),
        ({"number": -1}, "inquiry.number = -1 is not a whole number from 0 to 4294967295"),
    ],
)
def test_a_question_outside_the_limits_is_refused_in_a_sentence(fields, sentence):
    with pytest.raises(WireError) as error:
        pack(Inquiry(**{**vars(ASKED), **fields}))
    assert sentence in str(error.value)


def test_lists_may_be_left_to_the_device():
    bare = Inquiry(1, (), (), (), 0.05, 1.0)
    assert unpack(pack(bare)) == bare


def test_a_profile_travels_packed():
    text = '{"format": 1, "steps": []}\n' * 1000
    data = pack(Answer(3, text))
    assert len(data) < len(text) / 50
    assert unpack(data) == Answer(3, text)


def noise(size):
    """Text that hardly shrinks."""
    return "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-", k=size))


def test_a_profile_that_is_too_long_is_refused_packed_and_as_it_is():
    with pytest.raises(WireError, match=f"profile of {TEXT_LIMIT + 1} bytes, the limit is {TEXT_LIMIT}"):
        pack(Answer(1, "a" * (TEXT_LIMIT + 1)))
    with pytest.raises(WireError, match=f"packed profile of .* bytes, the limit is {PACKED_LIMIT}"):
        pack(Answer(1, noise(2 * PACKED_LIMIT)))


def answer_of(data, form=0):
    return b"\x0b" + struct.pack("<IB", 1, form) + data


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (answer_of(zlib.compress(b"a" * (TEXT_LIMIT + 1))), f"the limit is {TEXT_LIMIT}"),
        (
            answer_of(bytes(PACKED_LIMIT + 1)),
            f"packed profile of {PACKED_LIMIT + 1} bytes, the limit is {PACKED_LIMIT}",
        ),
        (answer_of(b"nonsense"), "damaged profile"),
        (answer_of(zlib.compress(b"{}")[:-1]), "cut off"),
        (answer_of(zlib.compress(b"{}") + b"x"), "bytes behind its end"),
        (answer_of(zlib.compress(b"\xff")), "not UTF-8"),
        (answer_of(zlib.compress(b"")), "answer 1 is empty"),
        (answer_of(b"", 1), "answer 1 is empty"),
        (answer_of(b"a" * 4097, 1), "not a text of up to 4096 characters"),
        (answer_of(b"x", 2), "unknown form 2"),
        (b"\x0b\x00\x00", "cut off"),
    ],
)
def test_a_bad_answer_is_refused_in_a_sentence(data, sentence):
    with pytest.raises(WireError, match=sentence):
        unpack(data)


@pytest.mark.parametrize("answer", [Answer(1), Answer(1, "{}", "none")])
def test_an_answer_is_a_profile_or_a_reason(answer):
    with pytest.raises(WireError, match="one of both"):
        pack(answer)
