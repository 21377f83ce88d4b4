import re

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import papers
from benchmarks.options import BenchmarkError, Options
from benchmarks.papers_rows import METHODS, OURS, SEQUENTIAL, SWEEPS, TASKS, THEIRS
from benchmarks.results import record
from hub.strategies import STRATEGIES

FIGURES = {
    "provenance": "Invented. Said twice; seed 0.",
    "devices": 5,
    "rounds": 8,
    "classes": 25,
    "train": [190, 200],
    "test": [100, 100],
    "accuracy_max": 0.95,
    "sent_bytes": 123456789.0,
    "received_bytes": 4e6,
    "paper_bytes": 2e6,
    "client_flops": 3e9,
    "total_flops": 4e12,
    "seconds": 12.0,
    "cpu_seconds": 3.0,
    "peak_rss_bytes": 80 << 20,
}
REFERENCE = {"reference": "in one process"}
ALONE = {key: FIGURES[key] for key in ("provenance", "devices", "rounds", "classes", "train", "test", "accuracy_max")}


ROUNDS = {task.name: task.rounds for task in TASKS}


def row(method, seed=0, task="cifar", **changed):
    measured = {**FIGURES, "rounds": ROUNDS[task]}
    return {"task": task, "method": method, "seed": seed, "accuracy_last": 0.9, **measured, **changed}


def run(tmp_path, *rows):
    return record(tmp_path / "papers.jsonl", rows)


def cells(text, method):
    return [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in text.splitlines()
        if line.startswith(f"| {method} ")
    ]


def test_every_method_can_be_built_and_every_strategy_is_there():
    swept = [method for sweep in SWEEPS.values() for method in sweep.rows.values() if method]
    assert all(method.built for method in [*METHODS.values(), *swept])
    assert {method.strategy for method in METHODS.values()} == set(STRATEGIES)


def test_the_devices_bundle_follows_the_options():
    assert METHODS[OURS].built == ("contrastive", "adam")
    assert METHODS["SCAFFOLD"].built == ("control_variates", "sgd")


def test_options_are_said_to_the_demo():
    told = METHODS["frozen, as ours"].arguments
    assert told[:2] == ["--strategy", "frozen"]
    assert 'schedule="constant"' in told
    assert "masks=false" in told
    assert "--mode" not in told


def test_all_tables_are_at_most_100_columns_wide_and_hold_every_method(tmp_path):
    rows = [row(name, seed, task.name) for task in TASKS for name in METHODS for seed in (0, 1)]
    rows += [
        row(name, seed, "scarce", on_device=0.0186)
        for sweep in SWEEPS.values()
        for name in sweep.rows
        for seed in (0, 1)
    ]
    text = papers.draw([run(tmp_path, *rows)])
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert max(map(len, tables)) <= 100
    assert len(cells(text, "SCAFFOLD")) == 2 * len(TASKS) + len(THEIRS)
    assert len(cells(text, "kappa 0.9")) == 1


def test_a_single_seed_has_no_deviation_and_what_is_not_known_is_no_zero(tmp_path):
    measured = run(
        tmp_path,
        row(OURS),
        row(OURS, 1, accuracy_last=0.8),
        {"task": "cifar", "method": "centralised", "seed": 0, "accuracy_last": 0.4, **ALONE, **REFERENCE},
    )
    text = papers.draw([measured]).replace("–", "-")  # noqa: RUF001  the dash of a missing figure
    assert cells(text, OURS)[0] == [OURS, "2", "85.0 ± 7.1", "95.0 ± 0.0", "123", "4.0", "2.0", "0.66"]
    assert cells(text, "centralised") == [
        ["centralised", "1", "40.0", "95.0", "-", "-", "-", "-"],
        ["centralised", *"-----"],
    ]
    assert "Invented. Said twice. 5 devices, 25 classes, 190-200 training and 100 test samples a device" in " ".join(
        text.split()
    )


def test_the_authors_figures_are_marked_and_in_proportion_to_split_learning(tmp_path):
    ours = row(OURS, sent_bytes=1e6, received_bytes=0.0, client_flops=6e9)
    sequential = row(SEQUENTIAL, sent_bytes=8e6, received_bytes=2e6)
    text = papers.draw([run(tmp_path, ours, sequential)])
    # 3.63 of 25.98 GB, 2.38 of 1.66 TFLOP
    assert cells(text, OURS)[2] == [OURS, "95.0", "91.63", "0.100", "0.140", "2.00", "1.43"]
    assert "the AdaSplit authors' own figures" in " ".join(text.split())
    assert "Theirs beside ours" not in papers.draw([run(tmp_path, row(OURS, task="fashion"))])


def test_the_base_of_a_sweep_is_measured_once(tmp_path):
    text = papers.draw([run(tmp_path, row(OURS, task="scarce"), row("eta 0.1", task="scarce", accuracy_last=0.7))])
    assert cells(text, "eta 0.2")[0][2] == "90.0"
    assert cells(text, "eta 0.1")[0][2] == "70.0"
    assert "kappa" not in re.sub(r"\(.*\)", "", text)


def test_the_same_rows_give_the_same_plots(tmp_path):
    measured = [run(tmp_path, row(OURS, task="scarce"), row("FedAvg", task="scarce"), row("eta 0.1", task="scarce"))]
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        papers.plot(measured, folder)
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in "ab")
    assert first == second
    assert set(re.findall(r"\]\((.*?)\)", papers.draw(measured))) == set(first)


def test_what_cannot_be_measured_is_told(tmp_path, capsys):
    with pytest.raises(BenchmarkError, match="nothing was measured"):
        next(papers.run(Options(tmp_path, only="cifar: ", fashion=tmp_path / "none")))
    told = capsys.readouterr().err
    assert (
        "cifar: left out: its data are not installed by anything: give the folder of the originals with --data" in told
    )
    assert "install the Debian package dataset-fashion-mnist" in told


def test_a_run_that_fails_does_not_end_the_others(tmp_path, capsys, monkeypatch):
    def demo(name, out, arguments):
        if "v2" in name:
            raise BenchmarkError("the power went")
        return [{"record": "run"}]

    monkeypatch.setattr(papers.runs, "demo", demo)
    rows = []
    with pytest.raises(BenchmarkError, match=r"3 runs failed: all: SplitFed v2, seed 0; .* seed 1; .* seed 2"):
        rows.extend(papers.run(Options(tmp_path, only="all: SplitFed")))
    assert "the power went" in capsys.readouterr().err


def test_rows_that_are_there_are_not_measured_again(tmp_path, monkeypatch):
    monkeypatch.setattr(papers.runs, "demo", lambda *_: pytest.fail("measured again"))
    there = {("all", f"SplitFed {version}", seed, 10) for version in ("v1", "v2") for seed in range(3)}
    assert list(papers.run(Options(tmp_path, only="all: SplitFed", measured=frozenset(there)))) == []


def test_rows_of_a_shorter_task_are_neither_drawn_nor_taken_for_measured(tmp_path):
    text = papers.draw([run(tmp_path, row(OURS, accuracy_last=0.7), row(OURS, 1, rounds=4, accuracy_last=0.1))])
    assert cells(text, OURS)[0][1:3] == ["1", "70.0"]
    file = tmp_path / "papers.jsonl"
    assert {rounds for *_, rounds in benchmarks._measured(file)} == {4, 8}
