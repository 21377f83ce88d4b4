"""A device against a hub played by hand: tiny bundle, memory link, a clock that only the test moves."""

import json

import numpy as np

from edge import bundle
from edge.accounts import Accounts
from edge.agent import Agent
from edge.mailbox import Mailbox
from edge.memory import PROCESS_BYTES, Room
from edge.memory_link import MemoryLink
from edge.meters import Meter
from edge.outbox import Outbox
from edge.purse import Purse
from edge.segment import Segment
from edge.sensors import Batch
from edge.wire import messages, topics
from edge.wire.delivery import Delivery
from edge.wire.messages import Order
from tests.tiny import write_bundle

FLEET, NAME = "f", "d1"
ROWS = np.array([[1, 2], [3, 4], [5, 6], [7, 8]], np.float32)


class Rows:
    """Batch k of any round is row k, so that every number can be worked out by hand."""

    samples = 4
    test_samples = 3

    def batch(self, round_number, step, size, seed):
        row = step % 4
        return Batch(ROWS[row : row + 1], np.array([row % 2]))

    def test_batch(self, index, size):
        rows = slice(index * size, min(3, (index + 1) * size))
        return Batch(ROWS[rows], np.zeros(rows.stop - rows.start, np.int64))


class Stage:
    """The device under test, and the hub's end of the conversation."""

    def __init__(
        self,
        folder,
        broker,
        *,
        with_ends=False,
        outbox_bytes=1 << 20,
        source=None,
        gauge=None,
        budget=None,
        memory=None,
        **agent,
    ):
        self.room = memory and Room(PROCESS_BYTES + memory, None, None, "")
        self.source, self.gauge, self.budget = source or Rows(), gauge, budget or {}
        self.folder, self.broker, self.agent_options = folder, broker, agent
        self.outbox_bytes = outbox_bytes
        needs = {"memory": {"local": {"fixed_bytes": 0, "sample_bytes": 1 << 20}}} if memory else {}
        self.id = write_bundle(folder / "b", with_ends=with_ends, **needs)
        self.now = 0.0
        self.inbox = []
        self.link = MemoryLink(broker, "hub", subscriptions=topics.subscriptions_of_hub(FLEET))
        self.link.open()
        self.delivery = Delivery(epoch=1, instance=99)
        self.announce(7)
        self.start()

    def announce(self, instance, *, online=True):
        payload = json.dumps({"online": online, "instance": instance}).encode()
        self.link.publish(topics.hub_status(FLEET), payload, retain=True)

    def start(self, *, connected=True):
        loaded = bundle.load(self.folder / "b")
        self.outbox = Outbox.open(self.folder / "state")
        link = MemoryLink(self.broker, NAME, subscriptions=topics.subscriptions_of_device(FLEET, NAME))
        if connected:
            link.open()
        self.mailbox = Mailbox(NAME, FLEET, link, self.outbox, instance=1, outbox_bytes=self.outbox_bytes)
        self.segment = Segment(loaded, room=self.room)
        accounts = Accounts(self.outbox, link, Meter(), loaded.manifest)
        purse = Purse(self.outbox, link, self.budget, gauge=self.gauge)
        self.agent = Agent(
            loaded,
            self.segment,
            self.source,
            self.mailbox,
            self.outbox,
            accounts,
            purse,
            facts={},
            **self.agent_options,
        )
        self.device_link = link

    def kill(self):
        """End the device as kill -9 does: what was not committed is gone."""
        self.device_link.break_off()
        self.outbox.close()

    def run(self, turns=40):
        for _ in range(turns):
            self.now += 0.3
            self.agent.turn(lambda: self.now)
            for event in self.link.poll(0):
                if getattr(event, "topic", "").endswith("/up"):
                    for item in self.delivery.receive(event.payload, self.now):
                        self.inbox.append(messages.unpack(item.payload))
                        self.delivery.confirm(item.number)
            for frame in self.delivery.poll(self.now):
                self.link.publish(topics.down(FLEET, NAME), frame)

    def tell(self, message):
        self.delivery.send(messages.pack(message))

    def order(self, number=1, kind="local", steps=4, send=(), **fields):
        tag = bytes.fromhex(self.id[:8])
        values = {"round": 0, "first_step": 0, "settings": {}, "codec": "float32", "batch": 1, "seed": 0, **fields}
        self.tell(Order(bundle=tag, order=number, kind=kind, steps=steps, send=send, **values))

    def got(self, kind):
        return [message for message in self.inbox if isinstance(message, kind)]

    def weights(self):
        return self.segment.tensors({"lower"})["scale.weight"]


def after(steps, lr=0.01):
    """Weights after local steps on rows 0, 1, …: each multiplies w by 1 - lr·x²."""
    w = np.array([1.0, 2.0])
    for step in range(steps):
        w = w * (1 - lr * ROWS[step % 4] ** 2)
    return w
