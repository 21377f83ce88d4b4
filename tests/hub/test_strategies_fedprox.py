import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from edge.wire.toml_fields import field_docs
from hub.strategies.base import Fleet, Member
from hub.strategies.fedavg import FedAvg, FedAvgOptions
from hub.strategies.fedprox import FedProx, FedProxOptions

TWO = Fleet((Member("a", 10, 1), Member("b", 30, 3)))
OPTIMA = {"a": np.float32([0, 4]), "b": np.float32([2, -2])}


def train(order, name, own):
    """A device with the loss ½ |w - optimum|² that steps by plain gradient descent, with FedProx's term where it is told a μ."""
    w = anchor = own if order.state is None else order.state["w"]
    for _ in range(order.steps):
        w = w - order.settings["lr"] * (w - OPTIMA[name] + order.settings.get("mu", 0) * (w - anchor))
    return w


def run(strategy, rounds=6):
    """Returns the orders and the weights of every round; b is lost in round 3."""
    state = strategy.init(TWO, nn.Identity(), rounds=rounds, seed=0)
    own, told = np.ones(2, np.float32), []
    for number in range(rounds):
        state, orders = strategy.turn(state, number, 0, TWO.names)
        came = {name: {"w": train(orders[name], name, own)} for name in TWO.names if (number, name) != (3, "b")}
        state = strategy.settle(state, number, 0, {name: {} for name in came}, came)
        told.append((orders, state.weights["w"]))
    return told


def test_without_its_term_it_is_fedavg_order_by_order():
    options = {"optimizer": "sgd", "lr": 0.3, "momentum": 0.1, "weight_decay": 0.01}
    prox = run(FedProx(FedProxOptions(mu=0.0, **options)))
    plain = run(FedAvg(FedAvgOptions(**options)))
    for (ours, average), (theirs, wanted) in zip(prox, plain, strict=True):
        assert average.tobytes() == wanted.tobytes()
        for name, order in ours.items():
            settings = {key: value for key, value in order.settings.items() if key != "mu"}
            assert settings == theirs[name].settings
            assert order.settings["mu"] == 0.0
            assert dataclasses.replace(order, settings=settings, state=None) == dataclasses.replace(
                theirs[name], state=None
            )


def test_the_term_holds_the_devices_near_the_weights_of_the_rounds_start():
    # From 1, with one step for a and three for b, lr 0.5: a does (0.5, 2.5) whatever μ is, for it starts at its anchor.
    far, near = (run(FedProx(FedProxOptions(mu=mu, optimizer="sgd", lr=0.5)), 1)[0][1] for mu in (0.0, 1.0))
    np.testing.assert_allclose(far, [0.25 * 0.5 + 0.75 * (2 - 1 / 8), 0.25 * 2.5 + 0.75 * (-2 + 3 / 8)], rtol=1e-6)
    # b with μ = 1: w ← w - 0.5 (w - t + w - 1) is (t + 1) / 2 from the first step on.
    np.testing.assert_allclose(near, [0.25 * 0.5 + 0.75 * 1.5, 0.25 * 2.5 + 0.75 * -0.5], rtol=1e-6)


def test_a_run_that_was_stored_goes_on_the_same_way():
    strategy = FedProx(FedProxOptions())
    state = strategy.init(TWO, nn.Identity(), rounds=2, seed=0)
    state = strategy.settle(state, 0, 0, {}, {"a": {"w": np.float32([3])}})
    state = strategy.load(TWO, nn.Identity(), strategy.save(state))
    _, orders = strategy.turn(state, 1, 0, ("b",))
    assert orders["b"].state["w"].tolist() == [3]
    assert orders["b"].settings == {"lr": 1e-3, "weight_decay": 1e-5, "mu": 0.01}


def test_strangers_are_served_like_everybody():
    strategy = FedProx(FedProxOptions())
    state = strategy.init(TWO, nn.Identity(), rounds=2, seed=0)
    state = strategy.settle(state, 0, 0, {}, {"a": {"w": np.float32([3])}})
    assert strategy.stand(state, "stranger", ("a",)).lower["w"].tolist() == [3]
    assert strategy.predict(state, "stranger", torch.ones(2, 3)).tolist() == [[1, 1, 1]] * 2


def test_it_asks_for_devices_that_know_the_term_and_explains_each_option():
    assert (FedProx(FedProxOptions()).objective, FedProx(FedProxOptions()).optimizer) == ("proximal", "adam")
    assert FedProx(FedProxOptions(optimizer="sgd")).optimizer == "sgd"
    assert all(field_docs(FedProxOptions).values())


def test_wrong_options_are_named_with_their_range():
    with pytest.raises(ValueError, match=r"mu = -0\.1: must be from 0 to 1000"):
        FedProx(FedProxOptions(mu=-0.1))
    with pytest.raises(ValueError, match=r"momentum = 0\.9: only sgd has it"):
        FedProx(FedProxOptions(momentum=0.9))
