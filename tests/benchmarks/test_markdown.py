import pytest

from benchmarks import markdown
from benchmarks.results import Run

MACHINE = {
    "cpu": "Toaster 3000",
    "architecture": "aarch64",
    "cores": 4,
    "memory_mib": 2048,
    "kernel": "Linux 6.1",
    "python": "3.11.2",
    "torch": None,
    "onnxruntime": "1.31.1",
    "numpy": "2.4.6",
    "commit": "abc",
    "load": 0.5,
}


def test_a_table():
    assert markdown.table(["what", "ms"], [["step", "1.25"], ["a", "10"]]) == (
        "| what |   ms |\n| :--- | ---: |\n| step | 1.25 |\n| a    |   10 |"
    )


def test_a_table_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="103 columns; the limit is 100"):
        markdown.table(["a", "b"], [["x" * 48, "y" * 48]])


def test_a_wanted_figure_is_met_up_to_its_limit():
    assert markdown.verdict(0.4, 0.4) == "≤ 0.4 met"
    assert markdown.verdict(41.0, 40.0, unit=" MiB") == "≤ 40 MiB missed"


def test_a_figure_comes_with_its_birth():
    text = markdown.birth(Run("1234", "2026-01-02T03:04:05Z", MACHINE, "quick", [], ended=False))
    words = " ".join(text.split())
    assert "Toaster 3000 (aarch64), 4 cores, 2.0 GiB, Linux 6.1" in words
    assert "python 3.11.2, onnxruntime 1.31.1, numpy 2.4.6; commit abc" in words
    assert "Not for quoting: quick." in words
    assert "Broken off" in words
    assert max(map(len, text.splitlines())) <= 100
