"""What a device does where its outbox has no room."""

import numpy as np

from edge.memory_link import MemoryBroker
from edge.wire.messages import Activation, Report
from tests.edge.stage import after

ACTIVATION_BYTES = 18 + 5 + 8 + 5
"""Of one row of two floats: kind, place and purpose, the head of a tensor, two floats, one label with its head."""


def test_without_a_hub_the_oldest_activations_make_way_and_the_report_says_so(staged):
    stage = staged(outbox_bytes=3 * ACTIVATION_BYTES)
    stage.order(steps=40, send=tuple(range(0, 40, 2)))
    stage.run(1)
    stage.device_link.break_off()
    stage.run(20)
    stage.kill()
    stage.start(connected=False)
    stage.run(50)
    stage.device_link.open()
    stage.run()
    assert [message.step for message in stage.got(Activation)] == [34, 36, 38]
    np.testing.assert_allclose(stage.weights(), after(40), rtol=1e-4)
    (report,) = stage.got(Report)
    assert report.metrics["expired"] == 17
    assert report.metrics["expired_bytes"] == 17 * ACTIVATION_BYTES
    assert report.metrics["expired_steps"] == {"first": 0, "last": 32, "count": 17}
    stage.order(2, steps=1)
    stage.run()
    assert "expired_steps" not in stage.got(Report)[-1].metrics
    assert stage.got(Report)[-1].metrics["expired"] == 17


def test_an_order_that_wants_all_waits_for_room_even_without_a_hub(staged):
    stage = staged(outbox_bytes=3 * ACTIVATION_BYTES)
    stage.order(steps=40, send=tuple(range(0, 40, 2)), complete=True)
    stage.run(1)
    stage.device_link.break_off()
    stage.run(20)
    assert stage.agent._work.step < 40
    stage.kill()
    stage.start(connected=False)
    stage.run(20)
    stage.device_link.open()
    stage.run(80)
    assert sorted(message.step for message in stage.got(Activation)) == list(range(0, 40, 2))
    assert stage.got(Report)[0].metrics["expired"] == 0
    np.testing.assert_allclose(stage.weights(), after(40), rtol=1e-4)


def test_with_a_hub_it_waits_for_room(staged):
    stage = staged(outbox_bytes=4 * ACTIVATION_BYTES)
    stage.order(steps=8, send=tuple(range(8)))
    stage.run(4)
    deaf = stage.link.poll
    stage.link.poll = lambda timeout: []
    stage.run(20)
    assert stage.agent._work.step < 8
    stage.link.poll = deaf
    stage.run()
    assert sorted(message.step for message in stage.got(Activation)) == list(range(8))
    assert stage.got(Report)[0].metrics["expired"] == 0


def test_an_evaluation_waits_for_room_even_without_a_hub(staged):
    stage = staged(outbox_bytes=2 * ACTIVATION_BYTES)
    stage.order(kind="evaluate", steps=3, send=(0, 1, 2))
    stage.run(1)
    stage.device_link.break_off()
    stage.run(10)
    stage.device_link.open()
    stage.run()
    assert sorted(message.step for message in stage.got(Activation)) == [0, 1, 2]
    assert stage.got(Report)[0].metrics["expired"] == 0


def test_an_exchange_that_finds_no_room_says_so(staged):
    stage = staged(outbox_bytes=ACTIVATION_BYTES - 1)
    stage.order(kind="exchange", steps=1, send=(0,))
    stage.run()
    (report,) = stage.got(Report)
    assert "set outbox_bytes higher" in report.metrics["failed"]


def test_activations_of_another_run_are_given_up(staged):
    stage = staged()
    heard = stage.link.poll
    stage.order(7, steps=4, send=(0, 1), run=1)
    stage.run(1)
    stage.link.poll = lambda timeout: heard(timeout)[:0]  # nothing of it reaches the hub
    stage.run(4)
    stage.order(1, steps=1, send=(0,), run=2)
    stage.run(4)
    stage.link.poll = heard
    stage.run()
    assert [message.order for message in stage.got(Activation)] == [1]
    assert [report.metrics["expired"] for report in stage.got(Report)][-1] == 2


def test_the_report_counts_what_delivery_did_over_restarts(staged):
    stage = staged(broker=MemoryBroker(loss=(np.random.default_rng(0).random(1000) < 0.3).astype(int).tolist()))
    stage.order(steps=8, send=tuple(range(8)))
    stage.run(400)
    stage.kill()
    stage.start()
    stage.order(2, steps=1)
    stage.run(400)
    first, second = (report.metrics["delivery"] for report in stage.got(Report))
    assert first["frames_sent"] >= 8
    assert second["frames_sent"] > first["frames_sent"] > stage.mailbox.statistics()["frames_sent"]
    assert first["questions"] > 0
    assert first["frames_repeated"] > 0
    assert first.keys() <= {"frames_sent", "frames_repeated", "duplicates", "questions"}  # none was refused
