import json
import os

import pytest

from benchmarks import links
from benchmarks.links import rate, recovered, summary
from benchmarks.links_ends import Heard, scenario
from benchmarks.options import Options
from benchmarks.results import Run, record
from hub.broker import find_mosquitto
from hub.trial.emulator import NetError
from hub.trial.net import open_net

KIB64 = 65536


def missing(why):
    (pytest.fail if os.environ.get("CI") else pytest.skip)(why)


def turn(goodput, *, delivered=10 * KIB64, up=1.1, control=(), unanswered=()):
    wire = {"up": round(up * delivered), "down": round(0.02 * delivered)}
    return {
        "bytes_per_second": goodput,
        "delivered": delivered,
        "wire": wire,
        "seconds": 5.0,
        "control": list(control),
        "unanswered": list(unanswered),
    }


def test_goodput_goes_from_one_whole_message_to_a_later_one():
    # Four messages after 10.0: three gaps of 0.5 s.
    assert rate([9.0, 10.5, 11.0, 11.5, 12.0], 10.0, 13.9) == 3 * KIB64 / 1.5
    # One message in eight seconds has no gap: by the clock.
    assert rate([9.0, 12.0], 10.0, 18.0) == KIB64 / 8
    assert rate([], 10.0, 20.0) == 0


def test_a_stream_is_back_when_a_second_has_half_the_messages_of_before():
    before = [number / 10 for number in range(100)]  # ten a second until 10
    alone = [30.5]
    back = [33.0, 33.2, 33.4, 33.6, 33.8]
    assert recovered(before + alone + back, gone=10.0, back=30.0) == 3.8
    assert recovered(before + alone + [33.0, 34.5, 36.0, 37.5, 39.0], gone=10.0, back=30.0) is None


def test_turns_become_ratios_bytes_and_percentiles():
    turns = {
        "ours": [turn(90e3, control=[0.1, 0.15]), turn(80e3, control=[0.2], unanswered=[5.0])],
        "tcp": [turn(100e3, up=1.0), turn(100e3, up=1.0)],
        "paho": [turn(50e3), turn(40e3)],
    }
    row = summary(turns)
    assert row["over_tcp"][0] == 0.85
    assert row["over_paho"][0] == pytest.approx(85 / 45, abs=1e-4)
    assert row["wire"]["ours"] == {"up": 1.1, "down": 0.02}
    assert row["wire"]["tcp"]["up"] == 1.0
    # 2, 3, 4 and at least 100 round trips of 50 ms.
    assert row["control"]["p50"] == 3.5
    assert row["control"]["p95"] == pytest.approx(85.6, abs=0.01)
    assert row["control"]["count"] == 4


def test_a_stream_that_brought_nothing_gives_no_ratio():
    row = summary({"ours": [turn(0.0, delivered=0)], "tcp": [turn(1e3)], "paho": [turn(0.0, delivered=0)]})
    assert row["over_tcp"][0] == 0
    assert "over_paho" not in row
    assert list(row["wire"]) == ["tcp"]


def test_a_line_that_is_still_being_written_waits(tmp_path):
    heard = Heard(tmp_path / "heard.jsonl")
    heard.look()
    assert not heard.ready
    with heard.path.open("w") as file:
        for text in ('{"ready": true}\n{"at": 1.5, "bytes": 65536}\n{"asked": 2.0}\n{"at": 2', '.5, "bytes": 65536}\n'):
            file.write(text)
            file.flush()
            heard.look()
    assert heard.arrived == [1.5, 2.5]
    assert heard.asked == 2.0


def test_rounds_an_hour_and_the_last_accuracy_of_a_run():
    records = [
        {"record": "run"},
        {"record": "round", "seconds": 30.0, "accuracy": 0.5},
        {"record": "round", "seconds": 60.0, "accuracy": None},
    ]
    assert links.trained("\n".join(map(json.dumps, records))) == {
        "rounds": 2,
        "rounds_per_hour": 80.0,
        "accuracy": 0.5,
    }


def test_what_is_missed_is_said(tmp_path):
    over = {"over_tcp": [0.91, 0.9, 0.92], "over_paho": [1.0, 1.0, 1.0]}
    goodput = {"ours": [1e6], "tcp": [1.1e6], "paho": [1e6]}
    step = {"step_ms": 50.0, "durable_ms": 10.0, "share": 0.2, "bytes": 804 * 1024, "fsync_ms": [4.0, 3.0, 5.0]}
    local = {**step, "share": 0.02, "durable_ms": 1.0}
    durable = {"fsync_ms": [1.0, 1.0, 2.0], "commit_ms": [2.0, 1.0, 3.0], "files_bytes": 1, "disk": "ext4"}
    rows = [
        {
            "part": "goodput",
            "congestion": "bbr",
            "loss": 0.05,
            "how": "an emulator",
            "goodput": goodput,
            **over,
            "wire": {"ours": {"up": 1.25, "down": 0.02}},
            "control": {"p50": 2.0, "p95": 4.0, "count": 80},
            "idle": {"p50": 1.0, "p95": 3.6, "count": 200},
        },
        {"part": "recovery", "way": "ours", "outage": 60.0, "seconds": [4.0, None], "how": "an emulator"},
        {
            "part": "durable",
            **durable,
            "steps": {"uploads": step, "local": local},
        },
        {
            "part": "training",
            "scenario": "basement",
            "rounds": 18,
            "asked": 20,
            "rounds_per_hour": 80.4,
            "accuracy": 0.5,
        },
    ]
    text = links.draw([record(tmp_path / "links.jsonl", rows)]).replace("–", "-")  # noqa: RUF001
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    found = [
        cells
        for cells in lines
        if cells[0] in ("bbr, 5%", "ours", "64 KiB alone, ext4", "uploads", "local", "basement")
    ]
    assert found == [
        ["bbr, 5%", "8", "8.8", "8", "0.91 (0.90-0.92)", "≥ 0.9 met", "1.00 (1.00-1.00)"],
        ["bbr, 5%", "2.0", "4.0", "≤ 3 missed", "80", "1.0", "3.6"],
        ["bbr, 5%", "1.25 + 0.02", "-", "-"],
        ["ours", "60", "4.0, over 90", "≤ 5 s missed"],
        ["64 KiB alone, ext4", "64", "-", "2.00", "1.00", "-", "-"],
        ["uploads", "804", "50.00", "10.00", "4.00", "20%", "≤ 0.1 missed"],
        ["local", "804", "50.00", "1.00", "4.00", "2%", "≤ 0.1 met"],
        ["basement", "18 of 20", "80", "50.0%"],
    ]
    assert max(map(len, text.splitlines())) <= 100


def test_a_run_without_a_part_leaves_its_table_out():
    run = Run("id", "date", {"cpu": "x", "architecture": "y", "cores": 1, "memory_mib": 1024, "kernel": "z", "load": 0}
              | dict.fromkeys(("python", "torch", "onnxruntime", "numpy")))  # fmt: skip
    run.rows.append(
        {"part": "training", "scenario": "basement", "rounds": 0, "asked": 1, "rounds_per_hour": None, "accuracy": None}
    )
    assert "Goodput" not in links.draw([run])


@pytest.mark.system
@pytest.mark.timeout(120)
def test_all_three_ways_bring_messages_over_a_real_link(tmp_path):
    if find_mosquitto() is None:
        missing("mosquitto is not installed")
    try:
        open_net(scenario(0.0), [], tmp_path / "probe").close()
    except NetError as error:
        missing(f"no network namespaces: {error}")
    pace = links.Pace(1, 1.0, 0.5, 20.0, (0.0,), ("cubic",), 1.0, 1, 1)
    (row,) = links._goodput(Options(tmp_path, only="goodput/cubic/0"), pace)
    assert set(row["goodput"]) == {"ours", "tcp", "paho"}
    # 10 Mbit/s are 1.25 MB/s; in so short a time what lay in queues before comes on top.
    assert all(0 < values[0] < 2 * 1.25e6 for values in row["goodput"].values())
    assert row["over_tcp"][0] > 0
    assert row["control"]["count"] > 0
    assert row["idle"]["p50"] >= 1


def test_parts_measured_in_several_runs_are_put_together_the_newest_of_each():
    machine = {"cpu": "x", "architecture": "y", "cores": 1, "memory_mib": 1024, "kernel": "z", "load": 0}
    machine |= dict.fromkeys(("python", "torch", "onnxruntime", "numpy"))
    basement = {"part": "training", "scenario": "basement", "rounds": 1, "asked": 1, "accuracy": None}
    perfect = {**basement, "scenario": "perfect"}
    runs = [
        Run("a", "first", machine, "only 'training'", [basement | {"rounds_per_hour": 11}]),
        Run("b", "second", machine, "only 'perfect'", [perfect | {"rounds_per_hour": 22}]),
        Run("c", "third", machine, "only 'basement'", [basement | {"rounds_per_hour": 33}]),
        Run("d", "fourth", machine, "quick", [perfect | {"rounds_per_hour": 44}]),
    ]
    text = links.draw(runs)
    assert "| 33 |" in text.replace("  ", "")
    assert [number in text for number in ("11", "22", "44")] == [False, True, False]
    assert [date in text for date in ("first", "second", "third", "fourth")] == [False, True, True, False]
