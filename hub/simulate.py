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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge import bundle, config, device
from edge.accounts import Accounts
from edge.agent import Agent
from edge.bundle import BundleError
from edge.energy import Energy
from edge.link import Event
from edge.memory_link import SOURCE, MemoryBroker, MemoryLink
from edge.meters import Measurement, Temperature
from edge.outbox import MemoryOutbox
from edge.refusal import RefusalError
from edge.sensors import Arrays, SensorError, Wanted
from edge.wire import topics
from hub import demo
from hub.datasets import DeviceData, Federation
from hub.progress import Progress
from hub.server import serve

SHARED = "a simulated device shares its process with the others and the hub"
UNKNOWN = {"peak_rss_bytes": SHARED, "retransmitted": "a memory link has no TCP that could send again"}
"""What a simulated device's report does not say, and why."""
NOTE = (
    f"simulated in one process. Bytes: payloads of the frames, {SOURCE}, without MQTT and TCP. "
    "CPU: the thread's time in the device's turns. Time: hub and devices one after the other, and no network."
)

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
        self._windows: dict[str, tuple[float, float]] = {}

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
        began = time.thread_time()
        self.agent.turn(self.clock.now)
        self.meter.cpu_seconds += time.thread_time() - began


class HubLink(MemoryLink):
    """The hub's link: whenever the hub polls, the devices get their turns."""

    def __init__(
        self,
        clock: Clock,
        boards: Mapping[str, Board],
        broker: MemoryBroker,
        client_id: str,
        will: tuple[str, bytes],
        subscriptions: Sequence[str],
    ) -> None:
        super().__init__(broker, client_id, will=will, subscriptions=subscriptions)
        self._clock = clock
        self._boards = boards

    def poll(self, timeout: float) -> list[Event]:
        """All events since the last call; before that, turns for all devices that have something to do.

        Returns when there is an event; time moves on, up to `timeout` seconds, only when all devices wait too.
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


def run(wish: demo.Wish) -> None:
    """Train a fleet in this process; metrics and configuration are left in the wish's folder, as the demo leaves them.

    Raises:
        What `hub.demo.run` raises.
    """
    demo.run(wish, train)


def train(
    wish: demo.Wish, federation: Federation, everybody: Mapping[str, DeviceData], bundles: Path, shown: Progress
) -> None:
    """Carry a run out; the hub's configuration is as a hub for real devices would need it.

    Raises:
        DemoError: the bundle cannot be read, or does not fit the data or the hub.
    """
    settings = demo.write_config(wish, "embedded", len(everybody), bundles.resolve())
    clock, broker, boards = Clock(), MemoryBroker(), dict[str, Board]()
    try:
        loaded = bundle.load(bundles / "device.bundle")
        serve(
            settings,
            broker.url,
            shown,
            started=lambda: boards.update(
                {
                    name: start(name, data, loaded, settings.fleet.name, broker, clock)
                    for name, data in everybody.items()
                }
            ),
            run_facts={
                "dataset": wish.dataset,
                "windows": wish.windows,
                "provenance": federation.provenance,
                "broker": "none: simulated over a memory link",
                "note": NOTE,
            },
            connect=lambda client_id, will, subscriptions: HubLink(
                clock, boards, broker, client_id, will, subscriptions
            ),
            now=clock.now,
        )
    except (BundleError, RefusalError, SensorError) as error:
        raise demo.DemoError(str(error)) from error


def start(name: str, data: DeviceData, loaded: bundle.Bundle, fleet: str, broker: MemoryBroker, clock: Clock) -> Board:
    """A device that is there: its link is open."""
    told = config.DeviceConfig(
        device=config.IdentityConfig(name),
        broker=config.BrokerConfig(broker.url),
        bundle=config.BundleConfig(Path("device.bundle")),
        data=config.DataConfig(name, only_tested=not len(data.x_train)),
        run=config.RunConfig(fleet, threads=1, window_bytes=1 << 26, once=True),
    )
    manifest = loaded.manifest
    wanted = Wanted(manifest.input.shape, manifest.input.dtype, manifest.classes, not told.data.only_tested)
    arrays: dict[str, Any] = {"x": data.x_train, "y": data.y_train, "test_x": data.x_test, "test_y": data.y_test}
    source = Arrays(name, arrays, name, wanted)
    outbox = MemoryOutbox()
    device.prepare(outbox, loaded)
    instance = secrets.randbits(32)
    will = (topics.status(fleet, name), topics.pack_status(online=False, instance=instance))
    link = DeviceLink(clock, broker, name, will, topics.subscriptions_of_device(fleet, name))
    meter = TurnMeter()
    agent = device.assemble(told, loaded, source, outbox, link, SharedAccounts(outbox, link, meter, manifest), instance)
    link.open()
    return Board(agent, link, meter, clock)
