"""A device that does not send again what the hub has; every number can be worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from edge.known import Known
from edge.memory_link import MemoryBroker
from edge.outbox import Outbox
from edge.sensors import Arrays, Batch, Folder, OwnSource, SensorError, Wanted
from edge.uploads import fit
from edge.wire.messages import Activation, Order, Place, Report, pack
from tests.edge.stage import ROWS, Rows, Stage


class Numbered(Rows):
    """One batch of all four rows, each with its place as its number."""

    data = 1

    def batch(self, round_number, step, size, seed):
        return Batch(ROWS[:size], np.arange(4)[:size] % 2)

    def numbers(self, round_number, step, size, seed):
        return np.arange(4)[:size]

    def fingerprint(self):
        return self.data


@pytest.fixture
def stage(tmp_path):
    stage = Stage(tmp_path, MemoryBroker(), source=Numbered())
    yield stage
    stage.kill()


def forward(stage, number, weights=None, **changes):
    """One order to send everything, with other weights first; what was sent: numbers, then what is said to be known."""
    state = {} if weights is None else {"scale.weight": np.array(weights, np.float32)}
    told = {"skip_below": 0.1, "refresh_rounds": 3, "round": number, "batch": 4, "state": state}
    stage.order(number, kind="forward", steps=1, send=(0,), **told | changes)
    stage.run(10)
    return stage.got(Activation)[-1]


def names(message):
    return message.repeats.numbers.tolist(), message.repeats.known.tolist()


def test_without_being_asked_everything_is_sent_as_ever(stage):
    for number in (1, 2):
        assert forward(stage, number, skip_below=0.0).repeats is None
    assert "known" not in stage.got(Report)[-1].metrics


def test_what_has_changed_by_less_than_a_share_of_its_norm_is_not_sent_again(stage):
    first = forward(stage, 1, (1.0, 1.0))
    assert names(first) == ([0, 1, 2, 3], [])
    # By 0.15 of 2.236, 0.45 of 5, 0.75 of 7.810 and 1.05 of 10.630.
    second = forward(stage, 2, (1.15, 1.0), skip_below=0.095)
    assert [round(0.15 * row[0] / np.hypot(*row), 4) for row in ROWS.tolist()] == [0.0671, 0.09, 0.0960, 0.0988]
    assert names(second) == ([2, 3], [0, 1])
    np.testing.assert_allclose(second.smashed, [[5.75, 6], [8.05, 8]], rtol=1e-6)
    assert second.labels.tolist() == [0, 1]


def test_change_adds_up_against_what_was_sent_last_and_not_against_the_last_batch(stage):
    forward(stage, 1, (1.0, 1.0))
    assert names(forward(stage, 2, (1.06, 1.06))) == ([], [0, 1, 2, 3])
    third = forward(stage, 3, (1.12, 1.12))
    assert names(third) == ([0, 1, 2, 3], [])
    np.testing.assert_allclose(third.smashed, ROWS * 1.12, rtol=1e-6)


def test_after_so_many_rounds_it_is_sent_again_though_nothing_has_changed(stage):
    sent = [names(forward(stage, number))[0] for number in (1, 2, 3, 4, 5)]
    assert sent == [[0, 1, 2, 3], [], [], [0, 1, 2, 3], []]


def test_the_hub_is_told_with_which_upload_each_sample_came(stage):
    first = forward(stage, 1, batch=2)
    second = forward(stage, 2, batch=4)
    third = forward(stage, 3, batch=4)
    assert names(second) == ([2, 3], [0, 1])
    assert names(third) == ([], [0, 1, 2, 3])
    one, two = first.repeats.upload, second.repeats.upload
    assert two == one + 1
    assert third.repeats.uploads.tolist() == [one, one, two, two]


def test_what_the_hub_says_that_it_lacks_is_sent_again(stage):
    forward(stage, 1)
    assert names(forward(stage, 2, forget=(1, 3))) == ([1, 3], [0, 2])
    assert names(forward(stage, 3, forget=None)) == ([0, 1, 2, 3], [])


def test_a_device_that_was_killed_knows_what_it_has_sent(stage):
    first = forward(stage, 1)
    stage.kill()
    stage.start()
    second = forward(stage, 2)
    assert names(second) == ([], [0, 1, 2, 3])
    assert second.repeats.uploads.tolist() == [first.repeats.upload] * 4


def test_a_step_that_was_not_committed_makes_the_same_message_again(stage, monkeypatch):
    forward(stage, 1, (1.0, 1.0))
    stage.order(2, kind="forward", steps=1, send=(0,), round=2, batch=4, skip_below=0.095, refresh_rounds=3,
                state={"scale.weight": np.array([1.15, 1.0], np.float32)})  # fmt: skip
    made = []
    monkeypatch.setattr(stage.mailbox, "publish", lambda now: None)
    sent = stage.mailbox.send
    monkeypatch.setattr(stage.mailbox, "send", lambda message, **more: made.append(message) or sent(message, **more))
    for frame in stage.delivery.poll(stage.now):
        stage.link.publish("cutlayer/f/d1/down", frame)
    commit = stage.outbox.commit
    # The order is committed; the step that follows it in the next turn is not.
    monkeypatch.setattr(stage.outbox, "commit", lambda: commit() if not made else None)
    for _ in range(3):
        stage.agent.turn(lambda: stage.now)
    (before,) = [message for message in made if isinstance(message, Activation)]
    stage.kill()
    stage.start()
    stage.run(10)
    after = stage.got(Activation)[-1]
    assert pack(after) == pack(before)
    assert names(after) == ([2, 3], [0, 1])


def test_other_samples_under_the_same_numbers_are_all_sent(stage, monkeypatch):
    forward(stage, 1)
    stage.kill()
    monkeypatch.setattr(Numbered, "data", 2)
    stage.start()
    assert names(forward(stage, 2)) == ([0, 1, 2, 3], [])


def test_another_run_has_a_hub_that_knows_nothing(stage):
    forward(stage, 1, run=5)
    assert names(forward(stage, 2, run=6)) == ([0, 1, 2, 3], [])
    assert stage.got(Report)[-1].metrics["known"] == {"sent": 4, "skipped": 0}


def test_the_report_counts_what_was_sent_and_what_was_not(stage):
    for number in (1, 2, 3):
        forward(stage, number)
    metrics = stage.got(Report)[-1].metrics
    assert metrics["known"] == {"sent": 4, "skipped": 8}
    assert metrics["elements"] == 4 * 2


def test_an_exchange_sends_all_of_its_samples(stage):
    forward(stage, 1)
    stage.order(2, kind="exchange", steps=1, send=(0,), round=2, batch=4)
    stage.run(10)
    assert stage.got(Activation)[-1].repeats is None
    assert len(stage.got(Activation)[-1].labels) == 4


@pytest.mark.parametrize("limit", [0, 3])
def test_without_room_for_a_single_sample_everything_is_sent(tmp_path, limit):
    stage = Stage(tmp_path, MemoryBroker(), source=Numbered(), known_bytes=limit)
    try:
        for number in (1, 2):
            message = forward(stage, number)
            assert message.repeats is None or names(message) == ([0, 1, 2, 3], [])
    finally:
        stage.kill()


def test_where_there_is_no_room_for_all_the_oldest_are_sent_again(tmp_path):
    stage = Stage(
        tmp_path, MemoryBroker(), source=Numbered(), known_bytes=3 * 2 * 2
    )  # three samples of two values of two bytes
    try:
        forward(stage, 1)
        assert names(forward(stage, 2)) == ([0], [1, 2, 3])
        assert names(forward(stage, 3)) == ([1], [0, 2, 3]), "0 was sent later than 1"
    finally:
        stage.kill()


def test_a_message_that_is_given_up_has_brought_nothing(tmp_path):
    """Every activation takes 88 bytes: of three in a row without a hub only the last two find room."""
    stage = Stage(tmp_path, MemoryBroker(), source=Numbered(), outbox_bytes=200)
    try:
        stage.run(3)
        told = {"kind": "forward", "skip_below": 0.1, "refresh_rounds": 9, "batch": 4}
        stage.order(1, steps=3, send=(0,), **told)
        stage.run(4)
        assert [message.step for message in stage.got(Activation)] == [0]
        stage.agent._uploads._known.lost([Place(1, 0)])  # as the mailbox says
        stage.order(2, steps=1, send=(0,), round=1, **told)
        stage.run(10)
        assert names(stage.got(Activation)[-1]) == ([0, 1, 2, 3], [])
    finally:
        stage.kill()


# The memory itself ----------------------------------------------------------------------------------------------------


@pytest.fixture
def outbox(tmp_path):
    outbox = Outbox.open(tmp_path / "state")
    yield outbox
    outbox.close()


def order(**changes):
    values = {"bundle": b"abcd", "order": 1, "round": 0, "kind": "forward", "first_step": 0, "steps": 1, "send": (0,)}
    rest = {"settings": {}, "codec": "float32", "batch": 4, "seed": 0, "skip_below": 0.1, "refresh_rounds": 3}
    return Order(**values | rest | changes)


def activation(smashed):
    smashed = np.array(smashed, np.float32)
    return Activation(b"abcd", 1, 0, 0, "train", smashed, np.zeros(len(smashed), np.int64))


def test_samples_that_find_no_room_are_neither_sent_nor_known(outbox):
    known = Known(Numbered(), outbox)
    known.sent(known.pick(order(batch=2), activation(ROWS[:2])))
    picked = known.pick(order(), replace(activation(ROWS), round=1))
    assert names(picked) == ([2, 3], [0, 1])
    for dropped, left in ((1, [2]), (0, [2, 3])):
        room = int(1.03 * len(pack(picked.first(2 - dropped))))
        fitting = fit(picked, room, "float32", lambda text: text).message
        if dropped:  # fewer than four samples are not cut any further, but for what is known
            assert names(fitting) == ([], [0, 1])
        else:
            assert names(fitting) == (left, [0, 1])
    known.sent(picked.first(1))
    assert names(known.pick(order(), activation(ROWS))) == ([3], [0, 1, 2])


def test_large_batches_lose_samples_and_keep_what_is_known(outbox):
    rows = np.arange(1, 81, dtype=np.float32).reshape(8, 10)
    source = Numbered()
    source.numbers = lambda round_number, step, size, seed: np.arange(size)
    known = Known(source, outbox)
    known.sent(known.pick(order(batch=2), activation(rows[:2])))
    picked = known.pick(order(batch=8), activation(rows))
    fitting = fit(picked, int(1.03 * len(pack(picked.first(5)))), "float32", lambda text: text).message
    assert names(fitting) == ([2, 3, 4, 5, 6], [0, 1])
    assert fit(picked, 20, "float32", lambda text: text) is None


def test_nothing_is_divided_by_the_norm_of_an_activation_of_zeros(outbox):
    known = Known(Numbered(), outbox)
    known.sent(known.pick(order(), activation(np.zeros((4, 2)))))
    assert names(known.pick(order(), activation([[0, 0], [0, 1e-3], [0, 0], [1, 1]]))) == ([1, 3], [0, 2])


def test_values_beyond_those_of_a_float16_are_remembered_too(outbox):
    known = Known(Numbered(), outbox)
    known.sent(known.pick(order(), activation(ROWS * 1e6)))
    assert names(known.pick(order(), activation(ROWS * 1.05e6))) == ([], [0, 1, 2, 3])
    assert names(known.pick(order(), activation(ROWS * 1.2e6))) == ([0, 1, 2, 3], [])


# Sources ----------------------------------------------------------------------------------------------------------------

WANTED = Wanted((2,), "float32", 2)
TEN = {"x": np.arange(20, dtype=np.float32).reshape(10, 2), "y": np.arange(10) % 2}


def test_numbers_of_recorded_samples_are_their_rows():
    source = Arrays("made up", TEN, "d1", WANTED)
    for step in range(6):
        numbers = source.numbers(3, step, 4, 7)
        np.testing.assert_array_equal(source.batch(3, step, 4, 7).x, TEN["x"][numbers])
    with pytest.raises(SensorError, match="steps start at 0"):
        source.numbers(3, -1, 4, 7)


def test_other_samples_or_labels_have_another_fingerprint():
    found = Arrays("made up", TEN, "d1", WANTED).fingerprint()
    assert found == Arrays("the same", {**TEN}, "d2", WANTED).fingerprint()
    assert found != Arrays("made up", {**TEN, "x": TEN["x"] + 1}, "d1", WANTED).fingerprint()
    assert found != Arrays("made up", {**TEN, "y": 1 - TEN["y"]}, "d1", WANTED).fingerprint()


def test_a_folder_that_grows_and_an_own_source_have_no_numbers(tmp_path, outbox):
    (tmp_path / "pieces").mkdir()
    np.savez(tmp_path / "pieces" / "a.npz", **TEN)
    folder = Folder(tmp_path / "pieces", "d1", WANTED, tmp_path / "note.json")

    class Own:
        samples = test_samples = 10

        def batch(self, round_number, step, size, seed):
            return TEN["x"][:size], TEN["y"][:size]

        test_batch = batch

    for source in (folder, OwnSource("own", Own(), WANTED)):
        known = Known(source, outbox)
        batch = source.batch(0, 0, 4, 0)
        message = activation(batch.x)
        for _ in range(2):
            assert known.pick(order(), message) is message
            known.sent(message)
        assert not known.used
