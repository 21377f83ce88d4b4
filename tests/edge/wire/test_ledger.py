import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.wire.ledger import Ledger


def test_numbers_in_order_only_raise_the_floor():
    ledger = Ledger(3)
    for number in (1, 2, 3):
        ledger = ledger.with_done(number)
    assert ledger == Ledger(3, 3)


def test_a_gap_is_a_run_until_it_closes():
    ledger = Ledger(1).with_done(1).with_done(3).with_done(5).with_done(4)
    assert ledger == Ledger(1, 1, ((3, 5),))
    assert ledger.with_done(2) == Ledger(1, 5)


def test_a_raised_floor_swallows_runs():
    ledger = Ledger(1, 0, ((3, 5), (8, 9)))
    assert ledger.with_floor(2) == Ledger(1, 5, ((8, 9),))
    assert ledger.with_floor(4) == Ledger(1, 5, ((8, 9),))
    assert ledger.with_floor(20) == Ledger(1, 20)


@given(st.lists(st.integers(1, 40)), st.integers(0, 40))
def test_it_knows_exactly_what_it_was_told(numbers, floor):
    ledger = Ledger(1).with_floor(floor)
    for number in numbers:
        ledger = ledger.with_done(number)
    assert {number for number in range(1, 60) if number in ledger} == set(numbers) | set(range(1, floor + 1))
    assert Ledger.from_json(ledger.to_json()) == ledger


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        {"epoch": 1, "floor": "x", "done": []},
        {"epoch": 1, "floor": 2, "done": [[3, 4]]},
        {"epoch": 1, "floor": 2, "done": [[5, 4]]},
        {"epoch": 1, "floor": 2, "done": [[9, 9], [5, 6]]},
    ],
)
def test_what_is_no_ledger_is_refused(value):
    with pytest.raises(ValueError, match="not a ledger"):
        Ledger.from_json(value)
