import io

import numpy as np
import pytest
import torch
from torch import nn

from hub.strategies import STRATEGIES
from hub.strategies.base import Batch, Fleet, Member, Stand
from hub.strategies.one_shot import OneShot, OneShotOptions

BOTH = ("a", "b")
TWO = Fleet((Member("a", 3, 3), Member("b", 1, 1)))
LAST = 2


def two_weights():
    """Logits w·a for a single number a, w = (2, 2)."""
    module = nn.Linear(1, 2, bias=False)
    nn.init.constant_(module.weight, 2.0)
    return module


def noisy():
    """An upper segment with everything that changes: weights, statistics, dropout."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 2))


def begin(fleet=TWO, upper=None, *, rounds=LAST + 1, **options):
    strategy = OneShot(OneShotOptions(**{"lr": 0.1, "weight_decay": 0.0, **options}))
    return strategy, strategy.init(fleet, upper or two_weights(), rounds=rounds, seed=0)


def batch(number, size=4):
    generator = torch.Generator().manual_seed(number)
    return torch.rand(size, 3, generator=generator), torch.randint(0, 2, (size,), generator=generator)


def trained(lower, head):
    return {"lower.w": np.array([lower], np.float32), "head.linear.bias": np.array([head], np.float32)}


def values(state):
    return None if state is None else {name: value.tolist() for name, value in state.items()}


def one_round(strategy, state, number, given=None, *, present=None, batches=batch, lost=()):
    """A round in which whatever is asked for comes, but for the devices lost; returns the state and the orders."""
    state, orders = strategy.turn(state, number, 0, present or state.fleet.names)
    for step in sorted({step for order in orders.values() for step in order.send}):
        for i, name in enumerate(state.fleet.names):
            if name in orders and step in orders[name].send and name not in lost:
                state, _ = strategy.learn(state, number, step, {name: Batch(*batches(100 * i + step))})
    state = strategy.settle(state, number, 0, {}, given or {})
    assert strategy.turn(state, number, 1, state.fleet.names)[1] is None
    return strategy.end_round(state, number), orders


# Phases -----------------------------------------------------------------------------------------------------------


def test_all_rounds_but_the_last_are_local():
    strategy, state = begin(upper=nn.Linear(3, 2), weight_decay=0.5)
    for number in range(LAST):
        state, orders = one_round(strategy, state, number)
        assert list(orders) == ["a", "b"]
        for order in orders.values():  # b has one batch and recycles it
            assert (order.kind, order.first_step, order.steps, order.send) == ("local", 0, 3, ())
            assert order.give == ("head", "lower")
            assert order.settings == {"lr": 0.1, "weight_decay": 0.5}
    assert state.upper.steps == 0


def test_in_the_last_round_each_device_sends_each_of_its_batches_once():
    strategy, state = begin(upper=nn.Linear(3, 2))
    _, orders = one_round(strategy, state, LAST)
    assert {name: (order.kind, order.first_step, order.steps, order.send) for name, order in orders.items()} == {
        "a": ("forward", 0, 3, (0, 1, 2)),
        "b": ("forward", 0, 1, (0,)),
    }
    assert {order.give for order in orders.values()} == {()}


def test_a_run_of_one_round_is_the_last_one():
    strategy, state = begin(upper=nn.Linear(3, 2), rounds=1)
    _, orders = one_round(strategy, state, 0)
    assert orders["a"].kind == "forward"


def test_it_is_in_the_table_of_strategies():
    assert STRATEGIES["one_shot"] is OneShot


def test_devices_need_the_auxiliary_classifier():
    assert OneShot(OneShotOptions()).objective == "auxiliary"


# What devices have ------------------------------------------------------------------------------------------------


def test_lower_segments_and_classifiers_are_averaged_by_samples_and_sent_from_the_mean():
    strategy, state = begin(upper=nn.Linear(3, 2))
    state, orders = one_round(strategy, state, 0, {"a": trained(4, 0), "b": trained(0, 8)})
    assert orders["a"].state is None
    state, orders = one_round(strategy, state, 1, {"a": trained(8, 0), "b": trained(0, 4)})
    assert [values(order.state) for order in orders.values()] == [{"lower.w": [3], "head.linear.bias": [2]}] * 2
    _, orders = one_round(strategy, state, LAST)
    assert [values(order.state) for order in orders.values()] == [{"lower.w": [6]}] * 2


def test_an_evaluation_is_with_the_mean():
    strategy, state = begin()
    assert strategy.stand(state, "a", BOTH) == Stand()
    state, _ = one_round(strategy, state, 0, {"a": trained(4, 0), "b": trained(0, 8)})
    for device in ("a", "b", "a new wearer"):
        assert values(strategy.stand(state, device, BOTH).lower) == {"lower.w": [3]}


def test_who_was_away_or_gave_nothing_is_not_in_the_mean_and_gets_it_with_its_next_order():
    strategy, state = begin()
    state, orders = one_round(strategy, state, 0, {"b": trained(0, 8)}, present=["b"])
    assert list(orders) == ["b"]
    state, orders = one_round(strategy, state, 1)  # nobody gives
    assert values(orders["a"].state) == {"lower.w": [0], "head.linear.bias": [8]}
    _, orders = strategy.turn(state, LAST, 0, BOTH)
    assert values(orders["a"].state) == {"lower.w": [0]}


def test_without_averages_the_network_is_silent_until_the_last_round():
    strategy, state = begin(upper=nn.Linear(3, 2), average=False)
    for number in range(LAST + 1):
        state, orders = one_round(strategy, state, number)
        for order in orders.values():
            assert (order.state, order.give, bool(order.send)) == (None, (), number == LAST)


def test_without_averages_newcomers_get_the_lower_segment_of_who_has_most_samples():
    fleet = Fleet((Member("a", 3, 3), Member("b", 5, 1), Member("c", 4, 1)))
    strategy, state = begin(fleet, average=False)
    assert strategy.stand(state, "a", fleet.names) == Stand()
    assert strategy.stand(state, "new", ("a", "b", "c", "new")) == Stand(donor="b")
    assert strategy.stand(state, "new", ("a", "c", "new")) == Stand(donor="c")
    assert strategy.stand(state, "new", ("new",)) == Stand()


# What the hub learns ----------------------------------------------------------------------------------------------


def test_the_hub_keeps_what_comes_and_learns_when_the_round_ends():
    strategy, state = begin(hub_epochs=2)
    one = torch.ones(1, 1)
    state, _ = strategy.turn(state, LAST, 0, BOTH)
    for device in BOTH:
        state, learned = strategy.learn(state, LAST, 0, {device: Batch(one, torch.tensor([0]))})
        assert learned[device].loss == pytest.approx(np.log(2))  # of the untrained segment
        assert learned[device].gradient is None
    assert strategy.samples(state) == 0
    state = strategy.end_round(strategy.settle(state, LAST, 0, {}, {}), LAST)
    assert strategy.samples(state) == 2 * 2
    # Four steps that go up: Adam's first ones are all about lr long.
    for device in ("a", "b", "a new wearer"):
        assert strategy.predict(state, device, one)[0].tolist() == pytest.approx([2.4, 1.6], abs=0.02)


@pytest.mark.parametrize("hub_epochs", [1, 3])
def test_every_sample_is_learned_once_an_epoch_in_whole_batches(hub_epochs):
    strategy, state = begin(upper=nn.Linear(3, 2), hub_epochs=hub_epochs)
    state, _ = one_round(strategy, state, LAST, batches=lambda step: batch(step, size=3 if step == 2 else 4))
    # Batches of 4, 4, 3 samples of a and one of 4 of b are 15 samples: 4 + 4 + 4 + 3.
    assert strategy.samples(state) == 15 * hub_epochs
    assert state.upper.steps == 4 * hub_epochs
    assert len(state.sent) == 0


def test_samples_of_all_devices_are_mixed():
    seen = []
    strategy, state = begin(upper=nn.Linear(3, 2), hub_epochs=2)
    step = state.upper.step
    state.upper.step = lambda device, smashed, labels: (
        seen.append(smashed[:, 0].tolist()),
        step(device, smashed, labels),
    )
    whose = {0: 0.0, 1: 1.0, 2: 2.0, 100: 3.0}
    one_round(strategy, state, LAST, batches=lambda n: (torch.full((4, 3), whose[n]), torch.tensor([0, 1, 0, 1])))
    epochs = [sorted(number for numbers in seen[i : i + 4] for number in numbers) for i in (0, 4)]
    assert epochs == [[0.0] * 4 + [1.0] * 4 + [2.0] * 4 + [3.0] * 4] * 2
    assert any(len(set(numbers)) > 1 for numbers in seen)
    assert seen[:4] != seen[4:]


def test_what_can_be_learned_is_learned():
    def separable(number):
        smashed, _ = batch(number, size=16)
        return smashed, (smashed[:, 0] > smashed[:, 1]).long()

    strategy, state = begin(upper=nn.Linear(3, 2), hub_epochs=100)
    state, _ = one_round(strategy, state, LAST, batches=separable)
    smashed, labels = separable(999)
    assert (strategy.predict(state, "a", smashed).argmax(1) == labels).float().mean() > 0.9


def test_only_the_newest_are_learned_where_memory_is_short():
    # A sample is 3 numbers of 4 bytes, a label and a device's number: 28 bytes.
    strategy, state = begin(upper=nn.Linear(3, 2), hub_epochs=1, keep_megabytes=28 * 6 / 1e6)
    state, _ = one_round(strategy, state, LAST)
    assert strategy.samples(state) == 6


def test_of_a_device_lost_in_the_last_round_nothing_is_learned():
    strategy, state = begin(upper=nn.Linear(3, 2), hub_epochs=1)
    state, _ = one_round(strategy, state, LAST, lost=("a",))
    assert strategy.samples(state) == 4


def test_where_nothing_came_nothing_is_learned():
    strategy, state = begin(upper=nn.Linear(3, 2))
    state, _ = one_round(strategy, state, LAST, lost=BOTH)
    assert strategy.samples(state) == 0


# Checkpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize("stop_after", [0, 1, 2, 3])
def test_a_run_that_was_stored_goes_on_bit_by_bit(average, stop_after):
    fleet = Fleet((Member("a", 12, 2), Member("b", 6, 1), Member("c", 9, 2)))

    def run(*, stop):
        strategy, state = begin(fleet, noisy(), average=average, hub_epochs=2)
        told = []
        for number in range(LAST + 2):
            if stop == number:
                file = io.BytesIO()
                torch.save(strategy.save(state), file)
                file.seek(0)
                strategy = OneShot(strategy.o)
                state = strategy.load(fleet, noisy(), torch.load(file, weights_only=True))
            if number > LAST:
                break
            # b is away in round 0, c gives nothing in round 1.
            here = ("a", "c") if number == 0 else fleet.names
            gave = [name for name in here if average and (name, number) != ("c", 1) and number < LAST]
            given = {name: trained(number, i) for i, name in enumerate(gave)}
            state, orders = one_round(strategy, state, number, given, present=here)
            told.append(repr(orders))
        return told, strategy.predict(state, "b", torch.ones(4, 3)), state.upper.weights, strategy.samples(state)

    straight, resumed = run(stop=None), run(stop=stop_after)
    assert straight[0] == resumed[0]
    assert torch.equal(straight[1], resumed[1])
    assert torch.equal(straight[2], resumed[2])
    assert straight[3] == resumed[3] == 2 * 5 * 4


def test_chance_follows_the_seed():
    found = []
    for seed in (1, 1, 2):
        strategy = OneShot(OneShotOptions(hub_epochs=1))
        torch.manual_seed(0)
        state = strategy.init(TWO, nn.Linear(3, 2), rounds=1, seed=seed)
        found.append(one_round(strategy, state, 0)[0].upper.weights)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_checkpoint_does_not_hold_what_was_sent():
    strategy, state = begin(upper=nn.Linear(3, 2))
    sizes = []
    for size in (4, 400):
        state, _ = one_round(strategy, state, LAST, batches=lambda step, size=size: batch(step, size))
        file = io.BytesIO()
        torch.save(strategy.save(state), file)
        sizes.append(len(file.getvalue()))
    assert sizes[0] == sizes[1]


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
        ({"hub_epochs": 0}, "hub_epochs = 0: must be from 1 to 100000"),
        ({"keep_megabytes": -1}, "keep_megabytes = -1: must be from 0 to 1e"),
    ],
)
def test_wrong_options_are_named_with_their_range(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        OneShot(OneShotOptions(**options))
