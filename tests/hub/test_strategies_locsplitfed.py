import io

import numpy as np
import pytest
import torch
from torch import nn

from hub.strategies import STRATEGIES
from hub.strategies.adasplit import AdaSplit, AdaSplitOptions
from hub.strategies.base import Batch, Fleet, Member, Stand
from hub.strategies.locsplitfed import LocSplitFed, LocSplitFedOptions

BOTH = ("a", "b")
TWO = Fleet((Member("a", 3, 3), Member("b", 1, 1)))


def two_weights():
    """Logits w·a for a single number a, w = (2, 2)."""
    module = nn.Linear(1, 2, bias=False)
    nn.init.constant_(module.weight, 2.0)
    return module


def noisy():
    """An upper segment with everything that changes: weights, statistics, dropout."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 2))


def begin(fleet=TWO, upper=None, **options):
    strategy = LocSplitFed(LocSplitFedOptions(**{"lr": 0.1, "weight_decay": 0.0, **options}))
    return strategy, strategy.init(fleet, upper or two_weights(), rounds=3, seed=0)


def batch(number, size=4):
    generator = torch.Generator().manual_seed(number)
    return torch.rand(size, 3, generator=generator), torch.randint(0, 2, (size,), generator=generator)


def trained(lower, head):
    return {"lower.w": np.array([lower], np.float32), "head.linear.bias": np.array([head], np.float32)}


def values(state):
    return None if state is None else {name: value.tolist() for name, value in state.items()}


# Orders -----------------------------------------------------------------------------------------------------------


def test_everybody_trains_alone_and_sends_every_batch():
    strategy, state = begin(weight_decay=0.5)
    state, orders = strategy.turn(state, 0, 0, BOTH)
    assert list(orders) == ["a", "b"]
    for order in orders.values():  # b has one batch and recycles it
        assert (order.kind, order.first_step, order.steps, order.send) == ("local", 0, 3, (0, 1, 2))
        assert (order.state, order.give) == (None, ("head", "lower"))
        assert order.settings == {"lr": 0.1, "weight_decay": 0.5}
    assert strategy.turn(state, 0, 1, BOTH)[1] is None


def test_it_is_in_the_table_of_strategies():
    assert STRATEGIES["locsplitfed"] is LocSplitFed


def test_devices_need_the_auxiliary_classifier():
    assert LocSplitFed(LocSplitFedOptions()).objective == "auxiliary"


# Two clients by hand ----------------------------------------------------------------------------------------------


def test_the_hub_steps_on_each_activation_and_nothing_comes_down():
    strategy, state = begin()
    one = torch.ones(1, 1)
    state, learned = strategy.learn(state, 0, 0, {"a": Batch(one, torch.tensor([0]))})
    assert learned["a"].loss == pytest.approx(np.log(2))
    assert learned["a"].gradient is None
    # Adam's first step is lr against the sign of the gradient: w = (2.1, 1.9).
    state, learned = strategy.learn(state, 0, 0, {"b": Batch(one, torch.tensor([1]))})
    assert learned["b"].loss == pytest.approx(np.log1p(np.exp(0.2)))
    # m = 0.0099834, v = 0.000552067; 0.1·(m/0.19) / sqrt(v/0.001999) = 0.0099985.
    for device in ("a", "b", "a new wearer"):
        assert strategy.predict(state, device, one)[0].tolist() == pytest.approx([2.0900015, 1.9099985], abs=1e-5)
    assert strategy.samples(state) == 2


def test_lower_segments_and_classifiers_are_averaged_by_samples():
    strategy, state = begin()
    state = strategy.settle(state, 0, 0, {}, {"a": trained(4, 0), "b": trained(0, 8)})
    _, orders = strategy.turn(state, 1, 0, BOTH)
    for order in orders.values():
        assert values(order.state) == {"lower.w": [3], "head.linear.bias": [2]}


def test_an_evaluation_needs_no_classifier():
    strategy, state = begin()
    assert strategy.stand(state, "a", BOTH) == Stand()
    state = strategy.settle(state, 0, 0, {}, {"a": trained(4, 0), "b": trained(0, 8)})
    for device in ("a", "b", "a new wearer"):
        assert values(strategy.stand(state, device, BOTH).lower) == {"lower.w": [3]}


def test_one_device_gets_the_very_weights_back_that_it_gave():
    strategy, state = begin(Fleet((Member("a", 7, 3),)))
    gave = {"lower.w": np.random.default_rng(0).normal(size=1000).astype(np.float32)}
    state = strategy.settle(state, 0, 0, {}, {"a": gave})
    _, orders = strategy.turn(state, 1, 0, ["a"])
    assert np.array_equal(orders["a"].state["lower.w"], gave["lower.w"])


# Lost and late ----------------------------------------------------------------------------------------------------


def test_a_lost_device_is_not_in_the_mean_and_gets_it_when_it_is_back():
    strategy, state = begin()
    state = strategy.settle(state, 0, 0, {}, {"b": trained(0, 8)})
    state, orders = strategy.turn(state, 1, 0, ["b"])
    assert list(orders) == ["b"]
    state = strategy.settle(state, 1, 0, {}, {"b": trained(1, 9)})
    _, orders = strategy.turn(state, 2, 0, BOTH)
    assert values(orders["a"].state) == {"lower.w": [1], "head.linear.bias": [9]}


def test_where_nobody_gave_the_mean_stays():
    strategy, state = begin()
    state = strategy.settle(state, 0, 0, {}, {"a": trained(4, 0)})
    state, orders = strategy.turn(state, 1, 0, [])
    assert orders == {}
    state = strategy.end_round(strategy.settle(state, 1, 0, {}, {}), 1)
    assert values(state.mean) == {"lower.w": [4], "head.linear.bias": [0]}


# Replay -----------------------------------------------------------------------------------------------------------


def test_each_batch_but_the_first_is_followed_by_replay():
    strategy, state = begin(upper=nn.Linear(3, 2), replay=3)
    steps = []
    for number, name in enumerate(("a", "b", "a")):
        state, _ = strategy.learn(state, 0, number, {name: Batch(*batch(number))})
        steps.append(state.upper.steps)
    assert steps == [1, 1 + 4, 1 + 4 + 4]


def test_without_replay_nothing_is_kept():
    strategy, state = begin(upper=nn.Linear(3, 2))
    state, _ = strategy.learn(state, 0, 0, {"a": Batch(*batch(0))})
    assert len(state.replay) == 0


def test_replay_stays_within_its_megabytes():
    # A sample is 3 numbers of 4 bytes, a label and a device's number: 28 bytes.
    strategy, state = begin(upper=nn.Linear(3, 2), replay=1, replay_megabytes=28 * 6 / 1e6)
    for step in range(3):
        state, _ = strategy.learn(state, 0, step, {"a": Batch(*batch(step))})
    assert len(state.replay) == 6


@pytest.mark.parametrize("replay", [0, 2])
def test_the_hub_learns_as_that_of_adasplit_without_masks(replay):
    other = AdaSplit(
        AdaSplitOptions(kappa=0, eta=1, masks=False, schedule="constant", lr=0.1, weight_decay=0.0, replay=replay)
    )
    states = []
    for strategy in (LocSplitFed(LocSplitFedOptions(lr=0.1, weight_decay=0.0, replay=replay)), other):
        state = strategy.init(TWO, noisy(), rounds=1, seed=7)
        state, _ = strategy.turn(state, 0, 0, BOTH)
        for step in range(6):
            state, _ = strategy.learn(state, 0, step, {"ab"[step % 2]: Batch(*batch(step))})
        states.append(state)
    assert torch.equal(states[0].upper.weights, states[1].upper.weights)
    assert states[0].upper.steps == 6 + 5 * replay


# Checkpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("replay", [0, 2])
@pytest.mark.parametrize("stop_after", [0, 1, 3])
def test_a_run_that_was_stored_goes_on_bit_by_bit(replay, stop_after):
    fleet = Fleet((Member("a", 12, 2), Member("b", 6, 1), Member("c", 9, 2)))

    def run(*, stop):
        strategy, state = begin(fleet, noisy(), replay=replay)
        told = []
        for number in range(4):
            if stop == number:
                file = io.BytesIO()
                torch.save(strategy.save(state), file)
                file.seek(0)
                strategy = LocSplitFed(strategy.o)
                state = strategy.load(fleet, noisy(), torch.load(file, weights_only=True))
            # b is away in round 0, c gives nothing in round 1.
            state, orders = strategy.turn(state, number, 0, ("a", "c") if number == 0 else fleet.names)
            told.append(repr(orders))
            for step in range(2):
                for i, name in enumerate(orders):
                    state, _ = strategy.learn(state, number, step, {name: Batch(*batch(1000 * i + 10 * number + step))})
            given = {name: trained(number, i) for i, name in enumerate(orders) if (name, number) != ("c", 1)}
            state = strategy.end_round(strategy.settle(state, number, 0, {}, given), number)
        return told, strategy.predict(state, "b", torch.ones(4, 3)), state.upper.weights, strategy.samples(state)

    straight, resumed = run(stop=None), run(stop=stop_after)
    assert straight[0] == resumed[0]
    assert torch.equal(straight[1], resumed[1])
    assert torch.equal(straight[2], resumed[2])
    assert straight[3] == resumed[3]


def test_the_checkpoint_of_another_fleet_is_refused():
    strategy, state = begin()
    with pytest.raises(ValueError, match="made for the devices a, b; these are a"):
        strategy.load(Fleet((Member("a", 3, 3),)), two_weights(), strategy.save(state))


# Options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"lr": -1}, "lr = -1: must be from 0 to 10"),
        ({"weight_decay": 2}, "weight_decay = 2: must be from 0 to 1"),
        ({"replay": -1}, "replay = -1: must be from 0 to 10000"),
        ({"replay_megabytes": -1}, "replay_megabytes = -1: must be from 0 to 1e"),
    ],
)
def test_wrong_options_are_named_with_their_range(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        LocSplitFed(LocSplitFedOptions(**options))
