"""A booted arm64 board: installed from a signed release, it enrols, is updated, goes back from what is broken, and outlives power cuts."""

import time

import pytest

from tests.boards import image, root
from tests.boards.emulator import Board
from tests.boards.fleet import Fleet, changed_agent
from tests.system.processes import Children

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]

NAME = "greenhouse-7"


class Field:
    """The board, its fleet and its releases."""

    def __init__(self, fleet, board, bundle, first, folder):
        self.fleet, self.board, self.bundle, self.first = fleet, board, bundle, first
        self.releases = {1: first}
        self._folder = folder

    def release(self, version, change):
        """The next release, with another agent; only what differs from the first one is in its file."""
        edge = changed_agent(self._folder / f"edge-{version}", change)
        made = self.fleet.release(self.bundle.device, f"v{version}", version, edge=edge, since=self.first.path)
        self.releases[version] = made
        return made

    def start_rollout(self, made):
        return self.fleet.start("rollout", made.path, "--to", "all", "--hold", "1", "--wait", "300")

    def current(self, seconds=60):
        """Id of the release that the board runs or would start."""
        return self.board.run("basename $(readlink -f /opt/cutlayer/current)", seconds).strip()

    def status(self):
        """What the installer on the board says, by what stands before the colon."""
        lines = self.board.run("python3 /opt/cutlayer/installer.pyz status").splitlines()
        return dict(line.split(": ", 1) for line in lines if ": " in line)


@pytest.fixture(scope="module")
def field(parts, make_bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("field")
    (folder / "processes").mkdir()
    children = Children(folder / "processes")
    bundle = make_bundle(objective="gradient")
    # The host's loopback, as the emulator's network has it.
    fleet = Fleet(folder / "fleet", children, "10.0.2.2")
    # The run waits for a second device for ever: the board has nothing else to do.
    fleet.serve(
        fleet={"devices": 2, "minimum_devices": 2, "gather_seconds": 1e6},
        bundle={"path": bundle.hub},
        run={"strategy": "split_learning", "rounds": 1},
    )
    first = fleet.release(bundle.device, "first", 1)
    tree = root.copy(parts.tree, folder / "tree")
    fleet.install(
        tree, first, fleet.claim(NAME), {"data": {"source": "synthetic:64"}, "service": {"healthy_seconds": 5.0}}
    )
    root.compile_python(tree, "opt/cutlayer")
    image.prepare(tree)
    disk = image.write(tree, folder / "disk.img")
    board = Board(parts, disk, folder)
    board.switch_on()
    yield Field(fleet, board, bundle, first, folder)
    board.cut_power()
    children.end()


def test_it_boots_enrols_and_is_well(field):
    board = field.board
    board.wait_for(rf"release {field.first.id[:8]} is well", 300)
    assert row(field.fleet.command("status"), NAME)[1:3] == ["online", "enrolled"]
    # The private key is the service's alone, the claim is used up, and onnxruntime has left nothing behind.
    listed = board.run("cd /var/lib/cutlayer && stat -c '%a %U %n' identity/* && ls -A")
    assert "600 cutlayer identity/device.key\n" in listed
    assert "claim.json" not in listed
    assert ".cache" not in listed
    assert board.run("systemctl show cutlayer -p NRestarts -p SubState").split() == ["NRestarts=0", "SubState=running"]


def test_an_update_outlasts_a_power_cut(field):
    board, made = field.board, field.release(2, lambda source: f"{source}\n# the second\n")
    rollout = field.start_rollout(made)
    board.wait_for("Starting cutlayer-install.service", 200)
    time.sleep(3.0)  # somewhere in the installation
    board.cut_power()
    board.switch_on()
    # The old release or the new one, and whole; in the end it is the new one.
    assert field.current(200) in {field.first.id, made.id}
    assert board.run("python3 /opt/cutlayer/installer.pyz status --verify > /dev/null && echo whole", 200) == "whole\n"
    assert rollout.wait(400) == 0, f"{rollout.said()}\n{board.tail()}"
    assert field.current() == made.id
    assert field.status()["called healthy"] == made.id


def test_a_broken_update_is_taken_back(field):
    broken = field.release(3, lambda source: f"raise RuntimeError('broken on purpose')\n{source}")
    rollout = field.start_rollout(broken)
    assert rollout.wait(500) == 1, f"{rollout.said()}\n{field.board.tail(100)}"
    assert "rolled back" in rollout.said()
    assert field.current() == field.releases[2].id
    assert "on trial" not in field.status()
    field.board.wait_for("broken on purpose", 1)
    assert broken.id not in field.board.run("ls /opt/cutlayer/releases")


def test_it_trains_after_all_that(field):
    fleet = field.fleet
    other = fleet.start_here("other", field.bundle, {"data": {"source": "synthetic:64"}, "run": {"once": True}})
    assert fleet.hub.wait(300) == 0, f"{fleet.said()}\n{other.said()}\n{field.board.tail()}"
    (last,) = fleet.records("round")
    assert sorted(last["accuracies"]) == [NAME, "other"]
    assert last["late"] == []


def row(table, name):
    """The cells of a device's line."""
    return next(line.split() for line in table.splitlines() if line.startswith(name))
