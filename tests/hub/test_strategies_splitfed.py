import io

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from hub.strategies import STRATEGIES
from hub.strategies.base import Batch, Fleet, Member, Stand
from hub.strategies.split_learning import SplitLearning, SplitLearningOptions
from hub.strategies.splitfed import SplitFed, SplitFedOptions

BOTH = ("a", "b")
TWO = Fleet((Member("a", 3, 3), Member("b", 1, 1)))
ONE = torch.ones(1, 1)
VERSIONS = pytest.mark.parametrize("version", ["v1", "v2"])


def two_weights():
    """Logits w·a for a single number a, w = (2, 2)."""
    module = nn.Linear(1, 2, bias=False)
    nn.init.constant_(module.weight, 2.0)
    return module


def begin(version, fleet=TWO, upper=None, **options):
    strategy = SplitFed(SplitFedOptions(version=version, **{"lr": 0.1, "weight_decay": 0.0, **options}))
    return strategy, strategy.init(fleet, upper or two_weights(), rounds=3, seed=0)


def lower(*values):
    return {"w": np.array(values, np.float32)}


def learn(strategy, state, device, label, step=0):
    state, learned = strategy.learn(state, 0, step, {device: Batch(ONE, torch.tensor([label]))})
    return state, learned[device]


def weights(strategy, state, device="a"):
    return pytest.approx(strategy.predict(state, device, ONE)[0].tolist(), abs=1e-5)


@VERSIONS
def test_everybody_exchanges_for_the_whole_round_in_one_turn(version):
    strategy, state = begin(version, weight_decay=0.5)
    state, orders = strategy.turn(state, 0, 0, BOTH)
    assert list(orders) == ["a", "b"]
    for order in orders.values():  # b has one batch and recycles it
        assert (order.kind, order.first_step, order.steps, order.send) == ("exchange", 0, 3, (0, 1, 2))
        assert (order.state, order.give) == (None, ("lower",))
        assert order.settings == {"lr": 0.1, "weight_decay": 0.5}
    assert strategy.turn(state, 0, 1, BOTH)[1] is None


def test_it_is_in_the_table_of_strategies():
    assert STRATEGIES["splitfed"] is SplitFed


def test_devices_are_those_of_split_learning():
    strategy = SplitFed(SplitFedOptions())
    assert (strategy.objective, strategy.optimizer, strategy.together) == ("gradient", "adam", False)


# Two clients by hand ----------------------------------------------------------------------------------------------


def test_v1_learns_from_each_device_apart_and_averages_by_samples():
    strategy, state = begin("v1")
    state, _ = learn(strategy, state, "a", 0)
    # b's copy still has w = (2, 2): softmax (1/2, 1/2), so the gradient of a is 1/2·2 - 1/2·2.
    state, learned = learn(strategy, state, "b", 1)
    assert learned.gradient.tolist() == [[0.0]]
    state = strategy.settle(state, 0, 0, {}, {"a": lower(4, 0), "b": lower(0, 8)})
    # Adam's first step is lr against the sign: (2.1, 1.9) and (1.9, 2.1), three samples to one.
    assert weights(strategy, state) == [2.05, 1.95]
    assert weights(strategy, state, "b") == [2.05, 1.95]


def test_v2_learns_from_one_device_after_the_other():
    strategy, state = begin("v2")
    state, learned = learn(strategy, state, "a", 0)
    assert learned.loss == pytest.approx(np.log(2))
    # w = (2.1, 1.9) now: softmax (0.5498, 0.4502), the gradient of a is 0.5498·(2.1 - 1.9).
    state, learned = learn(strategy, state, "b", 1)
    assert learned.gradient.tolist() == [[pytest.approx(0.5498340 * 0.2, abs=1e-5)]]
    # m = 0.09·(-0.5) + 0.1·0.54983 = 0.0099834, v = 0.000552067; 0.1·(m/0.19) / sqrt(v/0.001999) = 0.0099985.
    assert weights(strategy, state) == [2.0900015, 1.9099985]
    state = strategy.settle(state, 0, 0, {}, {"a": lower(4, 0), "b": lower(0, 8)})
    assert weights(strategy, state) == [2.0900015, 1.9099985]


def test_in_v1_the_copies_draw_different_noise():
    strategy, state = begin("v1", upper=nn.Sequential(nn.Dropout(0.5), nn.Linear(100, 2)))
    losses = set()
    for device in BOTH:
        state, learned = strategy.learn(state, 0, 0, {device: Batch(torch.ones(1, 100), torch.tensor([0]))})
        losses.add(learned[device].loss)
    assert len(losses) == 2


@VERSIONS
def test_lower_segments_are_averaged_by_samples_and_everybody_gets_the_mean(version):
    strategy, state = begin(version)
    state = strategy.settle(state, 0, 0, {}, {"a": lower(4, 0), "b": lower(0, 8)})
    _, orders = strategy.turn(state, 1, 0, BOTH)
    assert [order.state["w"].tolist() for order in orders.values()] == [[3, 2], [3, 2]]
    for device in ("a", "b", "a new wearer"):
        assert strategy.stand(state, device, BOTH).lower["w"].tolist() == [3, 2]
    assert orders["a"].state["w"].dtype == np.float32


@VERSIONS
def test_before_anybody_has_come_there_is_nothing_to_load(version):
    strategy, state = begin(version)
    assert strategy.stand(state, "a", BOTH) == Stand()


@VERSIONS
def test_samples_count_what_all_copies_learned(version):
    strategy, state = begin(version)
    for device, label in (("a", 0), ("b", 1), ("a", 1)):
        state, _ = learn(strategy, state, device, label)
    assert strategy.samples(state) == 3


# Lost and late ----------------------------------------------------------------------------------------------------


def test_in_v1_a_lost_device_counts_for_nothing_and_its_copy_becomes_the_mean():
    strategy, state = begin("v1")
    state, _ = learn(strategy, state, "a", 0)
    state, _ = learn(strategy, state, "b", 1)
    state = strategy.settle(state, 0, 0, {}, {"a": lower(4, 0)})
    assert weights(strategy, state) == [2.1, 1.9]
    assert state.mean["w"].tolist() == [4, 0]
    # b's copy is at (2.1, 1.9) too, not where b's own activation had brought it.
    _, learned = learn(strategy, state, "b", 0)
    assert learned.loss == pytest.approx(np.log1p(np.exp(-0.2)))


def test_in_v2_what_a_lost_device_taught_stays():
    strategy, state = begin("v2")
    state, _ = learn(strategy, state, "b", 1)
    state = strategy.settle(state, 0, 0, {}, {"a": lower(4, 0)})
    assert weights(strategy, state) == [1.9, 2.1]


@VERSIONS
def test_where_nobody_gave_the_lower_segments_stay(version):
    strategy, state = begin(version)
    state = strategy.settle(state, 0, 0, {}, {"a": lower(4, 0)})
    state = strategy.settle(state, 1, 0, {}, {})
    assert state.mean["w"].tolist() == [4, 0]


def test_where_nobody_gave_v1_averages_its_copies_all_the_same():
    strategy, state = begin("v1")
    state, _ = learn(strategy, state, "a", 0)
    state = strategy.settle(state, 0, 0, {}, {})
    # a's copy (2.1, 1.9) counts three quarters, b's (2, 2) one.
    assert weights(strategy, state) == [2.075, 1.925]
    _, learned = learn(strategy, state, "b", 0)
    assert learned.loss == pytest.approx(np.log1p(np.exp(-0.15)))


@VERSIONS
def test_who_was_away_gets_the_mean_with_its_next_order(version):
    strategy, state = begin(version)
    state, orders = strategy.turn(state, 0, 0, ["a"])
    assert list(orders) == ["a"]
    state = strategy.settle(state, 0, 0, {}, {"a": lower(4, 0)})
    _, orders = strategy.turn(state, 1, 0, BOTH)
    assert orders["b"].state["w"].tolist() == [4, 0]


@VERSIONS
def test_a_round_without_anybody_passes(version):
    strategy, state = begin(version)
    state, orders = strategy.turn(state, 0, 0, [])
    assert orders == {}
    state = strategy.end_round(strategy.settle(state, 0, 0, {}, {}), 0)
    assert weights(strategy, state) == [2.0, 2.0]


# Identities -------------------------------------------------------------------------------------------------------


class Device:
    """A lower segment that does what it is told."""

    def __init__(self):
        torch.manual_seed(1)
        self.lower = nn.Linear(3, 4)
        self.adam = torch.optim.Adam(self.lower.parameters(), lr=0.01, weight_decay=1e-5)
        self.given = []

    def load(self, given):
        if given is not None:
            self.given.append(given)
            self.lower.load_state_dict({name: torch.tensor(value) for name, value in given.items()})

    def left(self):
        return {name: value.numpy().copy() for name, value in self.lower.state_dict().items()}


def one_round(strategy, state, number, device):
    """A round of a lone device; returns the state, the gradients that came down and the weights it left."""
    state, orders = strategy.turn(state, number, 0, ["a"])
    device.load(orders["a"].state)
    gradients = []
    for step in orders["a"].send:
        x, y = sample(100 * number + step)
        smashed = device.lower(x)
        state, lessons = strategy.learn(state, number, step, {"a": Batch(smashed.detach(), y)})
        gradients.append(lessons["a"].gradient)
        device.adam.zero_grad()
        smashed.backward(gradients[-1])
        device.adam.step()
    state = strategy.settle(state, number, 0, {"a": {}}, {"a": device.left()})
    return state, gradients, device.left()


def sample(number):
    generator = torch.Generator().manual_seed(number)
    return torch.randn(6, 3, generator=generator), torch.randint(0, 2, (6,), generator=generator)


def noisy():
    """An upper segment with everything that changes: weights, statistics, dropout."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 2))


@VERSIONS
def test_one_device_is_sequential_split_learning_bit_by_bit(version):
    fleet = Fleet((Member("a", 18, 3),))
    sequential = SplitLearning(SplitLearningOptions(lr=0.01))
    splitfed = SplitFed(SplitFedOptions(version=version, lr=0.01))
    runs = [
        (strategy, strategy.init(fleet, noisy(), rounds=3, seed=4), Device()) for strategy in (sequential, splitfed)
    ]
    for number in range(3):
        gradients = []
        for i, (strategy, before, device) in enumerate(runs):
            after, found, _ = one_round(strategy, before, number, device)
            runs[i] = (strategy, after, device)
            gradients.append(torch.stack(found))
        assert torch.equal(*gradients)
    (_, one, _), (_, other, device) = runs
    assert torch.equal(one.upper.weights, other.copies[0].weights)
    x, _ = sample(7)
    smashed = device.lower(x).detach()
    assert torch.equal(sequential.predict(one, "a", smashed), splitfed.predict(other, "a", smashed))
    assert sequential.samples(one) == splitfed.samples(other) == 54


@VERSIONS
def test_one_device_gets_the_very_weights_back_that_it_gave(version):
    fleet = Fleet((Member("a", 18, 3),))
    strategy = SplitFed(SplitFedOptions(version=version, lr=0.01))
    state, device = strategy.init(fleet, noisy(), rounds=3, seed=4), Device()
    gave = []
    for number in range(3):
        state, _, left = one_round(strategy, state, number, device)
        gave.append(left)
    assert len(device.given) == 2
    for left, given in zip(gave, device.given, strict=False):
        assert all(np.array_equal(left[name], given[name]) for name in left)


def test_v1_of_devices_with_equal_data_is_one_device():
    x, y = sample(0)
    upper = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    crowd, one = (Fleet(tuple(Member(name, 6, 1) for name in names)) for names in ("abc", "a"))
    found = []
    for fleet in (crowd, one):
        strategy, state = begin("v1", fleet, upper)
        for number in range(3):
            for name in fleet.names:
                state, _ = strategy.learn(state, number, 0, {name: Batch(x, y)})
            state = strategy.settle(state, number, 0, {}, {name: lower(1) for name in fleet.names})
        found.append(strategy.predict(state, "a", x))
    torch.testing.assert_close(*found)
    assert not torch.equal(found[0], upper(x).detach())


# Checkpoints ------------------------------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize("stop_after", [0, 1, 3])
def test_a_run_that_was_stored_goes_on_bit_by_bit(version, stop_after):
    fleet = Fleet((Member("a", 12, 2), Member("b", 6, 1), Member("c", 9, 2)))

    def run(*, stop):
        strategy, state = begin(version, fleet, noisy())
        told = []
        for number in range(4):
            if stop == number:
                file = io.BytesIO()
                torch.save(strategy.save(state), file)
                file.seek(0)
                strategy = SplitFed(strategy.o)
                state = strategy.load(fleet, noisy(), torch.load(file, weights_only=True))
            # b is away in round 0, c gives nothing in round 1.
            state, orders = strategy.turn(state, number, 0, ("a", "c") if number == 0 else fleet.names)
            told.append(repr(orders))
            for step in range(2):
                for i, name in enumerate(orders):
                    x, y = sample(1000 * i + 10 * number + step)
                    state, _ = strategy.learn(state, number, step, {name: Batch(functional.pad(x, (0, 1)), y)})
            given = {name: lower(number, i) for i, name in enumerate(orders) if (name, number) != ("c", 1)}
            state = strategy.end_round(strategy.settle(state, number, 0, {}, given), number)
        return told, strategy.predict(state, "b", torch.ones(3, 4)), state.copies[0].weights, strategy.samples(state)

    straight, resumed = run(stop=None), run(stop=stop_after)
    assert straight[0] == resumed[0]
    assert torch.equal(straight[1], resumed[1])
    assert torch.equal(straight[2], resumed[2])
    assert straight[3] == resumed[3]


@VERSIONS
def test_the_checkpoint_of_another_fleet_is_refused(version):
    strategy, state = begin(version)
    with pytest.raises(ValueError, match="made for the devices a, b; these are a"):
        strategy.load(Fleet((Member("a", 3, 3),)), two_weights(), strategy.save(state))


def test_a_checkpoint_is_as_small_as_one_upper_segment():
    fleet = Fleet(tuple(Member(f"d{i:03d}", 1, 1) for i in range(100)))
    sizes = []
    for version in ("v1", "v2"):
        strategy, state = begin(version, fleet, nn.Linear(50, 50))
        for name in fleet.names:
            state, _ = strategy.learn(state, 0, 0, {name: Batch(torch.ones(1, 50), torch.tensor([0]))})
        file = io.BytesIO()
        torch.save(strategy.save(strategy.settle(state, 0, 0, {}, {})), file)
        sizes.append(len(file.getvalue()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)


# Options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"version": "v3"}, "version = 'v3': must be one of v1, v2"),
        ({"lr": -1}, "lr = -1: must be from 0 to 10"),
        ({"weight_decay": 2}, "weight_decay = 2: must be from 0 to 1"),
    ],
)
def test_wrong_options_are_named_with_their_range(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        SplitFed(SplitFedOptions(**options))
