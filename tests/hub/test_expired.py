"""Activations that a device had no room for: the turn ends without them."""

import pytest

from edge.mailbox import Mailbox
from hub.strategies.base import Order
from tests.hub import test_orchestrator
from tests.hub.test_offline_steps import Outage
from tests.hub.test_orchestrator import Everybody, gathered

SIZE = 18 + 5 + 16 + 7
"""Bytes of an activation of two rows of two floats."""


@pytest.fixture
def field(tmp_path, monkeypatch):
    monkeypatch.setattr(test_orchestrator, "Mailbox", lambda *a, **k: Mailbox(*a, **k, outbox_bytes=3 * SIZE))
    field = Outage(tmp_path, ["a", "b"])
    yield field
    for board in field.boards.values():
        board.kill()


def test_the_turn_does_not_wait_for_what_was_given_up(field):
    strategy = Everybody(Order(kind="local", first_step=0, steps=12, send=tuple(range(12))))
    orchestrator, fleet = gathered(field, strategy, turn_seconds=1e5, grace_seconds=1e5)
    began = field.now

    def outage():
        link = field.boards["b"].link
        if link.connected and began + 0.25 < field.now < began + 3:
            link.break_off()
        elif not link.connected and field.now > began + 5:
            link.open()

    field.events.append(outage)
    state, learned = orchestrator.train([], fleet, 0)
    assert learned.late == set()
    assert learned.selected["a"] == 12
    came = [step for _, step, name in state if name == "b"]
    report = strategy.reports["b"]
    assert came == [0, 9, 10, 11]  # step 0 had come, and was given up before its device knew
    assert report["expired_steps"] == {"first": 0, "last": 8, "count": 9}
    assert field.now < 100
