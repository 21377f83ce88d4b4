import numpy as np
import pytest
import torch
from torch import nn

from hub.strategies.base import Batch, Fleet, Member, Stand
from hub.strategies.fedavg import FedAvg, FedAvgOptions
from hub.strategies.locsplitfed import LocSplitFed, LocSplitFedOptions
from hub.strategies.sides import ask_for_weights, without_head

THREE = Fleet((Member("a", 10, 1), Member("b", 30, 3), Member("c", 60, 6)))


def fedavg(**options):
    strategy = FedAvg(FedAvgOptions(**options))
    return strategy, strategy.init(THREE, nn.Identity(), rounds=1, seed=0)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, [1, 3, 6]),
        ({"steps": "longest"}, [6, 6, 6]),
        ({"epochs": 5}, [5, 15, 30]),
        ({"epochs": 2, "steps": "longest"}, [12, 12, 12]),
    ],
)
def test_a_round_of_an_uncut_model_is_so_many_epochs(options, steps):
    strategy, state = fedavg(**options)
    _, orders = strategy.turn(state, 0, 0, THREE.names)
    assert [order.steps for order in orders.values()] == steps


def test_an_epoch_more_or_less_is_named_with_its_range():
    with pytest.raises(ValueError, match="epochs = 0: must be from 1 to 10000"):
        fedavg(epochs=0)


def test_one_device_after_another_is_asked_for_its_weights_and_none_trains():
    asked = [ask_for_weights(THREE, turn, ["c", "b"]) for turn in range(4)]
    assert [list(orders) for orders in asked[:3]] == [["b"], ["c"], ["b"]]
    assert asked[3] is None
    order = asked[0]["b"]
    assert (order.kind, order.steps, order.send, order.state, order.give) == ("local", 0, (), None, ("lower",))
    assert ask_for_weights(THREE, 0, []) is None


def test_an_uncut_model_has_nothing_for_the_hub_to_learn():
    strategy, state = fedavg()
    logits = torch.tensor([[1.0, 2.0]])
    assert torch.equal(strategy.predict(state, "stranger", logits), logits)
    assert strategy.samples(state) == 0
    with pytest.raises(
        RuntimeError, match=r"FedAvg trains the whole model on the devices: .* of a \(step 3 of round 2\)"
    ):
        strategy.learn(state, 2, 3, {"a": Batch(logits, torch.tensor([0]))})


def test_before_there_is_a_mean_a_stranger_gets_the_lower_segment_of_who_has_most_samples():
    strategy = LocSplitFed(LocSplitFedOptions())
    state = strategy.init(THREE, nn.Linear(2, 2), rounds=1, seed=0)
    assert strategy.stand(state, "b", ["a", "b"]) == Stand()
    assert strategy.stand(state, "stranger", ["a", "b"]) == Stand(donor="b")
    assert strategy.stand(state, "stranger", []) == Stand()
    state = strategy.settle(state, 0, 0, {}, {"a": {"w": np.float32([2]), "head.w": np.float32([3])}})
    for name in ("b", "stranger"):
        assert {key: array.tolist() for key, array in strategy.stand(state, name, ["a"]).lower.items()} == {"w": [2]}


def test_a_head_is_left_out():
    assert without_head({"w": np.zeros(1), "head.w": np.zeros(1), "header": np.zeros(1)}).keys() == {"w", "header"}
    assert without_head(None) is None
