"""How an activation leaves: without the samples that the hub has, and made to fit what the device may spend.

To fit, its step grows from 0.5 to 2 deviations; then samples are left out; then it is coded more coarsely. What an order may still spend is shared by the activations that it has yet to send, by their samples (`share`); what one leaves
goes to those after it. Sizes are estimated before anything is coded: an entropy and a running correction of it.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

from edge.accounts import Accounts
from edge.known import Known
from edge.mailbox import Mailbox
from edge.purse import Purse
from edge.segment import Result
from edge.sensors import Batch, Source
from edge.wire import messages
from edge.wire.codec import Array, Encoder, step_of
from edge.wire.messages import Activation, Order, Place
from edge.work import Work

TARGET = 0.98
"""Share of the room that is aimed at."""
FINEST = 0.5
"""Deviations: a finer step gains no accuracy."""
COARSE = 2.0
"""Deviations: before the step grows beyond, samples are dropped."""
COARSEST = 4.0
LEAST_SAMPLES = 4
"""With fewer samples in an activation it pays to code them more coarsely first."""
TRIES = 3
"""How often a message is coded for want of a better guess."""
AROUND_BYTES = 48
"""Of an activation beside its smashed data: numbers, shapes and labels, about."""
_HEAD_SAMPLES = 1
"""What all else of a message is worth, in samples."""
_HALVINGS = 6
_CLOSE = 0.02
"""Relative; a number of samples that is as near needs no better guess."""


@runtime_checkable
class Estimating(Protocol):
    """An encoder that can say what a tensor will take."""

    def expect(self, array: Array, deviations: float) -> float:
        """Bytes of the array, with a step of so many of its deviations."""


class Fitted(NamedTuple):
    """An activation that fits."""

    message: Activation
    data: bytes
    """As it is packed."""


class Uploads:
    """Puts the activations of orders into the mailbox.

    Args:
        mailbox: durable mail with the hub.
        purse: what there are means for.
        accounts: where it is counted what went up.
        source: of the batches.
        known: which samples the hub has.
    """

    def __init__(self, mailbox: Mailbox, purse: Purse, accounts: Accounts, source: Source, known: Known) -> None:
        self._mailbox = mailbox
        self._purse = purse
        self._accounts = accounts
        self._source = source
        self._known = known

    def start_over(self) -> None:
        """Another run than before: its hub has no sample."""
        self._known.start_over()

    def hear(self, order: Order) -> None:
        """What an order says of the samples that the hub has."""
        self._known.hear(order)

    def account(self) -> dict[str, Any]:
        """What a report says of means and known samples; only of those that there are."""
        found: dict[str, Any] = {}
        if self._purse.limited:
            found["budget"] = self._purse.account()
        if self._known.used:
            found["known"] = self._known.account()
        return found

    def send(self, work: Work, batch: Batch, result: Result, purpose: str = "train") -> bool:
        """Send an activation, or what there are means for; tells whether anything of it will leave."""
        order = work.order
        message = Activation(
            bundle=order.bundle,
            order=order.order,
            round=order.round,
            step=work.step,
            purpose=purpose,
            smashed=result.up["smashed"],
            labels=batch.y,
            codec=self._mailbox.codec(order.codec),
        )
        if purpose == "evaluate":
            return bool(self._mailbox.send(message))
        self._known.lost(self._mailbox.given_up)
        self._mailbox.given_up.clear()
        fitting = self._fitting(work, self._known.pick(order, message))
        if fitting is None:
            # What follows would not fit either: the hub is told of all of them together.
            work.spent = True
            self._purse.withhold()
            self._mailbox.withhold(Place(order.order, work.step))
            return False
        message, data = fitting
        sent = self._mailbox.send(message, data=data)
        if sent:
            self._accounts.uploaded(message.smashed, sent)
            self._purse.sent(len(sent), len(message.labels))
            self._known.sent(message)
        return bool(sent)

    def _fitting(self, work: Work, message: Activation) -> tuple[Activation, bytes | None] | None:
        """What of it there are means for, packed where it had to be made to fit; None: nothing."""
        room, order = self._purse.room(self._mailbox.unsent_bytes), work.order
        if room is None:
            return message, None
        mine = share(room, work.unsent, self._source.samples, order.batch)
        return None if work.spent else fit(message, mine, order.codec, self._mailbox.codec, whole=work.waits)


def share(room: int, to_come: Iterable[int], samples: int, batch: int) -> int:
    """Of the bytes for all activations of an order that are yet to come, those for the first.

    Args:
        room: bytes.
        to_come: their steps, the first one's first.
        samples: of the device.
        batch: samples of a batch; the last one of an epoch may be short.
    """
    batches = max(1, -(-samples // batch))
    short = samples - (batches - 1) * batch
    worth = [_HEAD_SAMPLES + (short if step % batches == batches - 1 else batch) for step in to_come]
    return room * worth[0] // sum(worth) if worth else room


def fit(
    message: Activation, room: int, codec: str, made: Callable[[str], str | Encoder], *, whole: bool = False
) -> Fitted | None:
    """The activation within so many bytes, packed; None where nothing helps.

    What the hub knows of a batch costs next to nothing, and goes also where no other sample finds room.

    Args:
        message: with all samples; the first ones stay.
        room: bytes.
        codec: the text of a codec; where it has a step, that is chosen between 0.5 and 4 deviations.
        made: what a codec's text stands for.
        whole: whether all samples have to stay, because a gradient for each of them is to come back.
    """
    name, deviations = step_of(codec)
    aim = TARGET * room
    for _ in range(TRIES if len(message.labels) else 0):
        if deviations is None:
            chosen = _Choice(_most_samples(message, made(codec), None, aim, whole=whole), codec)
        else:
            chosen = _choose(message, name, made, min(deviations, FINEST), aim, whole=whole)
        if not chosen.samples:
            break
        found = replace(message.first(chosen.samples), codec=made(chosen.codec))
        data = messages.pack(found)
        if len(data) <= room:
            return Fitted(found, data)
        aim *= TARGET * room / len(data)
    bare = message.first(0)
    served = bare.repeats is not None and len(bare.repeats.known) > 0
    return Fitted(bare, data) if served and len(data := messages.pack(bare)) <= room else None


class _Choice(NamedTuple):
    samples: int
    codec: str


def _choose(
    message: Activation, name: str, made: Callable[[str], str | Encoder], finest: float, aim: float, *, whole: bool
) -> _Choice:
    def coder(deviations: float) -> str | Encoder:
        return made(f"{name}:{deviations:.4g}")

    every = len(message.labels)
    if _size(message, coder(COARSE), COARSE) <= aim:
        step = _bisect(lambda k: _size(message, coder(k), k) <= aim, finest, COARSE)
        return _Choice(every, f"{name}:{step:.4g}")
    if not whole:
        samples = _most_samples(message, coder(COARSE), COARSE, aim, whole=False)
        if samples:
            return _Choice(samples, f"{name}:{COARSE:g}")
    least = every if whole else min(every, LEAST_SAMPLES)
    few = message.first(least)
    if _size(few, coder(COARSEST), COARSEST) > aim:
        return _Choice(0, name)
    step = _bisect(lambda k: _size(few, coder(k), k) <= aim, COARSE, COARSEST)
    return _Choice(least, f"{name}:{step:.4g}")


def _most_samples(
    message: Activation, coder: str | Encoder, deviations: float | None, aim: float, *, whole: bool
) -> int:
    """The most samples within the aim; 0 where those are too few."""
    every = len(message.labels)
    least = every if whole else min(every, LEAST_SAMPLES)
    low, high = 0, every + 1
    count = every
    for _ in range(2 * _HALVINGS):
        size = _size(message.first(count), coder, deviations)
        if size <= aim:
            low = count
        else:
            high = count
        if high - low <= 1 or (low == count and size >= (1 - _CLOSE) * aim):
            break
        count = min(high - 1, max(low + 1, int(count * aim / size)))
    return low if low >= least else 0


def _bisect(fits: Callable[[float], bool], low: float, high: float) -> float:
    """The smallest of the numbers that fit, about, where `high` does."""
    if fits(low):
        return low
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def _size(message: Activation, coder: str | Encoder, deviations: float | None) -> float:
    """Bytes of the message, packed: estimated where the encoder can, else counted."""
    if deviations is not None and isinstance(coder, Estimating):
        return AROUND_BYTES + len(message.labels) / 2 + coder.expect(message.smashed, deviations)
    return len(messages.pack(replace(message, codec=coder)))
