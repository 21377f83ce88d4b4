"""Steps of a device while its hub is away."""

import numpy as np
import pytest

from edge.wire.messages import Goodbye, Report, State
from tests.edge.stage import ROWS, after


def trained(weights, steps):
    """Weights after steps on rows 0, 1, … from given ones."""
    for step in range(steps):
        weights = weights * (1 - 0.01 * ROWS[step % 4] ** 2)
    return weights


def carried_out(staged, **fields):
    """A device that has done its order of four steps, as the hub knows."""
    stage = staged(checkpoint_steps=4)
    stage.order(**fields)
    stage.run()
    return stage


def test_without_a_link_it_goes_on_for_as_many_steps_as_it_may(staged):
    stage = carried_out(staged, beyond=6)
    np.testing.assert_allclose(stage.weights(), after(4), rtol=1e-5)  # not while the hub is there
    before = len(stage.inbox)
    stage.device_link.break_off()
    stage.run(3)
    np.testing.assert_allclose(stage.weights(), after(7), rtol=1e-5)
    stage.run()
    np.testing.assert_allclose(stage.weights(), after(10), rtol=1e-5)
    stage.device_link.open()
    stage.run()
    np.testing.assert_allclose(stage.weights(), after(10), rtol=1e-5)
    assert len(stage.inbox) == before  # and nothing of it leaves


def test_with_a_hub_that_says_it_is_offline_too(staged):
    stage = carried_out(staged, beyond=6)
    stage.announce(7, online=False)
    stage.run()
    np.testing.assert_allclose(stage.weights(), after(10), rtol=1e-5)


def test_it_begins_when_the_link_went_before_the_order_was_done(stage):
    stage.order(beyond=3)
    stage.run(1)
    stage.device_link.break_off()
    stage.run()
    np.testing.assert_allclose(stage.weights(), after(7), rtol=1e-5)
    stage.device_link.open()
    stage.run()
    (report,) = stage.got(Report)
    assert (report.metrics["steps"], report.metrics["beyond_steps"]) == (4, 0)


def test_the_next_order_comes_between_two_steps(staged):
    stage = carried_out(staged, beyond=1000)
    stage.device_link.break_off()
    stage.run(5)
    stage.device_link.open()
    stage.order(2, steps=2, give=("lower",))
    stage.run(12)
    report = stage.got(Report)[-1]
    assert report.order == 2
    assert (report.metrics["steps"], report.metrics["beyond_steps"]) == (2, 5)
    assert report.metrics["flops"] == (4 + 5 + 2) * 6
    np.testing.assert_allclose(stage.got(State)[0].state["scale.weight"], trained(after(9), 2), rtol=1e-5)
    stage.device_link.break_off()
    stage.run()  # the second order allows none
    np.testing.assert_allclose(stage.weights(), trained(after(9), 2), rtol=1e-5)


@pytest.mark.parametrize("turns", range(1, 12))
def test_a_power_cut_while_the_hub_is_away_repeats_nothing(staged, turns):
    stage = carried_out(staged, beyond=6)
    stage.device_link.break_off()
    stage.run(turns)
    stage.kill()
    stage.start(connected=False)
    stage.run()
    np.testing.assert_allclose(stage.weights(), after(10), rtol=1e-5)
    stage.device_link.open()
    stage.order(2, steps=0)
    stage.run()
    assert stage.got(Report)[-1].metrics["beyond_steps"] == 6
    assert len(stage.got(Report)) == 2


@pytest.mark.parametrize("turns", range(1, 12))
def test_a_power_cut_takes_back_steps_and_their_count_together(staged, turns):
    stage = carried_out(staged, beyond=1000)
    stage.device_link.break_off()
    stage.run(turns)
    stage.kill()
    stage.start()
    stage.order(2, steps=0)
    stage.run()
    done = stage.got(Report)[-1].metrics["beyond_steps"]
    assert turns - 4 < done <= turns + 4  # what a checkpoint is behind; and the hub is noticed after a turn or two
    np.testing.assert_allclose(stage.weights(), after(4 + done), rtol=1e-5)


def test_what_was_learned_alone_is_kept_as_soon_as_the_hub_is_back(staged):
    stage = carried_out(staged, beyond=1000)
    stage.device_link.break_off()
    stage.run(3)
    stage.device_link.open()
    stage.run(2)
    stage.kill()
    stage.start()
    np.testing.assert_allclose(stage.weights(), after(7), rtol=1e-5)


def test_an_order_without_steps_beyond_waits_as_ever(staged):
    stage = carried_out(staged)
    stage.device_link.break_off()
    stage.run()
    np.testing.assert_allclose(stage.weights(), after(4), rtol=1e-5)
    assert stage.outbox.received("spare") is None


def test_an_evaluation_between_does_not_end_it_and_weights_do(staged):
    stage = carried_out(staged, beyond=2)
    stage.order(2, kind="evaluate", steps=1, send=(0,))
    stage.run()
    stage.device_link.break_off()
    stage.run()
    np.testing.assert_allclose(stage.weights(), after(6), rtol=1e-5)
    stage.device_link.open()
    stage.order(3, beyond=2)
    stage.order(4, kind="evaluate", steps=1, send=(0,), state={"scale.weight": np.array([3, 5], np.float32)})
    stage.run()
    stage.device_link.break_off()
    stage.run()
    np.testing.assert_array_equal(stage.weights(), [3, 5])


def test_goodbye_and_another_run_end_it(staged):
    stage = carried_out(staged, beyond=2, run=1)
    stage.order(1, steps=2, run=2)
    stage.run()
    stage.device_link.break_off()
    stage.run()
    np.testing.assert_allclose(stage.weights(), after(2), rtol=1e-5)
    stage.device_link.open()
    stage.order(2, steps=0, beyond=2, run=2)
    stage.tell(Goodbye("done"))
    stage.run()
    stage.device_link.break_off()
    stage.run()
    np.testing.assert_allclose(stage.weights(), after(2), rtol=1e-5)


def test_alone_it_diverges_without_a_word_and_goes_back(staged):
    stage = carried_out(staged, settings={"lr": 0.5}, beyond=1000)
    stage.device_link.break_off()
    stage.run(60)
    assert np.isfinite(stage.weights()).all()
    stage.device_link.open()
    stage.order(2, steps=1, settings={"lr": 0.0})
    stage.run()
    assert [report.metrics.get("failed") for report in stage.got(Report)] == [None, None]
