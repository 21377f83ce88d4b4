"""The flight recorder of a device: what it sees and does goes into a ring of files, from which it can be run again.

    recorder = Recorder(folder, limit_bytes)
    outbox = recorder.outbox(Outbox.open(…))          what the device puts and commits
    link = recorder.link(MqttLink(…))                 what it hears and publishes
    recorder.begin(agent, segment)                    the first snapshot
    agent.run(recorder.between(stopped), now=recorder.clock)

Everything a device decides follows from its clock, its link, its data and its memory, so these are what is recorded;
what it decided is recorded as well, to be compared (`edge/replay.py`). Every file of the ring begins with a snapshot
of the agent and its outbox: the ring can be run again from its oldest file.

A recorder never stops a device: what cannot be written is not recorded, and that is logged.
"""

import json
import logging
import platform
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, SupportsIndex

import numpy.typing as npt

import edge.accounts
import edge.agent
import edge.beyond
import edge.checkpoints
import edge.known
import edge.mailbox
import edge.outbox
import edge.uploads
import edge.weights
import edge.work
from edge.agent import Agent
from edge.flight import freeze, trace
from edge.flight.freeze import Freezer
from edge.flight.ring import Ring
from edge.gate import Caps
from edge.link import Event, Link, LinkError, Message, SocketBytes
from edge.outbox import Outbox, OutboxError, Unsent
from edge.segment import Segment
from edge.wire import coder, delivery, frames, inbound, ledger, messages, outbound, weights, window

log = logging.getLogger("cutlayer.recorder")

FORMAT = 5
CLASSES = freeze.classes_of(
    edge.agent,
    edge.uploads,
    edge.checkpoints,
    edge.beyond,
    edge.work,
    edge.mailbox,
    edge.known,
    edge.accounts,
    edge.outbox,
    edge.weights,
    weights,
    messages,
    delivery,
    inbound,
    outbound,
    window,
    ledger,
    frames,
    coder,
)
"""What a snapshot of an agent is made of."""
for _of_its_own in ("Outbox", "MemoryOutbox"):
    del CLASSES[_of_its_own]

RETRY_SECONDS = 60.0
"""How long a recorder that could not write leaves it."""
FLUSH_BYTES = 1024
"""Turns in which nothing happened are gathered up to this size."""

UNRECORDED = ("totals", "opened", "stream")
"""Facts that are not recorded: what was measured, and what follows from the messages that were put."""


class Recorder:
    """Records one process of a device.

    Args:
        folder: of the ring.
        limit_bytes: of the ring; 0 records nothing, and then all of this costs nothing.
        now: the clock of the device.
        wall: seconds since 1970, as far as the board knows.
    """

    def __init__(
        self,
        folder: Path,
        limit_bytes: int,
        *,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._ring = Ring(folder, limit_bytes) if limit_bytes else None
        self._now, self._wall = now, wall
        self.writer: trace.Writer | None = None
        """None while nothing can be recorded."""
        self._happened = False
        self._retry_at = 0.0
        self._whom: tuple[Agent, Segment] | None = None
        self._outbox: Outbox | None = None

    def outbox(self, outbox: Outbox) -> Outbox:
        """The same outbox, heard by the recorder; the one that was given is not used any more."""
        if self._ring is None:
            return outbox
        self._outbox = RecordingOutbox(outbox, self)
        return self._outbox

    def link(self, link: Link) -> Link:
        """The same link, heard by the recorder."""
        return link if self._ring is None else RecordingLink(link, self)

    def clock(self) -> float:
        """A reading of the device's clock, which is recorded."""
        seconds = self._now()
        if self.writer:
            self.writer.clock(seconds)
        return seconds

    def begin(self, agent: Agent, segment: Segment) -> None:
        """Record this agent from here on; before its link is opened."""
        self._whom = agent, segment
        self._begin(restarted=True)

    def between(self, stopped: Callable[[], bool]) -> Callable[[], bool]:
        """`stopped`, which `Agent.run` asks between two turns: the moment to write."""
        if self._ring is None:
            return stopped

        def asked() -> bool:
            self.turn_over()
            return stopped()

        return asked

    def turn_over(self) -> None:
        """A turn of the agent is over: write it, and begin a new file where this one is nearly full."""
        if self._ring is None or self._whom is None:
            return
        writer = self.writer
        if writer and (self._happened or writer.size >= FLUSH_BYTES):
            self.flush()
        if self.writer is None:
            if self._now() >= self._retry_at:
                self._begin(restarted=False)
        elif self._ring.size + self.writer.size > self._ring.segment_bytes * 3 // 4:
            self.flush()
            self._begin(restarted=False)

    def close(self) -> None:
        """Write what is left."""
        self.flush()
        if self._ring:
            self._ring.close()
        self.writer = None

    def record(self) -> trace.Writer | None:
        """Where to write what has happened; None while nothing is recorded."""
        self._happened = True
        return self.writer

    def flush(self) -> None:
        """Hand to the kernel what has been recorded."""
        self._happened = False
        if self._ring is None or self.writer is None or not self.writer.size:
            return
        try:
            if not self._ring.write(self.writer.take()):
                self.writer = None  # the rest of this turn is missing; the next one begins a file
                self._retry_at = 0.0
        except OSError as error:
            self._give_up(error)

    def _begin(self, *, restarted: bool) -> None:
        if self._ring is None or self._whom is None or self._outbox is None:
            return
        self.writer = None
        try:
            taken = snapshot(
                *self._whom,
                self._outbox,
                limit_bytes=self._ring.segment_bytes // 2,
                notes={"restarted": restarted, "monotonic": self._now(), "wall": self._wall()},
            )
            if taken is None or not self._ring.begin(taken):
                self._retry_at = self._now() + RETRY_SECONDS / 10
                log.info("half-received messages leave no room in the recorder: it goes on when they are done")
                return
        except Exception as error:  # noqa: BLE001  a recorder never stops a device
            self._give_up(error)
            return
        self.writer, self._happened = trace.Writer(), False

    def _give_up(self, error: Exception) -> None:
        log.warning("nothing is recorded for %g s: %s", RETRY_SECONDS, error)
        self.writer = None
        self._retry_at = self._now() + RETRY_SECONDS


class RecordingLink:
    """A link whose recorder hears all that passes; see `edge.link.Link`."""

    def __init__(self, link: Link, recorder: Recorder) -> None:
        self._link, self._recorder = link, recorder

    @property
    def connected(self) -> bool:
        """Whether publishing is possible now."""
        connected = self._link.connected
        if writer := self._recorder.writer:  # asked in every turn: nothing has happened
            writer.bare(trace.Up if connected else trace.Down)
        return connected

    def open(self, timeout: float = 10.0, stopped: Callable[[], bool] = lambda: False) -> None:
        """Connect for the first time; afterwards the link reconnects by itself, for ever.

        Raises:
            LinkError: within `timeout` seconds there was no broker, or it refused.
        """
        self._link.open(timeout, stopped)

    def start(self) -> None:
        """Connect by itself, for ever; return at once."""
        self._link.start()

    def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False, bulk: bool = False) -> None:
        """Hand a payload to the pipe, which may lose it.

        Raises:
            LinkError: there is no connection, or the payload is longer than the broker takes.
        """
        if writer := self._recorder.record():
            writer.published(topic, payload, retain=retain)
        try:
            self._link.publish(topic, payload, qos=qos, retain=retain, bulk=bulk)
        except LinkError as error:
            if writer:
                writer.failed(str(error))
            raise

    def poll(self, timeout: float) -> list[Event]:
        """All events since the last call; waits up to `timeout` seconds for the first."""
        events = self._link.poll(timeout)
        if not events:
            if writer := self._recorder.writer:
                writer.polled(())
            return events
        if sum(len(event.payload) for event in events if isinstance(event, Message)) > FLUSH_BYTES:
            self._recorder.flush()  # what came before shall not be lost with what may find no room
        if writer := self._recorder.record():
            writer.polled(events)
            self._recorder.flush()  # before anybody reads them: a frame that ends the process shall be in the recording
        return _Handed(events, self._recorder)

    def counters(self) -> SocketBytes:
        """Bytes so far, over all connections."""
        return self._link.counters()

    def limit(self, caps: Caps) -> None:
        """How far the counters may go."""
        self._link.limit(caps)

    def close(self) -> None:
        """Publish the last will, disconnect cleanly, return within two seconds or so."""
        self._link.close()


class _Handed(list[Event]):
    """Events that are recorded as they are taken up: what is done between two of them belongs to the first."""

    def __init__(self, events: list[Event], recorder: Recorder) -> None:
        super().__init__(events)
        self._recorder = recorder

    def __iter__(self) -> Iterator[Event]:
        for index in range(len(self)):
            if index and (writer := self._recorder.record()):
                writer.bare(trace.Next)
            yield self[index]

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return list, (list(self),)


class RecordingOutbox(Outbox):
    """An outbox whose recorder hears what is put."""

    def __init__(self, outbox: Outbox, recorder: Recorder) -> None:
        vars(self).update(vars(outbox))
        self._recorder = recorder

    def put_fact(self, name: str, value: Any) -> None:
        """Set one small value (anything JSON can carry)."""
        super().put_fact(name, value)
        if name not in UNRECORDED and (writer := self._recorder.record()):
            writer.fact(name, json.dumps(value))

    def put_state(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Set every state tensor."""
        super().put_state(state)
        if writer := self._recorder.record():
            writer.state(trace.state_crc(state))

    def put_unsent(self, unsent: Unsent) -> None:
        """Keep a message for the hub until it is acknowledged."""
        super().put_unsent(unsent)
        if writer := self._recorder.record():
            writer.put(unsent.number, unsent.message, urgent=unsent.urgent)

    def drop_unsent(self, numbers: list[int]) -> None:
        """Forget messages the hub has acknowledged."""
        super().drop_unsent(numbers)
        if numbers and (writer := self._recorder.record()):
            writer.dropped(numbers)

    def clear_unsent(self) -> None:
        """Forget every message for the hub."""
        super().clear_unsent()
        if writer := self._recorder.record():
            writer.bare(trace.Cleared)

    def commit(self) -> None:
        """Make what was put since the last commit durable, all of it or nothing.

        Raises:
            OutboxError: the disk is full or gone.
        """
        if not self._pending:
            return
        try:
            super().commit()
        except OutboxError as error:
            if writer := self._recorder.record():
                writer.committed(str(error))
            raise
        if writer := self._recorder.record():
            writer.committed()

    def contents(self) -> tuple[list[str], dict[str, list[Any]], list[tuple[str, tuple[Any, ...]]]]:
        """The statements that make its tables, their rows, and what is put but not committed."""
        tables: dict[str, str] = dict(self._rows("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
        rows = {name: self._rows(f"SELECT * FROM {name}") for name in tables}  # noqa: S608  its own tables
        return list(tables.values()), rows, list(self._pending)


def snapshot(
    agent: Agent, segment: Segment, outbox: Outbox, *, limit_bytes: int, notes: Mapping[str, Any]
) -> bytes | None:
    """An agent between two turns and its outbox, in at most so many bytes.

    Where that is not enough, messages for the hub are kept by their length, then the state by its CRC: the
    conversation can be run again without either. None when not even the rest fits.

    Raises:
        FreezeError: it cannot be frozen.
        OutboxError: the outbox cannot be read.
    """
    freezer = Freezer(CLASSES)
    frozen = freezer.freeze(agent)
    state = segment.snapshot()
    tables, rows, pending = outbox.contents() if isinstance(outbox, RecordingOutbox) else ([], {}, [])
    record: dict[str, Any] = {
        "format": FORMAT,
        "machine": platform.machine(),
        "onnxruntime": metadata.version("onnxruntime"),
        **notes,
        "agent": frozen,
        "state": freezer.freeze(state, "tensors"),
        "state_crc": trace.state_crc(state),
        "tables": tables,
        "rows": {name: freezer.freeze(found, _role(name)) for name, found in rows.items()},
        "pending": [freezer.freeze(change, _role(change[0])) for change in pending],
    }
    optional = [index for index, roles in enumerate(freezer.roles) if roles <= {"payload", "state"}]
    tensors = [index for index, roles in enumerate(freezer.roles) if roles == {"tensors"}]
    needed = set(range(len(freezer.blobs))) - set(optional) - set(tensors)
    room = limit_bytes - sum(len(freezer.blobs[index]) for index in needed)
    size = len(_packed(record))
    # Whatever is left out makes the record itself no longer than this.
    room -= size + 16 * len(freezer.blobs) + 64
    if room < 0:
        return None
    tensor_bytes = sum(len(freezer.blobs[index]) for index in tensors)
    if tensor_bytes <= room:
        needed |= set(tensors)
        room -= tensor_bytes
    else:
        record["state"] = None
    for index in optional:
        if len(freezer.blobs[index]) <= room:
            needed.add(index)
            room -= len(freezer.blobs[index])
    record["blobs"] = [[len(blob), int(index in needed)] for index, blob in enumerate(freezer.blobs)]
    head = _packed(record)
    return len(head).to_bytes(4, "little") + head + b"".join(freezer.blobs[index] for index in sorted(needed))


def read_snapshot(body: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """A snapshot's record and blobs; those that were left out are zeros of their length.

    Raises:
        FreezeError: it is no snapshot of this release.
    """
    try:
        end = 4 + int.from_bytes(body[:4], "little")
        unpacker = zlib.decompressobj()
        record = json.loads(unpacker.decompress(body[4:end], 64 << 20))
        if record["format"] != FORMAT:
            raise freeze.FreezeError(f"the snapshot has format {record['format']}, this release reads {FORMAT}")
        blobs, offset = [], end
        for length, kept in record["blobs"]:
            blobs.append(body[offset : offset + length] if kept else bytes(length))
            offset += length * kept
    except (KeyError, TypeError, zlib.error, ValueError) as error:
        if isinstance(error, freeze.FreezeError):
            raise
        raise freeze.FreezeError(f"the snapshot is damaged: {error}") from error
    return record, blobs


def _packed(record: Mapping[str, Any]) -> bytes:
    return zlib.compress(json.dumps(record, separators=(",", ":")).encode(), 1)


def _role(table: str) -> str:
    """What the blobs of a table, or of a statement about it, are."""
    words = table.split()
    if {"state", "known"} & set(words):
        return "tensors"
    return "payload" if {"unsent", "received"} & set(words) else "rows"
