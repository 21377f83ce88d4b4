import io

import numpy as np
import pytest
import torch
from torch import nn

from hub.strategies.base import Batch, Fleet, Member, Stand
from hub.strategies.fedavg import FedAvg, FedAvgOptions

TWO = Fleet((Member("a", 10, 1), Member("b", 30, 3)))
BOTH = ("a", "b")


def begin(fleet=TWO, **options):
    strategy = FedAvg(FedAvgOptions(**options))
    return strategy, strategy.init(fleet, nn.Identity(), rounds=3, seed=0)


def weights(value):
    return {"w": np.float32([value])}


def play(strategy, state, number, given, present=BOTH):
    """One round in which the devices of `given` come with these weights; returns the state and what all were told."""
    state, orders = strategy.turn(state, number, 0, present)
    states = {name: weights(value) for name, value in given.items()}
    state = strategy.settle(state, number, 0, {name: {} for name in states}, states)
    assert strategy.turn(state, number, 1, present) == (state, None)
    return strategy.end_round(state, number), orders


def stored(strategy, state, fleet=TWO):
    file = io.BytesIO()
    torch.save(strategy.save(state), file)
    file.seek(0)
    return strategy.load(fleet, nn.Identity(), torch.load(file, weights_only=True))


def test_all_train_alone_for_an_epoch_of_their_own_and_give_their_weights():
    strategy, state = begin(lr=0.01, weight_decay=0.1)
    _, orders = strategy.turn(state, 0, 0, ("b", "a"))
    assert list(orders) == ["a", "b"]
    assert [(order.kind, order.first_step, order.send, order.give) for order in orders.values()] == [
        ("local", 0, (), ("lower",))
    ] * 2
    assert [order.steps for order in orders.values()] == [1, 3]
    assert [order.state for order in orders.values()] == [None, None]
    assert orders["a"].settings == orders["b"].settings == {"lr": 0.01, "weight_decay": 0.1}


def test_small_devices_may_recycle_their_samples():
    strategy, state = begin(steps="longest")
    _, orders = strategy.turn(state, 0, 0, BOTH)
    assert [order.steps for order in orders.values()] == [3, 3]


def test_the_mean_is_by_samples_and_everybody_gets_it():
    strategy, state = begin()
    state, _ = play(strategy, state, 0, {"a": 1, "b": 5})
    assert state.weights["w"].tolist() == [4]  # (10 · 1 + 30 · 5) / 40
    _, orders = play(strategy, state, 1, {})
    assert [order.state["w"].tolist() for order in orders.values()] == [[4], [4]]


def test_who_is_lost_has_no_part_and_returns_with_the_current_weights():
    strategy, state = begin()
    state, orders = play(strategy, state, 0, {"a": 1}, present=("a",))
    assert list(orders) == ["a"]
    state, orders = play(strategy, state, 1, {"a": 2})  # b was told to train, and never came
    assert orders["b"].state["w"].tolist() == [1]
    assert state.weights["w"].tolist() == [2]
    state, _ = play(strategy, state, 2, {"b": 7})
    assert state.weights["w"].tolist() == [7]


def test_where_nobody_comes_the_weights_stay():
    strategy, state = begin()
    state, orders = play(strategy, state, 0, {}, present=())
    assert orders == {}
    state, orders = play(strategy, state, 1, {})
    assert orders["a"].state is None
    state, _ = play(strategy, state, 2, {"a": 3})
    state, _ = play(strategy, state, 3, {})
    assert state.weights["w"].tolist() == [3]


def test_everybody_is_evaluated_with_the_mean_and_strangers_too():
    strategy, state = begin()
    assert strategy.stand(state, "a", BOTH) == Stand()
    state, _ = play(strategy, state, 0, {"a": 1, "b": 5})
    for name in ("a", "b", "stranger"):
        assert strategy.stand(state, name, BOTH).lower["w"].tolist() == [4]
        logits = torch.tensor([[0.1, 2.0]])
        assert torch.equal(strategy.predict(state, name, logits), logits)


def test_activations_are_refused():
    strategy, state = begin()
    with pytest.raises(RuntimeError, match="FedAvg trains the whole model on the devices"):
        strategy.learn(state, 0, 0, {"a": Batch(torch.zeros(1, 2), torch.tensor([0]))})
    assert strategy.samples(state) == 0


def test_a_run_that_was_stored_goes_on_the_same_way():
    chance = np.random.default_rng(0).normal(size=(5, 2))

    def run(between):
        strategy, state = begin()
        for number, (a, b) in enumerate(chance):
            state = between(strategy, state)
            state, _ = play(strategy, state, number, {"a": a, "b": b} if number != 2 else {"b": b})
        return state.weights["w"].tobytes()

    assert run(stored) == run(lambda _strategy, state: state)


def test_a_checkpoint_of_other_devices_is_refused():
    strategy, state = begin()
    with pytest.raises(ValueError, match="was made for the devices a, b; these are a, c"):
        stored(strategy, state, Fleet((Member("a", 10, 1), Member("c", 30, 3))))


def test_the_optimizer_is_a_choice_and_the_momentum_is_always_said():
    assert (begin()[0].objective, begin()[0].optimizer) == ("whole", "adam")
    strategy, state = begin(optimizer="sgd", lr=0.1)
    assert strategy.optimizer == "sgd"
    _, orders = strategy.turn(state, 0, 0, BOTH)
    assert orders["a"].settings == {"lr": 0.1, "weight_decay": 1e-5, "momentum": 0.0}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"optimizer": "adamw"}, "optimizer = 'adamw': must be one of sgd, adam"),
        ({"lr": -1}, "lr = -1: must be from 0 to 10"),
        ({"steps": "two"}, "steps = 'two': must be one of own, longest"),
        ({"momentum": 0.9}, "momentum = 0.9: only sgd has it"),
    ],
)
def test_wrong_options_are_named_with_what_would_be_right(options, words):
    with pytest.raises(ValueError, match=words):
        FedAvg(FedAvgOptions(**options))
