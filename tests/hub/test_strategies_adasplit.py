import io
import math

import numpy as np
import pytest
import torch
from torch import nn

from hub.strategies import STRATEGIES
from hub.strategies.adasplit import AdaSplit, AdaSplitOptions
from hub.strategies.base import Batch, Fleet, Member, Outlook

BOTH = ("a", "b")
TWO = Fleet((Member("a", 5, 3), Member("b", 2, 1)))


def fleet_of(devices, batches=1):
    return Fleet(tuple(Member(f"d{i:02d}", 4 * batches, batches) for i in range(devices)))


def upper():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def begin(fleet=TWO, *, rounds=10, seed=0, **options):
    strategy = AdaSplit(AdaSplitOptions(**options))
    return strategy, strategy.init(fleet, upper(), rounds=rounds, seed=seed)


def batch(number, size=4):
    generator = torch.Generator().manual_seed(number)
    return torch.rand(size, 3, generator=generator), torch.randint(0, 2, (size,), generator=generator)


def turns(strategy, state, number, present=None, *, lost=()):
    """One round with activations for all that is asked for, but for those lost; returns the orders of every turn."""
    told = []
    while True:
        state, orders = strategy.turn(state, number, len(told), present or state.fleet.names)
        if orders is None:
            return strategy.end_round(state, number), told
        for step in sorted({step for order in orders.values() for step in order.send}):
            for name, order in orders.items():
                if step in order.send and name not in lost:
                    state, _ = strategy.learn(state, number, step, {name: Batch(*batch(100 * number + step))})
        lower = {name: {"w": np.full(2, i)} for i, (name, order) in enumerate(orders.items()) if order.give}
        state = strategy.settle(state, number, len(told), {name: {} for name in orders}, lower)
        told.append(orders)


def senders(orders):
    return sorted(name for name, order in orders.items() if order.send)


def test_it_is_in_the_table_of_strategies():
    assert STRATEGIES["adasplit"] is AdaSplit
    assert AdaSplit.options is AdaSplitOptions
    assert AdaSplit(AdaSplitOptions()).objective == "contrastive"


def test_the_defaults_are_the_papers():
    o = AdaSplitOptions()
    assert (o.kappa, o.eta, o.gamma, o.temperature, o.mask_weight) == (0.6, 0.6, 0.75, 0.07, 1e-3)
    assert (o.lr, o.weight_decay, o.select_every, o.replay) == (1e-3, 1e-5, 1, 0)
    assert (o.masks, o.selection, o.server_gradient, o.frozen, o.handover) == (True, "ucb", False, False, False)


# Phases -----------------------------------------------------------------------------------------------------------


def test_in_the_local_phase_all_steps_are_one_turn_and_nobody_sends():
    strategy, state = begin()
    _, told = turns(strategy, state, 0)
    assert len(told) == 1
    for name in BOTH:  # b has one batch and recycles it
        order = told[0][name]
        assert (order.kind, order.first_step, order.steps, order.send) == ("local", 0, 3, ())
        assert (order.state, order.give) == (None, ())


def test_the_settings_that_devices_get():
    strategy, state = begin(beta=0.5, temperature=0.2, weight_decay=0.01, lr=0.1)
    _, told = turns(strategy, state, 0)
    assert told[0]["a"].settings == {"lr": 0.1, "weight_decay": 0.01, "temperature": 0.2, "beta": 0.5}


@pytest.mark.parametrize(
    ("kappa", "rounds", "local"), [(0.6, 10, 6), (0.65, 10, 6), (0.0, 10, 0), (1.0, 10, 10), (0.29, 100, 29)]
)
def test_the_first_kappa_r_rounds_are_local(kappa, rounds, local):
    strategy, state = begin(kappa=kappa, rounds=rounds)
    sent = [bool(senders(strategy.turn(state, number, 0, BOTH)[1])) for number in range(rounds)]
    assert sent == [False] * local + [True] * (rounds - local)


@pytest.mark.parametrize(("devices", "eta", "k"), [(5, 0.6, 3), (10, 0.6, 6), (10, 0.04, 1), (3, 0.0, 1), (4, 1.0, 4)])
def test_eta_n_devices_are_selected_and_one_at_least(devices, eta, k):
    strategy, state = begin(fleet_of(devices), kappa=0.0, eta=eta)
    _, told = turns(strategy, state, 0)
    assert len(senders(told[0])) == k
    assert len(told[0]) == devices  # the others train as well


@pytest.mark.parametrize(
    ("every", "steps"), [(1, [(0,), (1,), (2,)]), (2, [(0, 1), (2,)]), (3, [(0, 1, 2)]), (100, [(0, 1, 2)])]
)
def test_one_selection_serves_select_every_iterations(every, steps):
    strategy, state = begin(kappa=0.0, eta=1.0, select_every=every)
    state, told = turns(strategy, state, 0)
    assert [orders["a"].send for orders in told] == steps
    assert [orders["a"].first_step for orders in told] == [part[0] for part in steps]
    assert state.iteration == 3
    assert len(state.history.losses) == 2 + 3


def test_devices_without_a_hub_may_go_on_after_their_local_orders():
    strategy, state = begin(kappa=0.5, eta=0.5, rounds=2, offline_steps=40, server_gradient=True)
    state, local = turns(strategy, state, 0)
    _, both = turns(strategy, state, 1)
    assert [order.beyond for order in local[0].values()] == [40, 40]
    assert sorted((order.kind, order.beyond) for order in both[0].values()) == [("exchange", 0), ("local", 40)]


def test_unless_told_so_they_do_not():
    strategy, state = begin(kappa=0.0)
    _, told = turns(strategy, state, 0)
    assert {order.beyond for orders in told for order in orders.values()} == {0}


@pytest.mark.parametrize("option", ["frozen", "handover"])
def test_steps_of_their_own_that_nobody_keeps_are_refused(option):
    with pytest.raises(ValueError, match=r"offline_steps = 5: with frozen or handover nothing .* must be 0"):
        begin(offline_steps=5, **{option: True})


# Selection --------------------------------------------------------------------------------------------------------


def test_who_was_not_heard_is_next():
    strategy, state = begin(kappa=0.0, eta=0.5)
    _, told = turns(strategy, state, 0)
    assert {*senders(told[0]), *senders(told[1])} == {"a", "b"}


def test_the_bandit_hears_the_loss_of_the_batch():
    strategy, state = begin(kappa=0.0, eta=1.0)
    x, y = batch(0)
    expected = [nn.functional.cross_entropy(state.upper.predict(i, x), y).item() for i in (0, 1)]
    state, _ = strategy.turn(state, 0, 0, BOTH)
    state, lessons = strategy.learn(state, 0, 0, {"a": Batch(x, y)})
    learned = lessons["a"]
    assert learned.loss == pytest.approx(expected[0])
    assert learned.gradient is None
    state = strategy.settle(state, 0, 0, {}, {})
    assert state.history.losses[2].tolist() == [pytest.approx(expected[0]), 100.0]


def test_a_selected_device_that_never_came_counts_as_not_selected():
    strategy, state = begin(kappa=0.0, eta=1.0, select_every=3)
    state, told = turns(strategy, state, 0, lost=("b",))
    assert senders(told[0]) == ["a", "b"]
    assert state.history.selected[2:].tolist() == [[1, 0]] * 3
    assert state.history.losses[2:, 1].tolist() == [100, 100, 100]


def test_the_local_phase_is_no_part_of_the_history():
    strategy, state = begin(kappa=0.6)
    for number in range(6):
        state, _ = turns(strategy, state, number)
    assert state.iteration == 0
    assert len(state.history.losses) == 2


def test_only_devices_that_are_there_are_told_anything():
    strategy, state = begin(kappa=0.0, eta=1.0)
    _, told = turns(strategy, state, 0, present=["b"])
    assert all(list(orders) == ["b"] and senders(orders) == ["b"] for orders in told)


def test_random_selection_repeats_with_the_seed_and_differs_without():
    def chosen(seed):
        strategy, state = begin(fleet_of(6, batches=8), kappa=0.0, eta=0.5, seed=seed, selection="random")
        return [senders(orders) for orders in turns(strategy, state, 0)[1]]

    assert chosen(1) == chosen(1)
    assert chosen(1) != chosen(2)
    assert len({tuple(names) for names in chosen(1)}) > 1
    assert all(len(names) == 3 for names in chosen(1))


# Schedule ---------------------------------------------------------------------------------------------------------


def lr_of(strategy, state, number):
    state, orders = strategy.turn(state, number, 0, BOTH)
    rate = orders["a"].settings["lr"]
    assert state.upper.optimizer.param_groups[0]["lr"] == rate  # both sides
    return rate


def test_the_learning_rate_follows_the_cosine_of_pytorch():
    strategy, state = begin(rounds=20)
    optimizer = torch.optim.Adam([torch.zeros(1)], lr=1e-3)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=22)
    for number in range(20):
        assert lr_of(strategy, state, number) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        cosine.step()


def test_values_of_the_schedule():
    strategy, state = begin(rounds=20)
    assert lr_of(strategy, state, 0) == 1e-3
    assert lr_of(strategy, state, 11) == pytest.approx(0.5e-3)
    strategy, state = begin(rounds=40, t_max=22)
    assert lr_of(strategy, state, 22) == pytest.approx(0.0, abs=1e-12)
    strategy, state = begin(rounds=40, schedule="constant")
    assert lr_of(strategy, state, 39) == 1e-3


# Replay -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masks", [True, False])
def test_each_batch_but_the_first_is_followed_by_replay(masks):
    strategy, state = begin(kappa=0.0, eta=1.0, replay=3, masks=masks)
    state, _ = strategy.turn(state, 0, 0, BOTH)
    steps = []
    for number, name in enumerate(("a", "b", "a")):
        state, _ = strategy.learn(state, 0, number, {name: Batch(*batch(number))})
        steps.append(state.upper.steps)
    assert steps == [1, 1 + 4, 1 + 4 + 4]


def test_without_replay_nothing_is_kept():
    strategy, state = begin(kappa=0.0, eta=1.0)
    state, _ = turns(strategy, state, 0)
    assert len(state.replay) == 0
    assert state.upper.steps == 6


def test_replay_stays_within_its_megabytes():
    # A sample is 3 numbers of 4 bytes, a label and a device's number: 28 bytes.
    strategy, state = begin(kappa=0.0, eta=1.0, replay=1, replay_megabytes=28 * 6 / 1e6)
    state, _ = turns(strategy, state, 0)
    assert len(state.replay) == 6


# The ablations ----------------------------------------------------------------------------------------------------


def test_frozen_devices_only_send_and_there_is_no_local_phase():
    strategy, state = begin(frozen=True, eta=0.5)
    state, told = turns(strategy, state, 0)
    for orders in told:
        (order,) = orders.values()
        assert (order.kind, len(order.send)) == ("forward", 1)
    assert state.upper.steps == 3


def test_the_gradient_goes_down_to_the_selected_only():
    strategy, state = begin(kappa=0.0, eta=0.5, server_gradient=True)
    state, orders = strategy.turn(state, 0, 0, BOTH)
    (name,) = senders(orders)
    (other,) = {"a", "b"} - {name}
    assert (orders[name].kind, orders[other].kind) == ("exchange", "local")
    x, y = batch(0)
    logits = state.upper.predict(TWO.index(name), x)
    _, lessons = strategy.learn(state, 0, 0, {name: Batch(x, y)})
    learned = lessons[name]
    assert learned.loss == pytest.approx(nn.functional.cross_entropy(logits, y).item())
    assert learned.gradient.shape == x.shape
    assert learned.gradient.abs().sum() > 0


def test_handover_passes_lower_segments_around_the_ring_after_every_iteration():
    strategy, state = begin(fleet_of(3, batches=2), handover=True)
    state, told = turns(strategy, state, 0)
    assert len(told) == 2  # every iteration, in the local phase too
    assert all(order.give for orders in told for order in orders.values())
    assert [order.state for order in told[0].values()] == [None] * 3
    assert [order.state["w"][0] for order in told[1].values()] == [2, 0, 1]
    _, told = turns(strategy, state, 1)
    assert [order.state["w"][0] for order in told[0].values()] == [2, 0, 1]


def test_the_successor_of_a_missing_device_keeps_its_own_lower_segment():
    strategy, state = begin(fleet_of(3, batches=2), handover=True)
    state, _ = turns(strategy, state, 0, present=["d00", "d02"])
    _, told = turns(strategy, state, 1)
    assert [name for name, order in told[0].items() if order.state is None] == ["d02"]


def test_a_lone_device_hands_over_to_nobody():
    strategy, state = begin(fleet_of(1, batches=2), handover=True)
    _, told = turns(strategy, state, 0)
    assert told[1]["d00"].state is None


def test_without_masks_everybody_gets_the_same_prediction():
    x, _ = batch(0)
    for masks in (False, True):
        strategy, state = begin(masks=masks)
        same = torch.equal(strategy.predict(state, "a", x), strategy.predict(state, "b", x))
        assert same is not masks
        assert strategy.predict(state, "a new wearer", x).shape == (4, 2)


# Checkpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"masks": False, "replay": 2}, {"replay": 2, "eta": 0.5}, {"handover": True, "selection": "random"}]
)
def test_a_run_that_was_stored_goes_on_bit_by_bit(options):
    options = {"kappa": 0.25, **options}
    fleet = fleet_of(3, batches=2)

    def run(*, stop_after):
        strategy, state = begin(fleet, rounds=4, seed=5, **options)
        told = []
        for number in range(4):
            if number == stop_after:
                file = io.BytesIO()
                torch.save(strategy.save(state), file)
                file.seek(0)
                strategy = AdaSplit(AdaSplitOptions(**options))
                state = strategy.load(fleet, upper(), torch.load(file, weights_only=True))
            state, orders = turns(strategy, state, number)
            told += [(senders(part), [order.state for order in part.values()]) for part in orders]
        return state, repr(told)

    (straight, told), (resumed, told_again) = run(stop_after=None), run(stop_after=2)
    assert told == told_again
    assert torch.equal(straight.upper.weights, resumed.upper.weights)
    assert np.array_equal(straight.history.losses, resumed.history.losses)
    assert straight.iteration == resumed.iteration == 6


def test_the_checkpoint_of_another_fleet_is_refused():
    strategy, state = begin()
    with pytest.raises(ValueError, match="made for the devices a, b; these are d00, d01"):
        strategy.load(fleet_of(2), upper(), strategy.save(state))


# Options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"kappa": 1.5}, "kappa = 1.5: must be from 0 to 1"),
        ({"eta": -0.1}, "eta = -0.1: must be from 0 to 1"),
        ({"gamma": math.nan}, "gamma = nan: must be from 0 to 1"),
        ({"replay": -1}, "replay = -1: must be from 0 to 10000"),
        ({"select_every": 0}, "select_every = 0: must be from 1 to 1e"),
        ({"t_max": 0}, "t_max = 0: must be from 1 to 1e"),
        ({"selection": "best"}, "selection = 'best': must be one of ucb, random"),
        ({"handover": True, "select_every": 2}, "select_every = 2: must be 1"),
        ({"frozen": True, "server_gradient": True}, "frozen = true"),
    ],
)
def test_wrong_options_are_named_with_their_range(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        AdaSplit(AdaSplitOptions(**options))


def test_every_wrong_option_is_told_at_once():
    with pytest.raises(ValueError, match=r"kappa = 2.*\n.*eta = 3"):
        AdaSplit(AdaSplitOptions(kappa=2, eta=3))


def adapted(outlook, *, rounds=10, **options):
    """Of each round: whether it was local, and the steps of its turns."""
    strategy, state = begin(TWO, rounds=rounds, **options)
    found = []
    for number in range(rounds):
        state = strategy.foresee(state, outlook(number))
        state, told = turns(strategy, state, number)
        found.append(
            (not any(senders(orders) for orders in told), [next(iter(orders.values())).steps for orders in told])
        )
    return found


@pytest.mark.parametrize(
    ("orders", "local", "length"),
    [
        (None, 2, 1),  # no budget
        (24, 2, 1),  # 8 rounds of 3 turns
        (23, 2, 2),  # of 2 turns: a selection serves two iterations, and then one
        (15, 2, 3),  # of one turn
        (5, 2, 3),  # who is not selected gets no order: of two devices one is, in 8 rounds 4 times each
        (3, 4, 3),
        (0, 7, 3),  # 1.5 times each
    ],
)
def test_the_local_phase_is_longer_where_orders_cannot_be_paid(orders, local, length):
    found = adapted(lambda _: Outlook(orders=orders), kappa=0.2, schedule="constant")
    assert [alone for alone, _ in found] == [True] * local + [False] * (10 - local)
    assert found[-1][1] == {1: [1, 1, 1], 2: [2, 1], 3: [3]}[length]


def test_what_was_planned_before_the_first_round_stays():
    strategy, state = begin(kappa=0.2, schedule="constant")
    state = strategy.foresee(state, Outlook(orders=3))
    assert strategy.quiet_rounds(state) == 4
    loaded = strategy.load(TWO, upper(), strategy.save(state))
    loaded = strategy.foresee(loaded, Outlook(orders=2))
    assert strategy.quiet_rounds(loaded) == 4
    assert strategy.uploads_left(loaded, "a") == 6 * 3 / 2  # rounds, iterations, one of two devices
    _, orders = strategy.turn(loaded, 4, 0, BOTH)
    assert len(orders) == 1  # as before the checkpoint


@pytest.mark.parametrize(("orders", "told", "to_come"), [(None, 5, 24), (24, 5, 24), (23, 2, 8 * 2 * 2 / 5)])
def test_who_is_not_selected_is_told_nothing_where_orders_cannot_be_paid(orders, told, to_come):
    """Eight rounds of the global phase, of three iterations each; two of five devices are selected."""
    strategy, state = begin(fleet_of(5, batches=3), kappa=0.2, eta=0.4, schedule="constant")
    state = strategy.foresee(state, Outlook(orders=orders))
    _, local = strategy.turn(state, 1, 0, state.fleet.names)
    assert len(local) == 5
    _, found = strategy.turn(state, 2, 0, state.fleet.names)
    assert (len(found), len(senders(found))) == (told, 2)
    assert strategy.orders_to_come(state) == to_come


def test_where_orders_take_too_much_later_who_is_not_selected_is_told_nothing_either():
    strategy, state = begin(fleet_of(5), kappa=0.0, eta=0.4)
    state = strategy.foresee(state, Outlook((), 1.0, 0.3))
    _, found = strategy.turn(state, 0, 0, state.fleet.names)
    assert sorted(found) == senders(found)


def test_where_orders_take_too_much_a_selection_serves_a_whole_round():
    found = adapted(lambda number: Outlook((), 1.0, 0.3 if number > 4 else 0.2), kappa=0.3)
    assert [steps for _, steps in found] == [[3]] * 3 + [[1, 1, 1]] * 2 + [[2, 1]] + [[3]] * 4


def test_no_selection_serves_so_many_iterations_that_devices_are_not_heard():
    found = adapted(
        lambda number: Outlook((), 1.0, 0.3), kappa=0.8
    )  # 2 rounds: with 3 turns each 3 selections, with 2 turns 2, with one 1
    assert [steps for _, steps in found] == [[3]] * 8 + [[2, 1]] * 2


# What devices can pay ------------------------------------------------------------------------------------------------


def test_devices_that_rest_are_not_asked_and_others_are_in_the_turn_that_follows():
    strategy, state = begin(fleet_of(5), kappa=0.0, eta=0.4)
    state = strategy.foresee(state, Outlook(("d00", "d02", "d04")))
    state, orders = strategy.turn(state, 0, 0, state.fleet.names)
    assert senders(orders) == ["d01", "d03"]
    assert len(orders) == 5  # the others learn alone
    state = strategy.settle(state, 0, 0, {}, {})
    chosen = set()
    for number in range(1, 12):
        state = strategy.foresee(state, Outlook())
        state, orders = strategy.turn(state, number, 0, state.fleet.names)
        chosen |= set(senders(orders))
        state = strategy.settle(state, number, 0, {}, {})
    assert chosen == set(state.fleet.names)


def test_where_all_rest_nobody_is_asked():
    strategy, state = begin(kappa=0.0)
    _, orders = strategy.turn(strategy.foresee(state, Outlook(BOTH)), 0, 0, BOTH)
    assert senders(orders) == []


@pytest.mark.parametrize(
    ("options", "quiet"),
    [
        ({"schedule": "constant"}, 6),
        ({"schedule": "cosine"}, 0),
        ({"schedule": "constant", "handover": True}, 0),
        ({"schedule": "constant", "frozen": True}, 0),
    ],
)
def test_the_local_rounds_are_quiet_unless_they_differ_or_something_goes_up(options, quiet):
    strategy, state = begin(**options)
    assert strategy.quiet_rounds(state) == quiet


def test_beta_is_steered_for_each_device_by_what_it_sent_and_kept_in_the_checkpoint():
    strategy, state = begin(kappa=0.0, beta=0.01, nonzero=0.2)
    state, orders = strategy.turn(state, 0, 0, BOTH)
    assert {order.settings["beta"] for order in orders.values()} == {0.01}
    state = strategy.settle(state, 0, 0, {"a": {"nonzero_share": 0.3}, "b": {}}, {})
    saved = strategy.save(state)
    _, orders = strategy.turn(state, 0, 1, BOTH)
    assert orders["a"].settings["beta"] == pytest.approx(0.01 * 1.5**2)
    assert orders["b"].settings["beta"] == 0.01
    loaded = strategy.load(TWO, upper(), saved)
    assert loaded.betas == state.betas


def test_without_a_share_that_is_wanted_beta_stays():
    strategy, state = begin(kappa=0.0, beta=0.01)
    state, _ = strategy.turn(state, 0, 0, BOTH)
    state = strategy.settle(state, 0, 0, {"a": {"nonzero_share": 0.9}}, {})
    _, orders = strategy.turn(state, 0, 1, BOTH)
    assert orders["a"].settings["beta"] == 0.01
