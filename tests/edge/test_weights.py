"""Weights that come and go as differences, at a device; the hub is played by hand."""

import json

import numpy as np
import pytest

from edge.memory_link import MemoryBroker
from edge.wire import messages
from edge.wire.messages import Report, State
from edge.wire.weights import Base, Difference, difference
from tests.edge.stage import Stage

LR0 = {"lr": 0.0}
START = Base({"scale.weight": np.array([1, 2], np.float32)})
"""Of the tiny bundle."""
PARTS = {"scale.weight": "lower"}


def plus(base, *values):
    """A base that is so much further."""
    return base.updated(base.changed(Difference(base.id, ("lower",), np.array(values, np.float32)), PARTS))


MIDDLE = plus(START, 0.125, 0.25)


def down(base, *values):
    """Weights that are so much more than a base, exactly."""
    return Difference(base.id, ("lower",), np.array(values, np.float32))


@pytest.fixture
def stage(tmp_path):
    stage = Stage(tmp_path, MemoryBroker())
    yield stage
    stage.kill()


def gave(stage):
    return stage.got(State)[-1]


def refused(stage):
    return stage.got(Report)[-1].metrics


def test_without_a_codec_nothing_changes(stage):
    stage.order(1, steps=1, settings=LR0, give=("lower",), state={"scale.weight": np.array([3, 5], np.float32)})
    stage.run()
    assert gave(stage).difference is None
    assert gave(stage).state["scale.weight"].tolist() == [3, 5]
    assert stage.outbox.received("base") is None


def test_the_bundles_own_weights_are_a_base(stage):
    stage.order(1, steps=1, settings=LR0, give=("lower",), weights="float16", difference=down(START, 0.5, 0.25))
    stage.run()
    np.testing.assert_array_equal(stage.weights(), [1.5, 2.25])
    assert gave(stage).state == {}
    assert (gave(stage).difference.base, gave(stage).difference.parts) == (plus(START, 0.5, 0.25).id, ("lower",))
    assert gave(stage).difference.values.tolist() == [0, 0]


def test_weights_are_given_as_the_way_from_the_base_to_where_training_came(stage):
    stage.order(1, steps=4, give=("lower",), weights="float32", difference=Difference(START.id))
    stage.run()
    assert gave(stage).difference is None  # float32 keeps no base
    stage.order(2, steps=4, give=("lower",), weights="quantised:0.001", difference=Difference(START.id))
    stage.run()
    way = stage.weights() - [1, 2]
    np.testing.assert_allclose(gave(stage).difference.values, way, atol=0.001)
    assert np.abs(way).min() > 0.1


def test_what_coding_leaves_out_of_given_weights_goes_along_with_the_next(stage):
    """Rows of ones and twos: the step of lr 0.5 takes w = (1, 2) to (0.5, -2); topk keeps the larger change, -4."""

    def order(number, lr):
        stage.order(
            number, steps=1, settings={"lr": lr}, give=("lower",), weights="topk:0.5", difference=down(START, 0, 0)
        )
        stage.run()
        return gave(stage).difference.values.tolist()

    assert order(1, 0.5) == [0, -4]
    # The hub starts it from the same weights again; it learns nothing, and says what it had left out.
    assert order(2, 0.0) == [-0.5, 0]
    assert order(3, 0.0) == [0, 0]


def test_a_drift_of_less_than_half_a_step_comes_through(stage):
    """Every order begins at (1, 2) and takes (0.1, 0.8) off; a step is twice the deviation of 0.35, and 0.1 is less than half."""
    came = []
    for number in range(1, 6):
        told = {"settings": {"lr": 0.1}, "weights": "quantised:2", "difference": down(START, 0, 0)}
        stage.order(number, steps=1, give=("lower",), **told)
        stage.run()
        came.append(gave(stage).difference.values.astype(float))
    assert came[0][0] == 0
    sums = np.cumsum(came, axis=0)
    assert sums[-1][0] < 0, "without what was left out it would stay 0"
    # Never more than half of the last step behind: 2 deviations of what was to be said.
    ways = np.outer(np.arange(1, 6), [-0.1, -0.8])
    left = ways - sums
    said = came + left
    assert (np.abs(left) <= np.std(said, axis=1, keepdims=True) + 1e-5).all()


@pytest.mark.parametrize("turns", range(1, 14))
@pytest.mark.parametrize("cut", [1, 2])
def test_a_power_cut_at_any_turn_gives_the_same_bytes_once(tmp_path, turns, cut):
    def given(folder, cut):
        folder.mkdir()
        stage = Stage(folder, MemoryBroker(), checkpoint_steps=2)
        for number, base in ((1, Difference(START.id)), (2, down(START, 0.125, 0.25)), (3, Difference(MIDDLE.id))):
            stage.order(number, steps=2, give=("lower",), weights="quantised:2", difference=base)
            if number == cut:
                stage.run(turns)
                stage.kill()
                stage.start()
            stage.run()
        stage.kill()
        return [messages.pack(message) for message in stage.got(State)]

    undisturbed = given(tmp_path / "undisturbed", 0)
    assert len(set(undisturbed)) == 3
    assert given(tmp_path / "killed", cut) == undisturbed


def test_a_base_that_it_does_not_hold_is_said_and_nothing_is_decoded(stage):
    other = plus(START, 1, 1)
    stage.order(1, steps=1, give=("lower",), weights="uniform:8", difference=down(other, 1, 1))
    stage.run()
    sentence = f"the order has weights as a difference to {other.id:08x}, which this device does not hold"
    assert refused(stage) == {"refused_order": sentence, "lacks_base": True}
    assert stage.mailbox.refused[sentence] == 1
    np.testing.assert_array_equal(stage.weights(), [1, 2])
    # The same order whole is taken, and what came whole is the base of what goes up.
    whole = {"scale.weight": np.array([3, 5], np.float32)}
    stage.order(1, steps=1, settings=LR0, give=("lower",), weights="uniform:8", state=whole)
    stage.run()
    assert gave(stage).difference.base == Base(whole).id
    assert gave(stage).difference.values.tolist() == [0, 0]


def test_it_gives_everything_whole_when_it_holds_nothing_that_the_hub_names(stage):
    stage.order(1, steps=1, settings=LR0, give=("lower",), weights="uniform:8", difference=Difference(77))
    stage.run()
    assert (gave(stage).difference, gave(stage).state["scale.weight"].tolist()) == (None, [1, 2])


def test_weights_beside_a_base_that_it_does_not_hold_are_not_taken(stage):
    """The hub would take them for a part of that base."""
    whole = {"scale.weight": np.array([3, 5], np.float32)}
    stage.order(1, steps=1, weights="uniform:8", difference=Difference(77), state=whole)
    stage.run()
    assert refused(stage)["lacks_base"]


def test_a_difference_of_another_length_is_a_sentence(stage):
    stage.order(1, steps=1, weights="uniform:8", difference=down(START, 1, 1, 1))
    stage.run()
    assert "a difference of 3 values; the base" in refused(stage)["refused_order"]
    stage.order(2, steps=1, settings=LR0)
    stage.run()
    assert refused(stage)["steps"] == 1


def test_the_base_before_is_held_until_the_hub_names_the_next(stage):
    """The hub names one that it is sure of: a report of the last order may not have come in time."""
    first, second = plus(START, 1, 0), plus(START, 0, 1)
    stage.order(1, steps=1, settings=LR0, weights="uniform:8", difference=down(START, 1, 0))
    stage.run()
    stage.order(2, steps=1, settings=LR0, weights="uniform:8", difference=down(START, 0, 1), give=("lower",))
    stage.run()
    np.testing.assert_array_equal(stage.weights(), [1, 3])
    assert gave(stage).difference.base == second.id
    stage.order(3, steps=1, settings=LR0, weights="uniform:8", difference=down(first, 0, 0))
    stage.run()
    assert refused(stage)["lacks_base"], "gone since the hub named another"
    stage.kill()
    stage.start()
    stage.order(4, steps=1, settings=LR0, weights="uniform:8", difference=down(second, 1, 1))
    stage.run()
    np.testing.assert_array_equal(stage.weights(), [2, 4])


def test_an_evaluation_moves_no_base(stage):
    base = plus(START, 1, 1)
    stage.order(1, steps=1, settings=LR0, weights="uniform:8", difference=down(START, 1, 1))
    stage.run()
    wrong = {"scale.weight": np.array([9, 9], np.float32)}
    stage.order(2, kind="evaluate", steps=1, send=(0,), state=wrong)
    stage.order(3, kind="evaluate", steps=1, send=(0,), difference=down(base, 4, 4))
    stage.run()
    np.testing.assert_array_equal(stage.weights(), [6, 7])
    stage.order(4, steps=1, settings=LR0, give=("lower",), weights="uniform:8", difference=down(base, 0, 1))
    stage.run()
    np.testing.assert_array_equal(stage.weights(), [2, 4])
    assert gave(stage).difference.base == plus(base, 0, 1).id


def test_another_run_forgets_bases_and_what_was_left_out(stage):
    stage.order(1, steps=1, settings={"lr": 0.5}, give=("lower",), weights="topk:0.5", difference=down(START, 1, 1))
    stage.run()
    base = plus(START, 1, 1)
    assert gave(stage).difference.base == base.id
    stage.order(1, run=2, steps=1, settings=LR0, give=("lower",), weights="topk:0.5", difference=Difference(START.id))
    stage.run()
    assert gave(stage).difference.base == START.id
    assert gave(stage).difference.values.tolist() == [0, 0]
    stage.order(2, run=2, steps=1, weights="topk:0.5", difference=down(base, 0, 0))
    stage.run()
    assert refused(stage)["lacks_base"]


def test_an_unknown_codec_is_refused_and_the_device_goes_on(stage, caplog):
    order = messages.Order(bytes.fromhex(stage.id[:8]), 1, 0, "local", 0, 1, (), {}, "float32", 1, 0)
    head = {name: value for name, value in vars(order).items() if name not in ("bundle", "state", "difference")}
    data = json.dumps({**head, "weights": "zip"}).encode()
    stage.delivery.send(b"\x04" + order.bundle + len(data).to_bytes(4, "little") + data + bytes(2))
    stage.order(2, steps=1, settings=LR0)
    stage.run()
    assert [report.order for report in stage.got(Report)] == [2]
    assert stage.mailbox.refused == {"codec": 1}
    assert "unknown codec 'zip'; there are entropy, float16" in caplog.text


def test_what_the_codec_cannot_carry_goes_whole(stage):
    huge = {"scale.weight": np.array([1e38, -3e38], np.float32)}
    stage.order(1, kind="forward", steps=0, state=huge, weights="float16", give=("lower",))
    stage.run()
    assert gave(stage).difference.values.tolist() == [0, 0]
    stage.order(2, kind="forward", steps=0, weights="float16", difference=Difference(START.id), give=("lower",))
    stage.run()
    assert gave(stage).state["scale.weight"].tolist() == [np.float32(1e38), np.float32(-3e38)]
    assert difference(START, ("lower",), np.zeros(2, np.float32), "float16").values.tolist() == [0, 0]
