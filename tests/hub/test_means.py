import pytest

from edge.wire.delivery import Delivery
from edge.wire.messages import Hello
from hub.devices import Device
from hub.means import DARK_BYTES, END_BYTES, MESSAGE_BYTES, ROUND_BYTES, TARGET, Means
from hub.strategies.base import Order, Outlook


def device(budget=None, facts=None, test_samples=10):
    hello = Hello("a", 1, "0" * 64, 100, test_samples, facts=facts or {})
    found = Device("a", Delivery(epoch=1, instance=1), hello=hello)
    if budget is not None:
        found.totals = {"budget": budget}
    return found


def means(rounds=10, weights=(0, 0), **default):
    # A batch of 10 samples of 25 elements: 1000 bytes as float32.
    return Means(default, rounds=rounds, batch=10, elements=25, codec="float32", weights=lambda _name, _order: weights)


def order(steps=4, kind="local", **more):
    return Order(kind, 0, steps, send=tuple(range(steps)), **more)


def test_without_a_budget_everything_is_sent():
    paid = means().pay(device(), order(), 0, None)
    assert (paid.send, paid.allowance, paid.whole) == ((0, 1, 2, 3), None, True)


def test_an_order_that_uploads_nothing_needs_no_allowance():
    assert means(up_per_run=16_000.0).pay(device(), Order("local", 0, 4), 0, None).allowance is None


def test_what_is_left_is_shared_by_the_activations_to_come():
    # 100 000 left in the last of 10 rounds: 98 000, less 2500 for the end and a round's 1500; 8 activations expected, 4 of them now.
    paid = means(up_per_run=100_000.0).pay(device(), order(), 9, 8.0)
    assert paid.send == (0, 1, 2, 3)
    assert paid.allowance == int((TARGET * 100_000 - END_BYTES - ROUND_BYTES) * 4 / 8)


def test_where_they_cannot_be_paid_in_full_fewer_are_asked_for():
    full = 10 * 100 + MESSAGE_BYTES
    # Half of the 4 activations of the last order can be paid.
    rest = (4 * full / 2 + ROUND_BYTES + END_BYTES) / TARGET
    paid = means(up_per_run=rest).pay(device(), order(), 9, None)
    assert len(paid.send) == 2
    assert paid.allowance == pytest.approx(2 * full, abs=2)


def test_what_is_not_asked_for_is_owed_to_the_orders_after_it():
    planner = means(up_per_run=(0.25 * 1250 + ROUND_BYTES + END_BYTES) / TARGET)
    sent = [len(planner.pay(device(), order(1), 9, None).send) for _ in range(8)]
    assert sum(sent) == 2


def test_who_can_pay_a_quarter_of_what_is_expected_rests_in_three_turns_of_four():
    planner = means(up_per_run=(2 * 1250 + ROUND_BYTES + END_BYTES) / TARGET)
    poor, rich = device(), device({"up_left": 90_000})
    looks = [planner.outlook({"poor": poor, "rich": rich}, 9, {"poor": 8.0, "rich": 8.0}) for _ in range(8)]
    rested = [outlook.resting for outlook in looks]
    assert rested.count(("poor",)) == 6
    assert rested.count(()) == 2
    # Who is asked in spite of it has means for a whole activation, and sends all that it is asked for.
    paid = planner.pay(poor, order(1), 9, 8.0)
    assert paid.send == (0,)
    assert paid.allowance == pytest.approx(1250, abs=2)


def test_nobody_rests_without_a_budget_or_where_nothing_is_to_come():
    assert means().outlook({"a": device()}, 0, {"a": 8.0}) == Outlook()
    assert means(up_per_run=16_000.0).outlook({"a": device()}, 0, {"a": 0.0}) == Outlook()


def test_the_outlook_is_that_of_a_device_in_the_middle_of_the_fleet():
    # A quarter, three quarters and all of 4 activations can be paid in the last round, which takes 1500 bytes.
    lefts = {
        name: (share * 4 * 1250 + ROUND_BYTES + END_BYTES) / TARGET
        for name, share in (("a", 0.25), ("b", 0.75), ("c", 2))
    }
    fleet = {name: device({"up_left": left, "up_spent": 9 * ROUND_BYTES}) for name, left in lefts.items()}
    found = means(up_per_run=90_000.0).outlook(fleet, 9, dict.fromkeys(fleet, 4.0))
    assert found.payable == 0.75
    assert found.control == round(ROUND_BYTES / (0.75 * 5000 + ROUND_BYTES), 3)
    assert found.orders == int(0.4 * (0.75 * 5000 + ROUND_BYTES - 4500) / 500)


def test_the_device_says_what_is_left_and_what_things_cost():
    # 20 samples took 1000 bytes; 2 messages; 3 of 10 rounds are over, of which each cost (6000 - 1100 - 500) / 3.
    told = {"up_left": 50_000, "up_spent": 6_000, "bytes": 1000, "samples": 20, "messages": 2}
    paid = means(up_per_run=56_000.0).pay(device(told), order(2), 3, 20.0)
    free = TARGET * 50_000 - END_BYTES - 7 * (6000 - 1100 - 2 * MESSAGE_BYTES) / 3
    assert paid.allowance == int(free * 2 / 20)


def test_a_budget_of_its_own_comes_first():
    own = device(facts={"budget.up_per_run": 20_000.0})
    assert means(up_per_run=90_000.0).amounts(own) == {"up_per_run": 20_000}


def test_weights_that_find_no_room_are_not_asked_for_or_sent():
    told = Order("local", 0, 1)
    assert means(weights=(0, 20_000), down_per_run=30_000.0).pay(device(), told, 0, None).whole
    assert not means(weights=(0, 20_000), down_per_run=23_000.0).pay(device(), told, 0, None).whole
    assert means(weights=(20_000, 0), up_per_run=30_000.0).pay(device(), told, 0, None).whole
    assert not means(weights=(20_000, 0), up_per_run=23_000.0).pay(device(), told, 0, None).whole
    # Coded they do.
    assert means(weights=(2_500, 5_000), up_per_run=23_000.0, down_per_run=23_000.0).pay(device(), told, 0, None).whole


def test_an_exchange_is_whole_or_not_at_all():
    exchange = order(20, kind="exchange")
    assert means(up_per_run=60_000.0).pay(device(), exchange, 9, None).send == exchange.send
    assert not means(up_per_run=60_000.0, down_per_run=16_000.0).pay(device(), exchange, 9, None).whole


def test_test_samples_go_up_at_the_end_where_they_fit():
    planner = means(up_per_run=16_000.0)
    assert not planner.evaluates(device(), last=False)
    assert planner.evaluates(device(), last=True)
    assert not planner.evaluates(device(test_samples=1000), last=True)
    assert means(up_per_run=16_000.0, apart=1.0).evaluates(device(test_samples=1000), last=False)
    assert means().evaluates(device(), last=False)


def test_what_carries_not_even_the_orders_of_a_run_is_named_with_the_smallest_that_does():
    # 4500 to begin and to end, 300 for each of 100 orders.
    planner = means(up_per_run=34_499.0, down_per_run=44_500.0)
    assert planner.too_little(device(), 100) == (
        "device 'a': up_per_run = \"34.499 kB\" carries not even the control messages of 100 orders: "
        'the smallest that works is "35 kB"'
    )
    assert planner.too_little(device(), 99) is None
    assert 'down_per_run = "44 kB"' in means(down_per_run=44_000.0).too_little(device(), 100)
    assert means(up_per_day=16_000.0).too_little(device(), 10_000) is None


def test_what_has_passed_since_a_report_is_taken_off_what_it_says_is_left():
    # A device that went silent in the middle of an order never reports: it is known to have spent its means all the same.
    found = device({"up_left": 20_000, "down_left": 30_000})
    planner = means(up_per_run=60_000.0, down_per_run=60_000.0)
    assert not planner.spent(found)
    found.since_report["down"] = 13_400  # 30 000 - 1.2 * 13 400 = 13 920, less than 14 000
    assert planner.spent(found)


def test_a_device_with_next_to_nothing_left_may_not_come_back():
    planner = means(up_per_run=60_000.0)
    assert not planner.spent(device({"up_left": DARK_BYTES["up"]}))
    assert planner.spent(device({"up_left": DARK_BYTES["up"] - 1}))


def test_rounds_that_have_become_dearer_are_planned_with():
    planner = means(up_per_run=90_000.0)
    cheap = device({"up_left": 80_000, "up_spent": 1_000, "bytes": 0, "samples": 0, "messages": 0})
    planner.pay(cheap, order(1), 2, 10.0)
    dear = device({"up_left": 78_000, "up_spent": 3_000, "bytes": 0, "samples": 0, "messages": 0})
    paid = planner.pay(dear, order(1), 3, 10.0)
    # 2000 in the last round, though 1000 on average.
    assert paid.allowance == int((TARGET * 78_000 - END_BYTES - 7 * 2_000) / 10)
