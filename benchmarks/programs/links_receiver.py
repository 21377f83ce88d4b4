"""The hub's end of a link that is measured: notes when each 64 KiB message has arrived, a JSON line each.

    {"ready": true}            it listens
    {"at": S, "bytes": N}      a message of N bytes of payload was whole at S of the monotonic clock
    {"asked": S, "took": T}    an order that was told to the device at S was answered T seconds later

Told: way, url (of the broker) or host and port, fleet, device, bundle, out, control_seconds (between two orders; 0: none).
"""

import json
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.answering import told
from edge.mqtt_link import MqttLink
from edge.wire import topics
from edge.wire.messages import Activation, Order, Report
from hub.devices import Arrived, Devices

BYTES = 65536
ORDER_BYTES, REPORT_BYTES = 320, 128
"""As long as the order and the report of `ours` are in their frames, about."""


class Notes:
    """Lines that another process reads while they are written."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def write(self, **line: Any) -> None:
        """Add a line."""
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def ours(words: dict[str, Any], notes: Notes) -> None:
    """The hub's own `Devices`; an activation is done as soon as it is there."""
    instance, fleet = secrets.randbits(32), words["fleet"]
    link = MqttLink(
        words["url"],
        f"hub-{instance:08x}",
        will=(topics.hub_status(fleet), topics.pack_status(online=False, instance=instance)),
        subscriptions=topics.subscriptions_of_hub(fleet),
    )
    devices = Devices(link, fleet, words["bundle"], generation=int(time.time()), instance=instance)
    link.open()
    notes.write(ready=True)
    every, number, asked, due = words["control_seconds"], 0, None, 0.0
    while True:
        now = time.monotonic()
        device = devices.known.get(words["device"])
        if every and device and device.hello and asked is None and now >= due:
            number += 1
            devices.send(device.name, _order(words["bundle"], number), urgent=True)
            asked, due = now, now + every
            notes.write(asked=asked)
        for happening in devices.poll(0.02, now):
            if isinstance(happening, Arrived):
                devices.done(happening)
                if isinstance(happening.message, Activation):
                    notes.write(at=time.monotonic(), bytes=happening.message.smashed.nbytes)
                elif isinstance(happening.message, Report) and happening.message.order == number and asked is not None:
                    notes.write(asked=asked, took=time.monotonic() - asked)
                    asked = None


def paho(words: dict[str, Any], notes: Notes) -> None:
    """A subscriber with QoS 1."""
    address = words["url"].removeprefix("mqtt://").split(":")
    client = mqtt.Client(CallbackAPIVersion.VERSION2, "receiver", protocol=mqtt.MQTTv5)
    client.on_message = lambda _client, _data, message: notes.write(at=time.monotonic(), bytes=len(message.payload))
    client.on_subscribe = lambda *_: notes.write(ready=True)
    client.on_connect = lambda client, *_: client.subscribe(f"bench/{words['device']}", qos=1)
    client.connect(address[0], int(address[1]))
    client.loop_forever()


def tcp(words: dict[str, Any], notes: Notes) -> None:
    """Every connection's bytes in a thread of its own."""
    server = socket.create_server((words["host"], words["port"]))
    notes.write(ready=True)
    while True:
        connection, _ = server.accept()
        threading.Thread(target=_drain, args=(connection, notes), daemon=True).start()


def idle(words: dict[str, Any], notes: Notes) -> None:
    """Words the size of an order, each answered by some the size of a report, and nothing else on the link."""
    server = socket.create_server((words["host"], words["port"]))
    notes.write(ready=True)
    connection, _ = server.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while True:
        asked = time.monotonic()
        notes.write(asked=asked)
        connection.sendall(bytes(ORDER_BYTES))
        connection.recv(REPORT_BYTES, socket.MSG_WAITALL)
        notes.write(asked=asked, took=time.monotonic() - asked)
        time.sleep(words["control_seconds"])


def _drain(connection: socket.socket, notes: Notes) -> None:
    room, got = bytearray(BYTES), 0
    while read := connection.recv_into(room):
        got += read
        while got >= BYTES:
            got -= BYTES
            notes.write(at=time.monotonic(), bytes=BYTES)


def _order(bundle: str, number: int) -> Order:
    """As AdaSplit's: a local phase in which every step uploads."""
    return Order(
        bundle=bytes.fromhex(bundle[:8]),
        order=number,
        round=number,
        kind="local",
        first_step=0,
        steps=32,
        send=tuple(range(32)),
        settings={"lr": 0.001, "temperature": 0.07, "beta1": 0.9, "beta2": 0.999},
        codec="float32",
        batch=32,
        seed=1,
        run=1,
    )


if __name__ == "__main__":
    words = told()
    {"ours": ours, "paho": paho, "tcp": tcp, "idle": idle}[words["way"]](words, Notes(Path(words["out"])))
