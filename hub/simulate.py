"""A run in one process: the hub and every device in one thread, over a memory link, with the real graphs and frames.

Everything but the network is what a board runs: its agent, graphs, mailbox and accounts, put together by `edge.device`.
Devices get their turns whenever the hub polls its link, and time passes only while nobody has anything to do, so that no
patience costs any: waiting for a deadline takes as long as saying that it is over. The same seed gives the same run.

What one process cannot know of a device is missing, with the reason. A simulation survives no power cut: its devices keep
everything in memory, and it cannot be resumed.

This is the one file of the hub that sees the inside of a device, since it puts devices together.
"""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edge import bundle, config, device
from edge.accounts import Accounts
from edge.agent import Agent
from edge.bundle import BundleError
from edge.energy import Energy
from edge.link import Event
from edge.memory_link import MemoryBroker, MemoryLink
from edge.meters import Measurement, Temperature, Used
from edge.outbox import MemoryOutbox
from edge.purse import Purse
from edge.refusal import RefusalError
from edge.segment import Segment, Sessions
from edge.sensors import Arrays, SensorError, Wanted
from edge.wire import topics
from edge.wire.manifest import Manifest
from hub import demo
from hub.datasets import DeviceData, Federation
from hub.progress import Progress
from hub.server import serve

SHARED = "a simulated device shares its process with the others and the hub"
UNKNOWN = {"peak_rss_bytes": SHARED, "retransmitted": "a memory link has no TCP that could send again"}
"""What a simulated device's report does not say, and why."""
NOTE = "simulated in one process: hub and devices took turns, and no network took time"

WINDOW_BYTES = 64 << 20
"""Most bytes of a simulated device under way at once."""
CHUNK_BYTES = 256 << 10
"""Largest piece of a message: there is no slow link on which an urgent message would wait behind it."""

_INSTANT = 1e-6
"""Seconds; the least that time moves by, so that no rounding makes it stand still."""


class Clock:
    """Time that passes only while everybody waits."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        """Seconds since the simulation began."""
        return self.seconds

    def after(self, timeout: float) -> float:
        """The time in so many seconds: now, or later."""
        return self.seconds + max(timeout, _INSTANT) if timeout > 0 else self.seconds


class DeviceLink(MemoryLink):
    """A device's link, which notes until when its device waits."""

    def __init__(
        self, clock: Clock, broker: MemoryBroker, client_id: str, will: tuple[str, bytes], subscriptions: Sequence[str]
    ) -> None:
        super().__init__(broker, client_id, will=will, subscriptions=subscriptions)
        self.awaits = 0.0
        """When its device wants to be woken."""
        self._clock = clock

    def poll(self, timeout: float) -> list[Event]:
        """All events since the last call."""
        events = super().poll(timeout)
        # Who has read something may have more to do right after it.
        self.awaits = self._clock.seconds if events else self._clock.after(timeout)
        return events


class TurnMeter:
    """What a device costs in a process that it shares: processor time of its own turns, and nothing else."""

    def __init__(self) -> None:
        self.cpu_seconds = 0.0
        self.missing_energy = SHARED
        self._turn: float | None = None
        """The thread's processor time when the turn began; None between two turns."""
        self._windows: dict[str, tuple[float, float]] = {}

    @contextmanager
    def turn(self) -> Iterator[None]:
        """The device has its turn."""
        self._turn = time.thread_time()
        yield
        self.cpu_seconds, self._turn = self.used().cpu_seconds, None

    def used(self, *, joules: bool = False) -> Used:  # noqa: ARG002  there are none
        """Processor time of its turns so far, the one that it has now included."""
        running = 0.0 if self._turn is None else time.thread_time() - self._turn
        return Used(self.cpu_seconds + running, reason=SHARED)

    def begin(self, window: str) -> None:
        """Opens a window."""
        self._windows[window] = (time.monotonic(), self.cpu_seconds)

    def end(self, window: str) -> Measurement:
        """Closes it; the memory in what is returned is nobody's, and `SharedAccounts` takes it out."""
        began, cpu_seconds = self._windows.pop(window)
        return Measurement(
            window=window,
            seconds=time.monotonic() - began,
            cpu_seconds=self.cpu_seconds - cpu_seconds,
            peak_rss_bytes=0,
            peak_rss_source=SHARED,
            rss_bytes=0,
            uss_bytes=None,
            temperature=Temperature(reason=SHARED),
            energy=Energy(reason=SHARED),
        )


class SharedAccounts(Accounts):
    """A device's accounts without what a shared process cannot tell apart."""

    def close(self, kind: str) -> dict[str, Any]:
        """The totals as an order ends; what is missing is named under `missing`, with the reason."""
        return {**super().close(kind), **dict.fromkeys(UNKNOWN), "missing": dict(UNKNOWN)}


@dataclass
class Board:
    """A simulated device."""

    agent: Agent
    link: DeviceLink
    meter: TurnMeter
    clock: Clock

    @property
    def due(self) -> bool:
        """Whether it has something to do now."""
        return self.link.waiting or self.link.awaits <= self.clock.seconds

    def turn(self) -> None:
        """One turn of its loop."""
        with self.meter.turn():
            self.agent.turn(self.clock.now)


class HubLink(MemoryLink):
    """The hub's link: whenever the hub polls, the devices get their turns."""

    def __init__(
        self,
        clock: Clock,
        boards: Mapping[str, Board],
        broker: MemoryBroker,
        client_id: str,
        will: tuple[str, bytes] | None,
        subscriptions: Sequence[str],
    ) -> None:
        super().__init__(broker, client_id, will=will, subscriptions=subscriptions)
        self._clock = clock
        self._boards = boards

    def poll(self, timeout: float) -> list[Event]:
        """All events since the last call; before that, turns for all devices that have something to do.

        Returns when there is an event. Time moves on, up to `timeout` seconds, only while all devices wait too.
        """
        until = self._clock.after(timeout)
        while True:
            due = [board for board in self._boards.values() if board.due]
            for board in due:
                board.turn()
            if self.waiting or (self._clock.seconds >= until and (timeout <= 0 or not due)):
                return super().poll(0.0)
            if not due:
                self._clock.seconds = min([until, *(board.link.awaits for board in self._boards.values())])


@dataclass
class Fleet:
    """The devices of a run, and what they share."""

    name: str
    data: Mapping[str, DeviceData]
    loaded: bundle.Bundle
    clock: Clock = field(default_factory=Clock)
    broker: MemoryBroker = field(default_factory=MemoryBroker)
    boards: dict[str, Board] = field(default_factory=dict)
    sessions: Sessions = field(default_factory=dict)
    note: str = NOTE
    """What the report says of the run."""

    def hub_link(self, client_id: str, will: tuple[str, bytes] | None, subscriptions: Sequence[str]) -> HubLink:
        """The link of the hub that they train with."""
        return HubLink(self.clock, self.boards, self.broker, client_id, will, subscriptions)

    def start(self) -> None:
        """Let all devices come; they are there with the hub's next poll."""
        self.boards |= {name: self._board(name, data) for name, data in self.data.items()}

    def _board(self, name: str, data: DeviceData) -> Board:
        told = _told(self.name, name, data)
        instance = secrets.randbits(32)
        outbox = MemoryOutbox()
        device.prepare(outbox, self.loaded)
        will = (topics.status(self.name, name), topics.pack_status(online=False, instance=instance))
        link = DeviceLink(self.clock, self.broker, name, will, topics.subscriptions_of_device(self.name, name))
        meter = TurnMeter()
        purse = Purse(outbox, link, {}, gauge=meter, wall=self.clock.now, now=self.clock.now)
        agent = device.assemble(
            told,
            self.loaded,
            Segment(self.loaded, threads=told.run.threads, sessions=self.sessions),
            _source(name, data, self.loaded.manifest),
            outbox,
            link,
            SharedAccounts(outbox, link, meter, self.loaded.manifest),
            purse,
            instance,
        )
        link.open()
        return self.board(agent, link, meter, self.clock)

    def board(self, agent: Agent, link: DeviceLink, meter: TurnMeter, clock: Clock) -> Board:
        """A device of this fleet."""
        return Board(agent, link, meter, clock)


def run(wish: demo.Wish) -> None:
    """Train a fleet in this process; metrics and configuration are left in the wish's folder, as the demo leaves them.

    Raises:
        What `hub.demo.run` raises.
    """
    demo.run(wish, train)


def train(
    wish: demo.Wish,
    federation: Federation,
    everybody: Mapping[str, DeviceData],
    bundles: Path,
    shown: Progress,
    make: Callable[..., Fleet] = Fleet,
) -> None:
    """Carry a run out, with a fleet that `make` makes. The hub's configuration is left as a hub for real devices would need it.

    Raises:
        DemoError: the bundle cannot be read, or does not fit the data or the hub.
    """
    settings = demo.write_config(wish, "embedded", len(everybody), bundles.resolve())
    settings = replace(settings, broker=replace(settings.broker, chunk_bytes=CHUNK_BYTES))
    try:
        fleet = make(settings.fleet.name, everybody, bundle.load(bundles / "device.bundle"))
        serve(
            settings,
            fleet.broker.url,
            shown,
            started=fleet.start,
            run_facts={
                "dataset": wish.dataset,
                "windows": wish.windows,
                "provenance": federation.provenance,
                "broker": "none: simulated over a memory link",
                "note": fleet.note,
            },
            connect=fleet.hub_link,
            durable=False,
            now=fleet.clock.now,
        )
    except (BundleError, RefusalError, SensorError) as error:
        raise demo.DemoError(str(error)) from error


def _told(fleet: str, name: str, data: DeviceData) -> config.DeviceConfig:
    """What would stand in the device's file. No slow link has to be spared, so window and chunks are as large as they may be."""
    return config.DeviceConfig(
        device=config.IdentityConfig(name),
        broker=config.BrokerConfig("memory://"),
        bundle=config.BundleConfig(Path("device.bundle")),
        data=config.DataConfig(name, only_tested=not len(data.x_train)),
        run=config.RunConfig(fleet, chunk_bytes=CHUNK_BYTES, window_bytes=WINDOW_BYTES, once=True),
    )


def _source(name: str, data: DeviceData, manifest: Manifest) -> Arrays:
    """The samples as they are, without a file in between."""
    training = bool(len(data.x_train))
    wanted = Wanted(manifest.input.shape, manifest.input.dtype, manifest.classes, training)
    arrays: dict[str, Any] = {"x": data.x_train, "y": data.y_train, "test_x": data.x_test, "test_y": data.y_test}
    return Arrays(name, arrays, name, wanted)
