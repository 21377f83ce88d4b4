"""`serve --tls` as a user starts it: devices that enrol themselves, train over mTLS to the end, and one that is put out."""

import json
import stat

import pytest

from edge.__main__ import main as device_main
from hub.__main__ import main as hub_main
from hub.trust import mosquitto
from hub.trust.folder import Folder
from tests.hub.trust.conftest import free_port, need_mosquitto
from tests.system.processes import wait_for
from tests.system.trial import Trial

FLEET = "trusted"


@pytest.fixture
def trial(tmp_path, children, material):
    need_mosquitto()
    return Trial(tmp_path, children, material, FLEET, "embedded")


def configure(trial, names, rounds):
    port, enrol = free_port(), free_port()
    trial.write_hub(
        fleet={"devices": len(names)},
        run={"rounds": rounds},
        tls={"names": ["localhost"], "address": "127.0.0.1", "port": port, "enrol_port": enrol},
    )
    for name in names:
        trial.write_device(
            name,
            broker={"url": f"mqtts://localhost:{port}", "ca": "ca.pem", "certificate": "id/pem", "key": "id/key"},
            enrolment={"url": f"https://localhost:{enrol}", "claim": "claim.json"},
        )


def enrol(trial, call, name):
    done = call(hub_main, "enrol", "--config", trial.root / "hub.toml", "--name", name, "--board", "pi5",
                "--out", trial.root / name / "claim.json")  # fmt: skip
    assert done.code == 0, done
    token = json.loads((trial.root / name / "claim.json").read_text())["token"]
    assert token not in done.stdout + done.stderr
    return token


def test_devices_enrol_themselves_and_train_over_mtls_to_the_end(trial, call):
    names = trial.names[:2]
    configure(trial, names, rounds=2)
    devices = {name: trial.start_device(name) for name in names}  # before there is a hub, or a claim
    hub = trial.start_hub("--tls")
    folder = trial.root / "fleet"
    wait_for((folder / "broker" / "mosquitto.pid").exists, f"the broker runs; {hub.said()}")
    tokens = [enrol(trial, call, name) for name in names]
    trial.finish(90)
    for name, device in devices.items():
        assert device.wait(20) == 0, device.said()
        assert "is enrolled" in device.stderr()
        assert not (trial.root / name / "claim.json").exists()
        assert stat.S_IMODE((trial.root / name / "id" / "key").stat().st_mode) == 0o600
        shown = call(device_main, "status", "--config", trial.root / name / "device.toml").stdout
        assert "enrolled   until 20" in shown
    assert trial.rounds() == [1, 2]
    run = trial.records("round")[-1]
    assert run["present"] == 2
    assert set(run["accuracies"]) == set(names)
    said = hub.said() + "".join(device.said() for device in devices.values())
    assert not any(token in said for token in tokens)
    assert "back this folder up" in hub.said()
    # The broker has ended with the run.
    assert mosquitto.running(Folder.open(folder, FLEET)) is None
    for path in folder.rglob("*"):
        if path.suffix == ".key":
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    shown = call(hub_main, "devices", "--config", trial.root / "hub.toml").stdout.splitlines()
    assert [line.split()[:3] for line in shown[2:]] == [[name, "pi5", "enrolled"] for name in names]


def test_a_device_that_is_revoked_is_out_and_the_run_goes_on(trial, call):
    names = trial.names[:2]
    configure(trial, names, rounds=1000)
    trial.start_hub("--tls")
    wait_for((trial.root / "fleet" / "broker" / "mosquitto.pid").exists, "the broker runs")
    for name in names:
        enrol(trial, call, name)
    devices = {name: trial.start_device(name) for name in names}
    trial.wait_round(1)
    config = trial.root / "hub.toml"

    def now():
        lines = call(hub_main, "status", "--config", config).stdout.splitlines()
        return {line.split()[0]: line.split()[1:3] for line in lines[2:-1]}

    assert now() == {name: ["online", "enrolled"] for name in names}
    out, stays = names
    done = call(hub_main, "revoke", out, "--config", config)
    assert done.stdout == f"{out}: 1 certificate revoked\nthe broker has the list, and no connection is left\n"
    wait_for(lambda: "certificate is revoked" in devices[out].stderr(), f"{out} is told: {devices[out].stderr()}")
    assert now() == {out: ["offline", "revoked"], stays: ["online", "enrolled"]}
    trial.wait_round(len(trial.rounds()) + 2)
    assert trial.records("round")[-1]["present"] == 1
    # The run's device enrols anew with a claim that is brought while it runs.
    enrol(trial, call, out)
    wait_for(
        lambda: "is enrolled" in devices[out].stderr().split("revoked")[-1],
        f"{out} is back in; {devices[out].stderr()}",
    )
    call(hub_main, "revoke", "nobody", "--config", config).mistake("there is no device 'nobody'", *names)
