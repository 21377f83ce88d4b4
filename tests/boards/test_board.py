"""A booted arm64 board: installed from a signed release, it enrols, is updated, goes back from what is broken, and outlives power cuts."""

import json

import pytest

from tests.boards import image, root
from tests.boards.emulator import Board
from tests.boards.fleet import Fleet, changed_agent
from tests.system.processes import Children, wait_for

pytestmark = pytest.mark.timeout(900)

NAME = "greenhouse-7"


class Field:
    """The board, its fleet and its releases."""

    def __init__(self, fleet, board, bundle, first):
        self.fleet, self.board, self.bundle, self.first = fleet, board, bundle, first


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
    image.add_user(tree, "cutlayer")
    fleet.install(tree, first, fleet.claim(NAME), {"data": {"source": "synthetic:64"}, "service": {"healthy_seconds": 5.0}})
    root.compile_python(tree, "opt/cutlayer")
    image.prepare(tree)
    disk = image.write(tree, folder / "disk.img")
    board = Board(parts, disk, folder)
    board.switch_on()
    yield Field(fleet, board, bundle, first)
    board.cut_power()
    children.end()


def test_it_boots_enrols_and_greets_the_hub(field):
    field.board.wait_for(r"bundle [0-9a-f]{8}, 64 samples", 300)
    print(field.fleet.command("status"), field.fleet.command("devices"), field.fleet.said())
    print(field.board.run("cat /proc/uptime; systemctl status cutlayer --no-pager; ls -l /opt/cutlayer /var/lib/cutlayer /var/lib/cutlayer/identity; cat /etc/cutlayer/device.toml; python3 /opt/cutlayer/installer.pyz status"))
    print(field.board.tail(100))
    field.board.wait_for(r"is well", 100)
    print(field.board.run("cat /var/lib/cutlayer/healthy"))
    assert 0
