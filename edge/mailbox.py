"""Durable mail with the hub: delivery, outbox and link tied together by one rule, *commit, then publish*.

What is sent lies in the outbox until the hub has acknowledged it; what arrives is acknowledged only once its effect
is committed. So neither a lost frame nor a power cut loses a message or repeats its effect.

What lies there is bounded in bytes: for a new activation the oldest ones make way, never anything else. How many have
gone, and which of the order in hand, is in the outbox too.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from edge.link import Connected, Disconnected, Link, LinkError, Message
from edge.outbox import OUTBOX_BYTES, Outbox, Room, Unsent
from edge.wire import messages, topics
from edge.wire.codec import Encoder
from edge.wire.coder import Coder, stream_codec
from edge.wire.delivery import Delivery, Ledger, Limits
from edge.wire.frames import WireError
from edge.wire.messages import Place

log = logging.getLogger("cutlayer.mailbox")


@dataclass(frozen=True)
class Arrived:
    """A message from the hub, once; `Mailbox.done(arrived)` after its effect has been put into the outbox."""

    number: int
    epoch: int
    """Of the hub's stream that the number belongs to."""
    message: messages.Message
    data: bytes
    """The message as it was packed: what the outbox keeps while it is worked off."""


class Mailbox:
    """One device's correspondence with its hub."""

    def __init__(
        self,
        device: str,
        fleet: str,
        link: Link,
        outbox: Outbox,
        *,
        instance: int,
        limits: Limits | None = None,
        outbox_bytes: int = OUTBOX_BYTES,
    ) -> None:
        self.device = device
        self.instance = instance
        self.refused: Counter[str] = Counter()
        """Frames and messages that were not taken, by reason."""
        self.hub_instance: int | None = None
        """Which process of the hub is there; None while none has announced itself."""
        self._fleet = fleet
        self._link = link
        self._outbox = outbox
        stream = outbox.fact("stream", {"epoch": 1, "next": 1})
        ledger = outbox.fact("ledger")
        self._delivery = Delivery(
            epoch=stream["epoch"],
            instance=instance,
            next_number=stream["next"],
            received=Ledger.from_json(ledger) if ledger else None,
            limits=limits or Limits(),
        )
        self._epoch_kept = self._delivery.received.epoch
        self.given_up: list[Place] = []
        """Activations that will not leave, until somebody takes them out."""
        self._room = Room(outbox_bytes)
        self._coder = Coder()
        self._embedding: dict[int, int] = {}
        """Tables that went along, by the number of their message: once it is acknowledged, their name will do."""
        self._expired: dict[str, int] = outbox.fact("expired", {"messages": 0, "bytes": 0, "order": 0, "count": 0})
        self._counted: dict[str, int] = outbox.fact("delivery", {})
        for unsent in outbox.unsent():
            self._delivery.restore(unsent.number, unsent.message, urgent=unsent.urgent)
            self._room.add(unsent.number, unsent.message)

    @property
    def idle(self) -> bool:
        """Whether the hub has acknowledged everything that was sent."""
        return self._delivery.idle

    @property
    def away(self) -> bool:
        """Whether there is no connection to the hub: the link is down, or the hub's status says it is offline."""
        return self.hub_instance is None or not self._link.connected

    @property
    def unsent_bytes(self) -> int:
        """Bytes of messages that the hub has not acknowledged."""
        return self._room.bytes

    @property
    def crowded(self) -> bool:
        """Whether another activation may find no room until the hub has taken some."""
        return self._room.crowded

    def statistics(self) -> dict[str, int]:
        """Counts of frames and bytes since the process started."""
        return self._delivery.statistics.to_record()

    def account(self, order: int) -> dict[str, Any]:
        """What a report says of the mail: counts since the run began, and which steps of its order were given up.

        It keeps the counts of delivery; what a process has counted since its last report is lost when it is killed.
        """
        now = self._delivery.statistics
        counts = {name: getattr(now, name) for name in ("frames_sent", "frames_repeated", "duplicates", "questions")}
        counts["refused"] = now.refused.total()
        counts = {name: count + self._counted.get(name, 0) for name, count in counts.items()}
        counts = {name: count for name, count in counts.items() if count}
        self._outbox.put_fact("delivery", counts)
        expired = self._expired
        record = {"delivery": counts, "expired": expired["messages"], "expired_bytes": expired["bytes"]}
        if expired["order"] == order and expired["count"]:
            record["expired_steps"] = {name: expired[name] for name in ("first", "last", "count")}
        return record

    def wait_seconds(self, now: float, longest: float) -> float:
        """How long the loop may sleep in `poll` before delivery wants to resend something."""
        timer = self._delivery.timer() if self._link.connected else None  # nothing can be resent into the void
        return longest if timer is None else min(longest, max(0.0, timer - now))

    def announce(self) -> None:
        """Publish this device's retained status: it is here, as this process."""
        status = topics.pack_status(online=True, instance=self.instance)
        self._link.publish(topics.status(self._fleet, self.device), status, qos=1, retain=True)

    def poll(self, timeout: float, now: float) -> Iterator[Arrived]:
        """Take in what the link has; refuse and count what cannot be read."""
        for event in self._link.poll(timeout):
            if isinstance(event, Message):
                yield from self._take(event, now)
            elif isinstance(event, Connected):
                with suppress(LinkError):  # gone again already; the next connection will do
                    self.announce()
                if not self._delivery.fit(event.room(topics.up(self._fleet, self.device))):
                    log.error("the broker takes %d bytes a packet: no message can be cut so small", event.packet_bytes)
                self._delivery.reconnected(now)
            elif isinstance(event, Disconnected):
                log.info("offline: %s", event.reason)

    def send(self, message: messages.Message, *, urgent: bool = False, data: bytes | None = None) -> bytes:
        """Put a message into the outbox; it leaves after the next commit. Returns it as it is packed.

        `data` is the message where it has been packed before. For an activation the oldest ones make way. Where there is no
        room even then it is given up itself, and nothing returned.
        """
        data = messages.pack(message) if data is None else data
        if isinstance(message, messages.Activation) and not self._make_room(len(data)):
            self._count_expired(len(data), Place(message.order, message.step))
            return b""
        number = self._delivery.send(data, urgent=urgent)
        if isinstance(message, messages.Activation) and message.codec is self._coder:
            self._note_table(number)
        self._room.add(number, data)
        self._outbox.put_unsent(Unsent(number, data, urgent))
        self._outbox.put_fact("stream", {"epoch": self._delivery.epoch, "next": number + 1})
        return data

    def codec(self, text: str) -> str | Encoder:
        """What a codec's text stands for in this stream."""
        return stream_codec(text, self._coder)

    def forget_tables(self) -> None:
        """The hub may lack what it was sent before: the next activation brings its table again."""
        self._embedding.clear()
        self._coder.forget()

    def withhold(self, place: Place) -> None:
        """An activation is not sent, for want of means: the hub is told of it as of one that was given up."""
        self._count_expired(0, place)

    def start_over(self) -> None:
        """Give up every activation of another run: this one's hub has no use for them."""
        self._follow()
        self.forget_tables()
        for number in self._room.activations:
            self._give_up(number)
        self._expired = {**self._expired, "order": 0, "count": 0}
        self._outbox.put_fact("expired", self._expired)

    def done(self, arrived: Arrived) -> None:
        """The effect of a message from the hub has been put: acknowledge it after the next commit."""
        self._delivery.confirm(arrived.number, arrived.epoch)
        self._keep_ledger()

    def commit(self) -> None:
        """Make everything that was put durable.

        Raises:
            OutboxError: the disk is full or gone; nothing leaves until a later commit succeeds.
        """
        self._follow()
        self._outbox.commit()

    def publish(self, now: float) -> None:
        """Let the frames go that are due. Only ever called after a successful commit."""
        if not self._link.connected:
            return
        for frame in self._delivery.poll(now):
            try:
                self._link.publish(topics.up(self._fleet, self.device), frame, bulk=frame.bulk)
            except LinkError as error:
                log.debug("a frame did not leave: %s", error)  # delivery resends it
                return

    def _note_table(self, number: int) -> None:
        sent = self._coder.sent
        if sent and sent.embedded and sent.table is not None:
            self._embedding[number] = sent.table

    def _make_room(self, size: int) -> bool:
        if not self._room.fits(size):
            self._follow()  # the messages may have got other numbers since
        while not self._room.fits(size):
            if not self._expired["messages"]:
                log.warning("the outbox holds %d bytes: the oldest activations go unsent", self._room.limit)
            oldest = self._room.oldest()
            if oldest is None:
                return False
            self._give_up(oldest)
        return True

    def _give_up(self, number: int) -> None:
        size, place = self._room.remove(number)
        self._delivery.give_up(number)
        self._embedding.pop(number, None)
        self._outbox.drop_unsent([number])
        if place:
            self._count_expired(size, place)

    def _count_expired(self, size: int, place: Place) -> None:
        self.given_up.append(place)
        before = self._expired
        same = before["order"] == place.order and before["count"] > 0
        self._expired = {
            "messages": before["messages"] + 1,
            "bytes": before["bytes"] + size,
            "order": place.order,
            "first": before["first"] if same else place.step,
            "last": place.step,
            "count": before["count"] + 1 if same else 1,
        }
        self._outbox.put_fact("expired", self._expired)

    def _take(self, event: Message, now: float) -> Iterator[Arrived]:
        if event.topic == topics.hub_status(self._fleet):
            self._see_hub(event.payload)
            return
        try:
            delivered = self._delivery.receive(event.payload, now)
        except WireError as error:
            self._refuse(error)
            return
        for item in delivered:
            try:
                message = messages.unpack(item.payload)
            except WireError as error:
                self._refuse(error)
                self._delivery.confirm(item.number, item.epoch)  # sent again it would be no better
                continue
            yield Arrived(item.number, item.epoch, message, item.payload)

    def _refuse(self, error: WireError) -> None:
        self.refused[error.reason] += 1
        log.warning("refused from the hub: %s", error)

    def _see_hub(self, payload: bytes) -> None:
        try:
            online, instance = topics.read_status(payload)
        except WireError as error:
            self._refuse(error)
        else:
            self.hub_instance = instance if online else None

    def _follow(self) -> None:
        """Bring the outbox in line with what delivery has learned from acknowledgements."""
        if self._delivery.renumbered:
            self.forget_tables()
            self._outbox.clear_unsent()
            self._room.clear()
            for item in self._delivery.take_renumbered():
                self._room.add(item.number, item.payload)
                self._outbox.put_unsent(Unsent(item.number, item.payload, item.urgent))
            self._outbox.put_fact("stream", {"epoch": self._delivery.epoch, "next": self._delivery.next_number})
        done = self._delivery.acknowledged()
        for number in done:
            self._room.remove(number)
            if (table := self._embedding.pop(number, None)) is not None:
                self._coder.known(table)
        self._outbox.drop_unsent(done)
        if self._delivery.received.epoch != self._epoch_kept:
            self._keep_ledger()

    def _keep_ledger(self) -> None:
        self._outbox.put_fact("ledger", self._delivery.received.to_json())
        self._epoch_kept = self._delivery.received.epoch
