"""What is killed without a warning and started again: a device, the hub, the broker."""

import socket
from urllib.parse import urlsplit

from edge.outbox import Outbox
from hub.broker import start_broker
from tests.system.processes import wait_for
from tests.system.trial import Material

ROUNDS = 6
SEQUENTIAL = {"kappa": None, "masks": None}
"""What the trial tells AdaSplit is not for other strategies."""


def every_round_once(trial):
    assert trial.rounds() == list(range(1, ROUNDS + 1))


def ended_well(devices):
    for name, device in devices.items():
        assert device.wait(20) == 0, f"{name}:\n{device.said()}"
        assert "Traceback" not in device.stderr(), device.said()


def totals(trial, name):
    return [record for record in trial.records("device") if record["device"] == name]


def remembered(trial, name):
    """What the device's state directory holds, as `cutlayer status` tells it."""
    status = trial.children.python("-m", "edge", "status", "--config", trial.root / name / "device.toml")
    assert status.wait(20) == 0, status.said()
    return dict(line.split(maxsplit=1) for line in status.stdout().splitlines())


def test_a_killed_device_is_left_out_and_takes_part_again_when_it_comes_back(trial):
    trial.write_hub()
    trial.start_hub()
    devices = trial.start_devices()
    trial.wait_round(2)

    devices["device-02"].kill()
    reported = totals(trial, "device-02")[-1]
    with trial.hubs[0].paused():
        kept = remembered(trial, "device-02")
    wait_for(lambda: trial.records("round")[-1]["present"] == 2, "a round without the device is over")
    back = devices["device-02"] = trial.start_device("device-02")
    with trial.hubs[0].paused():
        wait_for(lambda: "connected to" in back.stderr(), "the device is connected again")
    trial.finish()

    every_round_once(trial)
    ended_well(devices)
    assert int(kept["sent"]) >= reported["socket_sent"], "what the hub was told is not forgotten"
    after = totals(trial, "device-02")[-1]
    assert after["restarts"] == 1
    assert after["socket_sent"] > int(kept["sent"])
    assert after["paper_bytes"] > reported["paper_bytes"]
    assert int(remembered(trial, "device-02")["last"].split()[-1]) > int(kept["last"].split()[-1])
    assert sorted(trial.records("round")[-1]["accuracies"]) == trial.names
    assert [totals(trial, name)[-1]["restarts"] for name in ("device-01", "device-03")] == [0, 0]


def test_a_second_run_finds_the_devices_as_their_bundle_was_built(trial, make_bundle):
    bundle = make_bundle(objective="gradient")
    trial.material = Material(bundle.id, bundle.device, bundle.hub, trial.material.data)
    run = {"strategy": "split_learning", "rounds": 2}
    trial.write_hub(run=run, strategy=SEQUENTIAL)
    trial.start_hub()
    for name in trial.names:
        trial.write_device(name, run={"once": False})
    devices = {name: trial.start_device(name) for name in trial.names}
    trial.finish()
    first = trial.records("round")

    trial.write_hub(run={**run, "folder": "run"}, strategy=SEQUENTIAL)
    trial.folder.rename(trial.root / "first")
    trial.start_hub()
    trial.finish()
    assert [record["accuracies"] for record in trial.records("round")] == [record["accuracies"] for record in first]
    assert all(device.alive for device in devices.values())


def test_a_killed_hub_goes_on_from_its_checkpoint_and_the_devices_never_notice_more_than_a_pause(trial):
    trial.write_hub()
    trial.start_hub()
    devices = trial.start_devices()
    trial.wait_round(2)

    trial.hubs[0].kill()
    assert len(trial.rounds()) < ROUNDS
    trial.start_hub("--resume")
    trial.finish()

    every_round_once(trial)
    ended_well(devices)
    assert [totals(trial, name)[-1]["restarts"] for name in trial.names] == [0, 0, 0]
    each = [(record["round"], record["device"]) for record in trial.records("device")]
    assert sorted(each) == [(number, name) for number in range(1, ROUNDS + 1) for name in trial.names]
    accuracies = [record["accuracy"] for record in trial.records("round")]
    assert accuracies[-1] > max(0.3, accuracies[0]), "what was learned before the kill was kept"


def test_a_hub_that_takes_its_broker_with_it_comes_back_with_it(trial, broker):
    port = urlsplit(broker.url).port
    broker.stop()
    trial.write_hub(broker={"url": "embedded", "port": port})
    hub = trial.start_hub()
    wait_for(lambda: "waiting for" in hub.stdout(), "the hub listens")
    devices = trial.start_devices()
    trial.wait_round(2)

    hub.kill()
    wait_for(lambda: refuses(port), "the hub's broker has gone with it", seconds=10)
    trial.start_hub("--resume")
    trial.finish(90)

    every_round_once(trial)
    ended_well(devices)


def test_a_killed_broker_costs_time_and_nothing_else(trial, broker, broker_kind, tmp_path):
    port = urlsplit(broker.url).port
    broker.stop()
    first = start_broker(broker_kind, tmp_path / "first", port=port)
    try:
        trial.write_hub()
        trial.start_hub()
        devices = trial.start_devices()
        trial.wait_round(2)
        first.process.kill()
        first.process.wait(10)
    finally:
        first.stop()
    assert len(trial.rounds()) < ROUNDS

    with start_broker(broker_kind, tmp_path / "second", port=port):
        trial.finish(90)
        ended_well(devices)

    every_round_once(trial)
    assert [totals(trial, name)[-1]["restarts"] for name in trial.names] == [0, 0, 0]
    assert all(device.alive is False for device in devices.values())


def test_a_device_that_is_started_while_its_broker_is_away_learns_on_without_it(trial, broker, tmp_path):
    port = urlsplit(broker.url).port
    broker.stop()
    first = start_broker("embedded", tmp_path / "first", port=port)
    try:
        trial.write_hub(run={"evaluate_every": 0}, strategy={"kappa": 1.0, "offline_steps": 100_000})
        trial.start_hub()
        devices = trial.start_devices()
        trial.wait_round(2)
        first.process.kill()
        first.process.wait(10)
    finally:
        first.stop()
    devices["device-02"].kill()
    assert len(trial.rounds()) < ROUNDS

    done = 0
    for _ in range(2):
        back = trial.start_device("device-02")
        wait_for(lambda: steps_alone(trial, "device-02") > done + 50, "it learns without its broker")  # noqa: B023
        done = steps_alone(trial, "device-02")
        (warning,) = [line for line in back.stderr().splitlines() if "WARNING" in line]
        assert "connection refused; it is tried again by itself" in warning
        back.process.terminate()
        assert back.wait(20) == 0, back.said()
    assert remembered(trial, "device-02")["in"].startswith("hand    nothing; without the hub ")
    devices["device-02"] = trial.start_device("device-02")

    with start_broker("embedded", tmp_path / "second", port=port):
        trial.finish(90)
        ended_well(devices)
    every_round_once(trial)
    last = totals(trial, "device-02")[-1]
    assert last["restarts"] == 3
    assert last["beyond_steps"] > done


def steps_alone(trial, name):
    """How many steps without its hub a device has on its disk."""
    outbox = Outbox.look(trial.root / name / "state")
    try:
        return outbox.fact("totals", {}).get("beyond_steps", 0)
    finally:
        outbox.close()


def refuses(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return True
    return False
