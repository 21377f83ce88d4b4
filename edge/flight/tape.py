"""A device's surroundings in a replay: clock, link, outbox and mailbox play what was recorded, and compare what is done."""

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy.typing as npt

from edge.flight import trace
from edge.flight.freeze import FreezeError, Thawer
from edge.flight.recorder import UNRECORDED
from edge.flight.recording import Recording
from edge.flight.telling import words
from edge.flight.trace import Entry
from edge.gate import Caps
from edge.link import Event, LinkError, SocketBytes
from edge.mailbox import Arrived, Mailbox
from edge.outbox import Outbox, OutboxError, Unsent
from edge.wire import messages
from edge.wire.delivery import Ledger
from edge.wire.frames import Data, WireError, parse
from edge.wire.messages import Report

E = TypeVar("E")

BUDGET = "budget"
MEASURED = (
    "sent", "received", "retransmitted", "evaluation_sent", "evaluation_received", "cpu_seconds", "peak_rss_bytes",
    "seconds", "step_seconds", "source", "energy", BUDGET,
)  # fmt: skip
"""Of a report: what was measured on the device, and is not decided."""


class Watcher(Protocol):
    """Hears what happens while a recording runs again; times are of the device's clock."""

    def entry(self, now: float, entry: Entry) -> None:
        """The next entry of the recording."""

    def arrived(self, now: float, message: messages.Message) -> None:
        """A message from the hub is complete."""

    def refused(self, now: float, reason: str) -> None:
        """A frame or message from the hub was not taken."""


@dataclass(frozen=True)
class Difference:
    """The first thing that came out otherwise."""

    now: float
    """Time of the device's clock, in seconds."""
    number: int
    """Of the entry within its file, from 1."""
    expected: str
    found: str

    def __str__(self) -> str:
        return f"entry {self.number}: recorded was {self.expected}; now it is {self.found}"


class End(Exception):  # noqa: N818  no error
    """The tape is at its end."""


class Differs(Exception):  # noqa: N818  no error either
    """What is done is not what was recorded."""

    def __init__(self, difference: Difference) -> None:
        super().__init__(str(difference))
        self.difference = difference


class Tape:
    """The entries of a recording, in the order in which they must be asked for."""

    def __init__(self, recording: Recording, watcher: Watcher, *, zeros: bool) -> None:
        self.now = recording.span[0]
        self.watcher = watcher
        self.exact = recording.same_machine
        """Whether graphs compute here what they computed there, to the last bit."""
        self.zeros = zeros
        """Whether there are messages whose contents are not known, with zeros in their place."""
        self.place = 0
        """How many entries have been taken."""
        self._entries = recording.entries

    @property
    def length(self) -> int:
        """How many entries there are."""
        return len(self._entries)

    @property
    def next(self) -> Entry:
        """The next entry; it stays."""
        if self.place >= len(self._entries):
            raise End
        return self._entries[self.place]

    def take(self, *kinds: type[E], instead: str) -> E:
        """The next entry, which must be of one of these kinds.

        Args:
            kinds: of entries.
            instead: what happens now, in words for a difference.
        """
        entry = self.next
        if not isinstance(entry, kinds):
            raise self.differs(entry, instead)
        self.place += 1
        if isinstance(entry, trace.Clock):
            self.now = entry.seconds
        self.watcher.entry(self.now, entry)
        return entry

    def same(self, found: Entry) -> None:
        """What happens now must be the next entry."""
        entry = self.take(type(found), instead=words(found))
        if entry != found:
            self.place -= 1
            raise self.differs(entry, words(found))

    def clock(self) -> float:
        """The device's clock."""
        return self.take(trace.Clock, instead="a look at the clock").seconds

    def differs(self, expected: Entry, found: str) -> Differs:
        """The exception for a difference at the next entry."""
        return Differs(Difference(self.now, self.place + 1, words(expected), found))

    def end(self, found: str) -> Difference | None:
        """The difference when this must be the end of the recording."""
        try:
            return self.differs(self.next, found).difference
        except End:
            return None


class TapeLink:
    """The link as it was; see `edge.link.Link`."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape

    @property
    def connected(self) -> bool:
        """Whether publishing was possible."""
        return isinstance(
            self._tape.take(trace.Up, trace.Down, instead="a question whether the link is there"), trace.Up
        )

    def open(self, timeout: float = 10.0, stopped: Callable[[], bool] = lambda: False) -> None:
        """Nothing to open."""

    def start(self) -> None:
        """Nothing to start."""

    def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False, bulk: bool = False) -> None:  # noqa: ARG002  not kept
        """Compare with what was published.

        Raises:
            LinkError: the link did not take it then.
        """
        found = trace.Published(topic, retain, trace.sketch_payload(payload))
        entry = self._tape.next
        if isinstance(entry, trace.Published) and not self._contents_count(payload):
            there = entry.payload
            if there.length == len(payload) and there.head[: trace.HEAD] == payload[: trace.HEAD]:
                found = replace(found, payload=there)
        self._tape.same(found)
        failed = self._peek()
        if isinstance(failed, trace.Failed):
            self._tape.take(trace.Failed, instead="")
            raise LinkError(failed.reason)

    def poll(self, timeout: float) -> list[Event]:  # noqa: ARG002  time does not pass
        """The events as they came."""
        return _Taken(self._tape.take(trace.Polled, instead="a question for news of the link").events, self._tape)

    def counters(self) -> SocketBytes:
        """None: reports have what was measured."""
        return SocketBytes()

    def limit(self, caps: Caps) -> None:
        """Nothing leaves."""

    def close(self) -> None:
        """Nothing to close."""

    def _peek(self) -> Entry | None:
        try:
            return self._tape.next
        except End:
            return None

    def _contents_count(self, payload: bytes) -> bool:
        """Whether the bytes of a chunk can be compared: not those of a message that the recording left out."""
        try:
            frame = parse(payload)
        except WireError:
            return True
        if not isinstance(frame, Data):
            return True
        return self._tape.exact and not (self._tape.zeros and frame.payload.count(0) == len(frame.payload))


class _Taken(list[Event]):
    """Events that are taken up one after the other, as they were."""

    def __init__(self, events: Sequence[Event], tape: Tape) -> None:
        super().__init__(events)
        self._tape = tape

    def __iter__(self) -> Iterator[Event]:
        for index in range(len(self)):
            if index:
                self._tape.take(trace.Next, instead="the next frame from the hub")
            yield self[index]


class TapeOutbox(Outbox):
    """The outbox as it was when the recording began, in memory; what is put is compared where `strict`.

    Args:
        recording: the recording.
        thawer: of its snapshot.
        tape: to compare with.
        strict: else only what delivery causes is compared, while `following`.
    """

    def __init__(self, recording: Recording, thawer: Thawer, tape: Tape, *, strict: bool) -> None:
        database = sqlite3.connect(":memory:", isolation_level=None)
        # The statements come out of a file: they may do what they like in memory, and nothing outside.
        database.set_authorizer(_inside)
        super().__init__(database, None, recording.path)
        try:
            for statement in recording.record["tables"]:
                database.execute(statement)
            for table, frozen in recording.record["rows"].items():
                for row in thawer.thaw(frozen):
                    database.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608
        except (sqlite3.Error, TypeError) as error:
            raise FreezeError(f"{recording.path}: the outbox of the snapshot is damaged: {error}") from error
        self._pending = [thawer.thaw(change) for change in recording.record["pending"]]
        self._tape, self._strict = tape, strict
        self.following = False

    def put_fact(self, name: str, value: Any) -> None:
        """Set one small value."""
        super().put_fact(name, value)
        if name in UNRECORDED:
            return
        found = trace.Fact(name, json.dumps(value))
        if self._strict or (self.following and self._tape.next == found):
            self._tape.same(found)

    def put_state(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Set every state tensor."""
        super().put_state(state)
        crc = trace.state_crc(state)
        entry = self._tape.next
        if isinstance(entry, trace.State) and not self._tape.exact:
            crc = entry.crc
        self._tape.same(trace.State(crc))

    def put_unsent(self, unsent: Unsent) -> None:
        """Keep a message for the hub."""
        super().put_unsent(unsent)
        if not (self._strict or self.following):
            return
        found = trace.Put(unsent.number, bool(unsent.urgent), trace.sketch_message(unsent.message))
        entry = self._tape.next
        unknown = not self._tape.exact or (self._tape.zeros and unsent.message.count(0) == len(unsent.message))
        if unknown and isinstance(entry, trace.Put) and entry.message.length == len(unsent.message):
            found = replace(found, message=entry.message)
        self._tape.same(found)

    def drop_unsent(self, numbers: list[int]) -> None:
        """Forget messages the hub has acknowledged, or that are given up."""
        super().drop_unsent(numbers)
        if numbers:
            self._tape.same(trace.Dropped(tuple(numbers)))

    def clear_unsent(self) -> None:
        """Forget every message for the hub."""
        super().clear_unsent()
        self._tape.same(trace.Cleared())

    def commit(self) -> None:
        """Make what was put readable.

        Raises:
            OutboxError: the disk was full or gone then.
        """
        if not self._pending:
            return
        entry = self._tape.take(trace.Committed, instead="a commit")
        if entry.reason:
            raise OutboxError(entry.reason)
        super().commit()


def _inside(action: int, *_details: str | None) -> int:
    return sqlite3.SQLITE_DENY if action in (sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH) else sqlite3.SQLITE_OK


class TapeMailbox(Mailbox):
    """A mailbox that tells what arrives, and what was measured then."""

    tape: Tape

    def poll(self, timeout: float, now: float) -> Iterator[Arrived]:
        """Take in what the link had."""
        before = self.refused.copy()
        for arrived in super().poll(timeout, now):
            self.tape.watcher.arrived(now, arrived.message)
            yield arrived
            before = self._tell(before, now)
        self._tell(before, now)

    def send(self, message: messages.Message, *, urgent: bool = False, data: bytes | None = None) -> bytes:
        """Put a message into the outbox; of a report what was measured is taken from the recording."""
        if isinstance(message, Report):
            message = replace(message, metrics=self._as_measured(message.metrics))
        return super().send(message, urgent=urgent, data=data)

    def act(self) -> None:
        """Do what the agent did, as far as it is in the recording; what delivery does is compared."""
        tape = self.tape
        while True:
            entry = tape.next
            if isinstance(entry, trace.Dropped | trace.Cleared):
                self._drop(entry)
            elif isinstance(entry, trace.Put):
                self._put(tape.take(trace.Put, instead=""))
            elif isinstance(entry, trace.Fact | trace.State | trace.Up | trace.Down):
                tape.take(type(entry), instead="")
                if isinstance(entry, trace.Fact):
                    self._note(entry)
                elif isinstance(entry, trace.State):
                    self._outbox.put_fact("state", entry.crc)  # so that there is something to commit
            else:
                return

    def commit(self) -> None:
        """Make everything that was put durable."""
        with self._following():
            super().commit()

    def _drop(self, entry: trace.Dropped | trace.Cleared) -> None:
        place = self.tape.place
        with self._following():
            self._follow()
        if self.tape.place > place:
            return
        if isinstance(entry, trace.Cleared):
            raise self.tape.differs(entry, "nothing of the kind")
        for number in entry.numbers:  # not acknowledged, so the agent has given them up
            self._delivery.give_up(number)
        self._outbox.drop_unsent(list(entry.numbers))

    def _put(self, entry: trace.Put) -> None:
        if entry.number != self._delivery.next_number:
            self.tape.place -= 1
            raise self.tape.differs(entry, f"message {self._delivery.next_number}")
        data = entry.message.head if entry.message.whole else bytes(entry.message.length)
        number = self._delivery.send(data, urgent=entry.urgent)
        self._outbox.put_unsent(Unsent(number, data, entry.urgent))

    def _note(self, fact: trace.Fact) -> None:
        value = json.loads(fact.value)
        self._outbox.put_fact(fact.name, value)
        if fact.name != "ledger":
            return
        ledger = Ledger.from_json(value)
        for number in list(self._delivery._in.held):  # noqa: SLF001  nobody else wants to know
            if number in ledger:
                self._delivery.confirm(number, ledger.epoch)

    @contextmanager
    def _following(self) -> Iterator[None]:
        """While the mailbox follows delivery, what it puts is compared."""
        outbox = self._outbox
        if isinstance(outbox, TapeOutbox):
            outbox.following = True
        try:
            yield
        finally:
            if isinstance(outbox, TapeOutbox):
                outbox.following = False

    def _as_measured(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        entry = self.tape.next
        if not isinstance(entry, trace.Put) or not entry.message.whole:
            return dict(metrics)
        try:
            recorded = messages.unpack(entry.message.head)
        except WireError:
            return dict(metrics)
        if not isinstance(recorded, Report):
            return dict(metrics)
        theirs = recorded.metrics
        return {
            name: theirs[name] if name in theirs and (name in MEASURED or self._inexact(name, value)) else value
            for name, value in metrics.items()
            if name in theirs or name != BUDGET
        }

    def _inexact(self, name: str, value: Any) -> bool:
        return (isinstance(value, float) or name == "coded") and not self.tape.exact

    def _tell(self, before: Mapping[str, int], now: float) -> Any:
        for reason, count in self.refused.items():
            if count != before.get(reason, 0):
                self.tape.watcher.refused(now, reason)
        return self.refused.copy()
