import math

import pytest

from hub.summary import Budgets, Row, budgets_of, c3_score, score, summarise
from tests.hub.records import NO_METER, RUN, device, fleet_round, tiny_run


def test_a_row_worked_by_hand():
    row = summarise(tiny_run())
    assert row.method == "adasplit"
    assert (row.accuracy_last, row.accuracy_max) == (0.6, 0.8)
    # After round 3: 3000 and 9000 bytes on the socket, of them 600 and 600 for evaluation.
    assert row.sent_bytes == (2400 + 8400) / 2
    assert row.evaluation_bytes == 600
    assert row.received_bytes == 300
    assert row.paper_bytes == 1500
    assert row.client_flops == 3e6
    assert row.peak_rss_bytes == 50 * 2**20
    assert row.cpu_seconds == 4.5
    assert row.seconds == 30
    assert row.bytes_source == "TCP_INFO"


def test_what_is_missing_is_none_with_a_reason():
    row = summarise(tiny_run())
    assert row.joules is None
    assert row.energy_reason == "no meter was found"
    assert row.total_flops is None
    assert row.missing["total_flops"] == "the hub's operations were not counted"


def test_a_figure_one_device_lacks_is_no_mean_of_the_others():
    row = summarise([*tiny_run(), device("bed-2", 3, flops=None)])
    assert row.client_flops is None
    assert row.missing["client_flops"] == "1 of 2 devices did not report it"


def test_all_operations_are_the_devices_and_the_hubs():
    row = summarise([*tiny_run(), fleet_round(4, "global", 0.9, hub_flops=5e7)])
    assert row.total_flops == 5e7 + 2 * 3e6


def test_energy_carries_the_least_trustworthy_class():
    metered = {"joules": 10.0, "class": "metered", "source": "wall meter", "reason": None}
    modelled = {"joules": 4.0, "class": "modelled", "source": "2 W and 1.1 W a core", "reason": None}
    row = summarise([RUN, device("bed-1", 1, energy=metered), device("bed-2", 1, energy=modelled)])
    assert row.joules == 7.0
    assert row.energy_class == "modelled"
    assert row.energy_source == "2 W and 1.1 W a core, wall meter"


def test_energy_of_some_devices_is_energy_of_none():
    metered = {"joules": 10.0, "class": "metered", "source": "wall meter", "reason": None}
    row = summarise([RUN, device("bed-1", 1, energy=metered), device("bed-2", 1, energy=NO_METER)])
    assert row.joules is None
    assert row.energy_class is None
    assert row.energy_reason == "1 of 2 devices: no meter was found"


def test_a_run_that_died_at_once_has_a_row_of_reasons():
    row = summarise([RUN])
    assert row.accuracy_last is None
    assert row.missing["accuracy_last"] == "no round was evaluated"
    assert row.missing["sent_bytes"] == "no device reported"
    assert row.energy_reason == "no device reported"


def test_records_without_a_run_are_refused():
    with pytest.raises(ValueError, match="no 'run' record"):
        summarise(tiny_run()[1:])


def test_c3_worked_by_hand():
    assert c3_score(0.8, 50, 25, Budgets(100, 100, "")) == pytest.approx(0.8 * math.exp(-0.75 / 8))
    assert c3_score(0.8, 0, 100, Budgets(0, 100, "")) == pytest.approx(0.8 * math.exp(-1 / 8))
    assert c3_score(0.8, 1, 100, Budgets(None, 100, "")) is None


def test_budgets_are_the_largest_of_the_table_unless_given():
    rows = [
        Row("a", 0.5, sent_bytes=10, received_bytes=1, client_flops=7),
        Row("b", 0.5, sent_bytes=3, received_bytes=4, client_flops=9),
    ]
    assert budgets_of(rows, None) == Budgets(
        11, 9, "bytes: the largest in the table; compute: the largest in the table"
    )
    assert budgets_of(rows, {"bytes": 100}) == Budgets(
        100, 9, "bytes: the budget given; compute: the largest in the table"
    )


def test_a_row_without_bytes_has_no_score_and_says_why():
    known, unknown = Row("a", 0.5, sent_bytes=10, received_bytes=0, client_flops=7), Row("b", 0.5, client_flops=7)
    first, second = score([known, unknown], budgets_of([known, unknown], None))
    assert first.c3 == pytest.approx(0.5 * math.exp(-2 / 8))
    assert second.c3 is None
    assert second.missing["c3"] == "not known without bytes"


def test_what_evaluation_received_is_not_trainings():
    row = summarise([RUN, device("bed-1", 1, evaluation_received=40)])
    assert row.received_bytes == 60
    assert row.evaluation_bytes == 240


def test_devices_may_be_written_down_by_name():
    named = {**RUN, "devices": ["bed-1", "bed-2", "bed-3"]}
    row = summarise([named, device("bed-1", 1), device("bed-2", 1, flops=None)])
    assert row.missing["client_flops"] == "1 of 3 devices did not report it"


def test_a_class_of_energy_nobody_knows_is_trusted_least():
    energies = [{"joules": 1.0, "kind": kind, "source": kind, "reason": None} for kind in ("metered", "guessed")]
    row = summarise([RUN, device("bed-1", 1, energy=energies[0]), device("bed-2", 1, energy=energies[1])])
    assert row.energy_class == "guessed"


def test_a_reason_given_with_a_row_stays():
    row = Row("a", 0.5, sent_bytes=0, received_bytes=0, missing={"c3": "ran in one process"})
    assert score([row], budgets_of([row], None))[0].missing["c3"] == "ran in one process"


def test_a_device_that_says_why_it_does_not_know_is_quoted():
    why = {"missing": {"peak_rss_bytes": "it shares its process"}, "peak_rss_bytes": None}
    row = summarise([RUN, device("bed-1", 1, **why), device("bed-2", 1, **why)])
    assert row.peak_rss_bytes is None
    assert row.missing["peak_rss_bytes"] == "it shares its process"
    mixed = summarise([RUN, device("bed-1", 1, **why), device("bed-2", 1, peak_rss_bytes=None)])
    assert mixed.missing["peak_rss_bytes"] == "2 of 2 devices did not report it"


def test_what_was_not_sent_again_stands_beside_the_bytes():
    records = tiny_run()
    assert summarise(records).note is None
    records[-3]["known"], records[-2]["known"] = {"sent": 30, "skipped": 10}, {"sent": 10, "skipped": 30}
    assert summarise(records).note == "50 % of the samples were not sent again: the hub had kept them"
    records[0] = {**records[0], "note": "simulated"}
    assert summarise(records).note.startswith("simulated; 50 %")
