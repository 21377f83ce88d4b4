import io

import pytest
import torch
from torch import nn

from hub.strategies import STRATEGIES
from hub.strategies.adasplit import AdaSplit, AdaSplitOptions
from hub.strategies.base import Batch, Fleet, Member, Stand
from hub.strategies.frozen import Frozen, FrozenOptions

BOTH = ("a", "b")
TWO = Fleet((Member("a", 5, 3), Member("b", 2, 1)))


def upper():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Dropout(0.5), nn.Linear(4, 2))


def begin(strategy=None, **options):
    strategy = strategy or Frozen(FrozenOptions(**options))
    return strategy, strategy.init(TWO, upper(), rounds=4, seed=3)


def batch(number):
    generator = torch.Generator().manual_seed(number)
    return torch.rand(4, 3, generator=generator), torch.randint(0, 2, (4,), generator=generator)


def turns(strategy, state, number, present=BOTH, *, lost=()):
    """One round with activations for all that is asked for, but for those lost; returns the orders of every turn."""
    told = []
    while True:
        state, orders = strategy.turn(state, number, len(told), present)
        if orders is None:
            return strategy.end_round(state, number), told
        for step in sorted({step for order in orders.values() for step in order.send}):
            for i, (name, order) in enumerate(orders.items()):
                if step in order.send and name not in lost:
                    state, _ = strategy.learn(state, number, step, {name: Batch(*batch(100 * number + 10 * i + step))})
        state = strategy.settle(state, number, len(told), {name: {} for name in orders}, {})
        told.append(orders)


def all_rounds(strategy, state, rounds=range(4)):
    told = []
    for number in rounds:
        state, orders = turns(strategy, state, number)
        told += orders
    return state, repr(told)


def test_from_the_first_round_on_everybody_sends_every_batch_and_learns_nothing():
    strategy, state = begin()
    for number in range(2):
        state, told = turns(strategy, state, number)
        assert [sorted(orders) for orders in told] == [["a", "b"]] * 3  # b has one batch and recycles it
        for step, orders in enumerate(told):
            for order in orders.values():
                assert (order.kind, order.send, order.state, order.give) == ("forward", (step,), None, ())
    assert strategy.samples(state) == 2 * 3 * 2 * 4


def test_it_is_in_the_table_of_strategies():
    assert STRATEGIES["frozen"] is Frozen


def test_devices_hold_no_head():
    assert Frozen(FrozenOptions()).objective == "gradient"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"masks": False, "weight_decay": 0.1},
        {"mask_weight": 0.1, "lr": 0.1, "schedule": "constant"},
        {"eta": 0.5, "select_every": 2, "t_max": 3},
        {"replay": 2, "replay_megabytes": 28 * 6 / 1e6},
    ],
)
def test_it_is_adasplit_with_frozen_devices_bit_by_bit(options):
    reference = AdaSplit(AdaSplitOptions(**{"frozen": True, "kappa": 0.0, "eta": 1.0, **options}))
    (one, told), (other, told_there) = (
        all_rounds(*begin(strategy)) for strategy in (Frozen(FrozenOptions(**options)), reference)
    )
    assert told == told_there
    assert torch.equal(one.upper.weights, other.upper.weights)
    assert one.upper.steps == other.upper.steps > 0
    if options.get("masks", True):
        assert torch.equal(one.upper.logits, other.upper.logits)


def test_each_device_is_served_through_its_own_mask_and_strangers_through_the_mean():
    x, _ = batch(0)
    for masks in (True, False):
        strategy, state = begin(masks=masks)
        same = torch.equal(strategy.predict(state, "a", x), strategy.predict(state, "b", x))
        assert same is not masks
        assert strategy.predict(state, "a new wearer", x).shape == (4, 2)


@pytest.mark.parametrize("price", [0.0, 1e-3])
def test_a_batch_moves_its_own_devices_mask_and_the_price_those_of_all(price):
    strategy, state = begin(mask_weight=price, weight_decay=0.0)
    before = state.upper.logits.clone()
    state, _ = strategy.turn(state, 0, 0, BOTH)
    state, learned = strategy.learn(state, 0, 0, {"a": Batch(*batch(0))})
    assert learned["a"].gradient is None
    assert not torch.equal(state.upper.logits[0], before[0])
    assert (state.upper.logits[1] < before[1]).all() if price else torch.equal(state.upper.logits[1], before[1])


def test_a_device_that_is_away_is_told_nothing_and_goes_on_when_it_is_back():
    strategy, state = begin()
    state, told = turns(strategy, state, 0, present=["b"])
    assert all(list(orders) == ["b"] for orders in told)
    state, told = turns(strategy, state, 1)
    assert told[0]["a"].state is None
    assert strategy.stand(state, "a", BOTH) == Stand()


def test_of_a_lost_device_nothing_is_learned():
    strategy, state = begin()
    state, _ = turns(strategy, state, 0, lost=("b",))
    assert strategy.samples(state) == 3 * 4


@pytest.mark.parametrize("options", [{}, {"replay": 2}, {"eta": 0.5, "masks": False}])
@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_run_that_was_stored_goes_on_bit_by_bit(options, stop_after):
    straight, told = all_rounds(*begin(**options))
    strategy, state = begin(**options)
    state, before = all_rounds(strategy, state, range(stop_after))
    file = io.BytesIO()
    torch.save(strategy.save(state), file)
    file.seek(0)
    strategy = Frozen(FrozenOptions(**options))
    state = strategy.load(TWO, upper(), torch.load(file, weights_only=True))
    resumed, after = all_rounds(strategy, state, range(stop_after, 4))
    assert told == before[:-1] + ", " + after[1:]
    assert torch.equal(straight.upper.weights, resumed.upper.weights)
    x, _ = batch(0)
    assert torch.equal(strategy.predict(straight, "b", x), strategy.predict(resumed, "b", x))


def test_the_checkpoint_of_another_fleet_is_refused():
    strategy, state = begin()
    with pytest.raises(ValueError, match="made for the devices a, b; these are c"):
        strategy.load(Fleet((Member("c", 1, 1),)), upper(), strategy.save(state))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"eta": 1.5}, "eta = 1.5: must be from 0 to 1"),
        ({"mask_weight": -1}, "mask_weight = -1: must be from 0 to 1"),
        ({"select_every": 0}, "select_every = 0: must be from 1 to 1e"),
        ({"schedule": "step"}, "schedule = 'step': must be one of cosine, constant"),
        ({"replay": -1}, "replay = -1: must be from 0 to 10000"),
    ],
)
def test_wrong_options_are_named_with_their_range(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Frozen(FrozenOptions(**options))
