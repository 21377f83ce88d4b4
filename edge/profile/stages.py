"""The stages of a step, each set up as the agent has it, and one repetition of it."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean

import numpy as np

from edge.bundle import Bundle
from edge.config import DeviceConfig
from edge.memory import Room
from edge.outbox import Outbox, Unsent, holder
from edge.profile.sending import Sender
from edge.segment import Segment, Sessions
from edge.sensors import Batch, Source
from edge.shuffle import device_number
from edge.wire import messages
from edge.wire.budget import of_bytes
from edge.wire.coder import Coder, stream_codec
from edge.wire.messages import Activation

DISTINCT = 4
"""Batches that take turns: one alone would sit in the processor's caches as no batch of a run does."""


class UnmeasurableError(Exception):
    """A stage that cannot be measured here; the text is the reason."""


@dataclass(frozen=True)
class Ready:
    """A stage that is set up."""

    once: Callable[[], object]
    """One repetition."""
    codec: str = ""
    size: Callable[[], int | None] = field(default=lambda: None)
    """Bytes that come out of a repetition, asked after some."""


class Bench:
    """What the stages are made of; each part once, when it is wanted first.

    Args:
        bundle: what is run.
        source: samples.
        config: of the device; None without one.
        batch: samples of a step.
        threads: of a step.
        codecs: for the stages behind the activation.
        folder: for what they write.
        room: the memory there is: what does not fit is refused before it is loaded.
        send_beyond_budget: whether to send where there is a budget of bytes.
    """

    def __init__(
        self,
        bundle: Bundle,
        source: Source,
        config: DeviceConfig | None,
        *,
        batch: int,
        threads: int,
        codecs: tuple[str, ...],
        folder: Path,
        room: Room | None = None,
        send_beyond_budget: bool = False,
    ) -> None:
        self.bundle = bundle
        self.source = source
        self.config = config
        self.batch = batch
        self.threads = threads
        self.codecs = codecs
        self.folder = folder
        self.room = room
        self.send_beyond_budget = send_beyond_budget

    @cached_property
    def batches(self) -> list[Batch]:
        """The ones that take turns."""
        return [self.source.batch(0, step, self.batch, 0) for step in range(DISTINCT)]

    @cached_property
    def activations(self) -> list[Activation]:
        """What the initial lower segment makes of them."""
        segment = Segment(self.bundle, threads=self.threads, room=self.room)
        rng, tag = np.random.default_rng(0), bytes.fromhex(self.bundle.id[:8])
        kind = "forward" if "forward" in segment.kinds else "local"
        return [
            Activation(
                bundle=tag,
                order=1,
                round=0,
                step=step,
                purpose="train",
                smashed=segment.run(kind, _inputs(batch), {}, rng).up["smashed"],
                labels=batch.y,
            )
            for step, batch in enumerate(self.batches)
        ]

    def graph(self, kind: str, sessions: Sessions | None = None) -> Callable[[], object]:
        """One step of a graph, on the next of the batches.

        Raises:
            UnmeasurableError: the bundle has no such graph.
        """
        segment = Segment(self.bundle, threads=self.threads, sessions=sessions, room=self.room)
        if kind not in segment.kinds:
            raise UnmeasurableError(f"the bundle has no {kind!r} graph")
        rng = np.random.default_rng(device_number("profile"))
        shape = self.bundle.manifest.smashed.shape
        # As large as a mean loss makes them; zeros would spare the processor what it does otherwise.
        gradients = [rng.standard_normal((len(batch.x), *shape), np.float32) / len(batch.x) for batch in self.batches]
        turns = itertools.cycle(list(zip(self.batches, gradients, strict=True)))

        def once() -> None:
            batch, gradient = next(turns)
            inputs = {**_inputs(batch), "down.gradient": gradient} if kind == "backward" else _inputs(batch)
            segment.run(kind, inputs, {}, rng, up=kind == "forward")

        return once

    def coded(self, codec: str) -> list[bytes]:
        """The activations as messages of a stream that is under way: the hub has the table."""
        return [message() for message in _messages(self, codec)]


def _inputs(batch: Batch) -> dict[str, np.ndarray]:
    return {"batch.x": batch.x, "batch.y": batch.y}


def _sensor(bench: Bench, _down: ExitStack) -> Iterator[Ready]:
    """A batch of the device's own samples."""
    steps = itertools.count()
    yield Ready(lambda: bench.source.batch(0, next(steps), bench.batch, 0))


def _graph(kind: str) -> Callable[[Bench, ExitStack], Iterator[Ready]]:
    def prepare(bench: Bench, _down: ExitStack) -> Iterator[Ready]:
        """A step of one graph."""
        yield Ready(bench.graph(kind))

    return prepare


def _encode(bench: Bench, _down: ExitStack) -> Iterator[Ready]:
    """The activation coded and packed, with its labels, as the outbox wants it."""
    for codec in bench.codecs:
        makers = _messages(bench, codec)
        turns = itertools.cycle(makers)
        yield Ready(partial(_make_next, turns), codec, partial(_mean_size, makers))


def _make_next(turns: Iterator[Callable[[], bytes]]) -> bytes:
    return next(turns)()


def _mean_size(makers: Sequence[Callable[[], bytes]]) -> int:
    return round(fmean(len(make()) for make in makers))


def _outbox(bench: Bench, down: ExitStack) -> Iterator[Ready]:
    """The transaction of a step that uploads: state, position, message; what the hub has acknowledged goes."""
    outbox = Outbox.open(bench.folder / "outbox")
    down.callback(outbox.close)
    segment = Segment(bench.bundle, threads=bench.threads)
    numbers = itertools.count(1)
    for codec in bench.codecs:
        coded = bench.coded(codec)
        turns = itertools.cycle(coded)

        def once(turns: Iterator[bytes] = turns) -> None:
            number = next(numbers)
            outbox.put_state(segment.snapshot())
            outbox.put_fact("position", number)
            outbox.put_unsent(Unsent(number, next(turns), urgent=False))
            outbox.put_fact("stream", {"epoch": 1, "next": number + 1})
            outbox.drop_unsent([number - 1])
            outbox.commit()

        yield Ready(once, codec, partial(round, fmean(map(len, coded))))


def _send(bench: Bench, down: ExitStack) -> Iterator[Ready]:
    """The message to the broker."""
    if bench.config is None:
        raise UnmeasurableError("no configuration names a broker: give --config")
    if of_bytes(bench.config.budget.amounts()) and not bench.send_beyond_budget:
        raise UnmeasurableError(
            "the device has a budget of bytes, and what a profile sends is not counted in it: --send-beyond-budget"
        )
    if bench.config.broker.certificate is not None and (agent := holder(bench.config.device.state_directory)):
        raise UnmeasurableError(
            f"the agent of this device runs as process {agent}, and the broker lets one connection in for its certificate: "
            "stop the agent to measure this"
        )
    sender = down.enter_context(Sender(bench.config))
    for codec in bench.codecs:
        coded = bench.coded(codec)
        turns = itertools.cycle(coded)

        def once(turns: Iterator[bytes] = turns) -> None:
            sender.send(next(turns))

        yield Ready(once, codec, partial(_socket_bytes, sender, coded))


def _socket_bytes(sender: Sender, coded: Sequence[bytes]) -> int:
    """What one of these messages comes to on the socket, the mark behind it included."""
    before = sender.sent_bytes
    for message in coded:
        sender.send(message)
    return round((sender.sent_bytes - before) / len(coded))


STAGES: Mapping[str, Callable[[Bench, ExitStack], Iterator[Ready]]] = {
    "sensor": _sensor,
    "forward": _graph("forward"),
    "local": _graph("local"),
    "backward": _graph("backward"),
    "encode": _encode,
    "outbox": _outbox,
    "send": _send,
}
"""Of `edge.wire.profile.STAGES`: each yields what is to be measured, one after the other; what they open is closed behind them."""


def _messages(bench: Bench, codec: str) -> list[Callable[[], bytes]]:
    """Packs each activation, with one coder for all, whose table the hub has been told of."""
    coder = Coder()
    encoder = stream_codec(codec, coder)

    def pack(activation: Activation) -> bytes:
        return messages.pack(replace(activation, codec=encoder))

    for activation in bench.activations:
        pack(activation)
        if coder.sent is not None and coder.sent.table is not None:
            coder.known(coder.sent.table)
    return [partial(pack, activation) for activation in bench.activations]
