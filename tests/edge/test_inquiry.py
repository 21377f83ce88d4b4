"""A device that is asked for a profile of its board, against a hub played by hand."""

import numpy as np
import pytest

from edge.profiler import Found
from edge.wire.inquiry import PACKED_LIMIT, Answer, Inquiry
from edge.wire.messages import Activation, Goodbye, Order, Report
from tests.edge.stage import after
from tests.edge.wire.test_inquiry import noise

ASKED = Inquiry(5, (32,), (1,), ("float32",), 3.0, 600.0)


class Bench:
    """A profiler that is done when the test says so."""

    def __init__(self):
        self.started, self.ended, self.found, self.broken = [], 0, None, None

    def start(self, inquiry):
        if self.broken:
            raise self.broken
        self.started.append(inquiry.number)

    def look(self):
        return self.found

    def end(self):
        self.ended += 1


@pytest.fixture
def bench():
    return Bench()


@pytest.fixture
def stage(staged, bench):
    return staged(profiler=bench)


def test_the_profile_comes_up_once(stage, bench):
    stage.tell(ASKED)
    stage.run(4)
    assert bench.started == [5]
    assert stage.got(Answer) == []
    bench.found = Found("{}")
    stage.run(8)
    assert stage.got(Answer) == [Answer(5, "{}")]
    assert bench.ended == 1
    stage.tell(ASKED)  # the hub was not sure that it was heard
    stage.run(8)
    assert (stage.got(Answer), bench.started) == ([Answer(5, "{}")], [5])


def test_no_step_is_done_meanwhile_and_the_link_goes_on(stage, bench):
    stage.tell(ASKED)
    stage.run(4)
    stage.order(steps=4)
    stage.run(20)
    np.testing.assert_array_equal(stage.weights(), [1, 2])
    assert stage.delivery.idle  # the order is acknowledged
    bench.found = Found("{}")
    stage.run(20)
    np.testing.assert_allclose(stage.weights(), after(4), rtol=1e-5)
    assert len(stage.got(Report)) == 1


def test_a_busy_device_answers_after_its_order(stage, bench):
    stage.order(steps=30, send=(29,))
    stage.run(4)
    stage.tell(ASKED)
    stage.run(10)
    assert bench.started == []
    bench.found = Found("{}")
    stage.run(60)
    assert [type(message) for message in stage.inbox[1:]] == [Activation, Report, Answer]
    np.testing.assert_allclose(stage.weights(), after(30), rtol=1e-4)


def test_a_device_that_waits_for_a_gradient_is_not_busy(stage, bench):
    stage.order(kind="exchange", steps=1, send=(0,))
    stage.run(4)
    stage.tell(ASKED)
    stage.run(4)
    assert bench.started == [5]


@pytest.mark.parametrize("turns", range(1, 9))
def test_a_power_cut_at_any_turn_makes_one_answer(stage, bench, turns):
    stage.tell(ASKED)
    stage.run(turns)
    bench.found = Found("{}") if turns > 4 else None
    stage.run(1)
    stage.kill()
    stage.start()
    bench.found = Found("{}")
    stage.run(40)
    assert stage.got(Answer) == [Answer(5, "{}")]
    assert set(bench.started) == {5}


def test_a_power_cut_in_a_profile_begins_it_again(stage, bench):
    stage.tell(ASKED)
    stage.run(4)
    stage.kill()
    stage.start()
    stage.run(4)
    assert bench.started == [5, 5]


def test_a_hub_that_was_restarted_asks_anew_and_is_the_one_that_is_answered(stage, bench):
    stage.tell(ASKED)
    stage.run(4)
    stage.tell(Inquiry(6, (1,), (), (), 1.0, 60.0))
    stage.run(4)
    assert (bench.started, bench.ended) == ([5, 6], 1)
    bench.found = Found("{}")
    stage.run(10)
    assert stage.got(Answer) == [Answer(6, "{}")]


def test_goodbye_ends_it_without_an_answer(stage, bench):
    stage.tell(ASKED)
    stage.run(4)
    stage.tell(Goodbye("that was all"))
    stage.run(4)
    bench.found = Found("{}")
    stage.run(10)
    assert (bench.ended, stage.got(Answer)) == (1, [])
    stage.kill()
    stage.start()
    stage.run(10)
    assert bench.started == [5]


def test_a_profiler_that_dies_or_does_not_start_is_a_reason(stage, bench):
    stage.tell(ASKED)
    bench.found = Found(reason="the profiler ended with code 1: no memory")
    stage.run(10)
    bench.broken = OSError(2, "No such file or directory")
    stage.tell(Inquiry(6, (), (), (), 1.0, 60.0))
    stage.run(10)
    assert [answer.reason for answer in stage.got(Answer)] == [
        "the profiler ended with code 1: no memory",
        "the profiler does not start: [Errno 2] No such file or directory",
    ]


def test_a_device_without_a_profiler_says_so(staged):
    stage = staged()
    stage.tell(ASKED)
    stage.run(10)
    assert stage.got(Answer) == [Answer(5, reason="this device has no profiler")]


def test_a_profile_that_is_too_long_is_a_reason(stage, bench):
    stage.tell(ASKED)
    bench.found = Found(noise(2 * PACKED_LIMIT))
    stage.run(10)
    (answer,) = stage.got(Answer)
    assert answer.reason.startswith("the profile cannot be sent: packed profile of")


@pytest.mark.parametrize(("budget", "fits"), [(30_000, True), (8_000, False)])
def test_a_profile_is_paid_from_the_budget(staged, bench, budget, fits):
    stage = staged(profiler=bench, budget={"up_per_run": budget})
    text = noise(12_000)  # some 9 kB packed
    bench.found = Found(text)
    stage.tell(ASKED)
    stage.run(60)
    (answer,) = stage.got(Answer)
    if fits:
        assert answer.text == text
    else:
        assert answer.reason.startswith("the profile of 9")
        assert "is not sent: the budget leaves" in answer.reason
    stage.order(steps=1)
    stage.run(20)
    assert len(stage.got(Report)) == 1  # there is always something left for that


def test_an_order_is_kept_through_a_profile_and_a_power_cut(stage, bench):
    stage.tell(ASKED)
    stage.run(4)
    stage.order(steps=4)
    stage.run(4)
    stage.kill()
    stage.start()
    bench.found = Found("{}")
    stage.run(40)
    assert [type(message) for message in stage.inbox].count(Report) == 1
    np.testing.assert_allclose(stage.weights(), after(4), rtol=1e-5)
    assert Order not in map(type, stage.inbox)
