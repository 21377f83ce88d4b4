import re

import pytest

from benchmarks import budget
from benchmarks.budget_rows import METHODS, SMALLEST, TASKS, UNCOMPRESSED
from benchmarks.options import BenchmarkError, Options
from benchmarks.papers_rows import SEQUENTIAL
from benchmarks.results import record
from edge.wire.budget import LEAST_UP

ROUNDS = {task.name: task.rounds for task in TASKS}
FIGURES = {"provenance": "Invented.", "devices": 10, "classes": 7, "train": [35, 35], "test": [52, 104]}
SPENT = {"budget": 30_000, "wire_bytes": 29_000, "over": 0, "messages": 6.4, "samples": 80.0, "withheld": 1.0}


def row(method, accuracy, sent, seed=0, task="scarce", **more):
    figures = {"accuracy_last": accuracy, "accuracy_max": accuracy, "sent_bytes": sent, "received_bytes": 10_000}
    return {"task": task, "method": method, "seed": seed, "rounds": ROUNDS[task], **FIGURES, **figures, **more}


def drawn(tmp_path, *rows):
    return budget.draw([record(tmp_path / "budget.jsonl", rows)]).replace("–", "-")  # noqa: RUF001  the dash of a missing figure


def cells(text, method):
    return [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in text.splitlines()
        if line.startswith(f"| {method} ")
    ]


def told(device, spent, allowed):
    means = {"up_spent": spent, "up_per_run": allowed, "messages": 3, "samples": 40, "withheld": 0}
    return {"record": "device", "device": device, "round": 1, "budget": means}


@pytest.fixture
def demos(monkeypatch):
    """Arguments of the demos that were begun, none of which is carried out; each device sends 600 000 bytes."""
    begun = {}

    def demo(name, out, arguments):
        begun[name] = list(arguments)
        sent = {"socket_sent": 600_000, "socket_received": 5_000}
        records = [told("a", 9_000, 20_000) | sent, told("b", 21_000, 20_000) | sent]
        return [{"record": "run"}, *records]

    monkeypatch.setattr(budget.runs, "demo", demo)
    monkeypatch.setattr(budget.runs, "bundle", lambda folder, spec: folder)
    return begun


def measured(tmp_path, **asked):
    return list(budget.run(Options(tmp_path, fashion=tmp_path / "none", **asked)))


def test_a_row_says_what_left_the_device_and_whether_it_was_too_much(tmp_path):
    text = drawn(tmp_path, row(UNCOMPRESSED, 0.8, 890_000), row("AdaSplit, 1/30", 0.79, 20_000, **SPENT))
    assert cells(text, "AdaSplit, 1/30")[0] == [
        "AdaSplit, 1/30",
        "1",
        "79.0",
        "20.0",
        "10.0",
        "30.0",
        "29.0",
        "80",
        "0",
    ]
    assert cells(text, UNCOMPRESSED)[0] == [UNCOMPRESSED, "1", "80.0", "890", "10.0", *"----"]


def test_points_are_differences_of_the_same_seeds(tmp_path):
    text = drawn(
        tmp_path,
        *(row(UNCOMPRESSED, accuracy, 890_000, seed) for seed, accuracy in enumerate((0.7, 0.8, 0.1))),
        *(row(SEQUENTIAL, accuracy, 17_990_000, seed) for seed, accuracy in enumerate((0.72, 0.79, 0.1))),
        # A point less and 1.2 more than uncompressed; three less and 2.2 more than sequential.
        *(row("AdaSplit, 1/40", accuracy, 20_000, seed, **SPENT) for seed, accuracy in enumerate((0.69, 0.812))),
    )
    # 900 000 / 30 000 and 18 000 000 / 30 000; 2.2 / √2 and 5.2 / √2
    found = cells(text, "AdaSplit, 1/40")[1]
    assert found == ["AdaSplit, 1/40", "+0.1 ± 1.6", "1/30", "met", "-0.4 ± 3.7", "1/600", "met"]
    words = " ".join(text.split())
    assert "accuracy (within 0.5 points) at 1/30 of its bytes: met by AdaSplit, 1/40." in words
    assert "accuracy (within 1 points) at 1/500 of its bytes: met by AdaSplit, 1/40." in words


@pytest.mark.parametrize(("accuracy", "sent"), [(0.79, 20_000), (0.8, 25_000)])
def test_too_much_is_missed_whether_points_or_bytes(tmp_path, accuracy, sent):
    text = drawn(tmp_path, row(UNCOMPRESSED, 0.8, 890_000), row("AdaSplit, 1/30", accuracy, sent, **SPENT))
    assert cells(text, "AdaSplit, 1/30")[1][-1] == "missed"
    assert "at 1/30 of its bytes: missed by all." in " ".join(text.split())


def test_overshoot_is_counted_in_runs_of_all_tasks(tmp_path):
    over = {**SPENT, "over": 3}
    limited = [row("AdaSplit, 1/30", 0.8, 1, **SPENT), row("AdaSplit, 1/10", 0.8, 1, task="cifar", **over)]
    assert "Overshoot: 1 of 2 runs with a budget" in drawn(tmp_path, row(UNCOMPRESSED, 0.8, 9), *limited)


def test_rows_of_earlier_code_do_not_stand_beside_new_ones(tmp_path):
    earlier = {"task": "scarce", "method": "30 kB, paired", "seed": 0, "accuracy_last": 0.7, "sent_bytes": 18_000.0}
    text = drawn(tmp_path, earlier, row(UNCOMPRESSED, 0.8, 890_000))
    assert cells(text, UNCOMPRESSED)
    assert "30 kB" not in text


def test_all_tables_are_at_most_100_columns_wide_and_hold_every_method(tmp_path):
    rows = [
        row(name, 1.0 - 0.9 * seed, 96_000_000, seed, task.name, **SPENT)
        for task in TASKS
        for name, method in METHODS.items()
        if task.name in method.tasks
        for seed in (0, 1)
    ]
    text = drawn(tmp_path, *rows)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert max(map(len, lines)) <= 100
    assert all(cells(text, name) for name in METHODS)


def test_the_same_rows_give_the_same_plot(tmp_path):
    runs = [record(tmp_path / "budget.jsonl", [row(UNCOMPRESSED, 0.8, 890_000), row("AdaSplit, 1/30", 0.79, 20_000)])]
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        budget.plot(runs, folder)
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in "ab")
    assert first == second
    assert set(re.findall(r"\]\((.*?)\)", budget.draw(runs))) == set(first)


def test_every_method_can_be_built_and_the_smallest_budget_is_the_devices(tmp_path):
    assert all(method.trained.built for method in METHODS.values())
    assert LEAST_UP["run"] == SMALLEST


def test_a_part_is_of_what_uncompressed_adasplit_sent_with_the_same_seed(tmp_path, demos):
    rows = measured(tmp_path, only="scarce: AdaSplit, 1/40", quick=True)
    # Nobody asked for it, but a part of it is wanted.
    assert [found["method"] for found in rows] == [UNCOMPRESSED, "AdaSplit, 1/40"]
    arguments = demos["AdaSplit, 1/40"]
    assert "up_per_run=15000 B" in arguments
    assert "evaluation=apart" in arguments
    assert "select_every=2" not in arguments  # the budget decides
    assert "--budget" not in demos[UNCOMPRESSED]
    assert (rows[1]["budget"], rows[1]["wire_bytes"], rows[1]["over"]) == (15_000, 21_000, 1)


def test_a_recorded_upload_is_not_measured_again(tmp_path, demos):
    there = [record(tmp_path / "budget.jsonl", [row(UNCOMPRESSED, 0.8, 900_000), row(UNCOMPRESSED, 0.8, 8, seed=1)])]
    measured(tmp_path, only="scarce: AdaSplit, 1/30", quick=True, recorded=there)
    assert list(demos) == ["AdaSplit, 1/30", "AdaSplit, 1/30, known"]
    assert "up_per_run=30000 B" in demos["AdaSplit, 1/30"]
    assert "skip_below=0.1" in demos["AdaSplit, 1/30, known"]


def test_what_is_trained_sparse_is_tested_sparse_by_the_largest(tmp_path, demos):
    measured(tmp_path, only="scarce: AdaSplit, randtopk:0.1", quick=True)
    arguments = demos["AdaSplit, randtopk:0.1"]
    assert arguments[arguments.index("--codec") + 1] == "randtopk:0.1"
    assert arguments[arguments.index("--evaluation-codec") + 1] == "topk:0.1"


def test_rows_that_are_there_are_not_measured_again(tmp_path, demos):
    there = frozenset(("scarce", "FedAvg, uniform:8", seed, 40) for seed in (0, 2))
    assert [row["seed"] for row in measured(tmp_path, only="scarce: FedAvg, uniform", measured=there)] == [1]
    arguments = demos["FedAvg, uniform:8"]
    assert arguments[arguments.index("--weights-codec") + 1] == "uniform:8"
    assert {"lr=0.01", "epochs=5"} <= set(arguments)


def test_parts_of_an_upload_that_could_not_be_measured_fail_and_the_rest_goes_on(tmp_path, monkeypatch, capsys):
    def demo(name, out, arguments):
        if name == UNCOMPRESSED:
            raise BenchmarkError("the power went")
        return [{"record": "run"}, told("a", 9_000, 16_000)]

    monkeypatch.setattr(budget.runs, "demo", demo)
    monkeypatch.setattr(budget.runs, "bundle", lambda folder, spec: folder)
    rows = []
    with pytest.raises(
        BenchmarkError, match=r"failed: scarce: AdaSplit, uncompressed, seed 0; .*AdaSplit, 1/2, seed 0"
    ):
        rows.extend(budget.run(Options(tmp_path, only="scarce: AdaSplit", quick=True)))
    assert "1/30 of what? There is no row of uncompressed AdaSplit with this seed" in capsys.readouterr().err
    assert "AdaSplit, 16 kB" in [row["method"] for row in rows]


def test_a_device_that_does_not_tell_of_its_budget_fails_the_run(tmp_path, monkeypatch, capsys):
    silent = {"record": "device", "device": "b", "round": 1}
    monkeypatch.setattr(budget.runs, "demo", lambda *_: [{"record": "run"}, told("a", 9_000, 16_000), silent])
    monkeypatch.setattr(budget.runs, "bundle", lambda folder, spec: folder)
    with pytest.raises(BenchmarkError, match="1 runs failed"):
        list(budget.run(Options(tmp_path, only="scarce: AdaSplit, 16 kB, known", quick=True)))
    assert "1 of 2 devices told of their budget" in capsys.readouterr().err


def test_tasks_without_data_are_left_out_with_a_sentence(tmp_path, demos, capsys):
    with pytest.raises(BenchmarkError, match="nothing was measured"):
        measured(tmp_path, only="cifar: AdaSplit")
    assert "cifar: left out: its data are not installed by anything: give the folder" in capsys.readouterr().err
    assert not demos
