import pytest

from export.__main__ import check_table, main, table
from export.check import Report, Row


def test_cuts(capsys):
    assert main(["cuts", "--model", "export.models:wearable"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["cut", "smashed", "sent", "params", "forward", "step", "memory"]
    assert lines[3].split() == ["pool1", "32x50", "6400", "B", "992", "96", "k", "192", "k", "31", "KiB"]
    assert max(map(len, lines)) <= 80


def test_build_and_check(tmp_path, capsys):
    options = [
        "--model",
        "export.models:digits",
        "--objective",
        "gradient",
        "--optimizer",
        "sgd",
        "--with",
        "classes=4",
    ]
    assert main(["build", *options, "--out", str(tmp_path)]) == 0
    assert "checked against PyTorch float64" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["device.bundle", "hub.bundle"]
    assert main(["check", *options]) == 0
    text = capsys.readouterr().out
    assert "20 steps in place" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["cuts", "--model", "no.such:model"], "there is no module 'no'"),
        (["cuts", "--model", "torch.nn:ReLU"], "the shape of one input sample is unknown"),
        (["build", "--model", "export.models:digits", "--cut", "x", "--out", "never"], "there is no layer 'x'"),
        (["check", "--model", "export.models:digits", "--with", "colour=1"], "could not be made"),
    ],
)
def test_mistakes_are_a_sentence_and_exit_code_2(argv, text, capsys):
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert text in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    "argv", [["build"], ["cuts", "--model", "m:f", "--input", "3,x"], ["cuts", "--model", "m:f", "--with", "5"]]
)
def test_wrong_options(argv, capsys):
    with pytest.raises(SystemExit) as left:
        main(argv)
    assert left.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_the_table_shows_the_worst_of_each_kind_and_every_excuse():
    rows = [
        Row("local", "gradient, seed 0, batch 7 (a)", 1e-6, 2e-6, 2e-5, passed=True),
        Row(
            "local",
            "gradient, seed 1, batch 32 (b)",
            4e-4,
            1e-6,
            2e-5,
            passed=True,
            note="kink: 1e-06 once moved by 1e-3",
        ),
        Row("local", "metric.loss, seed 0", 1.0, 1e-7, 1e-5, passed=False),
    ]
    lines = check_table(Report(rows)).splitlines()
    assert lines[1].split() == ["local", "gradient", "1.0e-06", "2.0e-06", "2.0e-05", "ok", "*"]
    assert lines[2].split()[-1] == "FAILED"
    assert lines[3] == "* local: gradient, seed 1, batch 32 (b): 4.0e-04; kink: 1e-06 once moved by 1e-3"


def test_columns_are_aligned():
    assert table(("a", "b", "c"), [("xx", "y", "10"), ("x", "yyy", "9")]) == "a   b     c\nxx  y    10\nx   yyy   9"
