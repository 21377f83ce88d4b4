"""Releases go over a real broker to real device processes; what systemd and the installer do on a board is stood in for."""

import json
import platform
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge.link import Message
from edge.mqtt_link import MqttLink
from edge.wire import topics
from edge.wire.updates import State
from hub.__main__ import main as hub_main
from hub.broker import start_broker
from hub.trial.replay import replay
from tests.edge.release import make
from tests.hub.trust.conftest import free_port
from tests.system.conftest import need_mosquitto
from tests.system.processes import wait_for
from tests.system.trial import Trial

BOARD = Path(__file__).with_name("rollout_board.py")
PAYLOAD = 200_000


def contents(mark):
    """Of a release whose installer is of some length, so that it takes a while to come."""
    filler = (f"{mark} " * PAYLOAD).encode()[:PAYLOAD]
    return {**make.CONTENTS, "installer.pyz": filler}


class Field:
    """Boards that were installed from version 1 of a release, and the hub's command."""

    def __init__(self, trial, **device):
        self.trial, self.root = trial, trial.root
        self.device = device
        self.key = self.root / "release.pub"
        self.key.write_text(make.KEY.hex() + "\n")
        trial.write_hub()
        self.boards, self.watch = {}, None

    def release(self, version, **changes):
        path = self.root / f"{version}.release"
        make.write(path, contents(version), **self.facts(version), **changes)
        return path

    def facts(self, version):
        now = datetime.now(UTC).replace(microsecond=0)
        return {
            "fleet": self.trial.fleet,
            "version": version,
            "issued": now - timedelta(hours=1),
            "expires": now + timedelta(days=1),
            "architecture": platform.machine(),
            "bundle": self.trial.material.bundle,
        }

    def install(self, name):
        folder = self.root / name
        release = make.manifest_of(contents(1), **self.facts(1))
        (folder / "releases" / release.id).mkdir(parents=True)
        (folder / "releases" / release.id / "manifest.json").write_bytes(release.pack())
        (folder / "current").symlink_to(f"releases/{release.id}")
        (folder / "incoming").mkdir()
        (folder / "keys").write_text(make.KEY.hex() + "\n")
        (folder / "healthy").write_text(release.id + "\n")
        sections = {
            "run": {"fleet": self.trial.fleet, "once": False, "chunk_bytes": 16384},
            "update": {name: str(folder / name) for name in ("current", "incoming", "keys")},
            "service": {"healthy": str(folder / "healthy"), "healthy_seconds": 0.3},
            **self.device,
        }
        self.trial.write_device(name, **sections)

    def start(self, *names):
        for name in names:
            if not (self.root / name / "current").exists():
                self.install(name)
            self.boards[name] = self.trial.children.python(BOARD, self.root / name)

    def rollout(self, release, *options, to="canary,all"):
        hub = ("--config", self.root / "hub.toml", "--key", self.key, "--to", to)
        # Steps of two milliseconds take as long as the machine lets them: only one test is about that.
        quick = ("--hold", "0.3", "--gather", "1.5", "--state", "0.3", "--trial", "40", "--slower", "100")
        return self.trial.children.python("-m", "hub", "rollout", release, *hub, *quick, *options)

    def version(self, name):
        return json.loads((self.root / name / "current" / "manifest.json").read_text())["version"]

    def versions(self):
        return [self.version(name) for name in sorted(self.boards)]

    def state(self, name):
        """As it is retained at the broker."""
        link = MqttLink(self.trial.url, f"watch-{name}", subscriptions=[topics.update(self.trial.fleet, name, "state")])
        link.open()
        try:
            found = wait_for(
                lambda: [event for event in link.poll(0.1) if isinstance(event, Message)], "it is retained"
            )
        finally:
            link.close()
        return State.parse(found[-1].payload)

    def book(self):
        return json.loads((self.root / "fleet" / "rollout.json").read_text())


@pytest.fixture
def field(trial):
    return Field(trial)


def said(field, *commands):
    boards = "\n".join(f"--- {name}\n{board.said()}" for name, board in field.boards.items())
    return "\n".join([*(command.said() for command in commands), boards])


def test_a_good_release_goes_to_a_canary_and_then_to_all(tmp_path, children, material, fleet, broker_kind, call):
    with start_broker(broker_kind, tmp_path / "broker") as started:
        field = Field(Trial(tmp_path, children, material, fleet, started.url))
        names = field.trial.names
        field.start(*names)
        command = field.rollout(field.release(2))
        assert command.wait(90) == 0, said(field, command)
        assert field.versions() == [2, 2, 2]
        lines = command.stdout().splitlines()
        over = lines.index("stage canary is over: 1 of 3 devices have version 2")
        assert sum("is offered version 2 (stage canary)" in line for line in lines[:over]) == 1
        assert sum("is offered version 2 (stage all)" in line for line in lines[over:]) == 2
        assert "stage all is over: 3 of 3 devices have version 2" in lines
        for name in names:
            assert (field.root / name / "healthy").read_text().strip() == field.state(name).release
            assert list((field.root / name / "incoming").glob("*.part")) == []
        shown = call(hub_main, "rollout", "--status", "--config", field.root / "hub.toml")
        assert shown.code == 0
        assert shown.stdout.startswith("version 2 (")
        assert "to canary,all: done" in shown.stdout


def test_a_release_that_does_not_get_well_stops_at_the_canary(field, call):
    names = field.trial.names
    field.start(*names)
    command = field.rollout(field.release(2, cutlayer="6.6.6"), "--canary", names[1])
    assert command.wait(90) == 1, said(field, command)
    assert f"stopped: {names[1]} rolled back: not healthy after 2 starts" in command.stdout()
    assert field.versions() == [1, 1, 1]
    wait_for(lambda: field.state(names[1]).phase == "healthy", "its offer is withdrawn")
    again = ("rollout", field.root / "2.release", "--config", field.root / "hub.toml", "--key", field.key)
    call(hub_main, *again).mistake("the rollout of version 2 was stopped")
    better = field.rollout(field.release(3))
    assert better.wait(90) == 0, said(field, better)
    assert field.versions() == [3, 3, 3]


def test_a_release_that_is_slower_stops_at_the_canary(field):
    trial = field.trial
    trial.write_hub(run={"rounds": 500, "evaluate_every": 0})
    field.start(*trial.names)
    trial.start_hub()
    trial.wait_round(2)
    command = field.rollout(
        field.release(2, cutlayer="7.7.7"), "--canary", trial.names[0], "--hold", "20", "--slower", "1.5"
    )
    assert command.wait(100) == 1, said(field, command)
    assert f"stopped: {trial.names[0]}: a step takes " in command.stdout()
    assert field.versions() == [2, 1, 1]
    trial.wait_round(len(trial.rounds()) + 1)


def test_a_device_that_was_away_gets_it_later(field):
    first, second, away = field.trial.names
    field.start(first, second)
    command = field.rollout(field.release(2), "--only", first, second, away)
    wait_for(lambda: [field.version(first), field.version(second)] == [2, 2], "two have it", seconds=60)
    assert command.alive
    field.start(away)
    assert command.wait(60) == 0, said(field, command)
    assert field.version(away) == 2


def test_a_command_that_is_killed_goes_on_and_boards_with_it(trial):
    # Slow enough to be killed in the middle of it.
    field = Field(trial, budget={"down_per_day": "5 MB", "up_per_day": "5 MB"})
    names = trial.names
    field.start(*names)
    release = field.release(2)

    def here():
        return sum(part.stat().st_size for part in field.root.glob("*/incoming/*.part"))

    for number in range(3):
        command, before = field.rollout(release), here()

        def further(before=before):
            return here() > before or 2 in field.versions()

        wait_for(further, "it is fetched")
        command.kill()
        if number == 1:
            for name in names:
                field.boards[name].kill()
            field.start(*names)
    command = field.rollout(release)
    assert command.wait(100) == 0, said(field, command)
    assert field.versions() == [2, 2, 2]
    assert "refused" not in "".join(board.stderr() for board in field.boards.values())


def test_a_board_that_the_hub_refuses_is_well_and_is_updated_all_the_same(field, make_bundle):
    trial, name = field.trial, field.trial.names[0]
    other = make_bundle(seed=1)
    trial.write_hub(bundle={"path": other.hub}, fleet={"name": trial.fleet, "devices": 1})
    hub = trial.start_hub()
    field.start(name)
    board = field.boards[name]
    wait_for(lambda: "updates are still fetched" in board.stderr(), "it is refused", seconds=60)
    command = field.rollout(field.release(2))
    assert command.wait(60) == 0, said(field, command)
    assert field.version(name) == 2
    wait_for(lambda: board.stderr().count("updates are still fetched") == 2, "it is refused again", seconds=60)
    assert (field.root / name / "healthy").read_text().strip() == field.state(name).release
    assert hub.alive


def test_beside_a_hub_with_tls_as_a_client_of_its_own(tmp_path, children, material, call):
    need_mosquitto()
    trial = Trial(tmp_path, children, material, "trusted", "embedded")
    name, port, enrol = trial.names[0], free_port(), free_port()
    field = Field(
        trial,
        broker={"url": f"mqtts://localhost:{port}", "ca": "ca.pem", "certificate": "id/pem", "key": "id/key"},
        enrolment={"url": f"https://localhost:{enrol}", "claim": "claim.json"},
    )
    trial.write_hub(
        fleet={"name": "trusted", "devices": 1},
        run={"rounds": 2000, "evaluate_every": 0},
        tls={"names": ["localhost"], "address": "127.0.0.1", "port": port, "enrol_port": enrol},
    )
    hub = trial.start_hub("--tls")
    wait_for((trial.root / "fleet" / "broker" / "mosquitto.pid").exists, "the broker runs")
    field.start(name)
    claim = ("--name", name, "--board", "pi5", "--out", trial.root / name / "claim.json")
    assert call(hub_main, "enrol", "--config", trial.root / "hub.toml", *claim).code == 0
    trial.wait_round(1)
    command = field.rollout(field.release(2), to="all")
    assert command.wait(60) == 0, said(field, command, hub)
    assert field.version(name) == 2
    trial.wait_round(len(trial.rounds()) + 1)
    assert "offline" not in hub.stderr()  # nobody has taken its name at the broker


def test_training_goes_on_and_comes_to_the_same(field):
    trial, names = field.trial, field.trial.names

    def results():
        return [
            {key: record[key] for key in ("round", "loss", "accuracy", "accuracies", "selected")}
            for record in trial.records("round")
        ]

    run = {"rounds": 8, "order": "fixed"}
    strategy = {"kappa": 0.0, "masks": False, "offline_steps": 0}
    trial.write_hub(run=run, strategy=strategy)
    devices = trial.start_devices()
    trial.start_hub()
    trial.finish()
    assert [device.wait() for device in devices.values()] == [0, 0, 0]
    expected = results()
    for path in (trial.folder, *(trial.root / name for name in names)):
        path.rename(path.with_name(f"{path.name}-before"))
    field.start(*names)
    trial.write_hub(run=run, strategy=strategy)
    command = field.rollout(field.release(2))
    trial.start_hub()
    trial.finish(100)
    assert command.wait(60) == 0, said(field, command)
    assert field.versions() == [2, 2, 2]
    assert results() == expected
    for name in names:
        field.boards[name].kill()
        found = replay(trial.root / name / "state" / "recorder")
        assert (found.same, found.processes) == (True, 2)
