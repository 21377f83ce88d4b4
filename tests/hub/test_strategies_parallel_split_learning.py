import io
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from export.graphs import make_graph
from export.runtime import Runner
from hub.strategies.base import Batch, Fleet, Member, Stand
from hub.strategies.parallel_split_learning import ParallelSplitLearning, ParallelSplitLearningOptions
from tests.export.compare import step_maker

THREE = Fleet((Member("a", 40, 3), Member("b", 10, 1), Member("c", 50, 2)))
EVERYBODY = ("a", "b", "c")
LN3 = math.log(3)


def upper():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Dropout(0.3), nn.Linear(6, 2))


def begin(fleet=THREE, module=None, **options):
    strategy = ParallelSplitLearning(ParallelSplitLearningOptions(**options))
    return strategy, strategy.init(fleet, module or upper(), rounds=3, seed=0)


def batches(number, names=EVERYBODY):
    """Batches of different lengths: 6, 5, 4."""
    generator = torch.Generator().manual_seed(number)
    drawn = {
        name: Batch(torch.rand(size, 3, generator=generator), torch.randint(0, 2, (size,), generator=generator))
        for name, size in zip(EVERYBODY, (6, 5, 4), strict=True)
    }
    return {name: drawn[name] for name in names}


def by_hand(n_a=40, n_b=10):
    """Logits (ln 3 · s, 0); what a sends is 1, what b sends -1, both of class 0: softmax (3/4, 1/4) and (1/4, 3/4)."""
    module = nn.Linear(1, 2, bias=False)
    module.weight.data = torch.tensor([[LN3], [0.0]])
    fleet = Fleet((Member("a", n_a, 1), Member("b", n_b, 1)))
    sent = {name: Batch(torch.tensor([[s]]), torch.tensor([0])) for name, s in (("a", 1.0), ("b", -1.0))}
    return *begin(fleet, module, lr=0.1, weight_decay=0.0), sent


def hub_gradient(state):
    """Of the hub's first step: Adam's first moment is a tenth of it."""
    return (10 * state.upper.save()["optimizer"]["state"][0]["exp_avg"]).tolist()


# What is learned --------------------------------------------------------------------------------------------------


def test_two_devices_by_hand():
    strategy, state, sent = by_hand()
    state, lessons = strategy.learn(state, 0, 0, sent)
    # Of each loss by the smashed data, whatever the share: (3/4 - 1) ln 3 and (1/4 - 1) ln 3.
    assert lessons["a"].gradient.tolist() == [[pytest.approx(-LN3 / 4)]]
    assert lessons["b"].gradient.tolist() == [[pytest.approx(-3 * LN3 / 4)]]
    assert (lessons["a"].loss, lessons["b"].loss) == (pytest.approx(math.log(4 / 3)), pytest.approx(math.log(4)))
    # By the first weight: 0.8 · (-1/4) · 1 + 0.2 · (-3/4) · (-1) = -0.05. With equal shares it would rise, not fall.
    assert hub_gradient(state) == [pytest.approx(-0.05, abs=1e-6), pytest.approx(0.05, abs=1e-6)]
    assert state.upper.weights.tolist() == [pytest.approx(LN3 + 0.1, abs=1e-4), pytest.approx(-0.1, abs=1e-4)]
    assert (state.upper.steps, strategy.samples(state)) == (1, 2)


def test_shares_are_those_of_who_is_there_in_the_step():
    strategy, state, sent = by_hand()
    state, lessons = strategy.learn(state, 0, 0, {"b": sent["b"]})
    assert list(lessons) == ["b"]
    assert hub_gradient(state) == [pytest.approx(0.75), pytest.approx(-0.75)]


def test_steps_are_those_of_autograd_on_the_whole_sum():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2))
    strategy, state = begin(module=module, lr=0.01, weight_decay=0.1)
    adam = torch.optim.Adam(module.parameters(), lr=0.01, weight_decay=0.1)
    share = {"a": 0.4, "b": 0.1, "c": 0.5}
    for step in range(8):
        given = batches(step)
        own = {name: batch.smashed.clone().requires_grad_() for name, batch in given.items()}
        losses = {name: functional.cross_entropy(module(own[name]), given[name].labels) for name in given}
        adam.zero_grad()
        sum(share[name] * loss for name, loss in losses.items()).backward()
        adam.step()
        state, lessons = strategy.learn(state, 0, step, given)
        for name in given:
            torch.testing.assert_close(lessons[name].gradient, own[name].grad / share[name])
            assert lessons[name].loss == pytest.approx(losses[name].item(), rel=1e-4)
    torch.testing.assert_close(state.upper.weights, nn.utils.parameters_to_vector(module.parameters()).detach())


class Device:
    """The exported graphs of a lower segment, run as on a board."""

    def __init__(self, lower, shape):
        steps = step_maker(lower, shape, objective="gradient", optimizer="adam")
        self.forward, self.backward = (Runner(make_graph(steps, kind).model) for kind in ("forward", "backward"))
        self.state = {f"state.{name}": value.numpy() for name, value in steps.initial_state().items()}
        self.defaults = {name: setting.default for name, setting in steps.settings.items()}

    def up(self, x):
        return torch.from_numpy(self.forward.run({**self.state, "batch.x": x.numpy()})["up.smashed"])

    def down(self, x, y, gradient, settings):
        given = {
            f"setting.{name}": np.array(value, np.float32) for name, value in {**self.defaults, **settings}.items()
        }
        batch = {"batch.x": x.numpy(), "batch.y": y.numpy(), "down.gradient": gradient.numpy()}
        results = self.backward.run({**self.state, **given, **batch})
        self.state = {name: results.get(f"{name}.next", value) for name, value in self.state.items()}


def test_one_device_with_exported_graphs_is_the_uncut_model():
    torch.manual_seed(0)
    lower = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2))
    upper = nn.Sequential(nn.Flatten(), nn.Linear(27, 4))
    device = Device(lower, (1, 8, 8))
    strategy, state = begin(Fleet((Member("a", 160, 20),)), upper, lr=0.01, weight_decay=0.001)
    whole = nn.Sequential(lower, upper).train()
    start = nn.utils.parameters_to_vector(whole.parameters()).detach()
    adam = torch.optim.Adam(whole.parameters(), lr=0.01, weight_decay=0.001)
    state, orders = strategy.turn(state, 0, 0, ["a"])
    assert orders["a"].steps == 20
    for step in orders["a"].send:
        x, y = torch.randn(8, 1, 8, 8), torch.randint(0, 4, (8,))
        state, lessons = strategy.learn(state, 0, step, {"a": Batch(device.up(x), y)})
        device.down(x, y, lessons["a"].gradient, orders["a"].settings)
        loss = functional.cross_entropy(whole(x), y)
        adam.zero_grad()
        loss.backward()
        adam.step()
        assert lessons["a"].loss == pytest.approx(loss.item(), abs=1e-5)
    ours = torch.cat([torch.from_numpy(device.state["state.weights"]), state.upper.weights])
    theirs = nn.utils.parameters_to_vector(whole.parameters()).detach()
    assert (theirs - start).abs().max() > 0.05  # so that 1e-5 says something
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


# Who is told what -------------------------------------------------------------------------------------------------


def test_all_steps_are_one_turn_and_everybody_sends_in_all_of_them():
    strategy, state = begin(lr=0.01, weight_decay=0.1)
    state, orders = strategy.turn(state, 0, 0, EVERYBODY)
    assert list(orders) == ["a", "b", "c"]
    for order in orders.values():  # b has one batch and recycles it
        assert (order.kind, order.first_step, order.steps, order.send) == ("exchange", 0, 3, (0, 1, 2))
        assert (order.state, order.give) == (None, ())
        assert order.settings == {"lr": 0.01, "weight_decay": 0.1}
    assert strategy.turn(state, 0, 1, EVERYBODY)[1] is None


def test_the_bundle_and_the_steps_it_asks_for():
    strategy, _ = begin()
    assert (strategy.together, strategy.objective, strategy.optimizer) == (True, "gradient", "adam")


def test_the_missing_are_told_nothing_and_with_nobody_there_the_round_is_over():
    strategy, state = begin()
    assert list(strategy.turn(state, 0, 0, ("c", "a"))[1]) == ["a", "c"]
    assert strategy.turn(state, 0, 0, ())[1] is None


def test_devices_of_the_fleet_stand_with_their_own_and_newcomers_with_that_of_the_largest_present():
    strategy, state = begin()
    assert strategy.stand(state, "b", EVERYBODY) == Stand()
    assert strategy.stand(state, "z", (*EVERYBODY, "z")).donor == "c"
    assert strategy.stand(state, "z", ("a", "b", "z")).donor == "a"
    assert strategy.stand(state, "z", ("z",)).donor is None


def test_everybody_is_served_by_the_upper_segment_as_it_has_learned():
    strategy, state = begin()
    x = torch.rand(4, 3)
    before = strategy.predict(state, "z", x)
    state, _ = strategy.learn(state, 0, 0, batches(0))
    assert torch.equal(strategy.predict(state, "a", x), strategy.predict(state, "z", x))
    assert not torch.equal(strategy.predict(state, "z", x), before)


# Checkpoints and options ------------------------------------------------------------------------------------------


def rounds(strategy, state, numbers):
    """Rounds in which b is lost after the first step; returns the state and all gradients."""
    found = []
    for number in numbers:
        state, orders = strategy.turn(state, number, 0, EVERYBODY)
        for step in range(3):
            state, lessons = strategy.learn(
                state, number, step, batches(10 * number + step, "abc" if not step else "ac")
            )
            found += [lesson.gradient for lesson in lessons.values()]
        state = strategy.settle(state, number, 0, {name: {} for name in orders if name != "b"}, {})
        state = strategy.end_round(state, number)
    return state, found


def test_a_run_that_was_stored_goes_on_bit_by_bit():
    strategy, state = begin()
    straight, expected = rounds(strategy, state, (0, 1))
    strategy, state = begin()
    state, _ = rounds(strategy, state, (0,))
    file = io.BytesIO()
    torch.save(strategy.save(state), file)
    file.seek(0)
    resumed = strategy.load(THREE, upper(), torch.load(file, weights_only=True))
    resumed, found = rounds(strategy, resumed, (1,))
    assert len(found) == 7
    assert all(torch.equal(one, other) for one, other in zip(expected[7:], found, strict=True))
    assert torch.equal(resumed.upper.weights, straight.upper.weights)
    assert strategy.samples(resumed) == strategy.samples(straight)


def test_the_checkpoint_of_another_fleet_is_refused():
    strategy, state = begin()
    with pytest.raises(ValueError, match="made for the devices a, b, c; these are a"):
        strategy.load(Fleet(THREE.members[:1]), upper(), strategy.save(state))


def test_wrong_options_are_named_with_their_range():
    with pytest.raises(ValueError, match="lr = 11: must be from 0 to 10\nweight_decay = -1: must be from 0 to 1"):
        ParallelSplitLearning(ParallelSplitLearningOptions(lr=11, weight_decay=-1))
