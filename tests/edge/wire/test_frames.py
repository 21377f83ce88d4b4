import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.wire.frames import (
    DATA_OVERHEAD,
    U32,
    Ack,
    Data,
    Held,
    Limits,
    WireError,
    chunk_count,
    chunk_length,
    parse,
)

DATA = Data(epoch=1, lowest=2, number=3, index=1, count=2, total=5, payload=b"lo")
ACK = Ack(epoch=1, instance=0xDEADBEEF, floor=2, done=((4, 6),), held=(Held(7, 0, 2),), asks=9, answers=8)


def sealed(body):
    return body + struct.pack("<I", zlib.crc32(body))


def test_the_bytes_of_a_data_frame():
    assert DATA.pack()[:26].hex() == "434c0101 01000000 02000000 03000000 0100 0200 05000000 6c6f".replace(" ", "")
    assert DATA.pack()[26:] == struct.pack("<I", zlib.crc32(DATA.pack()[:26]))
    assert len(DATA.pack()) == DATA_OVERHEAD + 2


def test_the_bytes_of_an_ack_frame():
    packed = ACK.pack()
    assert packed[:-4].hex() == (
        "434c0102 01000000 efbeadde 02000000 0900 0800 0100 0100 0400000006000000 0700000000000200".replace(" ", "")
    )
    assert packed[-4:] == struct.pack("<I", zlib.crc32(packed[:-4]))


@pytest.mark.parametrize("frame", [DATA, ACK, Ack(0, 1, 0), Data(U32, U32, U32, 0, 1, 0, b"")])
def test_a_frame_comes_back_as_it_was(frame):
    assert parse(frame.pack()) == frame


@given(st.integers(1, 1 << 21), st.integers(1, 1 << 20))
def test_chunks_add_up_to_the_message(total, chunk_bytes):
    count = chunk_count(total, chunk_bytes)
    assert 1 <= count <= 0xFFFF
    lengths = [chunk_length(total, count, index) for index in {0, count - 2, count - 1} if index >= 0]
    assert all(length > 0 for length in lengths)
    assert chunk_length(total, count, 0) * (count - 1) + chunk_length(total, count, count - 1) == total


@given(st.binary(max_size=200))
def test_random_bytes_raise_nothing_but_wire_errors(data):
    with pytest.raises(WireError):
        parse(data)


@given(st.sampled_from([1, 2]), st.binary(max_size=120))
def test_random_bytes_behind_a_good_beginning_and_crc_raise_nothing_but_wire_errors(kind, body):
    try:
        frame = parse(sealed(b"CL\x01" + bytes([kind]) + body))
    except WireError:
        return
    assert parse(frame.pack()) == frame


@given(st.integers(0, 29), st.integers(1, 255))
def test_a_flipped_byte_is_noticed(place, flip):
    frame = bytearray(DATA.pack())
    frame[place] ^= flip
    with pytest.raises(WireError):
        parse(bytes(frame))


def data(**changes):
    fields = {"epoch": 1, "lowest": 1, "number": 1, "index": 0, "count": 1, "total": 2, "payload": b"ab"} | changes
    return Data(**fields).pack()


@pytest.mark.parametrize(
    ("frame", "words", "reason"),
    [
        (b"", "cut off", "too short"),
        (DATA.pack()[:20], "CRC", "crc"),
        (sealed(DATA.pack()[:20]), "cut off", "too short"),
        (sealed(ACK.pack()[:20]), "cut off", "too short"),
        (sealed(ACK.pack()[:30]), "30 bytes with 1 and 1 entries", "length"),
        (b"XX" + DATA.pack()[2:], "begins with b'XX'", "magic"),
        (b"CL\x02" + DATA.pack()[3:], "version 2, this is version 1", "version"),
        (b"CL\x01\x07" + DATA.pack()[4:], "unknown kind of frame 7", "kind"),
        (bytes(101), "frame of 101 bytes, the limit is 100", "too long"),
        (data(epoch=0), "epoch 0", "numbers"),
        (data(lowest=2), "lowest 2, number 1", "numbers"),
        (data(count=0), "no chunks", "chunks"),
        (data(index=1), "chunk 1 of 1", "chunks"),
        (data(total=3), "has 2 bytes, not 3", "chunks"),
        (data(count=9, total=9), "has 2 bytes, not 1", "chunks"),
        (data(count=4, total=5, payload=b"ab"), "not -1", "chunks"),
        (data(total=51), "message of 51 bytes, the limit is 50", "too long"),
        (Ack(1, 1, 5, ((5, 6),)).pack(), "does not follow 5", "numbers"),
        (Ack(1, 1, 0, ((6, 5),)).pack(), "done 6 to 5", "numbers"),
        (Ack(1, 1, 0, (), (Held(1, 2, 1),)).pack(), "chunks 2 to 1", "chunks"),
    ],
)
def test_what_is_wrong_is_named(frame, words, reason):
    with pytest.raises(WireError, match=words) as caught:
        parse(frame, Limits(message_bytes=50, chunk_bytes=10, frame_bytes=100))
    assert caught.value.reason == reason


def test_an_ack_cannot_make_us_count_to_a_billion():
    with pytest.raises(WireError, match="chunks, the limit"):
        parse(Ack(1, 1, 0, (), (Held(1, 0, 0xFFFF),) * 100).pack())
