import io
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from export.objectives import OBJECTIVES
from export.optimizers import OPTIMIZERS
from hub.strategies.base import Batch, Fleet, Member, Stand
from hub.strategies.locfedmix import LocFedMix, LocFedMixOptions
from hub.strategies.parallel_split_learning import ParallelSplitLearning, ParallelSplitLearningOptions

THREE = Fleet((Member("a", 40, 3), Member("b", 10, 1), Member("c", 50, 2)))
EVERYBODY = ("a", "b", "c")
SHARE = {"a": 0.4, "b": 0.1, "c": 0.5}
NOTHING = {"loc": False, "fed": False, "mix": False}
LN3 = math.log(3)


def upper():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Dropout(0.3), nn.Linear(6, 4))


def begin(fleet=THREE, module=None, seed=0, **options):
    strategy = LocFedMix(LocFedMixOptions(**options))
    return strategy, strategy.init(fleet, module or upper(), rounds=3, seed=seed)


def batches(number, names=EVERYBODY):
    """Batches of different lengths: 6, 5, 4."""
    generator = torch.Generator().manual_seed(number)
    drawn = {
        name: Batch(torch.rand(size, 3, generator=generator), torch.randint(0, 4, (size,), generator=generator))
        for name, size in zip(EVERYBODY, (6, 5, 4), strict=True)
    }
    return {name: drawn[name] for name in names}


def stored(strategy, state, module):
    """The state as it comes back from a checkpoint's file."""
    file = io.BytesIO()
    torch.save(strategy.save(state), file)
    file.seek(0)
    return strategy.load(state.fleet, module, torch.load(file, weights_only=True))


def test_the_defaults():
    o = LocFedMixOptions()
    assert (o.loc, o.fed, o.mix, o.mix_gradient) == (True, True, True, False)
    assert (o.local_weight, o.fed_every, o.partners, o.alpha) == (1, 1, 1, 1)


# All off ----------------------------------------------------------------------------------------------------------


def lessons_of(strategy, state, numbers):
    """Rounds in which b is lost after the first step; orders, gradients and losses as they come."""
    found = []
    for number in numbers:
        state, orders = strategy.turn(state, number, 0, EVERYBODY)
        found.append(orders)
        for step in range(3):
            state, lessons = strategy.learn(
                state, number, step, batches(10 * number + step, "abc" if not step else "ac")
            )
            found += [(name, lesson.loss, lesson.gradient.tolist()) for name, lesson in lessons.items()]
        given = {
            name: {"w": np.array([10 * number + EVERYBODY.index(name)], np.float32)}
            for name, order in orders.items()
            if order.give and name != "b"
        }
        state = strategy.settle(state, number, 0, {name: {} for name in ("a", "c")}, given)
        state = strategy.end_round(state, number)
        found += [strategy.stand(state, name, EVERYBODY) for name in (*EVERYBODY, "z")]
    return state, found


def test_with_everything_off_it_is_parallel_split_learning_bit_by_bit():
    parallel = ParallelSplitLearning(ParallelSplitLearningOptions())
    expected = lessons_of(parallel, parallel.init(THREE, upper(), rounds=3, seed=0), (0, 1))
    strategy, state = begin(**NOTHING)
    assert strategy.objective == parallel.objective
    state, found = lessons_of(strategy, state, (0, 1))
    assert found == expected[1]
    assert torch.equal(state.upper.weights, expected[0].upper.weights)
    x = torch.rand(4, 3)
    assert torch.equal(strategy.predict(state, "a", x), parallel.predict(expected[0], "a", x))


def test_one_device_alone_mixes_with_nobody():
    alone = {"a": batches(0)["a"]}
    weights = []
    for mix in (False, True):
        strategy, state = begin(mix=mix)
        state, _ = strategy.learn(state, 0, 0, alone)
        assert strategy.samples(state) == 6
        weights.append(state.upper.weights)
    assert torch.equal(*weights)


# Loc --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loc", [True, False])
def test_the_decoder_is_a_bundle_of_its_own_whose_weight_the_order_says(loc):
    strategy, state = begin(loc=loc, local_weight=0.5, lr=0.1)
    settings = strategy.turn(state, 0, 0, EVERYBODY)[1]["a"].settings
    assert strategy.objective == ("decoder" if loc else "gradient")
    assert settings == {"lr": 0.1, "weight_decay": 1e-5, **({"local_weight": 0.5} if loc else {})}
    assert set(settings) <= {*OPTIMIZERS[strategy.optimizer].settings, *OBJECTIVES[strategy.objective].settings}


# Mix --------------------------------------------------------------------------------------------------------------


def test_a_mixture_by_hand():
    # Logits (ln 3 · s, 0); a sends 1, b sends -1: softmax (3/4, 1/4) and (1/4, 3/4). a is of class 0, b of class 1.
    module = nn.Linear(1, 2, bias=False)
    module.weight.data = torch.tensor([[LN3], [0.0]])
    fleet = Fleet((Member("a", 40, 1), Member("b", 10, 1)))
    strategy, state = begin(fleet, module, weight_decay=0.0)
    (_, _, of_a), (_, _, of_b) = strategy.pairs(state, "ab")
    gradient = 0.8 * (3 / 4 - 1) * 1 + 0.2 * (1 / 4 - 0) * -1
    for weight, mine, smashed in ((0.8, of_a, 2 * of_a - 1), (0.2, 1 - of_b, 1 - 2 * of_b)):
        softmax = 3**smashed / (3**smashed + 1)
        gradient += weight * (softmax - mine) * smashed  # the mixture is of class 0 with probability `mine`
    sent = {name: Batch(torch.tensor([[s]]), torch.tensor([y])) for name, s, y in (("a", 1.0, 0), ("b", -1.0, 1))}
    state, lessons = strategy.learn(state, 0, 0, sent)
    moment = state.upper.save()["optimizer"]["state"][0]["exp_avg"]  # after one step a tenth of the gradient
    assert (10 * moment).tolist() == [pytest.approx(gradient), pytest.approx(-gradient)]
    # What comes down, and what is logged, is of the un-mixed loss.
    assert [lessons[name].gradient.item() for name in "ab"] == [pytest.approx(-LN3 / 4), pytest.approx(LN3 / 4)]
    assert [lessons[name].loss for name in "ab"] == [pytest.approx(math.log(4 / 3))] * 2
    assert (state.upper.steps, strategy.samples(state)) == (1, 4)  # n B + n n_s B


@pytest.mark.parametrize("partners", [1, 2])
@pytest.mark.parametrize("mix_gradient", [False, True])
def test_steps_are_those_of_autograd_on_the_whole_sum(partners, mix_gradient):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 4))
    strategy, state = begin(module=module, lr=0.01, partners=partners, mix_gradient=mix_gradient)
    adam = torch.optim.Adam(module.parameters(), lr=0.01, weight_decay=1e-5)
    for step in range(5):
        given = batches(step)
        own = {name: batch.smashed.clone().requires_grad_() for name, batch in given.items()}
        hard = {name: nn.functional.one_hot(batch.labels, 4).float() for name, batch in given.items()}
        plain = {name: functional.cross_entropy(module(own[name]), hard[name]) for name in given}
        whole = sum(SHARE[name] * loss for name, loss in plain.items())
        for i, j, ratio in strategy.pairs(state, EVERYBODY):
            n = min(len(own[i]), len(own[j]))
            smashed = ratio * own[i][:n] + (1 - ratio) * own[j][:n]
            labels = ratio * hard[i][:n] + (1 - ratio) * hard[j][:n]
            whole = whole + SHARE[i] / partners * functional.cross_entropy(module(smashed), labels)
        down = {
            name: torch.autograd.grad(
                whole / SHARE[name] if mix_gradient else plain[name], own[name], retain_graph=True
            )[0]
            for name in given
        }
        adam.zero_grad()
        whole.backward()
        adam.step()
        state, lessons = strategy.learn(state, 0, step, given)
        for name in given:
            torch.testing.assert_close(lessons[name].gradient, down[name], atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(
        state.upper.weights, nn.utils.parameters_to_vector(module.parameters()).detach(), atol=1e-5, rtol=1e-4
    )


def test_the_gradient_that_comes_down_is_that_of_parallel_split_learning():
    down = []
    for options in (NOTHING, {}):
        strategy, state = begin(**options)
        _, lessons = strategy.learn(state, 0, 0, batches(0))
        down.append([lesson.gradient for lesson in lessons.values()])
    assert all(torch.equal(plain, mixed) for plain, mixed in zip(*down, strict=True))


def test_partners_are_others_and_none_twice():
    for partners, expected in ((1, 1), (2, 2), (9, 2)):
        strategy, state = begin(partners=partners)
        seen = set()
        for step in range(30):
            state.upper.steps = step
            pairs = strategy.pairs(state, EVERYBODY)
            assert [i for i, _, _ in pairs] == [name for name in EVERYBODY for _ in range(expected)]
            assert len({(i, j) for i, j, _ in pairs if i != j}) == 3 * expected
            seen |= {(i, j) for i, j, _ in pairs}
        assert len(seen) == 6


@pytest.mark.parametrize(("alpha", "variance"), [(1.0, 1 / 12), (0.1, 0.25 / 1.2), (10.0, 0.25 / 21)])
def test_ratios_are_from_the_beta_distribution(alpha, variance):
    strategy, state = begin(alpha=alpha)
    ratios = []
    for step in range(700):
        state.upper.steps = step
        ratios += [ratio for _, _, ratio in strategy.pairs(state, EVERYBODY)]
    assert np.mean(ratios) == pytest.approx(0.5, abs=0.03)
    assert np.var(ratios) == pytest.approx(variance, rel=0.1)


def test_mixtures_are_a_function_of_the_seed_and_the_step():
    strategy, state = begin()
    first = strategy.pairs(state, EVERYBODY)
    np.random.seed(1)  # noqa: NPY002  the process's own chance plays no part
    assert strategy.pairs(state, EVERYBODY) == first == strategy.pairs(begin()[1], EVERYBODY)
    assert strategy.pairs(begin(seed=1)[1], EVERYBODY) != first
    state, _ = strategy.learn(state, 0, 0, batches(0))
    assert strategy.pairs(state, EVERYBODY) != first


# Fed --------------------------------------------------------------------------------------------------------------

TWO = Fleet((Member("a", 3, 1), Member("b", 1, 1)))


def weights(a, b=None):
    """One number for the lower segment and one for the decoder, of each device."""
    given = {"a": a} if b is None else {"a": a, "b": b}
    return {
        name: {"w": np.array([lower], np.float32), "head.w": np.array([head], np.float32)}
        for name, (lower, head) in given.items()
    }


def lists(state):
    return None if state is None else {name: array.tolist() for name, array in state.items()}


def settle(strategy, state, number, given, came="ab"):
    """End a round."""
    state = strategy.settle(state, number, 0, {name: {} for name in came}, given)
    return strategy.end_round(state, number)


def carried(strategy, state, number, present="ab"):
    return {name: lists(order.state) for name, order in strategy.turn(state, number, 0, present)[1].items()}


def wanted(strategy, state, number):
    return {order.give for order in strategy.turn(state, number, 0, "ab")[1].values()}


def test_every_second_round_the_weights_are_averaged_by_samples():
    strategy, state = begin(TWO, fed_every=2)
    assert wanted(strategy, state, 0) == {()}
    state = settle(strategy, state, 0, {})
    assert carried(strategy, state, 1) == {"a": None, "b": None}
    assert wanted(strategy, state, 1) == {("head", "lower")}
    state = settle(strategy, state, 1, weights(a=(0, 4), b=(4, 8)))
    mean = {"w": [1], "head.w": [5]}  # 3/4 · 0 + 1/4 · 4 and 3/4 · 4 + 1/4 · 8
    assert carried(strategy, state, 2) == {"a": mean, "b": mean}
    assert wanted(strategy, state, 2) == {()}
    state = settle(strategy, state, 2, {})
    assert carried(strategy, state, 3) == {"a": None, "b": None}
    assert wanted(strategy, state, 3) == {("head", "lower")}
    state = settle(strategy, state, 3, weights(a=(8, 0), b=(0, 4)))
    assert carried(strategy, state, 4) == {name: {"w": [6], "head.w": [1]} for name in "ab"}


def test_without_decoders_the_lower_segments_alone_are_wanted():
    strategy, state = begin(TWO, loc=False)
    assert wanted(strategy, state, 0) == {("lower",)}


def test_without_fed_nothing_is_wanted():
    strategy, state = begin(TWO, fed=False)
    assert {give for number in range(4) for give in wanted(strategy, state, number)} == {()}


def test_the_mean_is_of_who_came_and_who_was_away_gets_it_when_back():
    strategy, state = begin(TWO, fed_every=2)
    state = settle(strategy, state, 1, weights(a=(2, 3)), came="a")
    assert carried(strategy, state, 2, present="a") == {"a": {"w": [2], "head.w": [3]}}
    state = settle(strategy, state, 2, {}, came="a")
    assert carried(strategy, state, 3) == {"a": None, "b": {"w": [2], "head.w": [3]}}


def test_a_device_lost_after_it_got_the_mean_gets_it_again():
    strategy, state = begin(TWO, fed_every=3)
    state = settle(strategy, state, 2, weights(a=(0, 0), b=(4, 4)))
    assert carried(strategy, state, 3)["b"] == {"w": [1], "head.w": [1]}
    state = settle(strategy, state, 3, {}, came="a")
    assert carried(strategy, state, 4) == {"a": None, "b": {"w": [1], "head.w": [1]}}


def test_if_nobody_gives_weights_the_mean_stays():
    strategy, state = begin(TWO, fed_every=1)
    state = settle(strategy, state, 0, weights(a=(0, 0), b=(4, 4)))
    state = settle(strategy, state, 1, {}, came="")
    assert carried(strategy, state, 2) == {name: {"w": [1], "head.w": [1]} for name in "ab"}


def test_who_has_yet_to_get_the_mean_is_evaluated_with_it_and_newcomers_always_without_the_decoder():
    strategy, state = begin(TWO, fed_every=2)
    assert strategy.stand(state, "a", "ab") == Stand()
    assert strategy.stand(state, "z", "abz") == Stand(donor="a")
    state = settle(strategy, state, 1, weights(a=(0, 4), b=(4, 8)))
    for name in "abz":
        assert lists(strategy.stand(state, name, "abz").lower) == {"w": [1]}
    state = settle(strategy, state, 2, {}, came="a")
    assert strategy.stand(state, "a", "abz") == Stand()
    for name in "bz":
        assert lists(strategy.stand(state, name, "abz").lower) == {"w": [1]}


# Checkpoints and options ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fed_every", [1, 2])
@pytest.mark.parametrize("stop", [0, 1, 2, 3])
def test_a_run_that_was_stored_goes_on_bit_by_bit(fed_every, stop):
    options = {"fed_every": fed_every, "mix_gradient": True, "partners": 2}
    strategy, state = begin(seed=5, **options)
    straight, expected = lessons_of(strategy, state, range(4))
    strategy, state = begin(seed=5, **options)
    state, before = lessons_of(strategy, state, range(stop))
    resumed, after = lessons_of(strategy, stored(strategy, state, upper()), range(stop, 4))
    assert str(before + after) == str(expected)  # arrays among them
    assert torch.equal(resumed.upper.weights, straight.upper.weights)
    assert strategy.samples(resumed) == strategy.samples(straight)


def test_the_checkpoint_of_another_fleet_is_refused():
    strategy, state = begin()
    with pytest.raises(ValueError, match="made for the devices a, b, c; these are a, b"):
        strategy.load(TWO, upper(), strategy.save(state))


def test_wrong_options_are_named_with_their_range():
    wrong = {"alpha": 0, "partners": 0, "fed_every": 0, "local_weight": -1, "lr": 11}
    with pytest.raises(ValueError, match=r"alpha = 0: must be from 0\.01 to 100") as caught:
        LocFedMix(LocFedMixOptions(**wrong))
    assert all(f"{name} = {value}: must be from" in str(caught.value) for name, value in wrong.items())
    with pytest.raises(ValueError, match="mix_gradient = true: there are no mixed terms with mix = false"):
        LocFedMix(LocFedMixOptions(mix=False, mix_gradient=True))
