"""What activations came to behind the codec, worked by hand."""

import pytest

from hub.coding import Coded, by_round, whole
from hub.plots import PLOTS, draw
from hub.report import write_report
from hub.summary import coding_of, summarise, unkept
from tests.hub.records import RUN, device, fleet_round, write
from tests.hub.test_plots import Plot, log_of

FIRST = {"elements": 1000, "paper_bytes": 2000, "socket_sent": 600, "evaluation_sent": 100,
         "coded": {"bytes": 250, "nonzeros": 300, "step": 500.0, "deviations": 1500.0}}  # fmt: skip
IDLE = {**FIRST, "socket_sent": 700}
SECOND = {"elements": 3000, "paper_bytes": 4000, "socket_sent": 1300, "evaluation_sent": 200,
          "coded": {"bytes": 750, "nonzeros": 500, "step": 1100.0, "deviations": 5500.0}}  # fmt: skip


def rounds(*figures):
    return [device("bed-1", number, **{"coded": {}, **found}) for number, found in enumerate(figures, 1)]


def run_of(*figures):
    records = [RUN]
    for record in rounds(*figures):
        records += [record, fleet_round(record["round"], "global", 0.5)]
    return records


def test_a_round_is_the_difference_of_two_records_and_an_idle_one_is_none():
    first, second = by_round(rounds(FIRST, IDLE, SECOND))
    assert first == Coded(1, 1000, 2.0, 4.0, 0.5, 0.5, 1.5, 0.3)
    # 2000 elements: 500 bytes of payload; 1100 - 600 on the socket since the idle round; 500, 600 / 2000, 4000 / 2000, 200
    assert second == Coded(3, 2000, 2.0, 2.0, 0.25, 0.3, 2.0, 0.1)


def test_a_whole_run_is_its_last_record_and_a_fleet_the_sum():
    assert whole([*rounds(SECOND)]) == Coded(0, 3000, 2.0, 8 * 1100 / 3000, 1 / 3, 1100 / 3000, 5500 / 3000, 1 / 6)
    assert whole(rounds(FIRST, SECOND)).bits == 8 * 1000 / 4000
    assert whole(rounds({"elements": 0})) is None


def test_without_a_quantiser_there_is_no_step_and_not_0():
    (plain,) = by_round(rounds({**FIRST, "coded": {"bytes": 4000}}))
    assert (plain.bits, plain.nonzero) == (32.0, 0.5)
    assert (plain.step, plain.deviations, plain.left) == (None, None, None)


def test_a_board_that_lost_its_memory_counts_anew():
    assert [(coded.round, coded.elements) for coded in by_round(rounds(SECOND, FIRST))] == [(1, 3000), (2, 1000)]


def test_what_a_hub_has_not_heard_again_since_its_restart_is_not_guessed():
    """Its first record after that has no counters of the codec, and the one after that those of both rounds."""
    first, second = by_round(rounds({**FIRST, "coded": {}}, SECOND))
    assert (first.bits, second.bits, second.step, second.nonzero) == (None, None, None, 0.25)


def test_the_plot_has_a_panel_for_what_is_known(tmp_path):
    plot = Plot(PLOTS["coding"](log_of(tmp_path, run_of(FIRST, IDLE, SECOND)), 10.0))
    for word in ("accuracy, %", "bits an element", "not zero, %", "D", "D, std. dev.", "behind the quantiser"):
        assert word in plot.words
    plain = {**FIRST, "coded": {"bytes": 4000}}
    words = Plot(PLOTS["coding"](log_of(tmp_path, run_of(plain)), 10.0)).words
    assert "bits an element" in words
    assert "D" not in words
    assert "behind the quantiser" not in words


def test_where_nothing_went_up_there_is_neither_plot_nor_sentence(tmp_path):
    assert "coding" not in draw(log_of(tmp_path, run_of({"elements": 0})))
    assert summarise(run_of({"elements": 0})).coding is None


def test_the_sentence_has_all_figures_or_those_that_are_known():
    assert coding_of(rounds(FIRST)) == (
        "an element of an activation took 2 bits (4 with all else that was sent for training); "
        "D was 0.5, 1.5 standard deviations; 50.0 % of the elements were not zero, 30.0 % behind the quantiser"
    )
    assert coding_of(rounds({**FIRST, "coded": {"bytes": 4000}})) == (
        "an element of an activation took 32 bits (4 with all else that was sent for training); "
        "50.0 % of the elements were not zero"
    )


def test_the_page_shows_a_dash_for_a_step_that_there_is_not(tmp_path):
    page = write_report(write(tmp_path, run_of({**FIRST, "coded": {"bytes": 4000}}))).read_text("utf-8")
    assert "<td>bed-1</td><td>1.00</td><td>32.0</td><td>4.00</td><td>50.0</td><td>–</td><td>–</td><td>–</td>" in page  # noqa: RUF001
    assert "There is no D: the codec has no quantiser." in page
    page = write_report(write(tmp_path, run_of(FIRST))).read_text("utf-8")
    assert "<td>50.0</td><td>30.0</td><td>0.500</td><td>1.50</td>" in page


def effort(number, spent, limit=4.0, **more):
    return device(
        "bed-1", number, budget={"cpu_seconds_per_round": limit, "cpu_seconds_spent": spent, "cut": 2}, **more
    )


def test_cpu_seconds_stand_against_their_budget(tmp_path):
    records = [RUN]
    for number, spent, steps in ((1, 1.0, 2), (2, 3.0, 2), (3, 3.0, 0)):
        records += [effort(number, spent, steps=steps), fleet_round(number, "global", 0.5)]
    plot = Plot(PLOTS["effort"](log_of(tmp_path, records), 10.0))
    assert "CPU seconds, each device" in plot.words
    assert "joules, each device" not in plot.words
    assert plot.line() == pytest.approx([1, 2], abs=0.05)  # what it did not report anew is not shown again
    assert "Orders that ended early for it: 2 on bed-1." in write_report(tmp_path).read_text("utf-8")
    assert "effort" not in draw(log_of(tmp_path, run_of(FIRST)))


def test_joules_that_nobody_measures_are_said_not_to_be_kept_to():
    energy = {"joules": None, "reason": "no meter: no RAPL"}
    blind = device("bed-1", 1, energy=energy, budget={"joules_per_round": 2.0, "joules_spent": None})
    keen = device("bed-2", 1, budget={"joules_per_round": 2.0, "joules_spent": 1.5})
    text = "the budget of 2 J a round was not kept to on 1 of 2 devices: no meter: no RAPL"
    assert unkept([blind, keen]) == text
    assert summarise([{**RUN, "note": "a note"}, blind, keen]).note == f"a note; {text}"
    assert summarise([RUN, keen]).note is None
