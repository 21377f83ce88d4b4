"""A rollout goes by what devices say and by a clock that the test moves."""

import io
from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.console import Console

from edge.wire.updates import Figures, Offer, State
from hub.rollout import gate, plan, rollout
from hub.rollout.book import DONE, RUNNING, STOPPED, Book, Entry, Shelf
from hub.rollout.command import _book, _end
from hub.rollout.gate import Drift, Margins, judge
from hub.rollout.plan import RolloutError
from hub.rollout.progress import ROWS, Picture, summary
from tests.hub.rollout_stage import GOOD, RELEASE, TIMES, Fleet, new, old, told

NAMES = [f"pi-{number}" for number in range(6)]


@pytest.fixture
def fleet():
    made = Fleet(NAMES)
    made.pass_()
    made.pass_()
    return made


def offered(fleet):
    return {name for name, data in fleet.rollout.offers().items() if data and Offer.parse(data).release == RELEASE}


def test_stages_are_read():
    assert [(stage.name, stage.share) for stage in plan.parse("canary, 10%,all")] == [
        ("canary", 0.0),
        ("10%", 0.1),
        ("all", 1.0),
    ]
    assert [stage.count(25) for stage in plan.parse("canary,10%,all")] == [1, 3, 25]


@pytest.mark.parametrize(
    "text", ["", "some", "0%", "101%", "all,10%", "10%,10%", "10%,canary", "canary,,all", "-5%", "1e1%"]
)
def test_what_is_no_stage_is_refused(text):
    with pytest.raises(RolloutError, match="--to"):
        plan.parse(text)


def test_nobody_is_chosen_before_the_fleet_was_heard():
    fleet = Fleet(NAMES)
    fleet.pass_(0.5)
    assert fleet.chosen() == set()


def test_one_device_is_first_then_a_share_then_all(fleet):
    (canary,) = fleet.chosen()
    assert offered(fleet) == {canary}
    fleet.update(canary)
    fleet.pass_()
    assert len(fleet.chosen()) == 3
    assert canary in fleet.chosen()
    fleet.update(*fleet.chosen() - {canary})
    fleet.pass_()
    assert fleet.chosen() == set(NAMES)
    assert fleet.book.outcome == RUNNING
    fleet.update(*NAMES)
    assert fleet.book.outcome == DONE
    assert set(fleet.rollout.offers().values()) == {b""}
    assert fleet.said[-1] == "stage all is over: 6 of 6 devices have version 4"


def test_the_others_are_asked_for_their_state(fleet):
    others = set(NAMES) - fleet.chosen()
    assert {Offer.parse(fleet.rollout.offers()[name]) for name in others} == {Offer("f", None, TIMES.state)}


def test_another_release_begins_with_another_device():
    first = {plan.ranked(NAMES, f"{number:064x}")[0] for number in range(40)}
    assert len(first) == len(NAMES)
    assert plan.ranked(NAMES, "a") == plan.ranked(reversed(NAMES), "a")


def test_a_stage_is_not_over_before_its_devices_were_well_for_long_enough(fleet):
    (canary,) = fleet.chosen()
    fleet.say(canary, new("trial"))
    fleet.pass_(TIMES.hold)
    fleet.say(canary, new())
    fleet.pass_(TIMES.hold - 1)
    assert fleet.book.stage == 0
    fleet.pass_(1)
    assert fleet.book.stage == 1


def test_a_device_that_has_hardly_learned_on_it_is_waited_for_but_not_for_ever(fleet):
    (canary,) = fleet.chosen()
    fleet.say(canary, new(now=Figures(gate.STEPS - 1, 0.1, 1.0)))
    fleet.pass_(2 * TIMES.hold)
    assert fleet.book.stage == 0
    fleet.pass_(TIMES.hold)
    assert fleet.book.stage == 1


@pytest.mark.parametrize(
    ("figures", "reason"),
    [
        (replace(GOOD, step_seconds=0.2), "a step takes 200 ms, before it was 100 ms (limit 150 ms)"),
        (replace(GOOD, loss=1.5), "the loss is 1.500, before it was 1.000 (limit 1.250)"),
    ],
)
def test_a_canary_that_is_worse_off_stops_it(fleet, figures, reason):
    (canary,) = fleet.chosen()
    fleet.say(canary, new("trial", figures))
    fleet.pass_()
    assert (fleet.book.outcome, fleet.book.reason) == (STOPPED, f"{canary}: {reason}")
    assert set(fleet.rollout.offers().values()) == {b""}
    assert not fleet.rollout.serves(canary)
    fleet.pass_(1000)
    assert fleet.chosen() == {canary}


def test_a_canary_on_a_bad_link_has_its_time_in_parts(fleet):
    (canary,) = fleet.chosen()
    fleet.say(canary, new())
    for _ in range(3):
        fleet.pass_(0.3 * TIMES.hold)
        fleet.gone(canary)
        fleet.pass_(0.9 * TIMES.trial)
        fleet.there(canary, new())
    assert (fleet.book.stage, fleet.book.outcome) == (0, RUNNING)
    fleet.pass_(0.2 * TIMES.hold)
    assert fleet.book.stage == 1


def test_who_has_been_well_for_long_enough_may_be_switched_off_at_night(fleet):
    (canary,) = fleet.chosen()
    fleet.update(canary)
    assert fleet.book.stage == 1
    fleet.gone(canary)
    fleet.pass_(10 * TIMES.trial)
    fleet.again()  # and its state is at no broker any more
    fleet.pass_(2 * TIMES.trial)
    fleet.pass_(2 * TIMES.trial)
    assert fleet.book.outcome == RUNNING
    assert fleet.rollout.standing(canary, fleet.now) == rollout.HELD


def test_a_canary_that_rolls_back_stops_it(fleet):
    (canary,) = fleet.chosen()
    fleet.say(canary, told("ready"))
    fleet.gone(canary)
    fleet.pass_()
    assert fleet.book.outcome == RUNNING
    fleet.there(canary, told("rolled back", "not healthy after 3 starts"))
    fleet.pass_()
    assert (fleet.book.outcome, fleet.book.reason) == (STOPPED, f"{canary} rolled back: not healthy after 3 starts")


def test_a_canary_that_takes_it_and_is_not_heard_of_again_stops_it(fleet):
    (canary,) = fleet.chosen()
    fleet.say(canary, told("ready"))
    fleet.gone(canary)
    fleet.pass_(TIMES.trial - 1)
    assert fleet.book.outcome == RUNNING
    fleet.pass_(2)
    assert fleet.book.reason == f"{canary} took it and did not become well within 100 s"


def test_no_network_is_not_unhealthy_and_proves_nothing(fleet):
    """A release may have lost the board's network: its last state stays at the broker, and says that it is well."""
    (canary,) = fleet.chosen()
    fleet.say(canary, new())
    fleet.pass_(TIMES.hold / 2)
    fleet.gone(canary)
    fleet.pass_(TIMES.hold)
    fleet.pass_(2 * TIMES.trial)
    fleet.pass_()
    assert (fleet.book.outcome, fleet.book.stage) == (RUNNING, 0)
    assert fleet.chosen() == {canary}
    fleet.there(canary, new())
    fleet.pass_(TIMES.hold)
    assert (fleet.book.outcome, fleet.book.stage) == (RUNNING, 1)


def test_a_canary_that_goes_before_it_has_it_is_replaced_and_gets_it_later(fleet):
    (canary,) = fleet.chosen()
    fleet.say(canary, told("fetching", here=10))
    fleet.gone(canary)
    fleet.pass_()
    (second,) = fleet.chosen() - {canary}
    fleet.update(second)
    assert fleet.book.stage == 1
    assert canary in offered(fleet)


def test_who_is_away_does_not_hold_up_a_stage_but_the_last(fleet):
    (canary,) = fleet.chosen()
    away = next(name for name in NAMES if name != canary)
    fleet.gone(away)
    fleet.update(canary)
    fleet.pass_()
    fleet.update(*fleet.chosen() - {away})
    fleet.pass_()
    fleet.update(*set(NAMES) - {away})
    assert (fleet.book.stage, fleet.book.outcome) == (2, RUNNING)
    assert away in offered(fleet)
    fleet.there(away, told("fetching"))
    fleet.update(away)
    assert fleet.book.outcome == DONE


def test_a_device_that_comes_late_gets_it_too(fleet):
    for _ in range(3):
        fleet.update(*fleet.chosen())
        fleet.pass_()
    fleet = Fleet(NAMES, to="all")
    fleet.pass_(2)
    fleet.there("late")
    fleet.pass_()
    assert "late" in offered(fleet)


def test_only_those_named(fleet):
    fleet = Fleet(NAMES, to="all", only=("pi-1", "pi-2"))
    fleet.pass_(2)
    assert offered(fleet) == set(fleet.rollout.offers()) == {"pi-1", "pi-2"}
    fleet.update("pi-1", "pi-2")
    assert fleet.book.outcome == DONE


def test_one_that_was_named_and_was_never_seen_is_waited_for():
    fleet = Fleet(["pi-1"], to="all", only=("pi-1", "nobody"))
    fleet.pass_(2)
    fleet.update("pi-1")
    assert fleet.book.outcome == RUNNING


def test_named_canaries_are_first():
    fleet = Fleet(NAMES, canaries=("pi-3", "pi-4"))
    fleet.pass_(2)
    assert fleet.chosen() == {"pi-3", "pi-4"}


def test_boards_that_cannot_take_it_are_passed_over(fleet):
    (canary,) = fleet.chosen()
    fleet.say(canary, told("refused", "it is for aarch64, this board is armv7l"))
    fleet.pass_()
    assert fleet.book.outcome == RUNNING
    (second,) = fleet.chosen() - {canary}
    fleet.update(second)
    assert fleet.book.stage == 1


def test_where_no_device_takes_it_the_reason_is_told():
    fleet = Fleet(["a", "b"])
    fleet.pass_(2)
    for _ in range(2):
        for name in fleet.chosen():
            fleet.say(name, told("refused", "it has expired"))
        fleet.pass_()
    assert fleet.book.outcome == STOPPED
    assert fleet.book.reason.startswith("no device takes it; ")
    assert fleet.book.reason.endswith(": it has expired")


def test_of_many_a_few_may_fail():
    names = [f"pi-{number:02d}" for number in range(20)]
    fleet = Fleet(names, to="all")
    fleet.pass_(2)
    fleet.update(*names[2:])
    for name in names[:2]:
        fleet.say(name, told("rolled back"))
    fleet.pass_()
    assert fleet.book.outcome == DONE
    fleet = Fleet(names, to="all")
    fleet.pass_(2)
    for name in names[:3]:
        fleet.say(name, told("rolled back"))
    fleet.pass_()
    assert fleet.book.outcome == STOPPED


def test_a_command_that_was_killed_goes_on(fleet):
    (canary,) = fleet.chosen()
    fleet.update(canary)
    fleet.pass_()
    chosen, fetching = fleet.chosen(), next(iter(fleet.chosen() - {canary}))
    fleet.say(fetching, told("ready"))
    fleet.again()
    assert offered(fleet) == chosen
    for name in NAMES:
        fleet.there(name, new() if name == canary else told("ready") if name == fetching else old())
    fleet.pass_()
    fleet.pass_(2)
    assert (fleet.chosen(), fleet.book.stage) == (chosen, 1)
    assert fleet.book.devices[canary].before == GOOD
    fleet.update(canary, *chosen)
    assert fleet.book.stage == 2


def test_what_is_worse_everywhere_is_nobodys_fault(fleet):
    (canary,) = fleet.chosen()
    slow = replace(GOOD, step_seconds=0.2, loss=1.6)
    for name in set(NAMES) - {canary}:
        fleet.say(name, old(slow))
    fleet.say(canary, new(now=slow))
    fleet.pass_(TIMES.hold)
    fleet.pass_(TIMES.hold)
    assert (fleet.book.outcome, fleet.book.stage) == (RUNNING, 1)


@pytest.mark.parametrize(
    ("before", "now", "meanwhile", "verdict"),
    [
        (None, replace(GOOD, step_seconds=9.0), Drift(), ""),
        (GOOD, GOOD, Drift(), ""),
        (replace(GOOD, steps=7), replace(GOOD, step_seconds=9.0), Drift(), ""),
        (GOOD, replace(GOOD, steps=7, step_seconds=9.0), Drift(), ""),
        (GOOD, replace(GOOD, step_seconds=0.15), Drift(), ""),
        (GOOD, replace(GOOD, step_seconds=0.151), Drift(), "a step takes 151 ms"),
        (GOOD, replace(GOOD, step_seconds=0.299), Drift(step=2.0), ""),
        (GOOD, replace(GOOD, loss=1.25), Drift(), ""),
        (GOOD, replace(GOOD, loss=1.26), Drift(), "the loss is 1.260"),
        (GOOD, replace(GOOD, loss=1.26), Drift(loss=0.02), ""),
        (GOOD, replace(GOOD, loss=9.0, bundle="d" * 64), Drift(), ""),
        (GOOD, replace(GOOD, loss=None, step_seconds=None), Drift(), ""),
        (replace(GOOD, loss=-1.0), replace(GOOD, loss=-0.7), Drift(), "the loss is -0.700"),
    ],
)
def test_margins(before, now, meanwhile, verdict):
    found = judge(before, now, meanwhile, Margins())
    assert found.startswith(verdict) if verdict else found == ""


def test_drift_is_the_median_and_never_an_excuse_for_less():
    slower = [(GOOD, replace(GOOD, step_seconds=0.1 * factor, loss=1.0 * factor)) for factor in (1.0, 2.0, 3.0)]
    assert gate.drift(slower) == Drift(2.0, 1.0)
    assert gate.drift([(GOOD, replace(GOOD, step_seconds=0.01, loss=0.1))]) == Drift()
    assert gate.drift([]) == Drift()


# The book -------------------------------------------------------------------------------------------------------


def test_the_book_comes_back(fleet, tmp_path):
    (canary,) = fleet.chosen()
    fleet.update(canary)
    shelf = Shelf(tmp_path / "fleet")
    with shelf.held():
        shelf.save(fleet.book)
    assert Shelf(tmp_path / "fleet").load() == fleet.book


def test_one_command_at_a_time(tmp_path):
    first, second = Shelf(tmp_path), Shelf(tmp_path)
    with first.held(), pytest.raises(RolloutError, match=r"another rollout of .* runs"), second.held():
        pass
    with second.held():
        pass


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 2}', '{"format": 1}', '{"format": 1, "devices": {"a": 3}}']
)
def test_a_damaged_book_is_a_sentence(tmp_path, text):
    (tmp_path / "rollout.json").write_text(text)
    with pytest.raises(RolloutError, match=r"rollout\.json: it"):
        Shelf(tmp_path).load()


def test_who_is_left_out_of_a_later_command_is_offered_it_no_longer(fleet):
    fleet = Fleet(["pi-1", "pi-2"], to="all")
    fleet.pass_()
    fleet.book.only = ("pi-2",)
    fleet.again()
    fleet.there("pi-1")
    fleet.there("pi-2")
    fleet.pass_()
    assert fleet.rollout.offers()["pi-1"] == b""
    assert not fleet.rollout.serves("pi-1")
    assert fleet.rollout.serves("pi-2")


@pytest.mark.parametrize(
    ("only", "words"),
    [((), "no device was heard of"), (("pi-1", "pi-9"), "without it: pi-9")],
)
def test_what_is_not_done_is_named(only, words, capsys):
    book = Book(RELEASE, "all", only=only)
    if only:
        book.devices["pi-1"] = Entry(stage=0, on_it=True)
        book.devices["pi-2"] = Entry(stage=0)
    assert _end(book, SimpleNamespace(pause=False, wait=5.0), 0) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == f"not done, and no news for 5 s; {words}"
    assert lines[-1] == "the same command goes on; --stop ends it for good"


def options(to="canary,all", only=(), canary=()):
    return SimpleNamespace(to=to, only=list(only), canary=list(canary))


def test_which_rollout_a_command_goes_on_with(tmp_path, fleet):
    shelf = Shelf(tmp_path)
    assert _book(shelf, RELEASE, options()) == Book(RELEASE, "canary,all")
    fleet.update(*fleet.chosen())
    shelf.save(fleet.book)
    assert _book(shelf, RELEASE, options("canary,50%,all")).stage == 1
    wider = _book(shelf, RELEASE, options("canary,all"))
    assert (wider.stage, wider.devices) == (0, fleet.book.devices)
    newer = replace(RELEASE, id="f" * 64, version=5)
    assert _book(shelf, newer, options()) == Book(newer, "canary,all")
    with pytest.raises(RolloutError, match="version 3 is not newer than version 4"):
        _book(shelf, replace(newer, version=3), options())
    with pytest.raises(RolloutError, match="--canary pi-9 is not among --only"):
        _book(shelf, newer, options(only=["pi-1"], canary=["pi-9"]))


# What is shown --------------------------------------------------------------------------------------------------


def shown(picture):
    out = io.StringIO()
    Console(file=out, width=80).print(picture)
    return out.getvalue().splitlines()


def test_the_picture_fits_80_columns(fleet):
    (canary,) = fleet.chosen()
    picture = Picture(fleet.rollout)
    fleet.say(canary, told("fetching", here=370))
    other = next(name for name in NAMES if name != canary)
    fleet.book.devices[other].worse = "a step takes far longer than anybody would have thought possible " * 2
    picture.note("a note that is much longer than eighty columns, " * 4)
    lines = shown(picture)
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert "version 4 to canary" in lines[0]
    assert "0 of 6 well" in lines[0]
    rows = {line.split()[0]: line for line in lines if line.startswith("pi-")}
    assert "fetching 37 %" in rows[canary]
    assert "100 ms" in rows[NAMES[0]]
    assert "failed: a step" in rows[other]
    assert next(iter(rows)) == other


def test_of_a_large_fleet_the_busy_ones_are_shown():
    fleet = Fleet([f"pi-{number:03d}" for number in range(200)])
    fleet.pass_(2)
    (canary,) = fleet.chosen()
    lines = shown(Picture(fleet.rollout))
    assert len(lines) < ROWS + 6
    assert lines[2].startswith(canary)
    assert f"and {200 - ROWS} more" in lines[-1]


def test_a_board_that_was_not_installed_from_a_release_is_told_from_one_that_waits(fleet):
    fleet.there("by-hand", State("idle"))
    assert f"  {'by-hand':<20} version –      was not installed from a release" in list(summary(fleet.book))  # noqa: RUF001
    assert "by-hand" not in fleet.chosen()


def test_the_summary_says_where_it_stands(fleet):
    (canary,) = fleet.chosen()
    fleet.update(canary)
    lines = list(summary(fleet.book))
    assert lines[0] == "version 4 (cccccccc), to canary,50%,all: in stage 50%"
    assert f"  {canary:<20} version 4      has it" in lines
    fleet.rollout.stop("no reason at all")
    assert next(iter(summary(fleet.book))).endswith("stopped: no reason at all")
    assert max(map(len, summary(fleet.book))) <= 80
