"""A trial's report, from a folder whose figures are worked out by hand."""

import json
import re

import pytest

from hub.outcome import OutcomeError
from hub.trial import page, report

OPENED = 1000.0
COUNTERS = {"lost_loss": 3, "lost_queue": 2, "lost_outage": 1}


def device(name, number, steps, **figures):
    return {
        "record": "device",
        "round": number,
        "device": name,
        "steps": steps,
        "socket_sent": 10_000 * number,
        "socket_received": 1_000 * number,
        "socket_retransmitted": 400,
        "evaluation_sent": 500,
        "evaluation_received": 100,
        "refused": {},
        "energy": {"joules": None, "reason": "none"},
        **figures,
    }


def fleet_round(number, accuracy, late=()):
    accuracies = {"pi-1": accuracy, "pi-2": accuracy + 0.1} if accuracy else {}
    return {
        "record": "round",
        "round": number,
        "phase": "global",
        "seconds": 10.0,
        "loss": None,
        "accuracy": accuracy,
        "accuracies": accuracies,
        "late": list(late),
        "present": 2,
    }


def second(at, name, delivered, rate=8000.0):
    way = {"rate": rate, "offered_bytes": delivered, "delivered_bytes": delivered, "lost_bytes": 0}
    return {"seconds": at, "time": OPENED + at, "device": name, "outage": False, "up": way, "down": way}


def write(folder, *, facts=(), delivery=None, accuracy=0.5):
    """Four rounds of 10 s from second 10 on; pi-2 is not in the second and the third, where it is late, and offline from 25 to 35."""
    folder.mkdir(exist_ok=True)
    steps = {"pi-1": (4, 4, 4, 4), "pi-2": (4, 0, 0, 4)}
    rounds = [fleet_round(1, None), fleet_round(2, None, ["pi-2"]), fleet_round(3, None), fleet_round(4, accuracy)]
    records = [{"record": "run", "strategy": "adasplit", "dataset": "digits", "rounds": 4, "devices": ["pi-1", "pi-2"]}]
    more = {"delivery": delivery, "expired": 3} if delivery else {}
    for one in rounds:
        number = one["round"]
        records += [one, *(device(name, number, steps[name][number - 1], **more) for name in steps)]
    records.append({"record": "refusal", "round": 4, "device": "pi-2", "late report": 2})
    lines(folder / "metrics.jsonl", records)
    at = {"time": OPENED + 10, "event": "stage", "text": "training"}
    events = [at, *({"time": OPENED + 10 + 10 * one["round"], "event": "round", "record": one} for one in rounds)]
    for moment, state in ((25, "offline"), (30, "late"), (35, "here"), (51, "offline")):
        events.append({"time": OPENED + moment, "event": "device", "name": "pi-2", "state": state})
    lines(folder / "events.jsonl", sorted(events, key=lambda event: event["time"]))
    heading = {"scenario": "gaps", "source": "ours", "seed": 3, "how": "emulated", "time": OPENED}
    lines(folder / "links.jsonl", [heading, *(second(float(n), name, 100 * n) for n in range(1, 53) for name in steps)])
    told = {
        "scenario": "gaps",
        "source": "ours",
        "seed": 3,
        "how": "emulator in network namespaces (unprivileged); TCP uses cubic",
        "means": "emulator",
        "congestion": "cubic",
        "broker": "embedded",
        "training_seed": 0,
        "devices": list(steps),
        "deadlines": {"turn_seconds": 60.0},
        "outages": {"pi-1": [], "pi-2": [[5.0, 15.0], [25.0, 28.0], [51.0, 52.0]]},
        "counters": {name: {"up": COUNTERS, "down": COUNTERS} for name in steps},
        **dict(facts),
    }
    (folder / "trial.json").write_text(json.dumps(told))
    return folder


def lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def cells(found):
    """The texts of the table by heading, then device."""
    sheet = report.lay_out(found)
    return {
        column.heading: dict(zip(sheet.names, texts, strict=True))
        for block in sheet.blocks
        for column, texts in zip(block.columns, zip(*block.cells, strict=True), strict=True)
    }


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "trial")


def test_the_link_as_the_device_saw_it(folder):
    table = cells(report.read(folder))
    # 40,000 + 4,000 - 400 sent again - 600 of evaluation, in the 40 s from 10 to 50.
    assert table["goodput"]["pi-1"] == "1.07"  # 43,000 / 40 = 1075 bytes a second
    assert table["sent"]["pi-1"] == "40.0"
    assert table["sent"]["fleet"] == "80.0"
    assert table["recv."]["pi-1"] == "4.00"
    assert table["again"] == {"pi-1": "400", "pi-2": "400", "fleet": "800"}


def test_what_the_link_took_and_the_time_it_was_gone(folder):
    table = cells(report.read(folder))
    # Of the outages 5 to 15, 25 to 28 and 51 to 52, eight seconds are within the training from 10 to 50.
    assert table["gone"] == {"pi-1": "0", "pi-2": "8.00", "fleet": "4.00"}
    assert table["outages"] == {"pi-1": "0", "pi-2": "2", "fleet": "2"}
    assert table["offline"] == {"pi-1": "0", "pi-2": "10.0", "fleet": "5.00"}
    assert [table[cause]["pi-1"] for cause in ("chance", "queue", "outage")] == ["6", "4", "2"]
    assert table["outage"]["fleet"] == "4"
    assert table["refused"] == {"pi-1": "0", "pi-2": "2", "fleet": "2"}


def test_rounds_that_were_missed(folder):
    table = cells(report.read(folder))
    assert table["late"] == {"pi-1": "0", "pi-2": "1", "fleet": "1"}
    assert table["missed"] == {"pi-1": "0", "pi-2": "2", "fleet": "2"}
    assert table["stale"] == {"pi-1": "0", "pi-2": "2", "fleet": "2"}
    assert table["accuracy"] == {"pi-1": "50.0", "pi-2": "60.0", "fleet": "55.0"}
    assert "perfect" not in table


def test_what_delivery_did_is_a_dash_with_its_reason_until_devices_report_it(tmp_path):
    assert cells(report.read(write(tmp_path / "old")))["repeated"]["pi-1"] == "–¹"  # noqa: RUF001
    assert "\n¹ not reported by the device\n" in report.render(report.read(tmp_path / "old"))
    told = {"frames_repeated": 7, "questions": 12}  # what was never counted is left out
    table = cells(report.read(write(tmp_path / "new", delivery=told)))
    assert (table["expired"]["pi-1"], table["expired"]["fleet"]) == ("3", "6")
    assert [table[name]["pi-1"] for name in ("repeated", "twice", "asked")] == ["7", "0", "12"]
    assert table["repeated"]["fleet"] == "14"


def test_a_relay_has_nothing_to_send_again(tmp_path):
    text = report.render(report.read(write(tmp_path / "t", facts={"means": "relay"}.items())))
    assert "¹ a relay's TCP has nothing to send again: what its link loses comes later" in text


def test_a_trial_that_was_cut_off_says_what_is_missing(tmp_path):
    found = report.read(write(tmp_path / "t", facts={"counters": {}, "outages": {}}.items()))
    assert cells(found)["chance"]["pi-1"].startswith("–")  # noqa: RUF001
    assert "the trial was cut off before its end" in report.render(found)


def test_the_same_without_faults_stands_beside_it(tmp_path):
    main, other = write(tmp_path / "t", accuracy=0.5), write(tmp_path / "p", accuracy=0.7)
    found = report.read(main, other)
    assert cells(found)["perfect"] == {"pi-1": "70.0", "pi-2": "80.0", "fleet": "75.0"}
    told = " ".join(report.summary(found))
    assert "4 of 4 rounds in 40.0 s, 360 an hour; accuracy 50.0 %." in told
    assert "On perfect: 4 of 4 rounds in 40.0 s, 360 an hour; accuracy 70.0 %." in told


def test_the_run_on_perfect_is_found_inside_the_folder(folder):
    write(folder / "perfect", accuracy=0.7)
    assert report.read(folder).against.folder == folder / "perfect"


def test_the_text_fits_80_columns_and_says_how_each_figure_was_obtained(folder):
    text = report.render(report.read(folder))
    assert max(map(len, text.splitlines())) <= 80
    for column in (*report.LINK, *report.REPAIR, *report.TRAINING):
        assert re.search(rf"^{re.escape(column.heading)} +\S", text, re.MULTILINE), column.heading


def test_the_rounds_lie_on_the_links_time(folder):
    rounds = report.read(folder).rounds
    assert [one.span for one in rounds] == [(10, 20), (20, 30), (30, 40), (40, 50)]
    assert [sorted(one.took_part) for one in rounds] == [["pi-1", "pi-2"], ["pi-1"], ["pi-1"], ["pi-1", "pi-2"]]


def test_bytes_of_a_second_are_those_of_all_devices(folder):
    times, sums = page.by_second(report.read(folder), lambda one: one["up"]["delivered_bytes"])
    assert times[:3] == [1.0, 2.0, 3.0]
    assert sums[:3] == [200, 400, 600]


def test_the_page_has_link_and_training_and_needs_nothing_from_elsewhere(folder):
    write(folder / "perfect", accuracy=0.7)
    text = page.write(report.read(folder)).read_text("utf-8")
    for words in ("delivered up", "the link is gone", "on a link without faults", "given up as late", "seconds since"):
        assert words in text, words
    assert "</html>" in text
    assert not re.search(r"""(src|href)=["']https?://""", text)
    assert text == page.write(report.read(folder)).read_text("utf-8")


def test_a_link_without_a_rate_has_no_plot_of_it(folder):
    records = [second(float(n), name, 10, rate=None) for n in range(1, 5) for name in ("pi-1", "pi-2")]
    lines(folder / "links.jsonl", [{"time": OPENED}, *records])
    assert "link&#x27;s rate" not in (text := page.write(report.read(folder)).read_text("utf-8"))
    assert "link's rate" not in text
    assert "delivered up" in text


@pytest.mark.parametrize("missing", ["trial.json", "links.jsonl", "events.jsonl", "metrics.jsonl"])
def test_a_folder_that_is_no_trial_is_told(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(OutcomeError, match=rf"is not the folder of a trial: .*{missing}"):
        report.read(folder)
