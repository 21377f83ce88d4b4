"""What it costs a device to make a step durable: the agent's own calls on a real disk, on request."""

import itertools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.answering import serve, told
from edge import bundle
from edge.mailbox import Mailbox
from edge.memory_link import MemoryBroker, MemoryLink
from edge.outbox import Outbox, Unsent
from edge.segment import Segment
from edge.wire import messages, topics
from edge.wire.messages import Activation
from hub.devices import Arrived, Devices

BYTES = 65536
FLEET = "bench"
COUNTERS = ("sent", "received", "elements", "flops", "restarts")
KEPT = 8
"""Messages that lie in the outbox while the next is put."""


def puts(folder: str, count: int) -> dict[str, Any]:
    """Commits of one 64 KiB message put and one dropped; milliseconds each."""
    outbox = Outbox.open(Path(folder))
    message, times = np.random.default_rng(0).bytes(BYTES), []
    for number in range(1, count + 1):
        begun = time.perf_counter()
        outbox.put_unsent(Unsent(number, message, urgent=False))
        outbox.put_fact("stream", {"epoch": 1, "next": number + 1})
        outbox.put_fact("position", number)
        outbox.drop_unsent([number - KEPT])
        outbox.commit()
        times.append(1e3 * (time.perf_counter() - begun))
    outbox.close()
    files = sum(path.stat().st_size for path in Path(folder).iterdir())
    return {"commit_ms": times[KEPT:], "files_bytes": files}


def disk(folder: str, count: int, size: int) -> dict[str, Any]:
    """The least so many durable bytes can cost here: appended to a file, then fsync; milliseconds each."""
    path, message, times = Path(folder) / "plain", np.random.default_rng(0).bytes(size), []
    with path.open("wb", buffering=0) as file:
        for _ in range(count):
            begun = time.perf_counter()
            file.write(message)
            os.fsync(file.fileno())
            times.append(1e3 * (time.perf_counter() - begun))
    path.unlink()
    return {"fsync_ms": times}


def steps(folder: str, device: str, batches: str, count: int, codec: str, every: int = 8) -> dict[str, Any]:
    """Local training steps, by the clock: the step alone, and what making it durable adds.

    Args:
        folder: of the outbox.
        device: the bundle.
        batches: its batches.
        count: how many steps.
        codec: of what each step uploads; empty: none does, and `every` steps share a commit.
        every: the agent's `checkpoint_steps`.
    """
    loaded = bundle.load(Path(device))
    segment = Segment(loaded, threads=1)
    outbox = Outbox.open(Path(folder))
    broker = MemoryBroker()
    mailbox = Mailbox("pi", FLEET, _link(broker, "pi", topics.subscriptions_of_device(FLEET, "pi")), outbox, instance=1)
    hub = Devices(_link(broker, "hub", topics.subscriptions_of_hub(FLEET)), FLEET, loaded.id, generation=1, instance=2)
    with np.load(batches) as file:
        pairs = itertools.cycle(list(zip(file["x"], file["y"], strict=True)))
    step_ms, durable_ms, size = [], [], 0
    tag = bytes.fromhex(loaded.id[:8])
    with _coding() as coding:
        for step in range(count):
            x, y = next(pairs)
            begun = time.perf_counter()
            rng = np.random.default_rng([0, 0, step])
            result = segment.run("local", {"batch.x": x, "batch.y": y}, {}, rng, up=bool(codec))
            message = Activation(tag, 1, 1, step, "train", result.up["smashed"], y, codec) if codec else None
            ran = time.perf_counter()
            coding.clear()
            if message:
                size = len(mailbox.send(message))
            if codec or (step + 1) % every == 0:
                outbox.put_fact("position", step + 1)
                outbox.put_fact("totals", dict.fromkeys(COUNTERS, step))
                outbox.put_state(segment.snapshot())
            mailbox.commit()
            coded = sum(coding)  # by `send`, but the message is coded for the hub, and not to be durable
            step_ms.append(1e3 * (ran - begun + coded))
            durable_ms.append(1e3 * (time.perf_counter() - ran - coded))
            _talk(mailbox, hub, float(step))
    outbox.close()
    state = sum(array.nbytes for array in segment.snapshot().values())
    return {"step_ms": step_ms[KEPT:], "durable_ms": durable_ms[KEPT:], "message_bytes": size, "state_bytes": state}


@contextmanager
def _coding() -> Iterator[list[float]]:
    """The seconds of every message that is coded meanwhile."""
    seconds: list[float] = []
    pack = messages.pack

    def timed(message: messages.Message) -> bytes:
        begun = time.perf_counter()
        data = pack(message)
        seconds.append(time.perf_counter() - begun)
        return data

    messages.pack = timed
    try:
        yield seconds
    finally:
        messages.pack = pack


def _link(broker: MemoryBroker, name: str, subscriptions: tuple[str, ...]) -> MemoryLink:
    link = MemoryLink(broker, name, subscriptions=subscriptions)
    link.open()
    return link


def _talk(mailbox: Mailbox, hub: Devices, now: float) -> None:
    """Let the hub acknowledge what has left: outside of what is timed, as on a board another process does it."""
    for late in (0.0, 0.4):
        mailbox.publish(now + late)
        for happening in hub.poll(0.0, now + late):
            if isinstance(happening, Arrived):
                hub.done(happening)
        for arrived in mailbox.poll(0.0, now + late):
            mailbox.done(arrived)


if __name__ == "__main__":
    told()
    serve({"puts": puts, "disk": disk, "steps": steps})
