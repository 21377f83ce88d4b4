import json

import pytest

from benchmarks import machine
from benchmarks.results import ResultsError, Run, latest, read, record


def test_a_run_is_read_back_as_it_was_measured(tmp_path):
    path = tmp_path / "new" / "case.jsonl"
    written = record(path, iter([{"figure": "a", "mib": 1.5}, {"figure": "b"}]), partial="quick")
    assert read(path) == [written]
    assert written.rows == [{"figure": "a", "mib": 1.5}, {"figure": "b"}]
    assert written.partial == "quick"
    assert written.ended


def test_runs_are_appended(tmp_path):
    path = tmp_path / "case.jsonl"
    first, second = record(path, [{"n": 1}]), record(path, [{"n": 2}])
    assert [run.id for run in read(path)] == [first.id, second.id]


def test_a_run_that_is_broken_off_keeps_what_it_has(tmp_path):
    def rows():
        yield {"n": 1}
        raise RuntimeError("the power went")

    path = tmp_path / "case.jsonl"
    with pytest.raises(RuntimeError):
        record(path, rows())
    (run,) = read(path)
    assert run.rows == [{"n": 1}]
    assert not run.ended


def test_the_run_to_quote_is_the_last_full_one_that_ended():
    def run(name, *, partial="", ended=True):
        return Run(name, "", {}, partial, [{"n": 1}], ended)

    quick, full, broken = run("quick", partial="quick"), run("full"), run("broken", ended=False)
    assert latest([run("old"), full, quick, broken]) is full
    assert latest([broken, quick]) is quick
    assert latest([broken]) is broken
    with pytest.raises(ResultsError, match="no results yet"):
        latest([Run("empty", "", {})])


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "case.jsonl"
    record(path, [{"n": 1}])
    with path.open("a") as file:
        file.write('{"run": "unknown", "row": {}}\n')
    with pytest.raises(ResultsError, match=r"case\.jsonl, line 4"):
        read(path)


def test_the_facts_tell_what_the_machine_is_and_not_whose(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "secret-host")
    facts = machine.facts()
    assert facts["cores"] >= 1
    assert facts["memory_mib"] > 100
    assert facts["numpy"].count(".") == 2
    text = json.dumps(facts)
    assert str(machine.ROOT) not in text
    assert machine.platform.node() not in text or not machine.platform.node()
