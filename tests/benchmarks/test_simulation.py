import dataclasses

import pytest

from benchmarks import simulation
from benchmarks.options import BenchmarkError, Options
from benchmarks.results import record

ROW = {
    "phase": "global",
    "rounds": 3,
    "wall_ratio": [1.25, 1.2, 1.3],
    "cpu_ratio": [1.2, 1.2, 1.2],
    "round_ms": [250.4, 200.0],
    "whole_ratio": 1.4,
    "losses_differ": 1e-6,
    "others": 0.0,
}


@pytest.mark.parametrize("strategy", ["split_learning", "adasplit"])
def test_both_sides_do_the_same_work(tmp_path, monkeypatch, strategy):
    options = {**simulation.SUBJECTS["adasplit-scarce"].options, "kappa": 0.5, "replay": 1}
    subject = simulation.Subject(
        "digits",
        strategy,
        "export.models:Digits",
        10,
        4,
        4,
        "digits",
        "scarce",
        3,
        evaluated=True,
        options=options if strategy == "adasplit" else {},
    )
    monkeypatch.setattr(simulation, "SUBJECTS", {"digits": subject})
    rows = list(simulation.run(Options(tmp_path, quick=True)))
    assert [row["phase"] for row in rows] == (["global"] if strategy == "split_learning" else ["local", "global"])
    # The hub's first losses: after that, float32 may go its own ways.
    assert all(row["losses_differ"] < 1e-5 for row in rows)
    assert all(row["wall_ratio"][0] > 0 for row in rows)


def test_another_training_is_no_opponent():
    turn = {"loss": 2.0}
    with pytest.raises(BenchmarkError, match=r"the first losses are 2\.0 and 2\.1: these are not the same training"):
        simulation._agree(simulation.SUBJECTS["sl-all"], [{"loss": None}, turn], [{"loss": None}, {"loss": 2.1}])
    with pytest.raises(BenchmarkError, match="learned in different rounds"):
        simulation._agree(simulation.SUBJECTS["sl-all"], [{"loss": None}, turn], [turn, turn])


def test_an_unknown_row_is_refused(tmp_path):
    with pytest.raises(BenchmarkError, match="'resnet'; there are sl-all"):
        next(simulation.run(Options(tmp_path, only="resnet")))


def test_what_is_missed_is_said(tmp_path):
    rows = [
        {"subject": "adasplit-scarce", **ROW, "phase": "local"},
        {"subject": "sl-lenet", **ROW, "wall_ratio": [1.6, 1.5, 1.7], "others": 0.3},
    ]
    text = simulation.draw([record(tmp_path / "simulation.jsonl", rows)]).replace("–", "-")  # noqa: RUF001
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "≤ 1.5" in line]
    assert lines == [
        ["AdaSplit, local rounds", "250", "200", "1.25 (1.20-1.30)", "1.20", "1.40", "≤ 1.5 met"],
        ["SL, LeNet", "250", "200", "1.60 (1.50-1.70)", "1.20", "1.40", "≤ 1.5 missed"],
    ]
    assert "measure again on a quiet machine" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 100


def test_every_subject_is_a_run_that_can_be_named():
    for subject in simulation.SUBJECTS.values():
        assert dataclasses.asdict(subject)["quick"] >= 2, "the first round is left out"
