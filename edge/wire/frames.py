"""Frames: one MQTT publish each. `README.md` has the same layout as tables.

Two kinds: a `Data` frame carries one chunk of a message; an `Ack` frame says what its sender has received, and may ask
the other side for the same. A frame is checked completely before anything of its size is allocated.
"""

import struct
import zlib
from dataclasses import dataclass, field
from typing import Self

VERSION = 1
U16 = 0xFFFF
U32 = 0xFFFFFFFF

_MAGIC = b"CL"
_DATA, _ACK = 1, 2
_PREFIX = struct.Struct("<2sBB")
_DATA_HEAD = struct.Struct("<2sBBIIIHHI")
_ACK_HEAD = struct.Struct("<2sBBIIIHHHH")
_DONE = struct.Struct("<II")
_HELD = struct.Struct("<IHH")
_CRC = struct.Struct("<I")
_HELD_LIMIT = 1 << 20

DATA_OVERHEAD = _DATA_HEAD.size + _CRC.size
"""Bytes a data frame adds to its chunk."""


class Frame(bytes):
    """A frame, packed. What is urgent may overtake bulk on its way, but bulk keeps its order."""

    bulk: bool

    def __new__(cls, data: bytes, *, bulk: bool = False) -> Self:
        """A frame of these bytes."""
        frame = super().__new__(cls, data)
        frame.bulk = bulk
        return frame


class WireError(ValueError):
    """Bytes that are not what they should be; the message names the thing, the number and the limit.

    Attributes:
        reason: a few fixed words for counting.
    """

    def __init__(self, message: str, reason: str = "malformed") -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Limits:
    """Caps and times of one side of a conversation."""

    message_bytes: int = 64 << 20
    """Longest message, packed and unpacked."""
    chunk_bytes: int = 16 << 10
    """Longest chunk this side sends."""
    frame_bytes: int = 1 << 20
    """Longest frame this side takes."""
    window_bytes: int = 256 << 10
    """Most bytes of chunks under way without an answer."""
    window_trips: float = 5.0
    """And most round trips' worth of them at the rate that the link has: what is urgent may have to wait behind them."""
    unconfirmed_messages: int = 256
    """Most messages of this side begun and not yet done at the other; urgent ones come on top."""
    unconfirmed_bytes: int = 32 << 20
    """Most bytes of such messages; a single longer one may still go alone."""
    partial_bytes: int = 80 << 20
    """Most bytes kept of the other side's incomplete messages; beyond it the oldest is dropped."""
    ack_seconds: float = 0.05
    """How long an acknowledgement may wait for company."""
    ack_bytes: int = 16 << 10
    """Received bytes after which an acknowledgement waits no longer."""
    resend_seconds: float = 1.0
    """Shortest silence after which the other side is asked what it has."""
    resend_limit_seconds: float = 60.0
    """Longest time between two such questions."""
    confirm_seconds: float = 60.0
    """Silence after which a message that has arrived but is not done is asked for; doubles up to sixteen times."""

    def __post_init__(self) -> None:
        if min(self.chunk_bytes, self.window_bytes, self.unconfirmed_messages, self.message_bytes) < 1:
            raise ValueError("chunk_bytes, window_bytes, unconfirmed_messages and message_bytes must be at least 1")
        if self.chunk_bytes + DATA_OVERHEAD > self.frame_bytes:
            raise ValueError(f"a chunk of {self.chunk_bytes} bytes does not fit a frame of {self.frame_bytes} bytes")
        if self.message_bytes > U32:
            raise ValueError(f"message_bytes = {self.message_bytes} is more than a frame can say, {U32}")
        if self.partial_bytes < self.message_bytes:
            raise ValueError(f"partial_bytes = {self.partial_bytes} is less than message_bytes = {self.message_bytes}")


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Data:
    """One chunk of one message."""

    epoch: int
    """Of the sender's stream: rises when the sender has lost its memory."""
    lowest: int
    """No number below this will ever be sent again: done, or given up."""
    number: int
    """Of the message within the epoch, from 1."""
    index: int
    count: int
    """Chunks of the message; all are equally long, the last may be shorter."""
    total: int
    """Bytes of the message."""
    payload: bytes = field(repr=False)

    def pack(self) -> bytes:
        """The frame's bytes."""
        numbers = (self.epoch, self.lowest, self.number, self.index, self.count, self.total)
        return _seal(_DATA_HEAD.pack(_MAGIC, VERSION, _DATA, *numbers), self.payload)

    def check(self) -> None:
        """Raise `WireError` where the numbers do not fit each other."""
        if not self.epoch or not 1 <= self.lowest <= self.number:
            raise WireError(f"epoch {self.epoch}, lowest {self.lowest}, number {self.number} do not fit", "numbers")
        if not self.index < self.count:
            raise WireError(f"chunk {self.index} of {self.count}", "chunks")
        expected = chunk_length(self.total, self.count, self.index)
        if len(self.payload) != expected:
            raise WireError(
                f"chunk {self.index} of {self.count} of {self.total} bytes has {len(self.payload)} bytes, not {expected}",
                "chunks",
            )


@dataclass(frozen=True)
class Held:
    """Chunks `first` to `last` of a message that have been received, while the message is not done."""

    number: int
    first: int
    last: int


@dataclass(frozen=True)
class Ack:
    """What its sender has received of the other side's stream."""

    epoch: int
    """Of the stream it speaks of; 0 while nothing was received."""
    instance: int
    """Random for each process: with a new one, what was merely held is gone."""
    floor: int
    """Every number up to this one is done."""
    done: tuple[tuple[int, int], ...] = ()
    """Runs (first, last) of done numbers above the floor; perhaps not all of them."""
    held: tuple[Held, ...] = ()
    asks: int = 0
    """Not 0: the other side shall answer with all that it holds."""
    answers: int = 0
    """Not 0: `held` is complete, as of the question with this number."""

    def pack(self) -> bytes:
        """The frame's bytes."""
        numbers = (self.epoch, self.instance, self.floor, self.asks, self.answers, len(self.done), len(self.held))
        parts = [_ACK_HEAD.pack(_MAGIC, VERSION, _ACK, *numbers)]
        parts += [_DONE.pack(*run) for run in self.done]
        parts += [_HELD.pack(run.number, run.first, run.last) for run in self.held]
        return _seal(b"".join(parts))

    def check(self) -> None:
        """Raise `WireError` where the numbers do not fit each other."""
        above = self.floor
        for first, last in self.done:
            if not above < first <= last:
                raise WireError(f"done {first} to {last} does not follow {above}", "numbers")
            above = last
        for run in self.held:
            if run.first > run.last or not run.number:
                raise WireError(f"chunks {run.first} to {run.last} of message {run.number}", "chunks")
        chunks = sum(run.last - run.first + 1 for run in self.held)
        if chunks > _HELD_LIMIT:
            raise WireError(f"ack frame speaks of {chunks} chunks, the limit is {_HELD_LIMIT}", "chunks")


def chunk_count(total: int, chunk_bytes: int) -> int:
    """Chunks that a message of `total` bytes is cut into; an empty message has one, empty.

    Chunks grow beyond `chunk_bytes` where there would be more than a frame can number.
    """
    return max(1, -(-total // max(chunk_bytes, -(-total // U16))))


def chunk_length(total: int, count: int, index: int) -> int:
    """Bytes of one chunk: ceil(total / count), the last one what remains; -1 where no such cut exists."""
    length = -(-total // count)
    last = total - length * (count - 1)
    if last < 0 or (last == 0 and count > 1):
        return -1
    return length if index < count - 1 else last


def parse(frame: bytes, limits: Limits = DEFAULT_LIMITS) -> Data | Ack:
    """Read one frame.

    Raises:
        WireError: whatever is wrong with it; nothing else, whatever the bytes.
    """
    if len(frame) > limits.frame_bytes:
        raise WireError(f"frame of {len(frame)} bytes, the limit is {limits.frame_bytes}", "too long")
    if len(frame) < _PREFIX.size + _CRC.size:
        raise WireError(f"frame of {len(frame)} bytes is cut off", "too short")
    magic, version, kind = _PREFIX.unpack_from(frame)
    if magic != _MAGIC:
        raise WireError(f"frame begins with {magic!r}, not {_MAGIC!r}", "magic")
    if version != VERSION:
        raise WireError(f"frame of version {version}, this is version {VERSION}", "version")
    if kind not in (_DATA, _ACK):
        raise WireError(f"unknown kind of frame {kind}", "kind")
    body = memoryview(frame)[: -_CRC.size]
    if zlib.crc32(body) != _CRC.unpack_from(frame, len(body))[0]:
        raise WireError(f"frame of {len(frame)} bytes fails its CRC", "crc")
    return _data(body, limits) if kind == _DATA else _ack(body)


def _data(body: memoryview, limits: Limits) -> Data:
    if len(body) < _DATA_HEAD.size:
        raise WireError(f"data frame of {len(body)} bytes is cut off", "too short")
    _, _, _, epoch, lowest, number, index, count, total = _DATA_HEAD.unpack_from(body)
    if total > limits.message_bytes:
        raise WireError(f"message of {total} bytes, the limit is {limits.message_bytes}", "too long")
    if not count:
        raise WireError(f"message {number} has no chunks", "chunks")
    data = Data(epoch, lowest, number, index, count, total, bytes(body[_DATA_HEAD.size :]))
    data.check()
    return data


def _ack(body: memoryview) -> Ack:
    if len(body) < _ACK_HEAD.size:
        raise WireError(f"ack frame of {len(body)} bytes is cut off", "too short")
    _, _, _, epoch, instance, floor, asks, answers, done, held = _ACK_HEAD.unpack_from(body)
    middle = _ACK_HEAD.size + done * _DONE.size
    if len(body) != middle + held * _HELD.size:
        raise WireError(f"ack frame of {len(body)} bytes with {done} and {held} entries", "length")
    ack = Ack(
        epoch,
        instance,
        floor,
        tuple((first, last) for first, last in _DONE.iter_unpack(body[_ACK_HEAD.size : middle])),
        tuple(Held(*run) for run in _HELD.iter_unpack(body[middle:])),
        asks,
        answers,
    )
    ack.check()
    return ack


def _seal(head: bytes, payload: bytes = b"") -> bytes:
    return b"".join((head, payload, _CRC.pack(zlib.crc32(payload, zlib.crc32(head)))))
