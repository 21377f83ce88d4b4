import io

import numpy as np
import pytest
import torch
from torch import nn

from hub.strategies.base import Batch, Fleet, Member, Stand
from hub.strategies.fedavg import FedAvg, FedAvgOptions
from hub.strategies.fednova import FedNova, FedNovaOptions

TWO = Fleet((Member("a", 10, 1), Member("b", 30, 2)))
BOTH = ("a", "b")


def begin(fleet=TWO, **options):
    strategy = FedNova(FedNovaOptions(**options))
    return strategy, strategy.init(fleet, nn.Identity(), rounds=3, seed=0)


def weights(value):
    return {"w": np.atleast_1d(np.float32(value))}


def told(strategy, state, first=10):
    """The turn in which a device tells its first weights."""
    state, orders = strategy.turn(state, 0, 0, BOTH)
    return strategy.settle(state, 0, 0, {}, {name: weights(first) for name in orders})


def play(strategy, state, number, given, present=BOTH):
    """One training turn; returns the state and what all were told."""
    state, orders = strategy.turn(state, number, 1, present)
    state = strategy.settle(state, number, 1, {}, {name: weights(value) for name, value in given.items()})
    assert strategy.turn(state, number, 2, present)[1] is None
    return state, orders


def stored(strategy, state):
    file = io.BytesIO()
    torch.save(strategy.save(state), file)
    file.seek(0)
    return strategy.load(TWO, nn.Identity(), torch.load(file, weights_only=True))


def test_one_device_tells_the_first_weights_and_nobody_is_sent_what_he_has():
    strategy, state = begin(lr=0.01, momentum=0.5)
    state, orders = strategy.turn(state, 0, 0, BOTH)
    assert [(name, order.steps, order.give) for name, order in orders.items()] == [("a", 0, ("lower",))]
    state = strategy.settle(state, 0, 0, {}, {"a": weights(10)})
    state, orders = strategy.turn(state, 0, 1, BOTH)
    assert [(name, order.kind, order.steps, order.send) for name, order in orders.items()] == [
        ("a", "local", 1, ()),
        ("b", "local", 2, ()),
    ]
    assert [(order.state, order.give) for order in orders.values()] == [(None, ("lower",))] * 2
    assert orders["a"].settings == {"lr": 0.01, "momentum": 0.5, "weight_decay": 1e-5}


def test_unequal_steps_by_hand():
    strategy, state = begin(momentum=0.0)
    state, _ = play(strategy, told(strategy, state), 0, {"a": 8, "b": 4})
    # p = (¼, ¾), a = (1, 2), d = (2, 3): 10 - (¼·1 + ¾·2) · (¼·2 + ¾·3)
    assert state.weights["w"].tolist() == [10 - 1.75 * 2.75]
    _, orders = play(strategy, state, 1, {})
    assert [order.state["w"].tolist() for order in orders.values()] == [[5.1875], [5.1875]]


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        ({"b": {"steps": 1}}, 10 - 1.0 * (0.25 * 2 + 0.75 * 6)),  # a = (1, 1), d = (2, 6)
        ({"a": {"steps": 1}, "b": {"steps": 2}}, 10 - 1.75 * 2.75),
        ({"a": {"steps": 99}, "b": {"steps": "two"}}, 10 - 1.75 * 2.75),  # nonsense
        ({"b": {"steps": 0}}, 10 - 1.75 * 2.75),
    ],
)
def test_a_device_whose_means_were_spent_weighs_by_the_steps_it_did(reports, expected):
    strategy, state = begin(momentum=0.0)
    state = told(strategy, state)
    state, _ = strategy.turn(state, 0, 1, BOTH)
    state = strategy.settle(state, 0, 1, reports, {"a": weights(8), "b": weights(4)})
    assert state.weights["w"].tolist() == [expected]


def test_unequal_steps_with_momentum_by_hand():
    strategy, state = begin(momentum=0.5)
    state, _ = play(strategy, told(strategy, state), 0, {"a": 8, "b": 4})
    # a_b: the first of two gradients counts 1 + ½, the second 1; d = (2, 2.4)
    np.testing.assert_allclose(state.weights["w"], 10 - (0.25 + 0.75 * 2.5) * (0.25 * 2 + 0.75 * 2.4), rtol=1e-7)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_device_weighs_by_how_far_a_constant_gradient_would_carry_it(momentum):
    strategy, _ = begin(momentum=momentum)
    w = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = torch.optim.SGD([w], lr=1.0, momentum=momentum)
    for steps in range(1, 8):
        w.grad = torch.ones_like(w)
        optimizer.step()
        assert strategy._weight(steps) == pytest.approx(-w.item(), rel=1e-12)


@pytest.mark.parametrize("options", [{"steps": "longest", "momentum": 0.9}, {"steps": "longest", "momentum": 0.0}])
def test_with_equal_steps_it_is_fedavg(options):
    strategy, state = begin(**options)
    plain = FedAvg(FedAvgOptions())
    average = plain.init(TWO, nn.Identity(), rounds=3, seed=0)
    state = told(strategy, state, [0.3, -7.0])
    for number, given in enumerate(np.random.default_rng(0).normal(size=(3, 2, 2))):
        came = dict(zip(BOTH, given, strict=True))
        state, orders = play(strategy, state, number, came)
        assert [order.steps for order in orders.values()] == [2, 2]
        average = plain.settle(average, number, 0, {}, {name: weights(value) for name, value in came.items()})
        np.testing.assert_allclose(state.weights["w"], average.weights["w"], rtol=1e-6)


def test_more_steps_are_not_a_larger_say():
    # Optima 0 and 1 and equal samples: the right answer is ½, and ten steps against one must not change it.
    fleet = Fleet((Member("a", 10, 1), Member("b", 10, 10)))
    optima, ends = {"a": 0.0, "b": 1.0}, {}
    for strategy in (FedNova(FedNovaOptions(lr=0.01, momentum=0.0)), FedAvg(FedAvgOptions(optimizer="sgd", lr=0.01))):
        state = strategy.init(fleet, nn.Identity(), rounds=300, seed=0)
        w = {"w": np.zeros(1)}
        for number in range(300):
            turn = 0
            while (orders := strategy.turn(state, number, turn, BOTH)[1]) is not None:
                came = {}
                for name, order in orders.items():
                    way = (w["w"] - optima[name]) * 0.99**order.steps
                    came[name] = {"w": optima[name] + way}
                state = strategy.settle(state, number, turn, {}, came)
                turn += 1
            w = state.weights
        ends[type(strategy)] = w["w"].item()
    assert ends[FedNova] == pytest.approx(0.5, abs=0.02)
    assert ends[FedAvg] > 0.85


def test_running_variances_stay_variances():
    strategy, state = begin(momentum=0.0, steps="own")
    state, _ = strategy.turn(state, 0, 0, BOTH)
    state = strategy.settle(state, 0, 0, {}, {"a": {"bn.running_var": np.float32([10])}})
    state, _ = strategy.turn(state, 0, 1, BOTH)
    state = strategy.settle(state, 0, 1, {}, {name: {"bn.running_var": np.float32([0.5])} for name in BOTH})
    assert state.weights["bn.running_var"].tolist() == [0.5]  # as a weight it would be -0.39


def test_who_is_lost_has_no_part_and_returns_with_the_current_weights():
    strategy, state = begin(momentum=0.0)
    state, _ = play(strategy, told(strategy, state), 0, {"b": 4})
    assert state.weights["w"].tolist() == [4]  # one device alone: its weights
    state, orders = play(strategy, state, 1, {})
    assert orders["a"].state["w"].tolist() == [4]
    assert state.weights["w"].tolist() == [4]


def test_a_round_in_which_all_are_lost_leaves_the_first_weights():
    strategy, state = begin()
    state, _ = play(strategy, told(strategy, state), 0, {})
    _, orders = play(strategy, state, 1, {})
    assert orders["a"].state["w"].tolist() == [10]  # they have trained meanwhile, and must forget it


def test_another_device_is_asked_if_the_first_never_answers():
    strategy, state = begin()
    asked = []
    for turn in range(2):
        state, orders = strategy.turn(state, 0, turn, BOTH)
        asked += orders
        state = strategy.settle(state, 0, turn, {}, {})
    assert asked == ["a", "b"]
    assert strategy.turn(state, 0, 2, BOTH)[1] is None  # the round is over, untrained
    assert list(strategy.turn(state, 1, 0, BOTH)[1]) == ["a"]


def test_nobody_there_ends_the_round():
    strategy, state = begin()
    assert strategy.turn(state, 0, 0, ())[1] is None
    state, orders = play(strategy, told(strategy, state), 1, {}, present=())
    assert orders == {}


def test_everybody_is_evaluated_with_the_hubs_weights_and_strangers_too():
    strategy, state = begin()
    assert strategy.stand(state, "a", BOTH) == Stand()
    state = told(strategy, state)
    for name in ("b", "stranger"):
        assert strategy.stand(state, name, BOTH).lower["w"].tolist() == [10]
        assert strategy.predict(state, name, torch.ones(1, 2)).tolist() == [[1, 1]]
    with pytest.raises(RuntimeError, match="FedNova trains the whole model on the devices"):
        strategy.learn(state, 0, 0, {"a": Batch(torch.zeros(1, 2), torch.tensor([0]))})


def test_a_run_that_was_stored_goes_on_the_same_way():
    chance = np.random.default_rng(0).normal(size=(5, 2))

    def run(between):
        strategy, state = begin()
        state = told(strategy, between(strategy, state))
        for number, (a, b) in enumerate(chance):
            state, _ = play(strategy, state, number, {"a": a, "b": b} if number != 2 else {"b": b})
            state = between(strategy, state)
        return state.weights["w"].tobytes()

    assert run(stored) == run(lambda _strategy, state: state)


def test_wrong_options_are_named_with_their_range():
    assert (begin()[0].objective, begin()[0].optimizer) == ("whole", "sgd")
    with pytest.raises(ValueError, match=r"momentum = 1: must be from 0 to 0\.999"):
        begin(momentum=1)
    with pytest.raises(ValueError, match="steps = 'both': must be one of own, longest"):
        begin(steps="both")
