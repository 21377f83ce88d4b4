import numpy as np
import pytest

from edge.memory_link import MemoryBroker
from edge.outbox import OutboxError
from edge.refusal import RefusalError
from edge.wire import messages, topics
from edge.wire.messages import Activation, Goodbye, Gradient, Hello, Order, Refusal, Report, State
from tests.edge.stage import FLEET, NAME, ROWS, Rows, after


class Noted(Rows):
    """Remembers which batches it was asked for."""

    def __init__(self):
        self.asked = []

    def batch(self, round_number, step, size, seed):
        self.asked.append((round_number, step))
        return super().batch(round_number, step, size, seed)


def test_an_order_of_several_rounds_does_the_batches_of_each(staged):
    stage = staged(source=Noted())
    stage.order(steps=2, first_step=1, round=5, rounds=3)
    stage.run(30)
    assert stage.source.asked == [(5, 1), (5, 2), (6, 1), (6, 2), (7, 1), (7, 2)]
    (report,) = stage.got(Report)
    assert (report.round, report.metrics["steps"]) == (5, 6)


def test_an_order_of_several_rounds_goes_on_in_the_right_one_after_a_power_cut(staged):
    stage = staged(source=Noted(), checkpoint_steps=1)
    stage.order(steps=2, round=5, rounds=3)
    for _ in range(40):
        stage.run(1 if len(stage.source.asked) < 3 else 0)
    assert len(stage.source.asked) == 3
    stage.kill()
    stage.start()
    stage.run(30)
    assert stage.source.asked[-3:] == [(6, 1), (7, 0), (7, 1)]
    (report,) = stage.got(Report)
    assert report.metrics["steps"] == 6


def test_says_hello_to_the_hub_that_is_there(stage):
    stage.run(3)
    (hello,) = stage.got(Hello)
    assert (hello.name, hello.bundle, hello.samples, hello.test_samples) == (NAME, stage.id, 4, 3)
    assert hello.position is None


def test_says_hello_again_to_a_hub_that_was_restarted(stage):
    stage.run(3)
    stage.announce(8)
    stage.run(3)
    assert len(stage.got(Hello)) == 2


def test_local_steps_train_and_only_the_chosen_ones_send(stage):
    stage.order(send=(1, 3))
    stage.run()
    np.testing.assert_allclose(stage.weights(), after(4), rtol=1e-5)
    sent = stage.got(Activation)
    assert [message.step for message in sent] == [1, 3]
    # what is sent is the activation before the step's own update
    np.testing.assert_allclose(sent[0].smashed, [ROWS[1] * after(1)], rtol=1e-5)
    np.testing.assert_allclose(sent[1].smashed, [ROWS[3] * after(3)], rtol=1e-5)
    assert sent[1].labels.tolist() == [1]


def test_the_report_has_what_the_steps_cost(stage):
    stage.order(send=(1, 3))
    stage.run()
    (report,) = stage.got(Report)
    assert report.order == 1
    assert report.metrics["steps"] == 4
    assert report.metrics["paper_bytes"] == 2 * 2 * 4  # two activations of two non-zero elements
    assert report.metrics["flops"] == 4 * 6
    assert report.metrics["paper_flops"] == 4 * 2
    assert report.metrics["energy"]["joules"] is None
    assert "no meter" in report.metrics["energy"]["reason"]


def test_the_report_has_what_the_codec_made_of_what_went_up(stage):
    stage.order(1, send=(1, 3), codec="quantised:1")
    stage.run()
    stage.order(2, steps=2)
    stage.run()
    stage.order(3, steps=1, send=(0,), codec="quantised:1")
    stage.run()
    first, idle, last = (report.metrics for report in stage.got(Report))
    assert first["nonzero_share"] == 1.0
    assert first["elements"] == 4
    assert first["coded"]["deviations"] == pytest.approx(4)  # one a step, times two elements each
    assert first["coded"]["nonzeros"] == 4
    assert "coded" not in idle
    assert "nonzero_share" not in idle
    assert last["coded"]["bytes"] * 2 == first["coded"]["bytes"] * 3
    assert last["coded"]["step"] > first["coded"]["step"] > 0


def test_what_went_up_is_counted_across_a_power_cut(stage):
    stage.order(1, steps=4, send=(0, 1, 2, 3), codec="float32")
    while len(stage.got(Activation)) < 2:
        stage.run(1)
    stage.kill()
    stage.start()
    stage.run()
    (report,) = stage.got(Report)
    assert report.metrics["elements"] == 8
    assert report.metrics["coded"] == {"bytes": 32}
    assert report.metrics["nonzero_share"] == 1.0


def test_a_restart_in_an_evaluation_does_not_take_training_for_it(stage):
    stage.order(1, steps=4, send=(0, 1, 2, 3))
    stage.run()
    stage.order(2, kind="evaluate", steps=3, send=(0, 1, 2))
    while len(stage.got(Activation)) < 5:
        stage.run(1)
    stage.kill()
    stage.start()
    stage.run()
    trained, evaluated = (report.metrics for report in stage.got(Report))
    assert evaluated["evaluation_sent"] <= evaluated["sent"] - trained["sent"]


def test_settings_of_the_order_reach_the_graph(stage):
    stage.order(settings={"lr": 0.005})
    stage.run()
    np.testing.assert_allclose(stage.weights(), after(4, lr=0.005), rtol=1e-5)


def test_an_exchange_waits_for_the_gradient(stage):
    stage.order(kind="exchange", steps=1, send=(0,))
    stage.run()
    assert [message.step for message in stage.got(Activation)] == [0]
    np.testing.assert_array_equal(stage.weights(), [1, 2])
    assert stage.got(Report) == []
    tag = bytes.fromhex(stage.id[:8])
    stage.tell(Gradient(tag, 1, 0, 0, np.array([[10, 20]], np.float32), 0.5))
    stage.run()
    np.testing.assert_allclose(stage.weights(), [1 - 0.01 * 10, 2 - 0.01 * 40], rtol=1e-6)
    assert len(stage.got(Report)) == 1


def test_a_gradient_of_another_shape_is_refused_and_counted(stage):
    stage.order(kind="exchange", steps=1, send=(0,))
    stage.run()
    stage.tell(Gradient(bytes.fromhex(stage.id[:8]), 1, 0, 0, np.ones((1, 3), np.float32), 0.5))
    stage.run()
    np.testing.assert_array_equal(stage.weights(), [1, 2])
    assert stage.mailbox.refused["gradient of shape (1, 3), wanted (1, 2)"] == 1


def test_forward_uploads_and_learns_nothing(stage):
    stage.order(kind="forward", steps=2, send=(0, 1))
    stage.run()
    assert len(stage.got(Activation)) == 2
    np.testing.assert_array_equal(stage.weights(), [1, 2])


def test_weights_that_come_for_an_evaluation_are_its_bytes(stage):
    stage.order(1, steps=1)
    stage.run()
    stage.order(2, kind="evaluate", steps=1, send=(0,), state={"scale.weight": np.array([3, 5], np.float32)})
    stage.run()
    stage.order(3, steps=1, state={"scale.weight": np.array([3, 5], np.float32)})
    stage.run()
    trained, evaluated, again = (report.metrics for report in stage.got(Report))
    weighed = len(messages.pack(Order(bytes.fromhex(stage.id[:8]), 2, 0, "evaluate", 0, 1, (0,), {}, "float32", 1, 0)))
    assert trained["evaluation_received"] == 0
    assert evaluated["evaluation_received"] > weighed + 8
    assert again["evaluation_received"] == evaluated["evaluation_received"]
    assert again["received"] - evaluated["received"] > weighed


def test_evaluation_sends_every_test_sample_apart_from_training(stage):
    stage.order(kind="evaluate", steps=2, send=(0, 1), batch=2)
    stage.run()
    sent = stage.got(Activation)
    assert [message.purpose for message in sent] == ["evaluate", "evaluate"]
    np.testing.assert_allclose(np.concatenate([message.smashed for message in sent]), ROWS[:3] * [1, 2])
    (report,) = stage.got(Report)
    assert report.metrics["evaluation_sent"] > 0
    assert report.metrics["paper_bytes"] == 0


def test_an_order_told_twice_is_carried_out_once(stage):
    stage.order()
    stage.order()
    stage.run()
    stage.order()
    stage.run()
    assert len(stage.got(Report)) == 1
    np.testing.assert_allclose(stage.weights(), after(4), rtol=1e-5)


def test_a_later_order_replaces_the_one_that_waits(stage):
    stage.order(1, kind="exchange", steps=1, send=(0,))
    stage.run()
    stage.order(2, steps=2)
    stage.run()
    assert [report.order for report in stage.got(Report)] == [2]


def test_weights_come_from_the_hub_and_go_back(stage):
    stage.order(steps=1, state={"scale.weight": np.array([3, 5], np.float32)}, give=("lower",), settings={"lr": 0.0})
    stage.run()
    (state,) = stage.got(State)
    np.testing.assert_array_equal(state.state["scale.weight"], [3, 5])


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"settings": {"lr": 2.0}}, "setting lr = 2.0 is outside 0.0 to 1.0"),
        ({"state": {"scale.weight": np.zeros(3, np.float32)}}, "'scale.weight' with shape (3,); here it has (2,)"),
        ({"state": {"other": np.zeros(3, np.float32)}}, "'other', which this device's model does not have"),
    ],
)
def test_an_order_that_does_not_fit_is_refused_in_a_sentence(stage, fields, sentence):
    stage.order(**fields)
    stage.run()
    (report,) = stage.got(Report)
    assert sentence in report.metrics["refused_order"]
    np.testing.assert_array_equal(stage.weights(), [1, 2])


def test_an_order_whose_batch_does_not_fit_into_memory_is_refused_with_the_batch_that_does(staged):
    stage = staged(memory=3 << 20)
    stage.order(1, batch=4)
    stage.run()
    assert "a batch of 4 needs about 76 MiB" in stage.got(Report)[0].metrics["refused_order"]
    assert "a batch of 3 fits" in stage.got(Report)[0].metrics["refused_order"]
    stage.order(2, batch=3, steps=1)
    stage.run()
    assert stage.got(Report)[1].metrics["steps"] == 1


def test_an_order_for_another_bundle_is_refused(stage):
    stage.id = "00" * 32
    stage.order()
    stage.run()
    assert "the order is for bundle 00000000" in stage.got(Report)[0].metrics["refused_order"]


def test_divergence_is_reported_and_the_last_kept_state_comes_back(stage):
    stage.order(1, steps=4)
    stage.run()
    kept = stage.weights()
    stage.order(2, steps=1, state={"scale.weight": np.array([1e30, 1], np.float32)})
    stage.run()
    assert "training has diverged" in stage.got(Report)[-1].metrics["failed"]
    np.testing.assert_array_equal(stage.weights(), kept)
    stage.kill()
    stage.start()
    np.testing.assert_array_equal(stage.weights(), kept)
    stage.order(3, steps=1)
    stage.run()
    assert stage.got(Report)[-1].metrics["steps"] == 1


def test_a_round_begins_and_ends_with_the_bundles_own_graphs(staged):
    stage = staged(with_ends=True)
    start = {"scale.weight": np.array([3, 5], np.float32), "state.own": np.array([10, 20], np.float32)}
    stage.order(steps=4, state=start, give=("lower",))
    stage.run()
    (state,) = stage.got(State)
    way = after(4) * [3, 2.5] - [3, 5]
    np.testing.assert_allclose(state.state["scale.weight"], after(4) * [3, 2.5], rtol=1e-5)
    np.testing.assert_allclose(state.state["change"], way, rtol=1e-5)
    assert sorted(state.state) == ["change", "scale.weight"]
    np.testing.assert_allclose(stage.segment.snapshot()["own"], np.array([10, 20]) + way, rtol=1e-5)


@pytest.mark.parametrize("turns", range(1, 14))
def test_a_power_cut_at_any_turn_ends_a_round_once(staged, turns):
    stage = staged(with_ends=True, checkpoint_steps=2)
    stage.order(steps=4, give=("lower",))
    stage.run(turns)
    stage.kill()
    stage.start()
    stage.run()
    np.testing.assert_allclose(stage.segment.snapshot()["own"], after(4) - [1, 2], rtol=1e-5)
    (state,) = stage.got(State)
    np.testing.assert_allclose(state.state["change"], after(4) - [1, 2], rtol=1e-5)


@pytest.mark.parametrize("turns", range(1, 14))
def test_a_power_cut_at_any_turn_changes_nothing_in_the_end(staged, turns):
    stage = staged(checkpoint_steps=2)
    stage.order(send=(1, 2))
    stage.run(turns)
    stage.kill()
    stage.start()
    stage.run()
    np.testing.assert_allclose(stage.weights(), after(4), rtol=1e-5)
    assert sorted(message.step for message in stage.got(Activation)) == [1, 2]
    np.testing.assert_allclose(
        next(m for m in stage.got(Activation) if m.step == 2).smashed, [ROWS[2] * after(2)], rtol=1e-5
    )
    assert len(stage.got(Report)) == 1


def test_a_power_cut_between_gradient_and_update_loses_neither(stage):
    stage.order(kind="exchange", steps=1, send=(0,))
    stage.run()
    stage.kill()
    stage.start()
    stage.tell(Gradient(bytes.fromhex(stage.id[:8]), 1, 0, 0, np.array([[10, 20]], np.float32), 0.5))
    stage.run()
    np.testing.assert_allclose(stage.weights(), [1 - 0.1, 2 - 0.4], rtol=1e-6)


def test_a_report_says_whether_the_device_began_anew(stage):
    for number, run in ((1, 1), (2, 1), (1, 2)):
        stage.order(number, steps=1, run=run)
        stage.run()
    assert [report.metrics["started_over"] for report in stage.got(Report)] == [True, False, True]


def test_a_restart_between_order_and_report_does_not_hide_it(staged):
    stage = staged(checkpoint_steps=1)
    stage.order(1, steps=40, run=1)
    stage.run(turns=5)
    stage.kill()
    stage.start()
    stage.run(turns=60)
    assert [report.metrics["started_over"] for report in stage.got(Report)] == [True]


def test_another_run_starts_over(stage):
    stage.order(7, steps=4, run=1)
    stage.run()
    stage.order(1, steps=2, run=2)
    stage.order(1, steps=2, run=2)
    stage.run()
    np.testing.assert_allclose(stage.weights(), after(2), rtol=1e-5)
    assert [report.order for report in stage.got(Report)] == [7, 1]
    stage.kill()
    stage.start()
    stage.order(2, steps=0, run=2)
    stage.run()
    np.testing.assert_allclose(stage.weights(), after(2), rtol=1e-5)


def test_another_run_that_fails_at_once_does_not_bring_the_last_one_back(stage):
    stage.order(7, steps=4, run=1)
    stage.run()
    stage.order(1, steps=1, run=2, state={"scale.weight": np.array([1e30, 1], np.float32)})
    stage.run()
    assert "training has diverged" in stage.got(Report)[-1].metrics["failed"]
    stage.order(2, steps=2, run=2)
    stage.run()
    np.testing.assert_allclose(stage.weights(), after(2), rtol=1e-5)


def test_counters_go_on_after_a_restart(stage):
    stage.order(1)
    stage.run()
    stage.kill()
    stage.start()
    stage.order(2)
    stage.run()
    first, second = (report.metrics for report in stage.got(Report))
    assert second["flops"] == 2 * first["flops"]
    assert second["sent"] > first["sent"]
    assert (first["restarts"], second["restarts"]) == (0, 1)


@pytest.mark.parametrize("share", [0.2, 0.4, 0.6])
def test_lost_frames_delay_and_change_nothing(staged, share):
    # Not a short pattern: questions and answers could fall into step with it for ever.
    stage = staged(MemoryBroker(loss=tuple(np.random.default_rng(0).random(997) < share)))
    stage.order(send=(0, 1, 2, 3))
    stage.run(4000)
    assert sorted(message.step for message in stage.got(Activation)) == [0, 1, 2, 3]
    np.testing.assert_allclose(stage.weights(), after(4), rtol=1e-5)


def test_garbage_on_the_topic_is_counted_and_life_goes_on(stage):
    for payload in (b"", b"CL", b"\x00" * 50, b"CL\x02\x01" + b"x" * 40):
        stage.link.publish(topics.down(FLEET, NAME), payload)
    stage.order()
    stage.run()
    assert sum(stage.mailbox.refused.values()) == 4
    assert len(stage.got(Report)) == 1


def test_the_hubs_refusal_ends_the_device_with_its_sentence(stage):
    stage.tell(Refusal("another device named 'd1' is online", fatal=True, instance=1))
    with pytest.raises(RefusalError, match="another device named 'd1' is online"):
        stage.run()


def test_a_refusal_meant_for_another_process_is_not_ours(stage):
    stage.tell(Refusal("another device named 'd1' is online", fatal=True, instance=2))
    stage.order()
    stage.run()
    assert len(stage.got(Report)) == 1


def test_goodbye_ends_a_device_that_runs_once(staged):
    stage = staged(once=True)
    stage.tell(Goodbye("done"))
    stage.run()
    assert stage.agent.finished


def test_goodbye_leaves_others_waiting_for_the_next_run(stage):
    stage.tell(Goodbye("done"))
    stage.run()
    assert not stage.agent.finished
    stage.order()
    stage.run()
    assert len(stage.got(Report)) == 1


def test_a_full_disk_lets_nothing_leave_until_it_can_be_kept(stage, monkeypatch):
    waits = []
    monkeypatch.setattr("edge.agent.time.sleep", waits.append)
    stage.run(5)
    stage.outbox._database.execute("PRAGMA max_page_count=1")
    stage.order(send=(0,), state={"scale.weight": np.array([1, 2], np.float32)})
    monkeypatch.setattr(stage.outbox, "commit", _full)
    stage.run(10)
    assert stage.got(Activation) == []
    assert waits
    monkeypatch.undo()
    stage.outbox._database.execute("PRAGMA max_page_count=100000")
    stage.run()
    assert len(stage.got(Activation)) == 1
    np.testing.assert_allclose(stage.weights(), after(4), rtol=1e-5)


def _full():
    raise OutboxError("outbox.sqlite cannot be written: database or disk is full")
