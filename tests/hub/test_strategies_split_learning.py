import io

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from hub.strategies import STRATEGIES
from hub.strategies.base import Batch, Fleet, Member
from hub.strategies.split_learning import SplitLearning, SplitLearningOptions

THREE = Fleet((Member("a", 5, 3), Member("b", 2, 1), Member("c", 4, 2)))
EVERYBODY = ("a", "b", "c")


def begin(fleet=THREE, **options):
    strategy = SplitLearning(SplitLearningOptions(**options))
    torch.manual_seed(0)
    return strategy, strategy.init(fleet, nn.Linear(4, 2), rounds=3, seed=0)


def turns(strategy, state, number, present=EVERYBODY, *, lost=()):
    """One round in which every device leaves its own name as weights; returns (device, steps, weights it was given)."""
    told = []
    while True:
        here = present(len(told)) if callable(present) else present
        state, orders = strategy.turn(state, number, len(told), here)
        if orders is None:
            return state, told
        ((name, order),) = orders.items()
        given = {} if name in lost else {name: {"w": np.array([EVERYBODY.index(name)])}}
        state = strategy.settle(state, number, len(told), {key: {} for key in given}, given)
        told.append((name, order.send, None if order.state is None else EVERYBODY[order.state["w"][0]]))


def test_it_is_in_the_table_of_strategies():
    assert STRATEGIES["split_learning"] is SplitLearning
    assert SplitLearning(SplitLearningOptions()).objective == "gradient"


def test_the_lower_segment_travels_from_epoch_to_epoch():
    strategy, state = begin()
    state, told = turns(strategy, state, 0)
    assert told == [("a", (0, 1, 2), None), ("b", (0,), "a"), ("c", (0, 1), "b")]
    state, told = turns(strategy, state, 1)
    assert told[0] == ("a", (0, 1, 2), "c")


def test_with_a_turn_a_batch_short_devices_drop_out_and_nobody_gets_what_he_has():
    strategy, state = begin(turns="batch")
    state, told = turns(strategy, state, 0)
    assert told == [
        ("a", (0,), None),
        ("b", (0,), "a"),
        ("c", (0,), "b"),
        ("a", (1,), "c"),
        ("c", (1,), "a"),
        ("a", (2,), "c"),
    ]
    _, told = turns(strategy, state, 1)
    assert told[0] == ("a", (0,), None)  # a was the last to have it


def test_every_step_is_an_exchange_and_the_weights_are_wanted_back():
    strategy, state = begin(lr=0.01, weight_decay=0.1)
    _, orders = strategy.turn(state, 0, 0, EVERYBODY)
    order = orders["a"]
    assert (order.kind, order.first_step, order.steps, order.give) == ("exchange", 0, 3, ("lower",))
    assert order.settings == {"lr": 0.01, "weight_decay": 0.1}


def test_a_missing_device_is_skipped_and_returns_with_the_current_weights():
    strategy, state = begin()
    state, told = turns(strategy, state, 0, present=("a", "c"))
    assert [name for name, *_ in told] == ["a", "c"]
    assert told[1] == ("c", (0, 1), "a")
    state, told = turns(strategy, state, 1)
    assert told[1] == ("b", (0,), "a")


def test_who_comes_back_in_mid_round_still_has_its_turn():
    strategy, state = begin()
    _, told = turns(strategy, state, 0, present=lambda turn: ("a",) if turn == 0 else EVERYBODY)
    assert [name for name, *_ in told] == ["a", "b", "c"]


def test_a_device_lost_in_its_turn_leaves_the_weights_as_they_were():
    strategy, state = begin()
    state, told = turns(strategy, state, 0, lost=("b",))
    assert told[2] == ("c", (0, 1), "a")


def test_nobody_there_ends_the_round():
    strategy, state = begin()
    assert turns(strategy, state, 0, present=())[1] == []


@pytest.mark.parametrize("granularity", ["epoch", "batch"])
def test_one_device_is_the_uncut_model(granularity):
    torch.manual_seed(0)
    lower, upper = nn.Linear(3, 4), nn.Linear(4, 2)
    whole = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    whole[0].load_state_dict(lower.state_dict())
    whole[1].load_state_dict(upper.state_dict())
    strategy = SplitLearning(SplitLearningOptions(turns=granularity, lr=0.01))
    state = strategy.init(Fleet((Member("a", 40, 20),)), upper, rounds=1, seed=0)
    down = torch.optim.Adam(lower.parameters(), lr=0.01, weight_decay=1e-5)
    uncut = torch.optim.Adam(whole.parameters(), lr=0.01, weight_decay=1e-5)
    turn = 0
    while (told := strategy.turn(state, 0, turn, ["a"]))[1] is not None:
        state, orders = told
        for step in orders["a"].send:
            x, y = torch.randn(8, 3), torch.randint(0, 2, (8,))
            smashed = lower(x)
            state, lessons = strategy.learn(state, 0, step, {"a": Batch(smashed.detach(), y)})
            learned = lessons["a"]
            down.zero_grad()
            smashed.backward(learned.gradient)
            down.step()
            uncut.zero_grad()
            functional.cross_entropy(whole(x), y).backward()
            uncut.step()
        state = strategy.settle(state, 0, turn, {"a": {}}, {"a": {"w": np.zeros(1)}})
        turn += 1
    assert state.upper.steps == 20
    torch.testing.assert_close(lower.weight, whole[0].weight, atol=1e-5, rtol=1e-5)
    x = torch.randn(8, 3)
    torch.testing.assert_close(strategy.predict(state, "a", lower(x).detach()), whole(x).detach(), atol=1e-5, rtol=1e-5)


def test_a_run_that_was_stored_goes_on_the_same_way():
    strategy, state = begin(turns="batch")
    state, _ = turns(strategy, state, 0)
    state, _ = strategy.learn(state, 0, 0, {"a": Batch(torch.ones(1, 4), torch.tensor([1]))})
    file = io.BytesIO()
    torch.save(strategy.save(state), file)
    file.seek(0)
    resumed = strategy.load(THREE, nn.Linear(4, 2), torch.load(file, weights_only=True))
    assert torch.equal(resumed.upper.weights, state.upper.weights)
    assert turns(strategy, resumed, 1)[1] == turns(strategy, state, 1)[1]


def test_before_its_first_turn_a_run_can_be_stored_too():
    strategy, state = begin()
    resumed = strategy.load(THREE, nn.Linear(4, 2), strategy.save(state))
    assert turns(strategy, resumed, 0)[1][0] == ("a", (0, 1, 2), None)


def test_wrong_options_are_named_with_their_range():
    with pytest.raises(ValueError, match="turns = 'week': must be one of epoch, batch"):
        SplitLearning(SplitLearningOptions(turns="week"))
    with pytest.raises(ValueError, match="lr = -1: must be from 0 to 10"):
        SplitLearning(SplitLearningOptions(lr=-1))
