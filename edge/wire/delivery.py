"""One side of one conversation: each message has its effect once, over a pipe that loses, repeats and reorders.

The rules, for whoever drives it:

1.  Before `send`, put the message where it survives (with `next_number`); after a restart, `restore` what lay there.
    A side that has no such place starts every process with a higher epoch instead.
2.  Feed every frame that arrives to `receive`, and publish what `poll` gives. Both take the time; `timer` says when the
    next `poll` is due if nothing else happens.
3.  What `receive` hands out, make durable together with `received.with_done(number)`; only then `confirm`. Store
    `received` before the next `poll` when its epoch has changed.
4.  What `acknowledged` gives may be deleted. When `renumbered`, store the new epoch, and what `take_renumbered` gives
    in place of all messages stored before: until then no chunk leaves.

Losses are found by asking: after a silence of one timeout this side asks what the other one has, and sends again what
the answer lacks. So a slow pipe costs a few short questions, not a second copy of everything in it.
"""

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import NamedTuple

from edge.wire.frames import DATA_OVERHEAD, DEFAULT_LIMITS, U16, U32, Ack, Data, Frame, Limits, WireError, parse
from edge.wire.inbound import Delivered, Inbound
from edge.wire.ledger import Ledger
from edge.wire.outbound import Outbound

__all__ = ["Delivered", "Delivery", "Ledger", "Limits", "Renumbered", "Statistics"]


LEAST_CHUNK_BYTES = 64
"""Of a message of a few KiB a chunk has to be so long that its number of chunks and acks stays reasonable."""


class Renumbered(NamedTuple):
    """A message under its number in a new epoch."""

    number: int
    payload: bytes
    urgent: bool


@dataclass
class Statistics:
    """Counts since the process started."""

    frames_sent: int = 0
    frames_repeated: int = 0
    bytes_sent: int = 0
    frames_received: int = 0
    bytes_received: int = 0
    duplicates: int = 0
    questions: int = 0
    partials_dropped: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """Frames that were not taken, by reason."""

    def to_record(self) -> dict[str, int]:
        """As flat names and counts."""
        record = {name: value for name, value in vars(self).items() if isinstance(value, int)}
        return record | {f"refused_{reason.replace(' ', '_')}": count for reason, count in sorted(self.refused.items())}


@dataclass(frozen=True)
class _Question:
    number: int
    asked_at: float
    sequence: int
    """Chunks sent before it: the answer is the whole truth about those."""


class RoundTrips:
    """Estimate of the round trip and the timeout that follows from it (RFC 6298; repeated frames give no sample)."""

    def __init__(self, shortest: float, longest: float) -> None:
        self._shortest, self._longest = shortest, longest
        self._smoothed: float | None = None
        self._variation = 0.0

    def sample(self, seconds: float) -> None:
        """Learn from one measured round trip."""
        if self._smoothed is None:
            self._smoothed, self._variation = seconds, seconds / 2
            return
        self._variation += (abs(self._smoothed - seconds) - self._variation) / 4
        self._smoothed += (seconds - self._smoothed) / 8

    def timeout(self, tries: int = 0) -> float:
        """Seconds of silence that are too long, doubled for each try in vain."""
        estimate = self._shortest if self._smoothed is None else self._smoothed + 4 * self._variation
        return min(self._longest, max(self._shortest, estimate) * 2.0 ** min(tries, 16))


class Delivery:
    """One side of a conversation. No clock, no thread, no socket: see the rules at the top of this file.

    Args:
        epoch: of this side's stream, from 1. The same as before when its memory survived, else higher.
        instance: random for each process.
        next_number: the next message's number, as stored.
        received: the ledger, as stored.
        limits: caps and times.
    """

    def __init__(
        self,
        *,
        epoch: int,
        instance: int,
        next_number: int = 1,
        received: Ledger | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        if not 1 <= epoch < U32:
            raise WireError(f"epoch {epoch} is not 1 to {U32 - 1}", "numbers")
        self.instance = instance
        self.statistics = Statistics()
        self._limits = limits
        self._out = Outbound(epoch, next_number, limits)
        self._in = Inbound(received or Ledger(), limits)
        self._round_trips = RoundTrips(limits.resend_seconds, limits.resend_limit_seconds)
        self._now = 0.0
        self._polled = False
        self._acknowledged: list[int] = []
        self._ack_at: float | None = 0.0  # the first frame tells the other side that this process is new
        self._unacked_bytes = 0
        self._answer = 0
        self._peer: int | None = None
        self._former_peers: deque[int] = deque(maxlen=8)
        self._in_doubt = False
        self._moved = False
        self._ask_at: float | None = None
        self._questions: dict[int, _Question] = {}
        self._tries = 0
        self._patience = 0
        self._quiet_since = 0.0

    @property
    def epoch(self) -> int:
        """Of this side's stream; rises when the other side remembers more than this one."""
        return self._out.epoch

    @property
    def next_number(self) -> int:
        """The number that `send` will give."""
        return self._out.next_number

    @property
    def received(self) -> Ledger:
        """Which of the other side's messages are done."""
        return self._in.ledger

    @property
    def renumbered(self) -> bool:
        """Whether the stream has moved to a new epoch, and `take_renumbered` is due."""
        return self._moved

    @property
    def unacknowledged(self) -> int:
        """Messages of this side that the other one has not done yet."""
        return len(self._out.messages)

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do: all messages are done, and the other side has been told the same."""
        return not self._out.messages and self._ack_at is None

    def send(self, payload: bytes, *, urgent: bool = False) -> int:
        """Queue a message and return its number. Urgent ones overtake the others.

        Raises:
            WireError: it is longer than the limit.
        """
        number = self._out.next_number
        self._out.add(number, payload, urgent=urgent)
        return number

    def restore(self, number: int, payload: bytes, *, urgent: bool = False) -> None:
        """Queue a message that survived a restart, under its old number; before the first `poll`.

        All of them must be restored: the other side is told that no lower number will come.
        """
        self._out.add(number, payload, urgent=urgent)
        if not self._polled:
            # The other side may hold it already: one question is cheaper than sending everything again.
            self._in_doubt = True
            self._ask_at = self._now

    def give_up(self, number: int) -> None:
        """Forget a message that is not done. It may still have arrived."""
        self._out.drop(number)

    def confirm(self, number: int, epoch: int | None = None) -> None:
        """The effect of a received message is durable, so it may be acknowledged.

        Args:
            number: of the `Delivered`.
            epoch: of the `Delivered`; guards against a number of a stream that is over.
        """
        if self._in.confirm(number, epoch):
            self._acknowledge_by(self._now + self._limits.ack_seconds)

    def acknowledged(self) -> list[int]:
        """Numbers of this side's messages that have become done since last asked: the outbox may forget them."""
        numbers, self._acknowledged = self._acknowledged, []
        return numbers

    def take_renumbered(self) -> list[Renumbered]:
        """All messages that are not done, under their numbers in the new epoch; afterwards chunks leave again."""
        self._moved = False
        return [Renumbered(item.number, item.payload, item.urgent) for item in self._out.messages.values()]

    def fit(self, frame_bytes: int) -> bool:
        """Cut what is not done, and what comes, into frames of so many bytes at most; False where no message fits those.

        What was under way in other pieces is sent again.
        """
        chunk = min(self._limits.chunk_bytes, frame_bytes - DATA_OVERHEAD)
        if chunk < LEAST_CHUNK_BYTES:
            return False
        self._out.cut(chunk)
        return True

    def reconnected(self, now: float) -> None:
        """The pipe is new: what was under way may be lost."""
        self._now = now
        self._tries = self._patience = 0
        self._out.window.restart()
        self._acknowledge_by(now)
        if self._in_doubt or self._out.oldest_flight is not None or self._out.holding:
            self._ask_at = now

    def receive(self, frame: bytes, now: float) -> list[Delivered]:
        """Take in one frame; returns the messages that it completes.

        Raises:
            WireError: it is no frame. It has been counted; life goes on.
        """
        self._now = now
        try:
            item = parse(frame, self._limits)
            self.statistics.frames_received += 1
            self.statistics.bytes_received += len(frame)
            if isinstance(item, Ack):
                self._take_ack(item, now)
                return []
        except WireError as error:
            self.statistics.refused[error.reason] += 1
            raise
        return self._take_data(item, now)

    def poll(self, now: float) -> list[Frame]:
        """Frames to publish now, in this order; the pipe may let those that are not bulk overtake the others."""
        self._now, self._polled = now, True
        frames: list[Frame] = []
        asks = self._ask(now)
        if asks or self._ack_due(now):
            ack = self._in.ack(self.instance, asks=asks, answers=self._answer)
            self._ack_at, self._answer, self._unacked_bytes = None, 0, 0
            # The answer to a question is the truth about what was sent before it, so it has to come behind that.
            frames.append(Frame(ack.pack(), bulk=bool(asks)))
        if not self._in_doubt and not self._moved:
            for due in self._out.due(now):
                self.statistics.frames_repeated += due.repeated
                frames.append(Frame(due.data.pack(), bulk=not due.urgent))
        self.statistics.frames_sent += len(frames)
        self.statistics.bytes_sent += sum(map(len, frames))
        return frames

    def timer(self) -> float | None:
        """When `poll` is due next if nothing arrives and nothing is sent; None when never."""
        times = [time for time in (self._ack_at, self._question_due()) if time is not None]
        return min(times, default=None)

    def _take_data(self, data: Data, now: float) -> list[Delivered]:
        self._acknowledge_by(now + self._limits.ack_seconds)
        self._unacked_bytes += len(data.payload)
        try:
            delivered, repeated = self._in.take(data)
        except WireError as error:
            self.statistics.refused[error.reason] += 1
            return []
        self.statistics.duplicates += repeated
        self.statistics.partials_dropped = self._in.dropped
        return delivered

    def _take_ack(self, ack: Ack, now: float) -> None:
        if ack.epoch > self.epoch:
            self._outrank(ack, now)
        if ack.asks:
            self._answer = ack.asks
            self._acknowledge_by(now)
        if ack.instance not in self._former_peers or ack.answers in self._questions:
            self._meet(ack.instance)
        else:
            ack = Ack(ack.epoch, ack.instance, ack.floor, ack.done)  # what it held, it holds no more
        if ack.epoch != self.epoch:
            ack = Ack(self.epoch, ack.instance, 0, answers=ack.answers)  # it has nothing of this stream
        self._learn(ack, now)

    def _learn(self, ack: Ack, now: float) -> None:
        was_holding, flying = self._out.holding, self._out.in_flight
        done, landed = self._out.take_ack(ack)
        landed += self._out.take_held(ack)
        self._acknowledged += done
        for flight in landed:
            if not flight.repeated:
                self._round_trips.sample(now - flight.sent_at)
        self._out.land(flying - self._out.in_flight, landed, now)
        if done or landed:
            self._patience = 0
            self._quiet_since = self._quiet_since if was_holding else now
            self._out.lose_overtaken(landed)
        question = self._questions.get(ack.answers)
        if question:
            self._round_trips.sample(now - question.asked_at)
            self._out.lose_missing(ack, question.sequence)
            self._questions, self._tries, self._in_doubt, self._quiet_since = {}, 0, False, now

    def _meet(self, instance: int) -> None:
        """Notice a restart of the other side."""
        if instance == self._peer:
            return
        if instance in self._former_peers:
            self._former_peers.remove(instance)
        if self._peer is not None:
            self._former_peers.append(self._peer)
            self._out.forget_held()
            if self._out.oldest_flight is not None:
                self._ask_at = self._now
        self._peer = instance

    def _outrank(self, ack: Ack, now: float) -> None:
        """The other side knows a later stream of ours than we do: begin one that is later still.

        Only on the word of an answer: any other ack may be late, and the messages have been taken since.
        """
        if ack.epoch >= U32 - 1:
            raise WireError(f"epoch {ack.epoch} leaves no later one", "numbers")
        if ack.answers in self._questions:
            self._out.renumber(ack.epoch + 1)
            self._moved = True
            self._acknowledged = []
            self._questions, self._in_doubt, self._ask_at = {}, False, None
        elif not self._questions:
            self._ask_at = now

    def _acknowledge_by(self, time: float) -> None:
        self._ack_at = time if self._ack_at is None else min(self._ack_at, time)

    def _ack_due(self, now: float) -> bool:
        return (self._ack_at is not None and self._ack_at <= now) or self._unacked_bytes >= self._limits.ack_bytes

    def _ask(self, now: float) -> int:
        """The number of the question to ask now, or 0."""
        due = self._question_due()
        if due is None or due > now or self._moved:
            return 0
        if self._questions:
            self._tries += 1
        elif self._out.oldest_flight is None and self._ask_at is None:
            self._patience = min(self._patience + 1, 4)
        self._ask_at = None
        number = (self.instance + self.statistics.questions) % U16 + 1
        self.statistics.questions += 1
        if len(self._questions) >= 8:
            del self._questions[next(iter(self._questions))]
        self._questions[number] = _Question(number, now, self._out.sequence)
        return number

    def _question_due(self) -> float | None:
        oldest = self._out.oldest_flight
        if oldest is None and not self._out.holding and not self._in_doubt:
            self._questions, self._ask_at = {}, None
            return None
        if self._ask_at is not None:
            return self._ask_at
        if self._questions:
            last = max(question.asked_at for question in self._questions.values())
            return last + self._round_trips.timeout(self._tries)
        if oldest is not None:
            return oldest + self._round_trips.timeout()
        return self._quiet_since + self._limits.confirm_seconds * 2.0**self._patience
