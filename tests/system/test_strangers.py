"""What comes over the network and should not: it is refused and counted, and life goes on."""

import time
import zlib

import numpy as np

from edge.link import Message
from edge.mqtt_link import MqttLink
from edge.wire import messages, topics
from hub.runlog import read_run
from tests.system.handmade import SMASHED, TOTALS, HandmadeDevice, good
from tests.system.processes import wait_for


def sealed(body):
    return body + zlib.crc32(body).to_bytes(4, "little")


def nonsense(frame):
    """What can be wrong with a frame, by the reason it is counted under."""
    return {
        "magic": b"no frame at all, but long enough to be one",
        "too short": b"",
        "too long": bytes(1_100_000),
        "crc": frame[:-5] + frame[-4:],
        "version": sealed(frame[:2] + b"\x63" + frame[3:-4]),
        "kind": sealed(frame[:3] + b"\x09" + frame[4:-4]),
    }


STATUSES = [
    b"",
    b"nonsense",
    b"\xff\xfe",
    b"[]",
    b'{"online": true}',
    b'{"online": true, "instance": 1e999}',
    b"[" * 100_000,
]


def test_frames_of_strangers_are_refused_and_counted_and_the_run_goes_on(trial):
    trial.write_hub()
    trial.start_hub()
    devices = trial.start_devices()
    stranger = MqttLink(
        trial.url,
        f"stranger-{trial.fleet}",
        subscriptions=[f"cutlayer/{trial.fleet}/+/{leaf}" for leaf in ("up", "down")],
    )
    stranger.open()
    heard = []

    def listen():
        heard.extend(event for event in stranger.poll(0.0) if isinstance(event, Message))
        assert trial.hubs[0].alive, trial.hubs[0].said()
        return len(trial.rounds()) >= 2

    wait_for(listen, "two rounds are over")
    with trial.hubs[0].paused():
        frame = next(message.payload for message in heard if message.topic == topics.up(trial.fleet, "device-01"))
        for topic in (topics.up(trial.fleet, "device-01"), topics.down(trial.fleet, "device-02")):
            for bad in nonsense(frame).values():
                stranger.publish(topic, bad)
        for topic in (topics.hub_status(trial.fleet), topics.status(trial.fleet, "device-03")):
            for bad in STATUSES:
                stranger.publish(topic, bad)
        for message in heard[:300]:
            stranger.publish(message.topic, message.payload)
        nobody = f"cutlayer/{trial.fleet}/no device!/up"
        stranger.publish(nobody, frame)
        # Only when the broker has them all may the hub go on: a quick one would be done before the last has come.
        wait_for(
            lambda: any(getattr(event, "topic", "") == nobody for event in stranger.poll(0.1)), "the broker has all"
        )
    trial.finish()
    stranger.close()

    assert trial.rounds() == list(range(1, 7))
    assert [record["late"] for record in trial.records("round")] == [[]] * 6
    for device in devices.values():
        assert device.wait(20) == 0, device.said()
        assert "Traceback" not in device.stderr()
    refusals = read_run(trial.folder).refusals
    assert refusals["device-02"].items() >= dict.fromkeys(nonsense(frame), 1).items(), "counted by the device"
    assert refusals["device-01"].items() >= dict.fromkeys(nonsense(frame), 1).items(), "counted by the hub"
    assert refusals["device-03"]["status"] >= len(STATUSES)
    assert refusals["device-01"]["status"] >= len(STATUSES)
    assert sum(refusals["hub"].values()) == 1, "one topic was no device's"
    report = (trial.folder / "report.html").read_text("utf-8")
    assert "1 version" in report


def not_a_number(order, step):
    good_one = messages.pack(good(order, step))
    number = np.float32(0.25).tobytes()
    assert number in good_one
    return [good_one.replace(number, np.float32(np.nan).tobytes(), 1)]


SPEECHES = {
    "cut": lambda order, step: [messages.pack(good(order, step))[:-3]],
    "label": lambda order, step: [messages.pack(good(order, step, labels=np.array([0, 1, 2, 10])))],
    "labels": lambda order, step: [messages.pack(good(order, step, labels=np.zeros((4, 2), np.int64)))],
    "nan": not_a_number,
    "none": lambda order, step: [
        messages.pack(good(order, step, smashed=np.zeros((0, *SMASHED), np.float32), labels=np.zeros(0, np.int64)))
    ],
    "shape": lambda order, step: [messages.pack(good(order, step, smashed=np.zeros((4, 3), np.float32)))],
    "step": lambda order, step: [messages.pack(good(order, step + 1000)), messages.pack(good(order, step))],
    "twice": lambda order, step: [messages.pack(good(order, step))] * 2,
    "other": lambda order, step: [messages.pack(good(order, step, bundle=b"\0\0\0\0"))],
}

REPORTS = {"words": {**TOTALS, "sent": "many", "refused": 3}, "little": {"sent": 1}}


def test_devices_that_talk_nonsense_are_refused_and_counted_and_the_others_learn_on(trial):
    trial.write_hub(
        run={"rounds": 2, "turn_seconds": 4.0},
        fleet={"devices": len(SPEECHES) + len(REPORTS) + 2},
        strategy={"eta": 1.0, "kappa": 0.0, "select_every": 6, "masks": False, "replay": 1},
    )
    hub = trial.start_hub()
    for name in ("device-01", "device-02"):
        trial.write_device(name)
        trial.start_device(name)
    made = [HandmadeDevice(trial.url, trial.fleet, *made_of(trial, name)) for name in SPEECHES]
    for name, metrics in REPORTS.items():
        made.append(HandmadeDevice(trial.url, trial.fleet, name, trial.material.bundle, SPEECHES["twice"], metrics))

    def over():
        for device in made:
            device.turn(time.monotonic())
        return not hub.alive

    try:
        wait_for(over, f"the run is over; the hub said:\n{hub.said()}", seconds=60)
    finally:
        for device in made:
            device.close()
    trial.finish()

    assert trial.rounds() == [1, 2]
    assert all(device.said for device in made), "each had its say"
    last = trial.records("round")[-1]
    assert {"device-01", "device-02", "twice", "step"} <= set(last["accuracies"]), (
        "these did as they were told, and more"
    )
    assert set(last["late"]) <= set(SPEECHES) - {"twice", "step"}
    assert last["selected"]["twice"] == 6, "what comes twice is learned from once"
    assert last["selected"]["device-01"] == 6
    assert not {"cut", "label", "labels", "nan", "none", "shape", "other"} & set(last["selected"])
    refusals = read_run(trial.folder).refusals
    for name in SPEECHES:
        assert refusals[name], name
    assert refusals["nan"]["not finite"] >= 6
    assert set(REPORTS) <= set(refusals)
    assert "Traceback" not in hub.stderr()


def made_of(trial, name):
    return name, trial.material.bundle, SPEECHES[name]
