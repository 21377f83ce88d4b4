"""What the hub already has of this device's samples, so that it is not sent again.

The hub says with an order how little an activation may change to count as known (`skip_below`), and for how long
(`refresh_rounds`). This file remembers of every sample the activation that was sent last, and with which upload; a batch
goes up without the samples that have changed less, with their numbers instead. What it remembers becomes durable in the
transaction of the message that it speaks of, so a step that is done again after a power cut makes the same message.

Change is the norm of (now - then) as a share of that of then, of the activation before the codec. What a codec loses it loses
of every sample, sent again or not: with `entropy:1.5` that is 0.2 to 0.4 of the norm on the wearers, and measured against what
the hub decoded a sample that has not changed at all would seem to have.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.outbox import Outbox
from edge.sensors import Source
from edge.wire.messages import Activation, Order, Place
from edge.wire.repeats import Repeats

KNOWN_BYTES = 4 << 20
"""Most bytes of activations that are remembered, where nothing else is said; in memory and on the disk."""

_FACT = "known"
_LARGEST = 60_000.0
"""Values beyond are scaled down to fit a float16."""
_LEAST = 1e-30
"""Of a norm that one divides by."""


@dataclass(frozen=True)
class LastSent:
    """When a sample was sent last."""

    upload: int
    round: int
    order: int
    step: int
    scale: float
    """What the remembered values are multiplied by."""


class Known:
    """A device's memory of what it has sent.

    Args:
        source: numbers the samples, or says that they have no numbers.
        outbox: keeps it.
        limit: bytes of remembered activations, two a value; the oldest make way, and are sent again. 0: nothing is skipped.
    """

    def __init__(self, source: Source, outbox: Outbox, limit: int = KNOWN_BYTES) -> None:
        self._source, self._outbox, self._limit = source, outbox, limit
        self._checked = False
        """Whether the samples are known to be those that were sent."""
        self._told: dict[str, int] = outbox.fact(_FACT, {})
        rows = sorted(outbox.known(), key=lambda row: (row[1][0], row[1][5]))
        self._sent = {number: LastSent(*head[:5]) for number, head, _ in rows}
        """By number, the oldest upload first."""
        self.tensors = {number: np.frombuffer(array, "<f2") for number, _, array in rows}
        """What was sent, by number; under this name the flight recorder may leave it out."""
        self._bytes = sum(array.nbytes for array in self.tensors.values())

    @property
    def used(self) -> bool:
        """Whether an order of this run has asked for it."""
        return bool(self._told)

    def hear(self, order: Order) -> None:
        """Forget what the hub says that it has no longer."""
        if order.forget is None:
            self._drop(list(self._sent))
        elif order.forget:
            self._drop(order.forget)

    def start_over(self) -> None:
        """Another run: its hub has nothing."""
        self._drop(list(self._sent))
        self._checked = False
        if self._told:
            self._told = {}
            self._outbox.put_fact(_FACT, {})

    def lost(self, places: Iterable[Place]) -> None:
        """Messages were given up: what they carried is not with the hub."""
        gone = set(places)
        if gone:
            self._drop([number for number, sent in self._sent.items() if Place(sent.order, sent.step) in gone])

    def pick(self, order: Order, message: Activation) -> Activation:
        """The activation without the samples that the hub has, which are named instead; as it is where nothing is to be skipped."""
        if not order.skip_below or not self._limit:
            return message
        numbers = self._source.numbers(order.round, message.step, order.batch, order.seed)
        if numbers is None or len(numbers) != len(message.labels):
            return message
        self._check_source()
        kept = [self._sent.get(int(number)) for number in numbers]
        skip = np.array(
            [
                sent is not None
                and order.round - sent.round < order.refresh_rounds
                and self._change(int(number), sent, now) < order.skip_below
                for number, sent, now in zip(numbers, kept, message.smashed, strict=True)
            ],
            bool,
        )
        uploads = np.array([sent.upload for sent, known in zip(kept, skip, strict=True) if known and sent], np.int64)
        repeats = Repeats(self._told["upload"] + 1, numbers[~skip], numbers[skip], uploads)
        return replace(message, smashed=message.smashed[~skip], labels=message.labels[~skip], repeats=repeats)

    def sent(self, message: Activation) -> None:
        """The message is on its way: the hub will have its samples."""
        if message.repeats is None:
            return
        numbers, told = message.repeats.numbers, self._told
        counts = {"sent": len(numbers), "skipped": len(message.repeats.known)}
        self._told = {**told, **{name: told[name] + count for name, count in counts.items()}}
        self._told["upload"] = message.repeats.upload
        self._outbox.put_fact(_FACT, self._told)
        for row, number in enumerate(numbers.tolist()):
            self._keep(number, row, message)
        while self._bytes > self._limit:
            self._drop([next(iter(self._sent))])

    def account(self) -> dict[str, int]:
        """For a report: samples of the run that were sent, and skipped, in batches that might have skipped some."""
        return {name: self._told[name] for name in ("sent", "skipped")}

    def _keep(self, number: int, row: int, message: Activation) -> None:
        now = np.asarray(message.smashed[row], np.float32).reshape(-1)
        scale = max(1.0, float(np.abs(now).max(initial=0.0)) / _LARGEST)
        upload = message.repeats.upload if message.repeats else 0
        self._bytes -= self.tensors.pop(number, np.empty(0)).nbytes
        self._sent.pop(number, None)  # to the end of the line
        self.tensors[number] = kept = (now / np.float32(scale)).astype("<f2")
        self._sent[number] = LastSent(upload, message.round, message.order, message.step, scale)
        self._bytes += kept.nbytes
        head = [upload, message.round, message.order, message.step, scale, row]
        self._outbox.put_known(number, head, kept.tobytes())

    def _change(self, number: int, sent: LastSent, now: npt.NDArray[Any]) -> float:
        then = self.tensors[number].astype(np.float32) * np.float32(sent.scale)
        if then.size != now.size:
            return float("inf")
        return float(np.linalg.norm(now.reshape(-1) - then) / max(float(np.linalg.norm(then)), _LEAST))

    def _check_source(self) -> None:
        """Forget everything where numbers mean other samples than they did."""
        if self._checked:
            return
        self._checked = True
        data = self._source.fingerprint()
        if self._told.get("data", data) != data:
            self._drop(list(self._sent))
        # Counts begin anywhere, so that uploads of a device that lost its memory are none of those before.
        first = int(str(self._outbox.fact("outbox") or "0")[:7], 16)
        self._told = {"upload": first, "sent": 0, "skipped": 0, **self._told, "data": data}

    def _drop(self, numbers: Sequence[int]) -> None:
        gone = [number for number in numbers if self._sent.pop(number, None)]
        for number in gone:
            self._bytes -= self.tensors.pop(number).nbytes
        self._outbox.drop_known(gone)
