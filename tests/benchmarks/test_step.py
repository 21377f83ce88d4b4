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
    times = {"ours": 15.0, "default": 20.0, "tuned": 10.0, "rewritten": 8.0}
    forward = {"ours": 5.0, "default": 4.0, "tuned": 2.0, "rewritten": 2.0}
    figures = {
        "step_ms": {method: [time, time, time] for method, time in times.items()},
        "forward_ms": {method: [time, time, time] for method, time in forward.items()},
        "ratio": {"default": [0.75, 0.7, 0.8], "tuned": [1.5, 1.4, 1.6], "rewritten": [1.875, 1.8, 1.9]},
        "forward_ratio": {"tuned": [2.5, 2.4, 2.6]},
        "peak_bytes": {"ours": 100 << 20, "default": 400 << 20, "tuned": 300 << 20, "rewritten": 320 << 20},
        "others": 0.25,
    }
    run = record(tmp_path / "step.jsonl", [{"subject": "resnet-stage2", "threads": 2, **figures}])
    text = step.draw([run]).replace("–", "-")  # noqa: RUF001  the dash of a range
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "ResNet" in line]
    name = [step.SUBJECTS["resnet-stage2"].title, "2"]
    assert lines == [
        [*name, "15.00", "10.00", "1.50 (1.40-1.60)", "≤ 1 missed"],
        [*name, "20.00", "0.75 (0.70-0.80)", "8.00", "1.88 (1.80-1.90)"],
        [*name, "100", "400", "300", "320", "0.33", "≤ 0.35 met"],
        [*name, "5.00", "2.00", "2.50 (2.40-2.60)", "3.0", "5.0"],
    ]
    assert "at most 25% of the processors" in text
    assert "measure again on a quiet machine" in " ".join(text.split())
