"""Weights as differences to a base: what is sent, what it comes to, and what is refused."""

import zlib
from dataclasses import replace

import numpy as np
import pytest

from edge.wire.frames import WireError
from edge.wire.messages import Order, State, pack, unpack
from edge.wire.weights import Base, Difference, codable, difference, joined, parts_of, split

TAG = b"\xab\xcd\xef\x01"
PARTS = parts_of([("w", "lower"), ("b", "lower"), ("h", "head"), ("n.running_var", "lower"), ("change", "end")])
ORDER = Order(TAG, 9, 2, "local", 0, 8, (), {}, "float32", 32, 5)


def base(**tensors):
    return Base({name: np.array(values, np.float32) for name, values in tensors.items()})


def test_what_may_belong_to_a_base():
    assert PARTS == {"w": "lower", "b": "lower", "h": "head"}
    state = {name: np.zeros(2, np.float32) for name in ("w", "n.running_var", "change", "state.own")}
    assert list(codable({**state, "b": np.array([3])}, PARTS)) == ["w"]


def test_a_base_is_named_by_names_shapes_and_bytes():
    held = base(w=[[1, 2]], b=[3])
    raw = np.array([3], "<f4").tobytes(), np.array([1, 2], "<f4").tobytes()
    assert held.id == zlib.crc32(b"b(1,)" + raw[0] + b"w(1, 2)" + raw[1])
    others = [base(w=[[1, 2]], b=[4]), base(w=[1, 2], b=[3]), base(v=[[1, 2]], b=[3]), base(w=[[1, 2]])]
    assert len({held.id, *(other.id for other in others)}) == 5
    assert base(b=[3], w=[[1, 2]]).id == held.id


def test_a_part_counts_only_with_everything_that_the_base_has_of_it():
    held = base(w=[1], b=[2], h=[3])
    assert held.whole_parts({"w", "b", "h"}, PARTS) == ("head", "lower")
    assert held.whole_parts({"w", "b", "more"}, PARTS) == ("lower",)
    assert held.whole_parts({"w", "h"}, PARTS) == ("head",)
    assert base(w=[1]).whole_parts({"w", "b"}, PARTS) == ("lower",)


def test_both_ends_come_to_the_same_weights():
    held = base(b=[10, 20], w=[[1, 2], [3, 4]], h=[7])
    values = np.array([0, 255, 51, 102, 153, 204], np.float32)  # levels of 1 with eight bits
    sent = difference(held, ("lower",), values, "uniform:8")
    got = unpack(pack(replace(ORDER, difference=sent))).difference
    assert (got.base, got.parts) == (held.id, ("lower",))
    np.testing.assert_array_equal(got.values, sent.values)
    changed = held.changed(got, PARTS)
    assert {name: array.tolist() for name, array in changed.items()} == {"b": [10, 275], "w": [[52, 104], [156, 208]]}
    after = held.updated(changed)
    assert after.state["h"].tolist() == [7]
    assert after.id == held.updated(held.changed(sent, PARTS)).id != held.id


@pytest.mark.parametrize("codec", ["entropy:1", "quantised:0.5", "uniform:8", "float16", "topk:0.1", "randtopk:0.1"])
def test_the_sender_knows_what_the_other_end_decodes(codec):
    held = base(w=np.zeros((30, 40)))
    values = np.random.default_rng(3).normal(0, 0.01, 1200).astype(np.float32)
    sent = difference(held, ("lower",), values, codec)
    got = unpack(pack(State(TAG, 9, {}, difference=sent))).difference
    assert got.values.tobytes() == sent.values.tobytes()
    assert difference(held, ("lower",), values, codec).values.tobytes() == sent.values.tobytes()


def test_what_is_left_out_of_one_difference_comes_with_the_next_ones():
    """Weights 1 and 3 keep the range at 255, so that a level is 1; weight 2 drifts by 0.2 a round, less than half of one."""
    held, came = base(w=[0, 0, 0]), []
    for number in range(1, 4):
        target = np.array([0, 0.2 * number, 255 * number], np.float32)
        sent = difference(held, ("lower",), target - held.flat(["w"]), "uniform:8")
        held = held.updated(held.changed(sent, PARTS))
        came.append(held.state["w"].tolist())
    assert came == [[0, 0, 255], [0, 0, 510], [0, 1, 765]]


def test_flat_and_back():
    state = {"a": np.array([[1, 2]], np.float32), "b": np.float32(3).reshape(()), "c": np.zeros((0, 2), np.float32)}
    flat = joined(state, state)
    assert flat.tolist() == [1, 2, 3]
    back = split(flat, {name: array.shape for name, array in state.items()})
    assert {name: (array.shape, array.tolist()) for name, array in back.items()} == {
        "a": ((1, 2), [[1, 2]]),
        "b": ((), 3),
        "c": ((0, 2), []),
    }
    assert (joined({}, []).tolist(), split(np.empty(0), {})) == ([], {})


def test_golden_bytes_behind_the_tensors():
    plain = pack(ORDER)
    assert unpack(plain).difference is None
    assert unpack(plain).weights == "float32"
    named = replace(ORDER, difference=Difference(0x01020304))
    assert pack(named) == plain + bytes.fromhex("0004030201")
    assert unpack(pack(named)).difference.parts == ()
    values = np.array([1, -2], np.float32)
    state = State(TAG, 9, {}, difference=Difference(0x01020304, ("head", "lower"), values))
    # both parts, base; float32 of rank 1, 2 elements, 8 bytes
    assert pack(state) == pack(State(TAG, 9, {})) + bytes.fromhex("030403020101010208") + values.tobytes()
    coded = replace(ORDER, weights="uniform:8")
    assert unpack(pack(coded)).weights == "uniform:8"


def test_a_difference_of_another_length_is_refused():
    with pytest.raises(WireError, match=r"difference of 3 values; the base [0-9a-f]{8} has 2 of them"):
        base(w=[1, 2]).changed(Difference(1, ("lower",), np.zeros(3, np.float32)), PARTS)


@pytest.mark.parametrize(
    ("tail", "sentence"),
    [
        ("00040302", "cut off"),
        ("0004030201ff", "1 bytes too many"),
        ("0404030201", "unknown parts 4"),
        ("0204030201000201010101", "integers payload|int64 is not of floats|shape"),
        ("02040302010101020801", "payload of 8 bytes"),
    ],
)
def test_damage_behind_the_tensors_is_refused(tail, sentence):
    with pytest.raises(WireError, match=sentence):
        unpack(pack(State(TAG, 9, {})) + bytes.fromhex(tail))


def test_what_cannot_be_sent_is_refused():
    with pytest.raises(WireError, match="unknown codec 'zip'"):
        pack(replace(ORDER, weights="zip"))
    with pytest.raises(WireError, match="shape \\(1, 2\\) is not flat"):
        pack(State(TAG, 9, {}, difference=Difference(1, ("lower",), np.zeros((1, 2), np.float32))))
    with pytest.raises(WireError, match="unknown parts tail"):
        pack(State(TAG, 9, {}, difference=Difference(1, ("tail",), np.zeros(2, np.float32))))
    with pytest.raises(WireError, match="NaN"):
        difference(base(w=[1]), ("lower",), np.array([np.nan], np.float32), "uniform:8")
