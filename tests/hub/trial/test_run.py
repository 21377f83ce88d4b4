"""What a trial's command becomes: deadlines worked by hand, what is copied, what is told while it runs."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from hub import __main__ as commands
from hub.demo import Wish
from hub.trial import plan, run
from hub.trial.at_hub import EVENTS, Events
from hub.trial.outages import Outages
from hub.trial.scenario import Course, Link, Links, Scenario, library, load
from hub.trial.traces import PacketTrace, RateTrace


def links(link=Link(), outages=Outages()):  # noqa: B008  frozen
    course = Course(((0.0, link),))
    return Links(course, course, outages)


def waits(of, size=25_000, devices=("pi-1",), others=()):
    return plan.deadlines(Scenario("s", "ours", links=of, devices=dict(others)), devices, size)


def test_a_good_link_keeps_the_deadlines_of_a_good_link():
    assert waits(links()) == plan.Deadlines(60.0, 10.0, 60.0, 30.0)
    assert waits(load("perfect").links) == plan.Deadlines(60.0, 10.0, 60.0, 30.0)


def test_deadlines_of_a_slow_link_with_outages():
    of = links(Link(rate=10_000, delay_seconds=0.5), Outages(every_seconds=100, for_seconds=20))
    # 200,000 bit at 10,000 bit/s during 0.8 of the time: 25 s, four times; 20 round trips of 1 s; twice 20 + 30 s.
    assert waits(of).turn_seconds == 4 * 25 + 20 + 2 * 50
    assert waits(of).grace_seconds == 50
    assert waits(of).gather_seconds == 60 + 20 + 50
    assert waits(of).connect_seconds == 30 + 20 + 50


def test_the_worst_device_counts():
    slow = links(Link(rate=10_000))
    assert waits(links(), devices=("pi-1", "pi-2"), others={"pi-2": slow}.items()).turn_seconds == 4 * 20
    assert waits(links(), devices=("pi-1",), others={"pi-2": slow}.items()).turn_seconds == 60


def test_an_outage_longer_than_a_minute_is_not_waited_for():
    assert waits(links(outages=Outages(times=((10, 600),)))) == plan.Deadlines(60.0, 10.0, 60.0, 30.0)
    assert waits(links(outages=Outages(times=((10, 60), (100, 600))))).grace_seconds == 90


def test_loss_bounds_what_tcp_gets_through():
    course = Course(((0.0, Link(delay_seconds=0.1, loss=0.01)),))
    assert plan.throughput(course, 0.2) == pytest.approx(1448 * 8 * 1.22 / (0.2 * 0.1))
    assert plan.throughput(Course(((0.0, Link(rate=1000, loss=0.2)),)), 0.0) == 800
    assert plan.throughput(Course(), 0.0) == math.inf


def test_bursts_count_with_the_share_of_time_they_last():
    assert plan.loss_share(Link(loss=0.01, p_enter=0.02, p_leave=0.1, loss_bad=0.6)) == pytest.approx(
        0.01 * 5 / 6 + 0.1
    )


def test_the_rate_of_a_trace_is_its_mean():
    rates = RateTrace((0.0, 1.0, 3.0), (1000.0, 4000.0, 0.0), (0.0, 0.0, 0.0), 5.0)
    assert plan.lowest_rate(Course(trace=rates)) == (1000 + 2 * 4000) / 5
    assert plan.lowest_rate(Course(trace=PacketTrace((0, 500, 1000, 2000)))) == 4 * 1500 * 8 / 2
    assert plan.lowest_rate(Course(((0.0, Link(rate=5.0)), (1.0, Link(rate=0.0)), (2.0, Link(rate=3.0))))) == 3


def test_a_slow_link_has_data_travel_quantised_and_is_evaluated_seldom():
    def on(size):
        return plan.terms(Scenario("s", "ours", links=links(Link(rate=8000))), ["pi-1"], size)

    assert on(60_000) == plan.Terms("float32", "float32", 1)  # at 1000 bytes a second a minute
    assert on(61_000) == plan.Terms("entropy:0.5", "entropy:0.5", 1)
    # 600 s are 50 s as a twelfth of the bytes: every third round, so that 20 s are not exceeded on average.
    assert on(600_000).evaluate_every == 3


def test_of_the_library_only_the_gateway_is_slow_with_the_scarce_wearers():
    slow = [name for name in library() if plan.terms(load(name), [], 700_000) != plan.Terms()]
    assert slow == ["lora-gateway"]


def test_outages_until_the_end():
    assert plan.outages_until(Outages(every_seconds=10, for_seconds=2), 31, "") == [(10, 12), (20, 22), (30, 31)]
    assert plan.outages_until(Outages(times=((0.0, 3.0), (5.0, 1.0))), 5, "") == [(0, 3)]
    assert plan.outages_until(Outages(), 100, "") == []


def test_a_scenario_in_words():
    of = links(Link(rate=5e6, delay_seconds=0.035), Outages(every_seconds=30, for_seconds=5))
    assert plan.in_words(Scenario("s", "ours", links=of)) == "5 Mbit/s, round trip 70 ms, gone 5 s every 30 s"
    assert plan.in_words(load("perfect")) == "no limit, no delay, no loss"


def test_the_list_names_every_scenario_and_its_source_in_80_columns(capsys):
    assert commands.main(["trial", "list"]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    for name in library():
        assert f"\n{name} " in f"\n{said}"
    assert "ours: nothing is done to any packet" in said


@pytest.fixture
def asked(monkeypatch):
    """The trial and the wish that a command line becomes."""
    found = []
    monkeypatch.setattr(run, "run", lambda trial, wish: found.append((trial, wish)))
    monkeypatch.setattr("hub.report.write_report", lambda _folder: None)
    monkeypatch.setattr(commands, "_show_trial", lambda folder, against: found.append((folder, against)) or 0)

    def ask(*arguments):
        assert commands.main(["trial", "run", *arguments]) == 0
        return found

    return ask


def test_what_a_command_line_becomes(asked, tmp_path):
    (trial, wish), shown = asked(
        "flapping", "--devices", "3", "--rounds", "5", "--strategy", "fedavg", "--set", "x=1", "--seed", "7", "--means",
        "relay", "--congestion", "cubic", "--turn-seconds", "33", "--evaluate-every", "0", "--out", str(tmp_path / "t"),
    )  # fmt: skip
    assert trial == run.Trial("flapping", "relay", "cubic", seed=7, turn_seconds=33.0, evaluate_every=0)
    assert (wish.devices, wish.rounds, wish.strategy, wish.options, wish.seed) == (3, 5, "fedavg", {"x": 1}, 7)
    assert (wish.references, wish.broker, wish.dataset) == (False, "embedded", "wearables")
    assert shown == (tmp_path / "t", None)


def test_without_a_seed_the_scenario_keeps_its_own(asked):
    (trial, wish), _ = asked("flapping")
    assert (trial.seed, wish.seed) == (None, 0)
    assert (trial.turn_seconds, trial.grace_seconds) == (None, None)
    assert (trial.means, trial.codec, trial.evaluation_codec, trial.evaluate_every) == ("auto", None, None, None)


def test_codecs_that_were_asked_for_are_kept(asked):
    (trial, _), _ = asked("lora-gateway", "--codec", "float16", "--evaluation-codec", "float32")
    assert (trial.codec, trial.evaluation_codec) == ("float16", "float32")
    kept = run._Train(trial, load("lora-gateway"))._terms(["pi-1"], 700_000)
    assert (kept.codec, kept.evaluation_codec, kept.evaluate_every) == ("float16", "float32", 5)


def test_and_perfect_runs_the_same_without_faults_with_the_same_bundle(asked, tmp_path):
    (first, one), (second, other), shown = asked("flapping", "--and-perfect", "--out", str(tmp_path / "t"))
    assert (first.scenario, second.scenario) == ("flapping", "perfect")
    assert other.folder == tmp_path / "t" / "perfect"
    assert other.bundle == tmp_path / "t" / "bundle"
    assert (one.seed, one.options) == (other.seed, other.options)
    assert shown == (tmp_path / "t", tmp_path / "t" / "perfect")


def test_the_run_on_perfect_is_on_the_same_terms(tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr(run, "run", lambda trial, _: found.append(trial))
    terms = {"codec": "quantised:0.5", "evaluation_codec": "float16", "evaluate_every": 6}
    (tmp_path / run.FACTS).write_text(json.dumps({"terms": terms}))
    run.run_perfect(run.Trial("lora-gateway"), Wish(tmp_path))
    assert found == [run.Trial("perfect", **terms)]


def test_a_scenario_that_is_not_there_is_a_mistake_that_names_those_that_are(capsys, tmp_path):
    assert commands.main(["trial", "run", "marsh", "--out", str(tmp_path / "t")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("cutlayer-hub trial: scenario marsh: must be a file, or one of basement, flapping, ")
    assert not (tmp_path / "t").exists()


def test_a_broker_elsewhere_is_not_behind_the_links(tmp_path):
    with pytest.raises(run.TrialError, match="embedded or mosquitto, not 'mqtt://elsewhere'"):
        run.run(run.Trial("perfect"), Wish(tmp_path / "t", broker="mqtt://elsewhere"))


def test_a_scenario_is_copied_with_its_traces(tmp_path):
    run.keep_scenario("lte-drive", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "lte-drive.down.csv", "lte-drive.up.csv", "scenario.toml"
    ]  # fmt: skip
    assert load(tmp_path / "scenario.toml") == load("lte-drive")


def test_events_are_lines_with_their_time(tmp_path):
    clock = iter([10.0, 11.5])
    path = tmp_path / EVENTS
    with path.open("w") as file:
        events = Events(file, lambda: next(clock))
        events.device("pi-1", "late")
        events.round({"round": 1})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"time": 10.0, "event": "device", "name": "pi-1", "state": "late"},
        {"time": 11.5, "event": "round", "record": {"round": 1}},
    ]


class Said:
    """Notes what it is told."""

    def __init__(self):
        self.words = []

    def __getattr__(self, kind):
        return lambda *what: self.words.append((kind, *what))


def ended(code):
    process = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"])
    process.wait(30)
    return process


class Running:
    """A process that runs until it has been asked so often."""

    def __init__(self, times, code=0):
        self.returncode, self._times, self._code = None, times, code

    def poll(self):
        self._times -= 1
        if self._times < 0:
            self.returncode = self._code
        return self.returncode


def events(folder, *lines):
    (folder / EVENTS).write_text("".join(json.dumps({"time": 1.0, **line}) + "\n" for line in lines))


def test_what_the_hub_says_is_shown(tmp_path):
    events(
        tmp_path,
        {"event": "listening", "port": 1883},
        {"event": "stage", "text": "training"},
        {"event": "device", "name": "pi-1", "state": "late"},
        {"event": "round", "record": {"round": 1}},
        {"event": "note", "text": "something"},
    )
    said = Said()
    follower = run.Follower(tmp_path, Running(3), said, sleep=lambda _: None)
    assert follower.listening() == 1883
    follower.to_the_end()
    assert said.words == [
        ("stage", "training"), ("device", "pi-1", "late"), ("round", {"round": 1}), ("note", "something")
    ]  # fmt: skip


def test_a_hub_that_ends_badly_is_told_with_its_last_words(tmp_path):
    (tmp_path / "hub.log").write_text("Traceback …\nhub.orchestrator.FleetError: 0 of 2 devices came\n")
    for told in ("listening", "to_the_end"):
        follower = run.Follower(tmp_path, ended(1), Said(), sleep=lambda _: None)
        with pytest.raises(run.TrialError, match=r"^the hub ended with code 1: .*FleetError: 0 of 2 devices came"):
            getattr(follower, told)()


def test_a_device_that_ends_stops_the_trial_before_the_training_and_is_noted_in_it(tmp_path):
    log = tmp_path / "devices" / "pi-1" / "log.txt"
    log.parent.mkdir(parents=True)
    log.write_text("cutlayer run: no broker answers\n")
    events(tmp_path)
    follower = run.Follower(tmp_path, Running(3), Said(), sleep=lambda _: None)
    follower.devices = {"pi-1": ended(2)}
    with pytest.raises(run.TrialError, match=r"^pi-1 ended with code 2: cutlayer run: no broker answers"):
        follower.to_the_end()

    events(tmp_path, {"event": "stage", "text": "training"})
    said = Said()
    follower = run.Follower(tmp_path, Running(4), said, sleep=lambda _: None)
    follower.devices = {"pi-1": ended(2), "pi-2": ended(0)}
    follower.to_the_end()
    assert [words for kind, *words in said.words if kind == "note"] == [
        [f"pi-1 ended with code 2: cutlayer run: no broker answers ({log})"]
    ]


def test_a_line_that_is_half_written_waits_for_its_end(tmp_path):
    whole = json.dumps({"time": 1.0, "event": "note", "text": "whole"}) + "\n"
    path = Path(tmp_path / EVENTS)
    path.write_text(whole[:10])
    said = Said()
    follower = run.Follower(tmp_path, Running(2), said, sleep=lambda _: path.write_text(whole))
    follower.to_the_end()
    assert said.words == [("note", "whole")]
