import io

import numpy as np
import pytest
import torch
from torch import nn

from hub.strategies.base import Batch, Fleet, Member, Stand
from hub.strategies.fedavg import FedAvg, FedAvgOptions
from hub.strategies.scaffold import Scaffold, ScaffoldOptions

TWO = Fleet((Member("a", 10, 1), Member("b", 30, 2)))
BOTH = ("a", "b")


class Board:
    """A device with the loss h/2 |w - optimum|² and a memory of its own; without controls it is one of FedAvg."""

    def __init__(self, optimum, curvature=1.0, *, controls=True):
        self.optimum, self.curvature, self.controls = np.float32(optimum), np.float32(curvature), controls
        self.w = self.own = self.common = np.zeros_like(self.optimum)

    def carry_out(self, order):
        load = order.state or {}
        self.w, self.own = load.get("w", self.w), load.get("state.own", self.own)
        self.common = load.get("state.common", self.common)
        x, lr = self.w, np.float32(order.settings.get("lr", 0.01))
        for _ in range(order.steps):
            self.w = self.w - lr * (self.curvature * (self.w - self.optimum) + self.common - self.own)
        if not self.controls:
            return {"w": self.w}
        way = (x - self.w) / np.float32(order.settings.get("local_steps", 1) * lr)
        change = way - self.common
        self.own = self.own + change
        return {"w": self.w, "change": change}


def begin(fleet=TWO, **options):
    strategy = Scaffold(ScaffoldOptions(**options))
    return strategy, strategy.init(fleet, nn.Identity(), rounds=3, seed=0)


def gave(w, change):
    return {"w": np.float32([w]), "change": np.float32([change])}


def play(strategy, state, number, given, present=BOTH):
    """One round in which the devices of `given` come with this; returns the state and what all were told."""
    state, orders = strategy.turn(state, number, 0, present)
    state = strategy.settle(state, number, 0, {}, given)
    assert strategy.turn(state, number, 1, present)[1] is None
    return strategy.end_round(state, number), orders


def drive(strategy, state, boards, rounds, lost=()):
    """Rounds with simulated devices; a device of `lost`, by round and name, trains, and its answer is too late."""
    for number in rounds:
        turn = 0
        while (orders := strategy.turn(state, number, turn, BOTH)[1]) is not None:
            came = {name: boards[name].carry_out(order) for name, order in orders.items()}
            came = {name: given for name, given in came.items() if (number, name) not in lost}
            state = strategy.settle(state, number, turn, {}, came)
            turn += 1
        state = strategy.end_round(state, number)
    return state


def stored(strategy, state):
    file = io.BytesIO()
    torch.save(strategy.save(state), file)
    file.seek(0)
    return strategy.load(TWO, nn.Identity(), torch.load(file, weights_only=True))


def loaded(order):
    return None if order.state is None else {name: array.tolist() for name, array in order.state.items()}


def test_the_first_round_is_plain_and_sends_nothing_down():
    strategy, state = begin(lr=0.1, weight_decay=0.0)
    _, orders = strategy.turn(state, 0, 0, ("b", "a"))
    assert [(name, order.kind, order.steps, order.send, order.state, order.give) for name, order in orders.items()] == [
        ("a", "local", 1, (), None, ("lower",)),
        ("b", "local", 2, (), None, ("lower",)),
    ]
    settings = {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}
    assert orders["b"].settings == {**settings, "local_steps": 2.0}
    assert begin(steps="longest")[0].turn(state, 1, 0, BOTH)[1]["a"].settings["local_steps"] == 2.0


def test_weights_and_controls_by_hand():
    strategy, state = begin()
    state, _ = play(strategy, state, 0, {"a": gave(2, 4), "b": gave(6, -2)})
    # x = (2 + 6) / 2, c = 0 + 2/2 · (4 - 2) / 2
    state, orders = play(strategy, state, 1, {"a": gave(8, 2)})
    assert [loaded(order) for order in orders.values()] == [{"w": [4], "state.common": [1]}] * 2
    # b was lost: x = 8, c = 1 + 1/2 · 2, and the hub tells b which control it counts with
    _, orders = play(strategy, state, 2, {})
    assert loaded(orders["a"]) == {"w": [8], "state.common": [2]}
    assert loaded(orders["b"]) == {"w": [8], "state.common": [2], "state.own": [-2]}


def test_weights_and_controls_by_samples():
    strategy, state = begin(weights="samples")
    state, _ = play(strategy, state, 0, {"a": gave(2, 4), "b": gave(6, -2)})
    state, orders = play(strategy, state, 1, {"a": gave(8, 2)})
    assert loaded(orders["a"]) == {"w": [5], "state.common": [-0.5]}  # (10 · 2 + 30 · 6) / 40, (10 · 4 - 30 · 2) / 40
    _, orders = play(strategy, state, 2, {})
    assert loaded(orders["a"]) == {"w": [8], "state.common": [0]}  # c by the samples of the fleet: -½ + ¼ · 2


@pytest.mark.parametrize("lr_global", [0.5, 2.0])
def test_the_hub_may_take_less_or_more_than_the_mean_change(lr_global):
    strategy, state = begin(lr_global=lr_global)
    state, orders = strategy.turn(state, 0, 0, BOTH)
    assert [(name, order.steps) for name, order in orders.items()] == [("a", 0)]  # who tells the hub its x
    state = strategy.settle(state, 0, 0, {}, {"a": gave(10, 0)})
    state, orders = strategy.turn(state, 0, 1, BOTH)
    assert [order.state for order in orders.values()] == [None, None]
    state = strategy.settle(state, 0, 1, {}, {"a": gave(2, 4), "b": gave(6, -2)})
    assert state.weights["w"].tolist() == [10 - lr_global * 6]
    _, orders = play(strategy, state, 1, {})
    assert loaded(orders["a"]) == {"w": [10 - lr_global * 6], "state.common": [1]}


def test_with_zero_controls_it_is_fedavg():
    strategy, state = begin(weights="samples")
    plain = FedAvg(FedAvgOptions(optimizer="sgd", lr=strategy.o.lr))
    average = plain.init(TWO, nn.Identity(), rounds=3, seed=0)
    for number, (a, b) in enumerate(np.random.default_rng(0).normal(size=(4, 2))):
        came = {"a": gave(a, 0), "b": gave(b, 0)}
        state, orders = play(strategy, state, number, came)
        _, wanted = plain.turn(average, number, 0, BOTH)
        for name, order in orders.items():
            plainly = {key: value for key, value in order.settings.items() if key != "local_steps"}
            assert plainly == wanted[name].settings
            assert (order.kind, order.steps, order.give) == (wanted[name].kind, wanted[name].steps, wanted[name].give)
            assert not (order.state or {}).get("state.common", np.zeros(1)).any()
        average = plain.settle(average, number, 0, {}, {name: {"w": given["w"]} for name, given in came.items()})
        assert state.weights["w"].tobytes() == average.weights["w"].tobytes()


def test_it_comes_to_the_optimum_of_all_where_fedavg_drifts():
    # Losses ½ w² and 5 (w - 1)²: their mean is least at 10/11. Many local steps carry each device to its own.
    fleet, ends = Fleet((Member("a", 10, 10), Member("b", 10, 10))), {}
    for strategy in (Scaffold(ScaffoldOptions(lr=0.05)), FedAvg(FedAvgOptions(optimizer="sgd", lr=0.05))):
        controls = isinstance(strategy, Scaffold)
        boards = {"a": Board([0.0], controls=controls), "b": Board([1.0], 10, controls=controls)}
        state = drive(strategy, strategy.init(fleet, nn.Identity(), rounds=60, seed=0), boards, range(60))
        ends[type(strategy)] = state.weights["w"].item()
    assert ends[Scaffold] == pytest.approx(10 / 11, abs=1e-4)
    assert ends[FedAvg] < 0.8


def fleet_of_boards():
    return {"a": Board([0.0, 3.0]), "b": Board([1.0, -2.0], 3)}


def assert_in_step(state, boards):
    """The hub's controls are those of the devices to the last bit."""
    assert {name: board.own.tobytes() for name, board in boards.items()} == {
        name: state.controls[name].tobytes() for name in boards
    }


@pytest.mark.parametrize("lost", [[(2, "b")], [(0, "b")], [(1, "a"), (1, "b")]])
def test_a_device_whose_answer_was_late_is_brought_back_into_step(lost):
    strategy, state = begin(lr=0.1)
    boards = fleet_of_boards()
    state = drive(strategy, state, boards, range(3), lost)
    state = drive(strategy, state, boards, range(3, 5))
    assert_in_step(state, boards)


def test_even_if_nobodys_first_answer_came():
    strategy, state = begin(lr=0.1)
    boards = fleet_of_boards()
    state = drive(strategy, state, boards, range(3), [(0, "a"), (0, "b")])
    assert_in_step(state, boards)


def test_the_control_of_a_board_with_a_new_memory_began_at_zero():
    strategy, state = begin()
    state, _ = play(strategy, state, 0, {"a": gave(2, 4), "b": gave(6, -2)})
    state, _ = strategy.turn(state, 1, 0, BOTH)
    state = strategy.settle(state, 1, 0, {"a": {"started_over": True}, "b": {}}, {"a": gave(8, 1), "b": gave(8, 0)})
    assert {name: control.tolist() for name, control in state.controls.items()} == {"a": [1], "b": [-2]}  # not 4 + 1


def test_unless_it_was_sent_with_the_order():
    strategy, state = begin()
    state, _ = play(strategy, state, 0, {"a": gave(2, 4), "b": gave(6, -2)})
    state, _ = play(strategy, state, 1, {"b": gave(6, 0)})  # a was lost
    state, orders = strategy.turn(state, 2, 0, BOTH)
    assert loaded(orders["a"])["state.own"] == [4]
    state = strategy.settle(state, 2, 0, {"a": {"started_over": True}}, {"a": gave(8, 1)})
    assert state.controls["a"].tolist() == [5]


def test_who_is_in_step_is_not_sent_its_control():
    strategy, state = begin()
    boards = fleet_of_boards()
    state = drive(strategy, state, boards, range(3), [(1, "b")])
    _, orders = strategy.turn(state, 3, 0, BOTH)
    assert [set(order.state) for order in orders.values()] == [{"w", "state.common"}] * 2


def test_a_run_that_was_stored_goes_on_the_same_way():
    ends = []
    for between in (lambda _strategy, state: state, stored):
        strategy, state = begin(lr=0.1, lr_global=0.9)
        boards = fleet_of_boards()
        for number in range(6):
            state = drive(strategy, between(strategy, state), boards, [number], [(2, "b")])
        ends.append(state.weights["w"].tobytes())
    assert ends[0] == ends[1]


def test_a_hub_that_died_in_mid_round_does_it_again_as_if_nothing_had_been():
    ends = []
    for dies in (False, True):
        strategy, state = begin(lr=0.1)
        boards = fleet_of_boards()
        state = drive(strategy, state, boards, range(3))
        if dies:
            kept = stored(strategy, state)
            drive(strategy, state, boards, [3])  # the devices have gone on, and the hub does not know
            state = kept
        state = drive(strategy, state, boards, range(3, 6))
        ends.append(state.weights["w"].tobytes())
    assert ends[0] == ends[1]


def test_nobody_there_or_nobody_coming_changes_nothing():
    strategy, state = begin()
    state, orders = play(strategy, state, 0, {}, present=())
    assert orders == {}
    state, _ = play(strategy, state, 1, {"a": gave(2, 4)})
    state, _ = play(strategy, state, 2, {})
    assert state.weights["w"].tolist() == [2]
    assert {name: control.tolist() for name, control in state.controls.items()} == {"a": [4]}


def test_everybody_is_evaluated_with_the_hubs_weights_and_strangers_too():
    strategy, state = begin()
    assert strategy.stand(state, "a", BOTH) == Stand()
    state, _ = play(strategy, state, 0, {"a": gave(2, 4), "b": gave(6, -2)})
    for name in ("b", "stranger"):
        assert {key: array.tolist() for key, array in strategy.stand(state, name, BOTH).lower.items()} == {"w": [4]}
        assert strategy.predict(state, name, torch.ones(1, 2)).tolist() == [[1, 1]]
    with pytest.raises(RuntimeError, match="Scaffold trains the whole model on the devices"):
        strategy.learn(state, 0, 0, {"a": Batch(torch.zeros(1, 2), torch.tensor([0]))})


def test_wrong_options_are_named_with_their_range():
    assert (begin()[0].objective, begin()[0].optimizer) == ("control_variates", "sgd")
    with pytest.raises(ValueError, match="lr = 0: must be from 1e-06 to 10"):
        begin(lr=0)  # the devices divide by it
    with pytest.raises(ValueError, match="weights = 'steps': must be one of uniform, samples"):
        begin(weights="steps")
