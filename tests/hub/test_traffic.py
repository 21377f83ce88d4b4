"""What `cutlayer-export cuts` says that a round has, against what the strategies order."""

from collections import Counter

import numpy as np
import pytest
from torch import nn

from export.cuts.strategies import STRATEGIES as ROUNDS
from export.cuts.strategies import WHOLE, Plan, round_of
from hub.strategies import STRATEGIES
from hub.strategies.base import Fleet, Member

PLAN = Plan(batches=6, rounds=10, devices=5)
FLEET = Fleet(tuple(Member(f"device-{i}", 6 * 32, 6) for i in range(5)))
LOWER = {"conv.weight": np.zeros((2, 2), np.float32)}


def ordered(name):
    """Means of a device's round, of the orders of a whole run with every device there."""
    strategy = STRATEGIES[name](STRATEGIES[name].options())
    state = strategy.init(FLEET, nn.Linear(3, 2), rounds=PLAN.rounds, seed=0)
    total = Counter()
    for number in range(PLAN.rounds):
        for turn in range(1000):
            state, orders = strategy.turn(state, number, turn, FLEET.names)
            if orders is None:
                break
            given = {}
            for device, order in orders.items():
                kinds = ("forward", "backward") if order.kind == "exchange" else (order.kind,)
                total.update(dict.fromkeys(kinds, order.steps))
                total["uploads"] += len(order.send)
                total["gradients"] += len(order.send) if order.kind == "exchange" else 0
                total["weights_up"] += bool(order.give)
                total["weights_down"] += order.state is not None
                total["orders"] += 1
                if order.give:
                    given[device] = LOWER
            state = strategy.settle(state, number, turn, {device: {} for device in orders}, given)
        if name != "one_shot":  # its hub trains at the end, and has nothing here to train on
            state = strategy.end_round(state, number)
    return {key: count / PLAN.rounds / PLAN.devices for key, count in total.items() if count}


@pytest.mark.parametrize("name", sorted(ROUNDS))
def test_a_round_has_what_the_strategy_orders(name):
    found = round_of(name, PLAN)
    told = {key: getattr(found, key) for key in ("uploads", "gradients", "weights_up", "weights_down", "orders")}
    wanted = {key: value for key, value in {**found.runs, **told}.items() if value}
    assert ordered(name) == pytest.approx(wanted, rel=0.03)


@pytest.mark.parametrize("name", sorted(ROUNDS))
def test_the_bundle_is_the_one_that_the_strategy_wants(name):
    assert round_of(name, PLAN).objective == STRATEGIES[name](STRATEGIES[name].options()).objective


def test_every_strategy_is_there():
    assert {*ROUNDS, *WHOLE} == set(STRATEGIES)
