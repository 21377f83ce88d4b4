"""A disk that is full in mid-run. No root and no small disk is needed: the kernel refuses files beyond a limit just so."""

import resource

import pytest

from tests.system.processes import wait_for

ROUNDS = 6


@pytest.fixture
def limit():
    """Lets a process write no file beyond so many bytes, from now on; takes it back with None."""

    def set_limit(child, size):
        hard = resource.prlimit(child.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (hard if size is None else size, hard))

    return set_limit


def test_a_device_on_a_full_disk_says_so_and_goes_on_when_there_is_room(trial, limit):
    trial.write_hub(run={"turn_seconds": 60.0})
    trial.start_hub()
    devices = trial.start_devices()
    trial.wait_round(2)

    device = devices["device-02"]
    limit(device, 2000)  # its own words fit, the next commit does not
    wait_for(lambda: "outbox.sqlite cannot be written" in device.stderr(), "the device says that its disk is full")
    assert "nothing leaves until it can be, next try in 5 s" in device.stderr()
    limit(device, None)
    trial.finish()

    assert trial.rounds() == list(range(1, ROUNDS + 1))
    assert [record["late"] for record in trial.records("round")] == [[]] * ROUNDS
    for child in devices.values():
        assert child.wait(20) == 0, child.said()
    assert "Traceback" not in device.stderr()


def test_a_device_that_starts_on_a_full_disk_says_so_and_ends(trial):
    path = trial.write_device("device-01")
    full = trial.children.start(
        "sh", "-c", 'ulimit -f 4; exec "$0" -m edge run --config "$1"', trial.children.executable, path
    )
    assert full.wait(20) == 2, full.said()
    assert full.stderr().startswith("cutlayer run: ")
    assert "outbox.sqlite cannot be" in full.stderr()
    assert "Traceback" not in full.stderr()

    again = trial.start_device("device-01")
    wait_for(lambda: "device-01: bundle" in again.stderr(), "it starts on what is left there")
    again.process.terminate()
    assert again.wait(10) == 0, again.said()


def test_a_hub_on_a_full_disk_says_so_and_goes_on_when_there_is_room(trial, limit):
    trial.write_hub(run={"turn_seconds": 60.0})
    hub = trial.start_hub()
    devices = trial.start_devices()
    trial.wait_round(2)

    limit(hub, 4000)  # its own words fit, the journal and the metrics do not
    wait_for(lambda: "cannot be written" in hub.stderr(), "the hub says that its disk is full")
    assert "nothing goes on until it can be, next try in 5 s" in hub.stderr()
    assert str(trial.folder) in hub.stderr()
    limit(hub, None)
    trial.finish()

    assert trial.rounds() == list(range(1, ROUNDS + 1))
    assert [record["late"] for record in trial.records("round")] == [[]] * ROUNDS
    for child in devices.values():
        assert child.wait(20) == 0, child.said()


def test_a_demo_on_a_full_disk_says_so(trial):
    demo = trial.children.start(
        "sh", "-c", 'ulimit -f 8; exec "$0" -m hub demo --dataset digits --devices 2 --rounds 1 --bundle "$1" --out "$2"',
        trial.children.executable, trial.material.hub_bundle.parent, trial.root / "demo",
    )  # fmt: skip
    assert demo.wait(60) == 2, demo.said()
    last = demo.stderr().splitlines()[-1]
    assert last.startswith("cutlayer-hub demo: ")
    assert "disk i/o error" in last.lower()
    assert "Traceback" not in demo.stderr()
