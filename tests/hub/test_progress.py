import io

from rich.console import Console

from hub.progress import LiveProgress, null_progress, progress
from hub.table import MISSING
from tests.hub.records import fleet_round

FLEET = [f"wearer-{i:02d}" for i in range(1, 11)]


def test_plain_is_one_line_a_round():
    out = io.StringIO()
    with progress(12, FLEET, out=out) as watch:
        watch.stage("starting the broker")
        for name in FLEET:
            watch.device(name, "training 3/4")
        watch.round({**fleet_round(1, "local", None), "present": 10, "sent_bytes": 900})
        watch.device("wearer-03", "late by 2 s")
        watch.round({**fleet_round(2, "global", 0.715), "present": 9, "late": ["wearer-03"], "sent_bytes": 2_150_000})
        watch.note("report: runs/1/report.html")
    assert out.getvalue().splitlines() == [
        "starting the broker",
        "round  1/12  local    10.0 s  sent 900 B a device",
        "wearer-03: late by 2 s",
        "round  2/12  global   10.0 s  accuracy 71.5 %  loss 1.000  sent 2.15 MB a device  9 of 10 present  late: wearer-03",
        "report: runs/1/report.html",
    ]


def shown(live):
    out = io.StringIO()
    Console(file=out, width=80).print(live)
    return out.getvalue().splitlines()


def test_live_has_a_line_a_device_and_fits_80_columns():
    live = LiveProgress(12, FLEET)
    live.stage("training")
    live.round({**fleet_round(2, "global", 0.5), "accuracies": {"wearer-01": 0.25}, "selected": {"wearer-02": 3}})
    live.device("wearer-01", "sending a very long list of things that nobody could ever read in full")
    live.note("wearer-09 rejoined after 12 s")
    lines = shown(live)
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert "training" in lines[0]
    assert "round 2/12" in lines[0]
    by_name = {line.split()[0]: line.split() for line in lines if line.startswith("wearer-")}
    assert by_name["wearer-01"][1:5] == ["25.0", "%", MISSING, "sending"]
    assert by_name["wearer-02"][1:4] == [MISSING, "3", "not"]
    assert lines[-1].rstrip() == "wearer-09 rejoined after 12 s"


def test_live_keeps_the_accuracy_of_a_device_that_was_not_evaluated_again():
    live = LiveProgress(12, ["a"])
    live.round({**fleet_round(1, "global", 0.5), "accuracies": {"a": 0.25}})
    live.round({**fleet_round(2, "global", 0.5), "accuracies": {}})
    assert any("25.0 %" in line for line in shown(live))


def test_a_terminal_gets_the_picture():
    out = io.StringIO()
    with progress(2, ["a"], plain=False, out=out) as watch:
        assert isinstance(watch, LiveProgress)
        watch.stage("training")
        watch.round(fleet_round(2, "global", 0.5))
    assert "round 2/2" in out.getvalue()


def test_nobody_watches_in_silence(capsys):
    null_progress.stage("x")
    null_progress.device("a", "late")
    null_progress.round({})
    null_progress.note("x")
    assert capsys.readouterr().out == ""
