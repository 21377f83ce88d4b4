"""The sending half of a conversation: messages, their chunks, and what is known of them at the other side.

A chunk is *waiting* (to be sent), *flying* (sent, unknown) or *held* (received there, but its message is not done). A
message leaves this half only when the other side says it is done, or when it is given up.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from edge.wire.frames import DATA_OVERHEAD, U32, Ack, Data, Limits, WireError, chunk_count, chunk_length
from edge.wire.ledger import Ledger
from edge.wire.window import Window

REORDERED = 16
"""A flying chunk is lost once so many frames sent after it have arrived before it: pipes reorder, but not that far."""


class Landing(NamedTuple):
    """How far the stream has come, as of the latest news."""

    bytes: int
    """Of frames that have arrived."""
    heard_at: float
    sent_at: float
    """When the latest of those was sent."""


@dataclass
class Flight:
    """One chunk under way."""

    sent_at: float
    order: int
    """Position among all chunks ever sent."""
    repeated: bool
    urgent: bool
    before: Landing
    """What had landed when it was sent."""


class Due(NamedTuple):
    """One chunk to send now."""

    data: Data
    repeated: bool
    """Whether it was sent before."""
    urgent: bool


@dataclass
class Sending:
    """One message that is not done yet."""

    number: int
    payload: bytes = field(repr=False)
    urgent: bool
    count: int
    waiting: list[int]
    """Chunks to send, last one first, so that the next is popped from the end."""
    flying: dict[int, Flight] = field(default_factory=dict)
    held: set[int] = field(default_factory=set)
    sent: set[int] = field(default_factory=set)
    """Chunks that have been sent at least once by this process."""
    size: int = field(init=False)
    """Bytes of every chunk but perhaps the last."""

    def __post_init__(self) -> None:
        self.size = chunk_length(len(self.payload), self.count, 0)

    @property
    def begun(self) -> bool:
        """Whether the other side may have anything of it."""
        return bool(self.sent or self.held)

    def length(self, index: int) -> int:
        """Bytes of one chunk."""
        return self.size if index < self.count - 1 else len(self.payload) - index * self.size

    def cost(self, index: int) -> int:
        """Bytes of one chunk's frame."""
        return self.length(index) + DATA_OVERHEAD

    def chunk(self, index: int) -> bytes:
        """One chunk's bytes."""
        return self.payload[index * self.size : (index + 1) * self.size]

    def requeue(self, indexes: Iterable[int]) -> int:
        """Chunks are lost: send them again, in order. Returns how many."""
        lost = list(indexes)
        for index in lost:
            self.flying.pop(index, None)
            self.held.discard(index)
        self.waiting = sorted({*self.waiting, *lost}, reverse=True)
        return len(lost)


class Outbound:
    """The messages of this side that are not done."""

    def __init__(self, epoch: int, next_number: int, limits: Limits) -> None:
        self.epoch = epoch
        self.next_number = next_number
        self.messages: dict[int, Sending] = {}
        self.in_flight = 0
        """Bytes of the frames of flying chunks."""
        self.landing = Landing(0, 0.0, 0.0)
        self.sequence = 0
        """Chunks ever sent."""
        self.window = Window(limits.window_bytes, 2 * (limits.chunk_bytes + DATA_OVERHEAD), limits.window_trips)
        self._limits = limits

    @property
    def lowest(self) -> int:
        """The lowest number that may still be sent."""
        return min(self.messages, default=self.next_number)

    @property
    def oldest_flight(self) -> float | None:
        """When the oldest flying chunk was sent."""
        # Of a message's flights the first is the oldest: one that is sent again is put behind the others.
        firsts = [next(iter(message.flying.values())).sent_at for message in self.messages.values() if message.flying]
        return min(firsts, default=None)

    @property
    def holding(self) -> bool:
        """Whether the other side has chunks of messages that are not done."""
        return any(message.held for message in self.messages.values())

    def add(self, number: int, payload: bytes, *, urgent: bool) -> None:
        """Take a message in. A number that is known already changes nothing."""
        if len(payload) > self._limits.message_bytes:
            raise WireError(f"message of {len(payload)} bytes, the limit is {self._limits.message_bytes}", "too long")
        if not 1 <= number < U32:
            raise WireError(f"message number {number} is not 1 to {U32 - 1}: start a new epoch", "numbers")
        if number not in self.messages:
            count = chunk_count(len(payload), self._limits.chunk_bytes)
            waiting = list(range(count - 1, -1, -1))
            self.messages[number] = Sending(number, bytes(payload), urgent, count, waiting)
        self.next_number = max(self.next_number, number + 1)

    def drop(self, number: int) -> bool:
        """Forget a message; tells whether it was there."""
        message = self.messages.pop(number, None)
        if message is None:
            return False
        self.in_flight -= sum(message.cost(index) for index in message.flying)
        return True

    def due(self, now: float) -> Iterator[Due]:
        """Chunks that fit the window now, urgent ones first."""
        if not self.messages:
            return
        lowest = self.lowest
        # A quarter on top is kept for urgent messages, so that a full window does not stop them.
        for urgent, window in ((True, self._limits.window_bytes * 5 // 4), (False, self.window.bytes)):
            for message in self._open(urgent=urgent):
                while message.waiting and self._fits(cost := message.cost(message.waiting[-1]), window):
                    yield self._send(message, cost, lowest, now)
                if message.waiting:
                    break

    def take_ack(self, ack: Ack) -> tuple[list[int], list[Flight]]:
        """Learn what is done and held. Returns the numbers now done, and the flights that have landed."""
        ledger = Ledger(ack.epoch, ack.floor, ack.done)
        done = [number for number in self.messages if number in ledger]
        landed: list[Flight] = []
        for number in done:
            landed += self.messages[number].flying.values()
            self.drop(number)
        return done, landed

    def take_held(self, ack: Ack) -> list[Flight]:
        """Learn which chunks the other side holds. Returns the flights that have landed."""
        landed: list[Flight] = []
        for run in ack.held:
            message = self.messages.get(run.number)
            if message is None:
                continue
            for index in range(run.first, min(run.last + 1, message.count)):
                flight = message.flying.pop(index, None)
                if flight is not None:
                    self.in_flight -= message.cost(index)
                    landed.append(flight)
                message.held.add(index)
            message.waiting = [index for index in message.waiting if index not in message.held]
        return landed

    def land(self, size: int, landed: Sequence[Flight], now: float) -> None:
        """So many bytes have arrived with these flights: the window learns from them."""
        if not size:
            return
        latest = max((flight.sent_at for flight in landed), default=self.landing.sent_at)
        self.landing = Landing(self.landing.bytes + size, now, max(latest, self.landing.sent_at))
        for flight in landed:
            before = flight.before
            # A burst that follows a stall came in faster than the link is: it was not sent any faster than it.
            seconds = max(now - before.heard_at, flight.sent_at - before.sent_at)
            if not flight.repeated and seconds > 0:
                self.window.landed(now - flight.sent_at, (self.landing.bytes - before.bytes) / seconds, now)

    def forget_held(self) -> int:
        """The other side has restarted: all that it merely held is lost."""
        return sum(message.requeue(tuple(message.held)) for message in self.messages.values())

    def lose_missing(self, ack: Ack, before: int) -> int:
        """`ack` is a complete picture: what was sent before that point and is not in it is lost."""
        pictured: dict[int, set[int]] = {}
        for run in ack.held:
            pictured.setdefault(run.number, set()).update(range(run.first, run.last + 1))
        lost = 0
        for number, message in self.messages.items():
            there = pictured.get(number, set())
            gone = [index for index, flight in message.flying.items() if flight.order < before and index not in there]
            self.in_flight -= sum(message.cost(index) for index in gone)
            lost += message.requeue([*gone, *(message.held - there)])
        return lost

    def lose_overtaken(self, landed: Iterable[Flight]) -> int:
        """Frames sent long before others that have landed are lost."""
        # An urgent one may have overtaken bulk long before the pipe.
        newest = (
            max((flight.order for flight in landed if not (flight.repeated or flight.urgent)), default=0) - REORDERED
        )
        lost = 0
        for message in self.messages.values():
            gone = [index for index, flight in message.flying.items() if flight.order < newest]
            self.in_flight -= sum(message.cost(index) for index in gone)
            lost += message.requeue(gone)
        return lost

    def cut(self, chunk_bytes: int) -> None:
        """Cut messages into chunks of another length from now on; those that are cut already begin anew."""
        if chunk_bytes == self._limits.chunk_bytes:
            return
        self._limits = replace(self._limits, chunk_bytes=chunk_bytes)
        messages, self.messages, self.in_flight = self.messages, {}, 0
        for message in messages.values():
            self.add(message.number, message.payload, urgent=message.urgent)

    def renumber(self, epoch: int) -> None:
        """Move to a new epoch: what is not done begins anew, numbered from 1."""
        messages = [self.messages[number] for number in sorted(self.messages)]
        self.epoch, self.messages, self.next_number, self.in_flight = epoch, {}, 1, 0
        for message in messages:
            self.add(self.next_number, message.payload, urgent=message.urgent)

    def _open(self, *, urgent: bool) -> Iterator[Sending]:
        """Messages that may send: urgent ones always, others while not too much is unconfirmed."""
        if urgent:
            yield from [message for message in self.messages.values() if message.urgent and message.waiting]
            return
        bulk = [message for message in self.messages.values() if not message.urgent]
        begun = [message for message in bulk if message.begun]
        yield from (message for message in begun if message.waiting)
        count, size = len(begun), sum(len(message.payload) for message in begun)
        for message in bulk:
            if message.begun:
                continue
            count, size = count + 1, size + len(message.payload)
            if count > 1 and (count > self._limits.unconfirmed_messages or size > self._limits.unconfirmed_bytes):
                return
            yield message

    def _fits(self, cost: int, window: int) -> bool:
        return not self.in_flight or self.in_flight + cost <= window

    def _send(self, message: Sending, cost: int, lowest: int, now: float) -> Due:
        index = message.waiting.pop()
        repeated = index in message.sent
        message.sent.add(index)
        if not self.in_flight:  # a rest is no slowness of the link
            self.landing = self.landing._replace(heard_at=now, sent_at=now)
        message.flying[index] = Flight(now, self.sequence, repeated, message.urgent, self.landing)
        self.sequence += 1
        self.in_flight += cost
        total = len(message.payload)
        data = Data(self.epoch, lowest, message.number, index, message.count, total, message.chunk(index))
        return Due(data, repeated, message.urgent)
