"""Boards are profiled through the hub: a real broker, real devices, and a profiler that does what the test wants."""

import json
import os
import re
import sys

import psutil
import pytest

from edge.wire.profile import Profile
from tests.system.processes import wait_for

DEVICE = """
import os, sys
from pathlib import Path
from edge import config, device
device.run(config.load(Path(sys.argv[1]), os.environ), lambda: False, sys.argv[2:])
"""
PROFILER = """
import json, os, sys, time
from pathlib import Path
here = Path(sys.argv[1])
with (here / "began").open("a") as began:
    print(os.getpid(), *sys.argv[2:], file=began)
while not (here / "go").exists():
    time.sleep(0.02)
stage = {"stage": "local", "batch": 32, "threads": 1, "codec": "", "repeats": 9, "cpu_seconds": 0.02, "joules_why": "no meter",
         "peak_bytes": 80 << 20}
stage |= {f"{name}_seconds": 0.0312 for name in ("median", "low", "high", "p95", "quiet")}
room = {"total_bytes": 1 << 30, "available_bytes": None, "limit_bytes": None, "limit_source": ""}
print(json.dumps({"format": 1, "board": {"model": f"board of {here.name}"}, "conditions": {"room": room}, "steps": [],
                  "stages": [stage], "missing": [], "shares": [], "operators": []}))
"""


class Boards:
    """Devices with that profiler, and the hub's command."""

    def __init__(self, trial, **hub):
        self.trial = trial
        trial.write_hub(fleet={"devices": len(trial.names), "gather_seconds": 30.0}, **hub)
        (trial.root / "profiler.py").write_text(PROFILER)

    def start(self, name):
        config = self.trial.write_device(name)
        profiler = (sys.executable, self.trial.root / "profiler.py", config.parent)
        return self.trial.children.python("-c", DEVICE, config, *profiler)

    def go(self, *names):
        for name in names:
            (self.trial.root / name / "go").touch()

    def began(self, name):
        """Lines of its profilers: process, options."""
        path = self.trial.root / name / "began"
        return path.read_text().splitlines() if path.exists() else []

    def ask(self, *options):
        config = self.trial.root / "hub.toml"
        out = self.trial.root / "profiles"
        return self.trial.children.python("-m", "hub", "profile", "fleet", "--config", config, "--out", out, *options)

    def profile(self, name):
        return Profile.parse((self.trial.root / "profiles" / f"{name}.json").read_text())


@pytest.fixture
def boards(trial):
    return Boards(trial, run={"rounds": 2})


def test_boards_are_profiled_and_the_run_afterwards_is_as_ever(boards):
    trial = boards.trial
    devices = {name: boards.start(name) for name in trial.names}
    boards.go(*trial.names)
    hub = boards.ask("--batch", "32,1", "--threads", "1", "--seconds", "0.5")
    assert hub.wait() == 0, hub.said()
    for name in trial.names:
        assert boards.profile(name).name == f"board of {name}"
        assert [line.split(maxsplit=1)[1] for line in boards.began(name)] == [
            "--json - --seconds 0.5 --batch 1,32 --threads 1"
        ]
        assert f"{name} has answered" in hub.stdout()
    table = hub.stdout().split("\n\n")[1].partition("profiles: ")[0]
    assert all(len(line) <= 80 for line in table.splitlines())
    assert table.count("31.2") == 3
    assert "¹ no meter" in table
    assert "80.0" in table
    assert "944 MiB" in table
    assert all(device.alive for device in devices.values())
    trial.start_hub()
    trial.finish()
    assert trial.rounds() == [1, 2]
    assert [device.wait() for device in devices.values()] == [0, 0, 0]
    assert sum(len(boards.began(name)) for name in trial.names) == 3


def test_a_device_that_is_killed_in_its_profile_comes_back_and_answers(boards):
    first, *others = boards.trial.names
    devices = {name: boards.start(name) for name in boards.trial.names}
    boards.go(*others)
    hub = boards.ask()
    wait_for(lambda: boards.began(first), "the profile has begun")
    profiler = int(boards.began(first)[0].split()[0])
    devices[first].kill()
    wait_for(lambda: not psutil.pid_exists(profiler), "the profiler ends with its device")
    devices[first] = boards.start(first)
    wait_for(lambda: len(boards.began(first)) == 2, "the profile begins again")
    boards.go(first)
    assert hub.wait() == 0, hub.said()
    assert sorted(path.stem for path in (boards.trial.root / "profiles").iterdir()) == boards.trial.names
    assert hub.stdout().count(f"{first} has answered") == 1


def test_devices_without_an_answer_are_named_with_the_reason(boards):
    here, silent, _ = boards.trial.names
    for name in (here, silent):
        boards.start(name)
    boards.go(here)
    hub = boards.ask("--devices", f"{here},{silent},nobody", "--wait", "20")
    assert hub.wait() == 1, hub.said()
    # Its own limit is as long as the hub's patience: which of the two is over first is chance.
    assert re.search(
        f"no profile of {silent}: (no answer within 20 s|the profiler was ended after [12][0-9.]* s)", hub.stdout()
    )
    assert "no profile of nobody: " in hub.stdout()
    assert boards.profile(here).name == f"board of {here}"
    wait_for(
        lambda: not psutil.pid_exists(int(boards.began(silent)[0].split()[0])), "its profiler is ended", seconds=30
    )


def test_a_fleet_that_has_a_hub_is_left_alone(boards):
    trial = boards.trial
    trial.write_hub(run={"rounds": 200})
    trial.start_devices()
    trial.start_hub()
    trial.wait_round(1)
    hub = boards.ask()
    assert hub.wait() == 2, hub.said()
    assert f"a hub serves fleet {trial.fleet!r}" in hub.stderr()
    trial.wait_round(len(trial.rounds()) + 2)


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="profiles are measured on Linux")  # noqa: PTH110
def test_the_profiler_of_the_package_answers(trial):
    name = trial.names[0]
    trial.write_hub(fleet={"devices": 1})
    trial.write_device(name)
    device = trial.start_device(name)
    boards = Boards(trial)
    trial.write_hub(fleet={"devices": 1})
    hub = boards.ask("--batch", "4", "--codec", "float32", "--seconds", "0.05")
    assert hub.wait(100) == 0, f"{hub.said()}\n{device.said()}"
    profile = boards.profile(name)
    assert {stage.stage for stage in profile.stages} >= {"sensor", "local", "encode", "outbox", "send"}
    assert profile.conditions["data"].startswith("the device's own")
    assert json.loads((trial.root / "profiles" / f"{name}.json").read_text())["format"] == 1
    assert device.alive


def test_a_run_may_begin_with_the_profiles(boards):
    trial = boards.trial
    trial.write_hub(run={"rounds": 1, "profile": True})
    for name in trial.names:
        boards.start(name)
    boards.go(*trial.names)
    trial.start_hub()
    trial.finish()
    (run,) = trial.records("run")
    assert run["profiles"] == {name: f"in profiles/{name}.json" for name in trial.names}
    assert sorted(path.stem for path in (trial.folder / "profiles").iterdir()) == trial.names
    assert f"in profiles/{trial.names[0]}.json" in (trial.folder / "report.html").read_text()
    assert [len(boards.began(name)) for name in trial.names] == [1, 1, 1]
