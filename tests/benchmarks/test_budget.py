from benchmarks import budget
from benchmarks.results import record


def row(method, accuracy, sent, **more):
    figures = {"accuracy_last": accuracy, "accuracy_max": accuracy, "sent_bytes": sent, "received_bytes": 10_000}
    return {"task": "scarce", "method": method, "seed": 0, **figures, **more}


def test_a_row_says_what_left_the_device_and_whether_it_was_too_much(tmp_path):
    of_budget = {"wire_bytes": 29_000, "over": 0, "messages": 6.4, "samples": 80.0, "withheld": 1.0}
    rows = [row(budget.UNCOMPRESSED, 0.8, 890_000), row("30 kB, paired", 0.79, 20_000, **of_budget)]
    text = budget.draw([record(tmp_path / "budget.jsonl", rows)])
    line = next(line for line in text.splitlines() if line.startswith("| 30 kB"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["30 kB, paired", "1", "79.0 ± 0.0", "79.0 ± 0.0", "20.0", "10.0", "29.0", "6", "80", "0"]
    # 900 000 / 30 000, 18 570 000 / 30 000
    assert "-1.0 points at 1/30 of its bytes, 1/619 of sequential split learning's" in text


def test_every_budget_is_given_to_the_demo_as_it_wants_it():
    arguments = budget.METHODS["24 kB, paired"].arguments
    assert arguments[arguments.index("--budget") + 1] == "up_per_run=24 kB"
    assert "evaluation=apart" in arguments
