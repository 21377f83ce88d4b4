"""A device made by hand from the wire's own parts, to say what a real one never would."""

import json
import secrets
from collections.abc import Callable
from typing import Any

import numpy as np

from edge.link import Message
from edge.mqtt_link import MqttLink
from edge.wire import messages, topics
from edge.wire.delivery import Delivery
from edge.wire.messages import Activation, Goodbye, Hello, Order, Report

TOTALS: dict[str, Any] = {
    "sent": 1000,
    "received": 1000,
    "retransmitted": 0,
    "evaluation_sent": 0,
    "evaluation_received": 0,
    "paper_bytes": 0,
    "elements": 0,
    "flops": 0.0,
    "paper_flops": 0.0,
    "cpu_seconds": 0.0,
    "peak_rss_bytes": 0,
    "restarts": 0,
    "source": "made up",
    "seconds": 1.0,
    "energy": {"joules": None, "reason": "made up"},
    "steps": 1,
    "refused": {},
}
"""What a report carries."""

Speech = Callable[[Order, int], list[bytes]]
"""What to send for one step of an order, as packed messages."""


def good(order: Order, step: int, **changes: Any) -> Activation:
    """An activation as the digits' bundle gives it, with changes."""
    fields: dict[str, Any] = {
        "bundle": order.bundle,
        "order": order.order,
        "round": order.round,
        "step": step,
        "purpose": "evaluate" if order.kind == "evaluate" else "train",
        "smashed": np.full((4, *SMASHED), 0.25, np.float32),
        "labels": np.arange(4),
    }
    return Activation(**{**fields, **changes})


SMASHED = (16, 4, 4)


class HandmadeDevice:
    """Greets like a device, then answers every order with its own speech and a report."""

    def __init__(self, url: str, fleet: str, name: str, bundle: str, speech: Speech, metrics: Any = TOTALS) -> None:
        self.name = name
        self.said = 0
        self.over = False
        self._fleet = fleet
        self._bundle = bundle
        self._speech = speech
        self._metrics = metrics
        self._instance = secrets.randbits(32)
        self._delivery = Delivery(epoch=secrets.randbelow(1 << 30) + 1, instance=self._instance)
        offline = json.dumps({"online": False, "instance": self._instance}).encode()
        self._link = MqttLink(
            url,
            f"{name}-{self._instance:08x}",
            will=(topics.status(fleet, name), offline),
            subscriptions=topics.subscriptions_of_device(fleet, name),
        )
        self._link.open()

    def turn(self, now: float) -> None:
        """Take in what has come, and let go what is due."""
        for event in self._link.poll(0.0):
            if isinstance(event, Message) and event.topic == topics.hub_status(self._fleet):
                self._greet(event.payload)
            elif isinstance(event, Message):
                for delivered in self._delivery.receive(event.payload, now):
                    self._answer(messages.unpack(delivered.payload))
                    self._delivery.confirm(delivered.number, delivered.epoch)
        for frame in self._delivery.poll(now):
            self._link.publish(topics.up(self._fleet, self.name), frame)

    def close(self) -> None:
        self._link.close()

    def _greet(self, status: bytes) -> None:
        if json.loads(status)["online"]:
            hello = Hello(self.name, self._instance, self._bundle, 64, 8, facts={"outbox": self.name})
            self._delivery.send(messages.pack(hello), urgent=True)

    def _answer(self, message: messages.Message) -> None:
        self.over = self.over or isinstance(message, Goodbye)
        if isinstance(message, Order):
            for step in message.send:
                for payload in self._speech(message, step):
                    self._delivery.send(payload)
                    self.said += 1
            self._delivery.send(messages.pack(Report(message.order, message.round, self._metrics)))
