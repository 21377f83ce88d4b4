from benchmarks import soak
from benchmarks.results import record
from benchmarks.soak import Sample

KIB, MIB = 1 << 10, 1 << 20


def samples(rss, *, files=None, count=40):
    """As many looks as wanted, ten of them the first quarter; `rss` and the sizes in `files` are functions of the look."""
    return [
        Sample(float(at), {"hub": rss(at)}, {name: size(at) for name, size in (files or {}).items()}, rounds=10 * at)
        for at in range(count)
    ]


def test_memory_that_rises_at_the_start_and_then_stays_is_flat():
    (hub,) = soak.memory(samples(lambda at: min(at, 6) * MIB + 100 * MIB))
    assert (hub.after_quarter, hub.highest, hub.flat) == (106 * MIB, 106 * MIB, True)


def test_memory_that_goes_on_rising_is_not():
    (hub,) = soak.memory(samples(lambda at: (100 + at) * MIB))
    # The median of five looks lags two behind: 108 MiB after ten, 137 after forty.
    assert (hub.after_quarter, hub.highest) == (108 * MIB, 137 * MIB)
    assert not hub.flat
    assert round(hub.growth, 3) == 0.269


def test_memory_that_is_there_for_an_instant_does_not_count():
    (hub,) = soak.memory(samples(lambda at: 200 * MIB if at in (20, 30) else 100 * MIB))
    assert hub.flat


def test_a_file_may_swing_but_not_grow():
    swings = {"outbox.sqlite-wal": lambda at: (at % 5) * MIB}
    grows = {"outbox.sqlite": lambda at: at * 64 * KIB}
    assert [thing.flat for thing in soak.files(samples(lambda _: 1, files=swings))] == [True]
    assert [thing.flat for thing in soak.files(samples(lambda _: 1, files=grows))] == [False]


def test_a_file_that_comes_later_is_judged_too():
    late = {"core.dump": lambda at: 0 if at < 30 else MIB}
    assert [thing.flat for thing in soak.files(samples(lambda _: 1, files=late))] == [False]


def test_metrics_may_grow_with_the_rounds_but_not_faster():
    steady = {"run/metrics.jsonl": lambda at: 10 * at * 1700}
    faster = {"run/metrics.jsonl": lambda at: at * at * 1000}
    assert soak.files(samples(lambda _: 1, files=steady)) == []
    assert [(one.after_quarter, one.flat) for one in soak.each_round(samples(lambda _: 1, files=steady))] == [
        (1700, True)
    ]
    assert [one.flat for one in soak.each_round(samples(lambda _: 1, files=faster))] == [False]


def test_rounds_are_counted_while_they_are_written(tmp_path):
    path = tmp_path / "metrics.jsonl"
    counter = soak._Rounds(path)
    assert counter.read() == 0
    with path.open("w") as file:
        for text, rounds in (('{"record": "run"}\n{"record": "ro', 0), ('und", "round": 1}\n', 1), ("{}\n", 1)):
            file.write(text)
            file.flush()
            assert counter.read() == rounds


def test_what_is_missed_is_said(tmp_path):
    rows = [
        {"what": "run", "seconds": 40.0, "rounds": 177, "samples": 60},
        {
            "what": "memory",
            "name": "hub",
            "after_quarter": 100 * MIB,
            "highest": 120 * MIB,
            "growth": 0.2,
            "flat": False,
        },
        {
            "what": "file",
            "name": "run/journal.db",
            "after_quarter": 92 * KIB,
            "highest": 92 * KIB,
            "growth": 0.0,
            "flat": True,
        },
        {"what": "a round", "name": "metrics", "after_quarter": 1706, "highest": 1753, "growth": 0.028, "flat": True},
    ]
    text = soak.draw([record(tmp_path / "soak.jsonl", rows)])
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert ["hub", "100.0", "120.0", "+20.0%", "missed"] in lines
    assert ["run/journal.db", "92", "92", "+0.0%", "met"] in lines
    assert ["metrics", "1706", "1753", "+2.8%", "met"] in lines
    assert "177 rounds in 40 s" in text
