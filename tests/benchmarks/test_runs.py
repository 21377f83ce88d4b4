import subprocess

import pytest

from benchmarks import runs
from benchmarks.options import BenchmarkError
from benchmarks.results import Run


def row(method, seed, **figures):
    return {"task": "t", "method": method, "seed": seed, **figures}


def a_run(name, *rows):
    return Run(name, "", {}, "", list(rows), ended=True)


def test_the_last_row_of_a_method_and_seed_stands_in_the_table():
    first = a_run("first", row("b", 0, x=1), row("a", 0, x=1), row("gone", 0, x=1), {**row("a", 5), "task": "other"})
    second = a_run("second", row("a", 1, x=2), row("b", 0, x=2))
    rows, sources = runs.last_rows([first, second], "t", ["a", "b"])
    assert [(r["method"], r["seed"], r["x"]) for r in rows] == [("a", 0, 1), ("a", 1, 2), ("b", 0, 2)]
    assert [run.id for run in sources] == ["first", "second"]
    assert [[r["seed"] for r in group] for group in runs.by_method(rows)] == [[0, 1], [0]]


def test_the_score_is_measured_against_the_largest_means_of_methods_that_use_the_network():
    ours = [
        row("ours", seed, accuracy_last=0.8, sent_bytes=b, received_bytes=0, client_flops=50)
        for seed, b in enumerate((2, 4))
    ]
    other = [row("other", 0, accuracy_last=0.5, sent_bytes=4, received_bytes=2, client_flops=100)]
    alone = [
        row("alone", 0, accuracy_last=0.4, sent_bytes=0, received_bytes=0, client_flops=900, reference="in one process")
    ]
    most = runs.limits([*ours, *other, *alone])
    assert most == (6, 100)
    # exp(-(3/6 + 50/100) / 8) = exp(-1/8)
    assert runs.c3(ours, most) == pytest.approx(0.8 * 0.882497, rel=1e-6)
    assert not runs.scored(alone)


def test_a_demo_that_fails_says_why(tmp_path):
    with pytest.raises(BenchmarkError, match=r"(?s)mine ended with code 2: .*unknown data set 'nowhere'"):
        runs.demo("mine", tmp_path / "run", ["--dataset", "nowhere"])


def test_a_demo_that_takes_too_long_is_an_error_of_its_own(tmp_path, monkeypatch):
    def slow(command, **_):
        raise subprocess.TimeoutExpired(command, 900)

    monkeypatch.setattr(subprocess, "run", slow)
    with pytest.raises(BenchmarkError, match="mine was not done after 900 s"):
        runs.demo("mine", tmp_path / "run", [])


def test_only_seeds_that_all_have_are_compared():
    base = [row("base", 0), row("base", 1), row("base", 2)]
    found = runs.same_seeds({"base": base, "more": [row("more", 2), row("more", 0)], "none": []})
    assert {name: [r["seed"] for r in group] for name, group in found.items()} == {"base": [0, 2], "more": [2, 0]}
    assert runs.same_seeds({"base": base[:1], "other": base[1:]}) == {}
