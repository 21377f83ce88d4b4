from dataclasses import replace

from export.cuts.board import BoardCost
from export.cuts.candidates import Candidate
from export.cuts.choice import Limits, Option, choose, front, rounds_per_day
from export.cuts.coded import Sizes
from export.cuts.leak import Leak
from export.cuts.link import parse_budget, parse_link
from export.cuts.plot import svg
from export.cuts.rounds import ORDER_BYTES, REPORT_BYTES, Cost, RoundCost, cost_of, frames_of
from export.cuts.strategies import Round


def option(name, seconds, size, leak=0.5, peak=100 << 20):
    found = Leak("float32", leak, None, 100, 0.0)
    return Option(
        Candidate(name, leaks=(found,)),
        BoardCost({"local": Cost(seconds / 10)}, peak, "measured"),
        RoundCost(seconds, None, None, size, 0.0),
    )


NEAR, MIDDLE, WORSE, FAR = (
    option("near", 1, 9e5),
    option("middle", 2, 3e5),
    option("worse", 3, 4e5),
    option("far", 8, 1e5),
)
ALL = [NEAR, MIDDLE, WORSE, FAR]


def test_what_nothing_beats_is_on_the_front():
    assert front(ALL) == {"near", "middle", "far"}
    assert front([NEAR, replace(WORSE, candidate=replace(WORSE.candidate, leaks=()))][:1]) == {"near"}
    assert front([*ALL, option("silent", 9, 9e5, leak=0.1)]) == {"near", "middle", "far", "silent"}


def test_a_budget_prefers_few_bytes_and_says_so():
    choice = choose(ALL, Limits(budget=parse_budget("1MB/day")))
    assert choice.option is FAR
    assert choice.rounds_per_day == 10
    assert choice.why == (
        "far: 10 rounds a day, limited by the budget of 1MB/day: a round computes for 8 s and takes 100.0 kB; "
        "the next, middle, comes to 3.3 rounds a day with 2 s and 300.0 kB."
    )


def test_without_a_budget_the_quickest():
    choice = choose(ALL, Limits())
    assert choice.option is NEAR
    assert rounds_per_day(NEAR, Limits()) == (86_400, "time")


def test_limits_refuse_with_numbers():
    choice = choose(ALL, Limits(max_leak=0.4, memory_bytes=50 << 20, budget=parse_budget("1 kB/round")))
    assert choice.option is None
    assert "near: its step needs 100 MiB of memory, the board has 50 MiB" in choice.why
    assert choose([NEAR], Limits(max_leak=0.4)).refused == {
        "near": "its leak is 0.50 (distance correlation), the limit is 0.4"
    }
    assert (
        "a round takes 900.0 kB, more than the budget of 1kB/round"
        in choose([NEAR], Limits(budget=parse_budget("1kB/round"))).why
    )


def test_alike_rounds_leave_it_to_the_bytes():
    assert choose([option("a", 1.0, 2e5), option("b", 1.01, 1e5)], Limits()).option.name == "b"


def test_a_round_is_its_steps_and_messages():
    found = Round("gradient", {"forward": 10, "backward": 10}, 10, 10, ("lower",), 1, 0.5)
    steps = {"forward": Cost(0.01, 0.02), "backward": Cost(0.03, 0.05)}
    sizes = Sizes(1000, 2000, 0)
    assert frames_of(found, sizes, 300) == (10_000 + 300 + REPORT_BYTES, 20_000 + 150 + ORDER_BYTES)
    cost = cost_of(found, steps, sizes, 300, parse_link("8kbit"))
    assert round(cost.compute_seconds, 9) == 0.4
    assert round(cost.joules, 9) == 0.7
    assert cost.link_seconds == cost.bytes / 1000
    assert cost_of(found, {**steps, "forward": Cost(0.01)}, sizes, 300, None).joules is None


def test_the_drawing_has_every_cut():
    text = svg(ALL, front(ALL), "a < b")
    assert all(f">{each.name}<" in text for each in ALL)
    assert "a &lt; b" in text
