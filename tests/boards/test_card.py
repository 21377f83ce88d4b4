"""A board that sets itself up at its first boot, from the seed that `flash card` writes: `make boards`. It takes minutes."""

import os
import subprocess
import sys

import pytest

from hub.demo import as_toml
from tests.boards import image, root
from tests.boards.emulator import Board
from tests.boards.fleet import Fleet

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif("CUTLAYER_CARD" not in os.environ, reason="takes minutes: make boards"),
]

NAME = "greenhouse-8"


def test_a_board_installs_itself_from_its_card(parts, tmp_path, children, make_bundle):
    whole = root.parts(root.CLOUD_INIT)
    bundle = make_bundle(objective="gradient")
    fleet = Fleet(tmp_path / "fleet", children, "10.0.2.2")
    fleet.serve(
        fleet={"devices": 2, "minimum_devices": 2, "gather_seconds": 1e6},
        bundle={"path": bundle.hub},
        run={"strategy": "split_learning"},
    )
    made, claim = fleet.release(bundle.device, "first", 1), fleet.claim(NAME)
    config = tmp_path / "own.toml"
    config.write_text(as_toml({"data": {"source": "synthetic:64"}}))
    card = image.write_card(tmp_path / "card.img")
    flash = [
        sys.executable,
        "-m",
        "export",
        "flash",
        "card",
        card,
        "--release",
        made.path,
        "--claim",
        claim,
        "--config",
        config,
    ]
    done = subprocess.run(
        list(map(str, flash)), capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stdout + done.stderr
    tree = root.copy(whole.tree, tmp_path / "tree")
    image.prepare(tree)
    image.with_cloud_init(tree)
    board = Board(whole, image.write(tree, tmp_path / "disk.img"), tmp_path, card=card)
    board.switch_on()
    try:
        board.wait_for(rf"release {made.id[:8]} is well", 900)
        # What a finder of the card could have used is gone from it.
        assert board.run("hostname") == f"{NAME}\n"
        board.wait_for("cutlayer-card.service: Deactivated successfully|Finished cutlayer-card.service", 100)
        left = board.run("ls /boot/firmware/cutlayer").split()
        assert "claim.json" not in left
        assert "board.release" not in left
        # The second boot installs nothing again.
        board.run("sync")
        board.cut_power()
        board.switch_on()
        board.wait_for(r"bundle [0-9a-f]{8}, 64 samples", 600)
        assert "its trial is over" in board.console
        assert "cutlayer-card" not in board.console
    finally:
        board.cut_power()
