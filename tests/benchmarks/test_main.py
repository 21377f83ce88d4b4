from benchmarks import __main__ as command
from benchmarks import results

ROWS = [
    {"figure": "download", "where": "aarch64", "mib": 36.6, "parts": {"numpy": 15.2, "tiny": 0.01}},
    {"figure": "before", "mib": 70.0, "peak_mib": 71.0, "parts": {"numpy": 15.0}},
    {"figure": "import", "seconds": 0.5, "range": [0.4, 0.6], "repeats": 5},
]


def test_without_a_name_the_cases_are_listed(capsys):
    assert command.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(command.CASES)
    assert all(line.endswith("?") for line in lines)


def test_an_unknown_case_is_refused_with_the_known_ones(capsys):
    assert command.main(["stpe"]) == 2
    assert "no case 'stpe'; there are " + ", ".join(command.CASES) in capsys.readouterr().err


def test_tables_are_drawn_from_the_results_alone(tmp_path, capsys):
    results.record(tmp_path / "device.jsonl", ROWS)
    assert command.main(["--table", "--results", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "device.md").read_text("utf-8").strip() == printed.strip()
    assert "| download, aarch64     |           36.6 MiB |    ≤ 40 MiB met |" in printed
    assert "| memory before a model |           70.0 MiB | ≤ 64 MiB missed |" in printed
    assert "numpy 15.2" in printed
    assert "tiny" not in printed
    assert not (tmp_path / "step.md").exists()
