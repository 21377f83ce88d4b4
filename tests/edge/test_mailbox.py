"""Room in the outbox: which messages make way, what is counted, and what a restart leaves of it."""

from contextlib import suppress

import numpy as np
import pytest

from edge.mailbox import Mailbox
from edge.memory_link import MemoryBroker, MemoryLink
from edge.outbox import MemoryOutbox, Outbox, Room
from edge.wire import messages, topics
from edge.wire.delivery import Delivery, Ledger
from edge.wire.frames import WireError
from edge.wire.messages import Activation, Hello, Report, State
from edge.wire.tables import Tables

TAG = b"tag!"
SIZE = 18 + 13 + 6
"""Bytes of an activation of one row of two floats and one small label."""
STATE = State(TAG, 1, {"w": np.zeros(100, np.float32)})


def activation(step, order=1):
    return Activation(TAG, order, 0, step, "train", np.ones((1, 2), np.float32), np.array([1]))


class Device:
    """A mailbox on a real outbox; nobody hears it unless `meet` says so."""

    def __init__(self, folder, limit):
        self.folder, self.limit = folder, limit
        self.broker = MemoryBroker()
        self.start()

    def start(self):
        self.outbox = Outbox.open(self.folder)
        self.link = MemoryLink(self.broker, "d", subscriptions=topics.subscriptions_of_device("f", "d"))
        self.mailbox = Mailbox("d", "f", self.link, self.outbox, instance=1, outbox_bytes=self.limit)

    def restart(self):
        self.outbox.close()
        self.start()

    def send(self, *sent):
        sizes = [len(self.mailbox.send(message)) for message in sent]
        self.mailbox.commit()
        return sizes

    def unsent(self):
        """Steps of activations, and the kinds of other messages, in the order of their numbers."""
        found = [messages.unpack(item.message) for item in self.outbox.unsent()]
        return [item.step if isinstance(item, Activation) else type(item) for item in found]

    def meet(self, hub, *, just_renumbered=None):
        """Let a hub answer until there is nothing more to say; one message more is sent when the others get new numbers."""
        self.link.open()
        heard, ear = [], MemoryLink(self.broker, "hub", subscriptions=topics.subscriptions_of_hub("f"))
        ear.open()
        for turn in range(60):
            for _ in self.mailbox.poll(0, turn):
                pass
            if self.mailbox._delivery.renumbered:
                self.mailbox.send(just_renumbered)
            self.mailbox.commit()
            self.mailbox.publish(turn)
            for event in ear.poll(0):
                if getattr(event, "topic", "").endswith("/up"):
                    for item in hub.receive(event.payload, turn):
                        heard.append(messages.unpack(item.payload))
                        hub.confirm(item.number)
            for frame in hub.poll(turn):
                ear.publish(topics.down("f", "d"), frame)
        return heard


@pytest.fixture
def device(tmp_path):
    made = []

    def make(limit):
        made.append(Device(tmp_path, limit))
        return made[-1]

    yield make
    for one in made:
        one.outbox.close()


def test_the_oldest_activations_go_first(device):
    device = device(3 * SIZE)
    assert device.send(*map(activation, range(5))) == [SIZE] * 5
    assert device.unsent() == [2, 3, 4]
    account = device.mailbox.account(1)
    assert (account["expired"], account["expired_bytes"]) == (2, 2 * SIZE)
    assert account["expired_steps"] == {"first": 0, "last": 1, "count": 2}


def test_as_much_as_fits_stays(device):
    device = device(3 * SIZE)
    device.send(*map(activation, range(3)))
    assert device.unsent() == [0, 1, 2]
    assert device.mailbox.account(1)["expired"] == 0
    assert "expired_steps" not in device.mailbox.account(1)


def test_nothing_but_activations_goes(device):
    state = len(messages.pack(STATE))
    hello = Hello("d", 1, "ab" * 32, 1, 1)
    report = Report(1, 0, {})
    others = state + len(messages.pack(hello)) + len(messages.pack(report))
    device = device(others + SIZE)
    device.send(hello, STATE, activation(0), report, activation(1), activation(2))
    assert device.unsent() == [Hello, State, Report, 2]
    device.send(STATE)  # over the bound, for it must not be lost; but then no activation fits
    assert device.send(activation(3)) == [0]
    assert device.unsent() == [Hello, State, Report, State]
    account = device.mailbox.account(1)
    assert (account["expired"], account["expired_bytes"]) == (4, 4 * SIZE)
    assert account["expired_steps"] == {"first": 0, "last": 3, "count": 4}


def test_the_counts_are_right_after_a_restart(device):
    device = device(3 * SIZE)
    device.send(*map(activation, range(5)))
    device.restart()
    device.send(activation(5), activation(6))
    assert device.unsent() == [4, 5, 6]
    account = device.mailbox.account(1)
    assert (account["expired"], account["expired_bytes"]) == (4, 4 * SIZE)
    assert account["expired_steps"] == {"first": 0, "last": 3, "count": 4}


def test_before_the_commit_nothing_has_gone(device):
    device = device(3 * SIZE)
    device.send(*map(activation, range(3)))
    device.mailbox.send(activation(3))
    device.restart()
    assert device.unsent() == [0, 1, 2]
    assert device.mailbox.account(1)["expired"] == 0


def test_steps_are_told_apart_by_their_order(device):
    device = device(2 * SIZE)
    device.send(*(activation(step, order=1) for step in range(3)))
    device.send(activation(0, order=2))
    assert device.mailbox.account(1)["expired_steps"] == {"first": 0, "last": 1, "count": 2}
    device.send(*(activation(step, order=2) for step in range(1, 4)))
    assert "expired_steps" not in device.mailbox.account(1)
    account = device.mailbox.account(2)
    assert account["expired_steps"] == {"first": 0, "last": 1, "count": 2}
    assert account["expired"] == 5


def test_the_hub_gets_what_was_left_and_makes_room(device):
    device = device(3 * SIZE)
    device.send(*map(activation, range(5)))
    assert device.mailbox.crowded
    heard = device.meet(Delivery(epoch=1, instance=9))
    assert [message.step for message in heard] == [2, 3, 4]
    assert not device.mailbox.crowded
    device.send(*map(activation, range(5, 8)))
    assert device.unsent() == [5, 6, 7]
    assert device.mailbox.account(1)["expired"] == 2


def test_what_is_partly_on_its_way_may_go_too(device):
    device = device(2 * SIZE)
    device.send(activation(0), activation(1))
    device.link.open()
    device.mailbox.publish(0.0)  # nobody hears it
    device.send(activation(2))
    heard = device.meet(Delivery(epoch=1, instance=9))
    assert sorted(message.step for message in heard) == [1, 2]
    assert device.mailbox.idle


def test_under_new_numbers_the_oldest_still_goes_first(device):
    device = device(len(messages.pack(STATE)) + 2 * SIZE)
    device.send(Report(0, 0, {}))
    device.meet(Delivery(epoch=1, instance=9))
    device.send(STATE, activation(0), activation(1))
    # A hub that remembers a later stream: the messages get numbers 1 to 3, between the news and the next commit.
    later = Delivery(epoch=2, instance=10, received=Ledger(epoch=1 << 30, floor=3))
    heard = device.meet(later, just_renumbered=activation(2))
    assert sorted(item.step if isinstance(item, Activation) else -1 for item in heard) == [-1, 1, 2]
    assert device.unsent() == []
    assert device.mailbox.account(1)["expired_steps"] == {"first": 0, "last": 0, "count": 1}


def test_in_memory_the_bound_holds_as_well():
    mailbox = Mailbox("d", "f", MemoryLink(MemoryBroker()), MemoryOutbox(), instance=1, outbox_bytes=2 * SIZE)
    for step in range(4):
        mailbox.send(activation(step))
        mailbox.commit()
    assert mailbox.account(1)["expired"] == 2


def test_no_step_waits_where_no_room_would_be_made():
    room = Room(SIZE)
    assert not room.crowded
    room.add(1, messages.pack(STATE))
    assert not room.crowded  # nothing that the hub could take would let an activation in sooner
    room.remove(1)
    room.add(2, messages.pack(activation(0)))
    assert room.crowded
    assert (room.bytes, room.oldest()) == (SIZE, 2)


def test_messages_are_cut_as_small_as_the_broker_takes_them(device):
    device = device(1 << 20)
    device.broker.maximum_packet_bytes = 300
    device.send(State(TAG, 1, {"w": np.arange(1000, dtype=np.float32)}))
    (state,) = device.meet(Delivery(epoch=1, instance=9))
    np.testing.assert_array_equal(state.state["w"], np.arange(1000))


def test_a_broker_that_takes_next_to_nothing_is_named_and_nothing_is_lost(device, caplog):
    device = device(1 << 20)
    device.broker.maximum_packet_bytes = 100
    device.send(STATE)
    assert device.meet(Delivery(epoch=1, instance=9)) == []
    assert device.unsent() == [State]
    assert "the broker takes 100 bytes a packet: no message can be cut so small" in caplog.text


def coded(device, step, order=1):
    """An activation in `entropy:1` of the device's own stream."""
    smashed = np.random.default_rng(step).standard_normal((32, 4, 8)).astype(np.float32)
    codec = device.mailbox.codec("entropy:1")
    return Activation(TAG, order, 0, step, "train", smashed, np.arange(32) % 4, codec)


def embeds(device):
    """Of each unsent activation, whether its table goes along."""
    return [bool(tables_in(item.message)) for item in device.outbox.unsent()]


def tables_in(data):
    tables = Tables()
    with suppress(WireError):  # only named
        messages.unpack(data, tables=tables)
    return tables.take_fresh()


def test_a_table_goes_along_until_the_hub_has_acknowledged_one_and_again_when_the_hub_may_lack_it(device):
    it = device(10_000_000)
    it.send(coded(it, 0), coded(it, 1))
    assert embeds(it) == [True, True]
    hub = Delivery(epoch=1, instance=7)
    hear(it, hub)
    it.send(coded(it, 2))
    assert embeds(it) == [False]
    it.mailbox.forget_tables()
    it.send(coded(it, 3))
    assert embeds(it) == [False, True]
    hear(it, hub)
    it.send(coded(it, 4))
    assert embeds(it) == [False]
    it.mailbox.start_over()
    it.send(coded(it, 5, order=2))
    assert embeds(it) == [True]


def hear(device, hub):
    """Let a hub take all there is; it reads nothing of it."""
    device.link.open()
    ear = MemoryLink(device.broker, "hub", subscriptions=topics.subscriptions_of_hub("f"))
    ear.open()
    for turn in range(20):
        for _ in device.mailbox.poll(0, turn):
            pass
        device.mailbox.commit()
        device.mailbox.publish(turn)
        for event in ear.poll(0):
            if getattr(event, "topic", "").endswith("/up"):
                for item in hub.receive(event.payload, turn):
                    hub.confirm(item.number)
        for frame in hub.poll(turn):
            ear.publish(topics.down("f", "d"), frame)
    assert device.outbox.unsent() == []
