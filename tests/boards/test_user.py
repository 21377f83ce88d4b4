"""The whole client on an emulated Cortex-A72, enrolled, over TLS, against a hub on this machine; and the same on no emulator."""

import pytest
import torch

from edge.outbox import Outbox
from tests.boards import root
from tests.boards.compare import distances
from tests.boards.fleet import STATE, Fleet
from tests.boards.user import emulated_python

pytestmark = [pytest.mark.timeout(400), pytest.mark.long]

CLOSE = 1e-4
ROUNDS = 3


def test_an_arm64_board_trains_to_what_this_machine_trains_to(tmp_path, children, make_bundle, digits, parts):
    bundle = make_bundle(objective="gradient")
    data = digits["device-01"]
    outcomes = {}
    for kind in ("x86", "arm64"):
        fleet = Fleet(tmp_path / kind, children, "127.0.0.1")
        fleet.serve(
            fleet={"devices": 1},
            bundle={"path": bundle.hub},
            run={"strategy": "split_learning", "order": "fixed", "rounds": ROUNDS},
        )
        config = {"data": {"source": str(data)}, "run": {"once": True}}
        device = (
            start_arm64(fleet, children, bundle, config, parts)
            if kind == "arm64"
            else fleet.start_here("board", bundle, config)
        )
        assert fleet.hub.wait(200) == 0, f"{fleet.said()}\n{device.said()}"
        assert device.wait(60) == 0, device.said()
        assert "Traceback" not in device.stderr(), device.said()
        outcomes[kind] = outcome(fleet, kind)
    assert [record["round"] for record in outcomes["arm64"]["rounds"]] == [1, 2, 3]
    apart = distances(outcomes["x86"], outcomes["arm64"])
    assert max(apart.values()) < CLOSE, apart
    # They are no copies of each other: another processor rounds otherwise somewhere.
    assert max(apart.values()) > 0.0, apart
    shows_its_board(fleet, children, parts)


def start_arm64(fleet, children, bundle, config, parts):
    made = fleet.release(bundle.device, "first", 1)
    tree = root.copy(parts.tree, fleet.folder / "board")
    root.dress(tree)
    fleet.install(tree, made, fleet.claim("board"), config)
    python = emulated_python(tree, fleet.folder / "python")
    return children.start(
        python.executable, "-m", "edge", "run", "--config", "/etc/cutlayer/device.toml", environ=python.environ
    )


def outcome(fleet, kind):
    """What was learned on both sides, with the figures of every round."""
    outbox = Outbox.look(fleet.folder / "board" / STATE)
    try:
        state = outbox.state()
    finally:
        outbox.close()
    figures = ("round", "loss", "accuracy", "accuracies")
    rounds = [{name: record[name] for name in figures} for record in fleet.records("round")]
    return {
        "rounds": rounds,
        "device": state,
        "hub": torch.load(fleet.run / "checkpoint.pt", weights_only=True)["strategy"],
    }


def shows_its_board(fleet, children, parts):
    """`cutlayer profile` on what has just trained."""
    python = emulated_python(fleet.folder / "board", fleet.folder / "python")
    asked = ["--stages", "forward", "--seconds", "0.3", "--config", "/etc/cutlayer/device.toml"]
    profile = children.start(python.executable, "-m", "edge", "profile", *asked, environ=python.environ)
    assert profile.wait(200) == 0, profile.said()
    told = " ".join(profile.stdout().split())
    assert told.startswith("Raspberry Pi 4 Model B Rev 1.4, Cortex-A72, 4 cores, governor ondemand, 3.7 GiB"), told
