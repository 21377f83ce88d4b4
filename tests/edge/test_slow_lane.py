"""The lane's pipe is played by the test: it says when it wants more, and what it was handed."""

import queue

import pytest

from edge.slow_lane import SlowLane


class Pipe:
    def __init__(self):
        self.asked, self.wants, self.handed = queue.Queue(), queue.Queue(), queue.Queue()
        self.lane = SlowLane(self.ready, lambda topic, payload, _timeout: self.handed.put((topic, payload)))

    def ready(self, _timeout):
        self.asked.put(True)
        return self.wants.get(timeout=30)

    def take(self):
        """Be ready once, and return what comes."""
        self.asked.get(timeout=30)
        self.wants.put(True)
        return self.handed.get(timeout=30)


@pytest.fixture
def pipe():
    pipe = Pipe()
    yield pipe
    pipe.lane.close()
    pipe.wants.put(False)


def test_bulk_waits_until_the_pipe_wants_more_and_keeps_its_order(pipe):
    pipe.lane.put("a", b"1")
    pipe.lane.put("b", b"2")
    pipe.asked.get(timeout=30)
    pipe.wants.put(False)
    assert pipe.take() == ("a", b"1")
    assert pipe.take() == ("b", b"2")
    assert pipe.handed.empty()


def test_a_broken_pipe_loses_what_waits_and_nothing_after(pipe):
    pipe.lane.put("a", b"1")
    pipe.asked.get(timeout=30)
    pipe.lane.clear()
    pipe.lane.put("a", b"2")
    pipe.wants.put(True)
    assert pipe.handed.get(timeout=30) == ("a", b"2")


def test_a_closed_lane_hands_over_nothing(pipe):
    pipe.lane.put("a", b"1")
    pipe.asked.get(timeout=30)
    pipe.lane.close()
    pipe.lane.put("a", b"2")
    pipe.wants.put(True)
    pipe.lane._thread.join(30)
    assert not pipe.lane._thread.is_alive()
    assert pipe.handed.empty()
