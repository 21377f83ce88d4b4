"""What a device sees and does, call by call, as bytes: the entries of a recording.

    Clock         it read its clock: this many seconds
    Up, Down      it asked whether the link is there
    Polled        it asked the link for news: connected, disconnected and why, messages in full
    Next          it took up the next one of those
    Published     it handed a payload to the link: short ones in full, of long ones head and CRC
    Failed        the link would not take it
    Put           it put a message for the hub into the outbox: short ones in full, of long ones the head
    Dropped       the hub has acknowledged messages
    Cleared       every message for the hub is put again, under new numbers
    Fact          it put a small value
    State         it put its state: CRC of all tensors
    Committed     what it had put is durable; or, with a reason, is not

An entry is a kind byte and its fields; numbers are LEB128, texts and bytes have their length before them. A topic is
its number among the file's topics, and its text where it comes for the first time.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.link import Connected, Disconnected, Event, Message

WHOLE_PAYLOAD = 96
"""Payloads up to this length are kept in full: status, acknowledgements."""
WHOLE_MESSAGE = 8192
"""Messages up to this length are kept in full: hello, reports."""
HEAD = 24
"""Of longer ones these first bytes are kept: all numbers of a chunk, or kind, order, round and step of a message."""
TAIL = 4
"""And of payloads these last ones, where a frame has its CRC."""

_F64 = Struct("<d")


class TraceError(ValueError):
    """Bytes that are no entries."""


@dataclass(frozen=True)
class Clock:
    """A reading of the clock."""

    seconds: float


@dataclass(frozen=True)
class Up:
    """The link was there."""


@dataclass(frozen=True)
class Down:
    """The link was not there."""


@dataclass(frozen=True)
class Polled:
    """What the link had."""

    events: tuple[Event, ...]


@dataclass(frozen=True)
class Next:
    """The next event of the last `Polled` was taken up; the first is taken up at once."""


@dataclass(frozen=True)
class Sketch:
    """Bytes, in full or what is kept of them."""

    length: int
    head: bytes
    """All of them when `whole`."""
    tail: bytes = b""

    @property
    def whole(self) -> bool:
        """Whether nothing is left out."""
        return len(self.head) == self.length

    def __str__(self) -> str:
        return f"{self.length} bytes {self.head[:HEAD].hex()}{'' if self.length <= HEAD else '…' + self.tail.hex()}"


@dataclass(frozen=True)
class Published:
    """A payload was handed to the link."""

    topic: str
    retain: bool
    payload: Sketch


@dataclass(frozen=True)
class Failed:
    """The link did not take the last payload."""

    reason: str


@dataclass(frozen=True)
class Put:
    """A message for the hub lies in the outbox."""

    number: int
    urgent: bool
    message: Sketch


@dataclass(frozen=True)
class Dropped:
    """The hub has these messages."""

    numbers: tuple[int, ...]


@dataclass(frozen=True)
class Cleared:
    """No message lies in the outbox any more; those that are not done are put again."""


@dataclass(frozen=True)
class Fact:
    """A small value was put."""

    name: str
    value: str
    """As JSON."""


@dataclass(frozen=True)
class State:
    """The state was put."""

    crc: int


@dataclass(frozen=True)
class Committed:
    """What had been put is durable, unless there is a reason why not."""

    reason: str = ""


Entry = Clock | Up | Down | Polled | Next | Published | Failed | Put | Dropped | Cleared | Fact | State | Committed
_BARE = {Up: 3, Down: 4, Next: 6, Cleared: 10}
_OF_BARE: dict[int, Entry] = {3: Up(), 4: Down(), 6: Next(), 10: Cleared()}


def sketch_payload(payload: bytes) -> Sketch:
    """What is kept of a published payload."""
    if len(payload) <= WHOLE_PAYLOAD:
        return Sketch(len(payload), bytes(payload))
    return Sketch(len(payload), bytes(payload[:HEAD]), bytes(payload[-TAIL:]))


def sketch_message(message: bytes) -> Sketch:
    """What is kept of a message that was put."""
    return Sketch(len(message), bytes(message if len(message) <= WHOLE_MESSAGE else message[:HEAD]))


def state_crc(state: Mapping[str, npt.NDArray[Any]]) -> int:
    """One number for all tensors, whatever their order."""
    crc = 0
    for name in sorted(state):
        # Arrays have the buffer that crc32 wants, but their type does not say so.
        contiguous: Any = np.ascontiguousarray(state[name]).reshape(-1).view(np.uint8)
        crc = zlib.crc32(contiguous, zlib.crc32(name.encode(), crc))
    return crc


class Writer:
    """Entries into bytes. Clock readings are differences of nanoseconds where that is exact."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._nanoseconds = 0
        self._topics: dict[str, int] = {}

    @property
    def size(self) -> int:
        """Bytes of the entries since they were taken last."""
        return len(self._bytes)

    def take(self) -> bytes:
        """The bytes so far; they are gone afterwards."""
        data, self._bytes = bytes(self._bytes), bytearray()
        return data

    def clock(self, seconds: float) -> None:
        """A `Clock`."""
        nanoseconds = round(seconds * 1e9)
        if nanoseconds / 1e9 == seconds and nanoseconds >= self._nanoseconds:
            self._bytes.append(1)
            self._number(nanoseconds - self._nanoseconds)
            self._nanoseconds = nanoseconds
        else:
            self._bytes.append(2)
            self._bytes += _F64.pack(seconds)

    def bare(self, kind: type[Up | Down | Next | Cleared]) -> None:
        """An entry without fields."""
        self._bytes.append(_BARE[kind])

    def polled(self, events: Sequence[Event]) -> None:
        """A `Polled`."""
        self._bytes.append(5)
        self._number(len(events))
        for event in events:
            if isinstance(event, Message):
                self._bytes.append(2)
                self._topic(event.topic)
                self._data(event.payload)
            elif isinstance(event, Disconnected):
                self._bytes.append(1)
                self._text(event.reason)
            else:
                self._bytes.append(0)
                self._number(event.packet_bytes)

    def published(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """A `Published`."""
        self._bytes.append(7)
        self._topic(topic)
        self._bytes.append(retain)
        self._sketch(sketch_payload(payload))

    def failed(self, reason: str) -> None:
        """A `Failed`."""
        self._bytes.append(8)
        self._text(reason)

    def put(self, number: int, message: bytes, *, urgent: bool) -> None:
        """A `Put`."""
        self._bytes.append(9)
        self._number(number)
        self._bytes.append(urgent)
        self._sketch(sketch_message(message))

    def fact(self, name: str, value: str) -> None:
        """A `Fact`."""
        self._bytes.append(11)
        self._text(name)
        self._text(value)

    def state(self, crc: int) -> None:
        """A `State`."""
        self._bytes.append(12)
        self._number(crc)

    def committed(self, reason: str = "") -> None:
        """A `Committed`."""
        self._bytes.append(13)
        self._text(reason)

    def dropped(self, numbers: Sequence[int]) -> None:
        """A `Dropped`."""
        self._bytes.append(14)
        self._number(len(numbers))
        for number in numbers:
            self._number(number)

    def _sketch(self, sketch: Sketch) -> None:
        self._number(sketch.length)
        self._data(sketch.head)
        if not sketch.whole:
            self._data(sketch.tail)

    def _topic(self, topic: str) -> None:
        known = len(self._topics)
        number = self._topics.setdefault(topic, known)
        self._number(number)
        if number == known:
            self._text(topic)

    def _text(self, text: str) -> None:
        self._data(text.encode("utf-8", "replace"))

    def _data(self, data: bytes) -> None:
        self._number(len(data))
        self._bytes += data

    def _number(self, number: int) -> None:
        while number > 0x7F:
            self._bytes.append(number & 0x7F | 0x80)
            number >>= 7
        self._bytes.append(number)


class Reader:
    """Bytes into entries; `entries` of one record after the other."""

    def __init__(self) -> None:
        self._bytes, self._offset = b"", 0
        self._nanoseconds = 0
        self._topics: list[str] = []

    def entries(self, data: bytes) -> Iterator[Entry]:
        """The entries of one record.

        Raises:
            TraceError: there are none of that kind, or they are cut off.
        """
        self._bytes, self._offset = data, 0
        while self._offset < len(self._bytes):
            try:
                yield self._entry(self._byte())
            except (IndexError, UnicodeDecodeError) as error:
                raise TraceError(f"an entry of the recording is damaged near byte {self._offset}") from error

    def _entry(self, kind: int) -> Entry:
        if kind in _OF_BARE:
            return _OF_BARE[kind]
        if kind not in _READERS:
            raise TraceError(f"unknown kind of entry {kind} in the recording")
        entry: Entry = _READERS[kind](self)
        return entry

    def _clock(self) -> Clock:
        self._nanoseconds += self._number()
        return Clock(self._nanoseconds / 1e9)

    def _exact_clock(self) -> Clock:
        return Clock(_F64.unpack(self._take(8))[0])

    def _polled(self) -> Polled:
        return Polled(tuple(self._event() for _ in range(self._number())))

    def _event(self) -> Event:
        kind = self._byte()
        if kind == 2:
            return Message(self._topic(), self._data())
        return Disconnected(self._text()) if kind == 1 else Connected(self._number())

    def _published(self) -> Published:
        return Published(self._topic(), bool(self._byte()), self._sketch(tail=True))

    def _put(self) -> Put:
        return Put(self._number(), bool(self._byte()), self._sketch(tail=False))

    def _sketch(self, *, tail: bool) -> Sketch:
        length, head = self._number(), self._data()
        if len(head) == length:
            return Sketch(length, head)
        kept = self._data()
        return Sketch(length, head, kept if tail else b"")

    def _fact(self) -> Fact:
        return Fact(self._text(), self._text())

    def _dropped(self) -> Dropped:
        return Dropped(tuple(self._number() for _ in range(self._number())))

    def _topic(self) -> str:
        number = self._number()
        if number == len(self._topics):
            self._topics.append(self._text())
        return self._topics[number]

    def _text(self) -> str:
        return self._data().decode()

    def _data(self) -> bytes:
        return self._take(self._number())

    def _take(self, length: int) -> bytes:
        data = self._bytes[self._offset : self._offset + length]
        if len(data) < length:
            raise IndexError
        self._offset += length
        return data

    def _byte(self) -> int:
        self._offset += 1
        return self._bytes[self._offset - 1]

    def _number(self) -> int:
        number = shift = 0
        while (byte := self._byte()) > 0x7F:
            number |= (byte & 0x7F) << shift
            shift += 7
        return number | byte << shift


_READERS: dict[int, Any] = {
    1: Reader._clock,  # noqa: SLF001  the table belongs to the class
    2: Reader._exact_clock,  # noqa: SLF001
    5: Reader._polled,  # noqa: SLF001
    7: Reader._published,  # noqa: SLF001
    8: lambda reader: Failed(reader._text()),  # noqa: SLF001
    9: Reader._put,  # noqa: SLF001
    11: Reader._fact,  # noqa: SLF001
    12: lambda reader: State(reader._number()),  # noqa: SLF001
    13: lambda reader: Committed(reader._text()),  # noqa: SLF001
    14: Reader._dropped,  # noqa: SLF001
}
