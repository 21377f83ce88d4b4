import pytest

from benchmarks import step
from benchmarks.child import Child, ChildError
from benchmarks.options import BenchmarkError, Options
from benchmarks.results import record

SUBJECT = step.Subject("digits", "export.models:Digits", "pool1", 1.0)


def test_all_contestants_do_the_same_work_and_are_compared(tmp_path):
    built = step.prepare(SUBJECT, tmp_path / "digits", checked=False)
    row = step.measure(SUBJECT, built, 1, step.Pace(turns=2, milliseconds=1.0, forward_turns=1))
    # Three steps of Adam from the same weights on the same batches: float32 is all that may differ.
    assert row["losses_differ"] < 1e-3
    assert row["peak_bytes"]["ours"] < row["peak_bytes"]["default"]
    assert all(row["step_ms"][method][0] > row["forward_ms"][method][0] > 0 for method in step.METHODS)


def test_a_child_that_dies_says_why(tmp_path):
    told = {"bundle": str(tmp_path / "none.bundle"), "threads": 1}
    with Child("ours", told) as child, pytest.raises(ChildError, match="there is no bundle at"):
        child.ask(what="memory")


def test_an_unknown_row_is_refused(tmp_path):
    with pytest.raises(BenchmarkError, match="'alexnet'; there are lenet-pool1"):
        next(step.run(Options(tmp_path, only="alexnet")))


def test_what_is_missed_is_said(tmp_path):
    figures = {
        "step_ms": {"ours": [15.0, 14.0, 16.0], "default": [20.0, 19.0, 21.0], "tuned": [10.0, 9.0, 11.0]},
        "forward_ms": {"ours": [5.0, 5.0, 5.0], "default": [4.0, 4.0, 4.0], "tuned": [2.0, 2.0, 2.0]},
        "ratio": {"tuned": [1.5, 1.4, 1.6]},
        "forward_ratio": {"tuned": [2.5, 2.4, 2.6]},
        "cpu_ratio": {"tuned": [1.45, 1.4, 1.5]},
        "peak_bytes": {"ours": 100 * 2**20, "default": 400 * 2**20, "tuned": 300 * 2**20},
        "others": 0.25,
    }
    run = record(tmp_path / "step.jsonl", [{"subject": "resnet-stage2", "threads": 2, **figures}])
    text = step.draw([run])
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "ResNet" in line]
    name = step.SUBJECTS["resnet-stage2"].title
    assert lines[0] == [name, "2", "15.00", "20.00", "10.00", "1.50 (1.40–1.60)", "≤ 1.3 missed"]  # noqa: RUF001  the dash of a range
    assert lines[1] == [name, "2", "100", "400", "300", "0.33", "≤ 0.4 met"]
    assert lines[2] == [name, "2", "5.00", "2.00", "2.50 (2.40–2.60)", "3.0", "5.0", "1.45"]  # noqa: RUF001  see above
    assert "at most 25% of the processors" in text
    assert "measure again on a quiet machine" in " ".join(text.split())
