"""The device's end of a link that is measured: 64 KiB messages to the hub without end, in one of these ways.

ours    `edge.mailbox` with its outbox on the disk, over `edge.mqtt_link`, turned as the agent turns it
paho    paho-mqtt as its documentation has it: QoS 1, one message a publish
tcp     one stream of bytes
idle    nothing but an answer to each order, on a TCP connection

Told: way, host, port, fleet, device, folder, bundle (the id the hub expects), ahead (messages handed over and not done).
"""

import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.answering import told
from edge.config import RunConfig
from edge.device import limits
from edge.link import LinkError
from edge.mailbox import Mailbox
from edge.mqtt_link import MqttLink
from edge.outbox import Outbox, Unsent
from edge.wire import topics
from edge.wire.messages import Activation, Hello, Order, Report

BYTES = 65536
BATCH = 32
ORDER_BYTES, REPORT_BYTES = 320, 128
"""As long as the order and the report of `ours` are in their frames, about."""


class Counted(Outbox):
    """An outbox that knows how many messages it keeps, without asking the disk."""

    kept = 0

    def put_unsent(self, unsent: Unsent) -> None:
        """Keep a message for the hub until it is acknowledged."""
        self.kept += 1
        super().put_unsent(unsent)

    def drop_unsent(self, numbers: list[int]) -> None:
        """Forget messages the hub has acknowledged."""
        self.kept -= len(numbers)
        super().drop_unsent(numbers)


def ours(words: dict[str, Any]) -> None:
    """Uploads as the agent makes them, each durable before it leaves."""
    fleet, name, instance = words["fleet"], words["device"], secrets.randbits(32)
    outbox = Counted.open(Path(words["folder"]))
    outbox.put_fact("stream", {"epoch": secrets.randbelow(1 << 30) + 1, "next": 1})
    outbox.commit()
    link = MqttLink(
        f"mqtt://{words['host']}:{words['port']}",
        f"{name}-{instance:08x}",
        will=(topics.status(fleet, name), topics.pack_status(online=False, instance=instance)),
        subscriptions=topics.subscriptions_of_device(fleet, name),
        keepalive=60,
    )
    mailbox = Mailbox(name, fleet, link, outbox, instance=instance, limits=limits(RunConfig()))
    _open(link)
    labels = np.zeros(BATCH, np.int64)
    smashed = np.random.default_rng(0).standard_normal((BATCH, BYTES // BATCH // 4), np.float32)
    tag, step, greeted = bytes.fromhex(words["bundle"][:8]), 0, False
    while True:
        now = time.monotonic()
        patience = mailbox.wait_seconds(now, 0.2) if outbox.kept >= words["ahead"] or not greeted else 0.0
        for arrived in mailbox.poll(patience, now):
            mailbox.done(arrived)
            if isinstance(arrived.message, Order):
                order = arrived.message
                mailbox.send(Report(order.order, order.round, {"steps": order.steps}), urgent=True)
        if mailbox.hub_instance is not None and not greeted:
            mailbox.send(Hello(name, instance, words["bundle"], samples=1, test_samples=0), urgent=True)
            greeted = True
        # One a turn, as a training step makes them.
        if greeted and outbox.kept < words["ahead"]:
            mailbox.send(Activation(tag, 1, 1, step, "train", smashed, labels))
            step += 1
        mailbox.commit()
        mailbox.publish(time.monotonic())


def paho(words: dict[str, Any]) -> None:
    """One publish a message, as many under way as `ahead`; the client connects again by itself."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, words["device"], protocol=mqtt.MQTTv5)
    room = threading.Semaphore(words["ahead"])
    client.on_publish = lambda *_: room.release()
    payload = np.random.default_rng(0).bytes(BYTES)
    while True:
        try:
            client.connect(words["host"], words["port"], keepalive=60)
        except OSError:
            continue
        break
    client.loop_start()
    while True:
        room.acquire()
        client.publish(f"bench/{words['device']}", payload, qos=1)


def tcp(words: dict[str, Any]) -> None:
    """As fast as the socket takes it."""
    payload = np.random.default_rng(0).bytes(BYTES)
    connection = _connected(words)
    while True:
        connection.sendall(payload)


def idle(words: dict[str, Any]) -> None:
    """Answers what it is told, and is silent else."""
    connection = _connected(words)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while connection.recv(ORDER_BYTES, socket.MSG_WAITALL):
        connection.sendall(bytes(REPORT_BYTES))


def _connected(words: dict[str, Any]) -> socket.socket:
    while True:
        try:
            connection = socket.create_connection((words["host"], words["port"]), timeout=60)
        except OSError:
            continue
        connection.settimeout(None)
        return connection


def _open(link: MqttLink) -> None:
    while True:
        try:
            link.open(timeout=30.0)
        except LinkError:
            continue
        return


if __name__ == "__main__":
    words = told()
    {"ours": ours, "paho": paho, "tcp": tcp, "idle": idle}[words["way"]](words)
