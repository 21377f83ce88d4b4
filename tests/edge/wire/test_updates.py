import zlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.wire import topics, updates
from edge.wire.frames import WireError
from edge.wire.updates import Figures, Offer, Piece, Release, State, Want

HASHES = st.text("0123456789abcdef", min_size=64, max_size=64)
RELEASES = st.builds(
    Release,
    id=HASHES,
    version=st.integers(1, 2**32 - 1),
    size=st.integers(1, updates.RELEASE_BYTES),
    file=HASHES,
    bundle=HASHES | st.just(""),
    cutlayer=st.text("0123456789.", max_size=20),
)
SECONDS = st.none() | st.floats(0, 1e6)
FIGURES = st.builds(
    Figures,
    steps=st.integers(0, 10**9),
    step_seconds=SECONDS,
    loss=st.none() | st.floats(-1e6, 1e6),
    bundle=HASHES | st.just(""),
)
STATES = st.builds(
    State,
    phase=st.sampled_from(updates.PHASES),
    reason=st.text("abc défg-'", max_size=updates.REASON_LIMIT),
    release=HASHES | st.just(""),
    version=st.integers(0, 99),
    bundle=HASHES | st.just(""),
    offered=HASHES | st.just(""),
    here=st.integers(0, 10**6),
    size=st.integers(0, 10**6),
    starts=st.integers(0, 99),
    now=FIGURES,
    before=st.none() | FIGURES,
)
TAG = bytes(range(16))


def test_the_topics_of_updates():
    assert topics.update("f", "d", "offer") == "cutlayer/f/d/update/offer"
    assert topics.subscriptions_of_updates("f", "d") == ("cutlayer/f/d/update/offer", "cutlayer/f/d/update/piece")
    assert topics.subscriptions_of_rollout("f") == (
        "cutlayer/f/+/status",
        "cutlayer/f/+/update/want",
        "cutlayer/f/+/update/state",
    )
    assert topics.parse_update("f", "cutlayer/f/d/update/want") == ("d", "want")


@pytest.mark.parametrize(
    "topic",
    ["cutlayer/f/d/up", "cutlayer/g/d/update/want", "cutlayer/f/d/update/x", "cutlayer/f/d/update", "cutlayer/f/hub/update/want"],
)  # fmt: skip
def test_other_topics_are_none_of_updates(topic):
    with pytest.raises(WireError):
        topics.parse_update("f", topic)


@settings(deadline=None)
@given(RELEASES, st.floats(0.1, 1e4))
def test_an_offer_comes_back(release, seconds):
    for offer in (Offer("f", release, seconds), Offer("f", None, seconds)):
        assert Offer.parse(offer.pack()) == offer


@settings(deadline=None)
@given(STATES)
def test_a_state_comes_back(state):
    assert State.parse(state.pack()) == state
    assert len(state.pack()) <= updates.TEXT_BYTES


@settings(deadline=None)
@given(st.binary(min_size=16, max_size=16), st.integers(0, 2**32 - 1), st.binary(min_size=1, max_size=300))
def test_wants_and_pieces_come_back(tag, offset, data):
    assert Piece.parse(Piece(tag, offset, data).pack()) == Piece(tag, offset, data)
    want = Want(tag, offset, len(data))
    assert Want.parse(want.pack()) == want


def test_bytes_are_pinned():
    want = Want(TAG, 0x01020304, 8192).pack()
    head = b"CU\x01\x01" + TAG + b"\x04\x03\x02\x01" + b"\x00\x20\x00\x00"
    assert want == head + zlib.crc32(head).to_bytes(4, "little")
    piece = Piece(TAG, 5, b"abc").pack()
    head = b"CU\x01\x02" + TAG + b"\x05\x00\x00\x00abc"
    assert piece == head + zlib.crc32(head).to_bytes(4, "little")
    assert len(piece) == 3 + updates.PIECE_OVERHEAD


@settings(deadline=None)
@given(st.binary(max_size=400), st.sampled_from([Offer, Want, Piece, State]))
def test_noise_is_refused(data, kind):
    with pytest.raises(WireError):
        kind.parse(data)


@settings(deadline=None)
@given(st.data())
def test_one_damaged_byte_is_refused(data):
    piece = bytearray(Piece(TAG, 5, b"some bytes of a release").pack())
    piece[data.draw(st.integers(0, len(piece) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(WireError):
        Piece.parse(bytes(piece))


@pytest.mark.parametrize("length", [0, updates.PIECE_BYTES + 1])
def test_wants_of_nothing_or_too_much_are_refused(length):
    with pytest.raises(WireError, match=f"a want of {length} bytes"):
        Want.parse(Want(TAG, 0, length).pack())


def test_what_is_too_long_is_refused_before_it_is_read():
    with pytest.raises(WireError, match="state of 4097 bytes, the limit is 4096"):
        State.parse(b"{" + b" " * updates.TEXT_BYTES)
    with pytest.raises(WireError, match="no piece"):
        Piece.parse(bytes(updates.PIECE_BYTES + updates.PIECE_OVERHEAD + 1))


def test_a_long_reason_is_cut():
    state = State(phase="refused", reason="x" * 5000)
    assert State.parse(state.pack()) == replace(state, reason="x" * updates.REASON_LIMIT)


@pytest.mark.parametrize(
    "changed",
    [{"version": 0}, {"size": updates.RELEASE_BYTES + 1}, {"id": "x" * 64}, {"file": "0" * 63}, {"size": True}],
)
def test_offers_out_of_range_are_refused(changed):
    release = Release("0" * 64, 1, 1, "1" * 64)
    with pytest.raises(WireError, match=f"release.{next(iter(changed))}"):
        Offer("f", replace(release, **changed)).pack()


def test_a_later_format_is_refused():
    data = Offer("f").pack()
    assert b'"format":1' in data
    with pytest.raises(WireError, match="format"):
        Offer.parse(data.replace(b'"format":1', b'"format":2'))
