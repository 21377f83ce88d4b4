"""A device that loses its hub in the middle of a run learns on, and is back in time for the turn in progress."""

import numpy as np
import pytest

from hub.strategies.base import Order
from tests.hub.test_orchestrator import Everybody, Field, gathered


class Outage(Field):
    """Devices without a link work as well, as they do in the world."""

    def tick(self, timeout):
        for board in self.boards.values():
            if not board.link.connected:
                board.agent.turn(lambda: self.now)
        return super().tick(timeout)


@pytest.fixture
def field(tmp_path):
    field = Outage(tmp_path, ["a", "b"])
    yield field
    for board in field.boards.values():
        board.kill()


def steps_done(board):
    """How often lr·x² went off the weights: of feature 0, by the logarithm of what is left of it."""
    batches = [np.log(1 - 0.01 * (9 + 1)), np.log(1 - 0.01 * (25 + 4))]  # rows 0 and 1, then rows 2 and 3
    left, steps = np.log(board.agent._segment.tensors({"lower"})["scale.weight"][0]), 0
    while left < -1e-4:
        left -= batches[steps % 2]
        steps += 1
    return steps


def test_what_a_strategy_allows_reaches_the_device(field):
    strategy = Everybody(Order(kind="local", first_step=0, steps=2, beyond=4))
    orchestrator, fleet = gathered(field, strategy, grace_seconds=5.0)
    orchestrator.train([], fleet, 0)
    assert [steps_done(board) for board in field.boards.values()] == [2, 2]
    away = field.boards["b"].link
    away.break_off()
    for _ in range(30):
        field.tick(0)
    assert [steps_done(board) for board in field.boards.values()] == [2, 6]
    away.open()
    _, learned = orchestrator.train([], fleet, 1)
    while "b" not in strategy.turns[-1]:  # its hello may be later than the next round
        _, learned = orchestrator.train([], fleet, len(strategy.turns))
    assert learned.late == set()
    assert strategy.reports["b"]["beyond_steps"] == 4
    assert strategy.reports["b"]["steps"] == 2
    assert strategy.reports["a"]["beyond_steps"] == 0
