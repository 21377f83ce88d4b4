"""The receiving half of a conversation: chunks become messages, each once, inside a bounded memory."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby

from edge.wire.frames import U16, Ack, Data, Held, Limits, WireError
from edge.wire.ledger import Ledger

LEDGER_RUNS = 8192
"""More gaps than this in one stream's numbers are no reordering, they are an attack on our memory."""

_ALL_RUNS = 64


@dataclass(frozen=True)
class Delivered:
    """A complete message, handed out once by this process; `Delivery.confirm` it when its effect is durable."""

    number: int
    payload: bytes = field(repr=False)
    epoch: int = 0


@dataclass
class Partial:
    """Chunks of a message that is not complete."""

    count: int
    total: int
    chunks: dict[int, bytes] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes kept."""
        return sum(len(chunk) for chunk in self.chunks.values())


class Inbound:
    """Messages of the other side, and the ledger of those that are done."""

    def __init__(self, ledger: Ledger, limits: Limits) -> None:
        self.ledger = ledger
        self.partial: dict[int, Partial] = {}
        self.held: dict[int, int] = {}
        """Complete messages that are not confirmed, with their number of chunks."""
        self.partial_size = 0
        self.dropped = 0
        """Incomplete messages given up for want of memory, or because they changed their cut."""
        self.news: set[int] = set()
        """Numbers whose done-ness is to be told."""
        self.chunk_news: set[tuple[int, int]] = set()
        self._limits = limits

    def take(self, data: Data) -> tuple[list[Delivered], bool]:
        """Take one chunk. Returns the message it completes, and whether it was a repetition.

        Raises:
            WireError: it belongs to a stream that is over, or there is no room for it.
        """
        if data.epoch < self.ledger.epoch:
            raise WireError(f"epoch {data.epoch} is over, the stream is at {self.ledger.epoch}", "old epoch")
        if data.epoch > self.ledger.epoch:
            self._begin(data.epoch)
        self._raise_floor(data.lowest - 1)
        known = self.partial.get(data.number)
        if known is None and data.number in self.ledger:
            self.news.add(data.number)
            return [], True
        if known is None and data.number in self.held:
            self._tell_all(data.number)
            return [], True
        self.chunk_news.add((data.number, data.index))
        if known and known.chunks.get(data.index) == data.payload:
            return [], True
        self._make_room(data)
        return self._keep(data)

    def confirm(self, number: int, epoch: int | None = None) -> bool:
        """The message's effect is durable. False where it is not one that was handed out."""
        if number not in self.held or epoch not in (None, self.ledger.epoch):
            return False
        del self.held[number]
        self.chunk_news = {news for news in self.chunk_news if news[0] != number}
        self.ledger = self.ledger.with_done(number)
        self.news.add(number)
        return True

    def ack(self, instance: int, *, asks: int, answers: int) -> Ack:
        """What is to be told now; everything that is held, when it answers a question."""
        chunks = self._everything() if answers else self.chunk_news
        runs = tuple(_runs(chunks))[: U16 >> 3]
        done = self.ledger.done
        if len(done) > _ALL_RUNS:
            touched = {self.ledger.run_of(number) for number in self.news if number > self.ledger.floor}
            done = tuple(sorted(run for run in touched if run))[: U16 >> 3]
        self.news, self.chunk_news = set(), set()
        return Ack(self.ledger.epoch, instance, self.ledger.floor, done, runs, asks, answers)

    def _begin(self, epoch: int) -> None:
        self.ledger = Ledger(epoch)
        self.partial, self.held, self.news, self.chunk_news = {}, {}, set(), set()
        self.partial_size = 0

    def _raise_floor(self, floor: int) -> None:
        if floor <= self.ledger.floor:
            return
        self.ledger = self.ledger.with_floor(floor)
        for number in [number for number in self.partial if number <= floor]:
            self._drop(number)
        for number in [number for number in self.held if number <= floor]:
            del self.held[number]

    def _make_room(self, data: Data) -> None:
        if len(self.ledger.done) >= LEDGER_RUNS:
            raise WireError(f"more than {LEDGER_RUNS} gaps in the numbers", "gaps")
        # Urgent messages come on top of the sender's own bound, hence the factor.
        if len(self.held) >= 4 * self._limits.unconfirmed_messages:
            raise WireError(f"{len(self.held)} messages wait to be worked off already", "busy")
        known = self.partial.get(data.number)
        if known and (known.count, known.total) != (data.count, data.total):
            self._give_up(data.number)
        others = [number for number in self.partial if number != data.number]
        too_many = len(others) - 4 * self._limits.unconfirmed_messages
        for place, number in enumerate(others):
            if place >= too_many and self.partial_size + len(data.payload) <= self._limits.partial_bytes:
                break
            self._give_up(number)

    def _keep(self, data: Data) -> tuple[list[Delivered], bool]:
        partial = self.partial.get(data.number)
        if partial is None:
            partial = self.partial[data.number] = Partial(data.count, data.total)
        partial.chunks[data.index] = data.payload
        self.partial_size += len(data.payload)
        if len(partial.chunks) < partial.count:
            return [], False
        self._drop(data.number)
        self.held[data.number] = partial.count
        self._tell_all(data.number)
        payload = b"".join(partial.chunks[index] for index in range(partial.count))
        return [Delivered(data.number, payload, self.ledger.epoch)], False

    def _give_up(self, number: int) -> None:
        self._drop(number)
        self.dropped += 1

    def _drop(self, number: int) -> None:
        self.partial_size -= self.partial.pop(number).size

    def _tell_all(self, number: int) -> None:
        self.chunk_news.update((number, index) for index in range(self.held[number]))

    def _everything(self) -> set[tuple[int, int]]:
        held = {(number, index) for number, count in self.held.items() for index in range(count)}
        return held | {(number, index) for number, partial in self.partial.items() for index in partial.chunks}


def _runs(chunks: set[tuple[int, int]]) -> Iterator[Held]:
    """Neighbouring chunks of a message as one run each."""
    for (number, _), run in groupby(enumerate(sorted(chunks)), lambda item: (item[1][0], item[1][1] - item[0])):
        indexes = [index for _, (_, index) in run]
        yield Held(number, indexes[0], indexes[-1])
