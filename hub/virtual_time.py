"""A simulated run in which the network takes time that is only counted: how long would this fleet have needed on that link?

Steps take the processor time that they take here (measured, times a factor for slower boards); frames take what the stated
link makes of their bytes (modelled: one queue up and one down for each device, a rate and a delay, nothing lost). The run
goes from event to event in the order of their times, so an hour on a slow link costs a second. The hub's own link is not
the bottleneck: it sends to all devices at once.

Bytes are those of the frames; what MQTT, TCP and IP put around each is `OVERHEAD_BYTES` more, an estimate.
"""

import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

from edge.link import Event, Message
from edge.memory_link import MemoryBroker, MemoryLink
from hub import demo
from hub.simulate import Board, Fleet, train

OVERHEAD_BYTES = 60
"""Bytes around a frame: IP and TCP headers 40, MQTT 5 header and topic about 20 (estimated)."""


@dataclass(frozen=True)
class Network:
    """The link of each device, and how fast its board is."""

    up: float
    """Bytes a second from the device."""
    down: float
    """Bytes a second to the device."""
    delay: float
    """Seconds one way."""
    slower: float = 1.0
    """How many times longer a step takes on the board than here."""


@dataclass
class Wire:
    """The two queues of one device's link."""

    up_free: float = 0.0
    down_free: float = 0.0


@dataclass
class Timeline:
    """Frames under way, sorted by their arrival."""

    network: Network
    wires: dict[str, Wire] = field(default_factory=dict)
    arrivals: list[tuple[float, int, MemoryLink, Message]] = field(default_factory=list)
    _numbers: Any = field(default_factory=count)

    def send_up(self, device: str, hub: MemoryLink, message: Message, at: float) -> None:
        """A device's frame leaves for the hub."""
        wire = self.wires.setdefault(device, Wire())
        wire.up_free = max(wire.up_free, at) + _size(message) / self.network.up
        self._arrives(wire.up_free, hub, message)

    def send_down(self, device: str, link: MemoryLink, message: Message, at: float) -> None:
        """The hub's frame leaves for a device."""
        wire = self.wires.setdefault(device, Wire())
        wire.down_free = max(wire.down_free, at) + _size(message) / self.network.down
        self._arrives(wire.down_free, link, message)

    def _arrives(self, sent: float, link: MemoryLink, message: Message) -> None:
        heapq.heappush(self.arrivals, (sent + self.network.delay, next(self._numbers), link, message))


def _size(message: Message) -> int:
    return len(message.payload) + OVERHEAD_BYTES


@dataclass
class TimedBroker(MemoryBroker):
    """Keeps what is published until whoever published it has worked off its turn."""

    outgoing: list[Message] = field(default_factory=list)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Retained words pass at once: who is there is not what is measured."""
        if retain:
            super().publish(topic, payload, retain=retain)
        else:
            self.outgoing.append(Message(topic, payload))

    def take(self) -> list[Message]:
        """What was published since the last call."""
        taken, self.outgoing = self.outgoing, []
        return taken


class TimedBoard(Board):
    """A device that is busy for as long as its turns take."""

    busy_until: float = 0.0

    def ready(self) -> float:
        """When its next turn may begin."""
        wanted = self.clock.seconds if self.link.waiting else self.link.awaits
        return max(self.busy_until, wanted)


class TimedHubLink(MemoryLink):
    """The hub's link: its polls move the time on to whatever happens next."""

    def __init__(
        self, fleet: "TimedFleet", client_id: str, will: tuple[str, bytes] | None, subscriptions: Sequence[str]
    ) -> None:
        super().__init__(fleet.broker, client_id, will=will, subscriptions=subscriptions)
        self._fleet = fleet
        self._left = time.thread_time()
        self._free = 0.0

    def poll(self, timeout: float) -> list[Event]:
        """All events since the last call; returns when there is one, or `timeout` seconds later by the counted time."""
        fleet, clock = self._fleet, self._fleet.clock
        # The hub was busy since the last call; what it published leaves now.
        self._free = max(self._free, clock.seconds) + (time.thread_time() - self._left)
        fleet.flush(self, None, self._free)
        until = self._free + max(0.0, timeout)
        while not self.waiting or clock.seconds < self._free:
            if not fleet.advance(self._free if self.waiting else until):
                clock.seconds = self._free if self.waiting else max(until, clock.seconds)
                break
        self._free = max(self._free, clock.seconds)
        events = super().poll(0.0)
        self._left = time.thread_time()
        return events


@dataclass(kw_only=True)
class TimedFleet(Fleet):
    """A fleet whose steps and frames take their time."""

    network: Network = field(default_factory=lambda: Network(1e6, 1e6, 0.01))
    broker: TimedBroker = field(default_factory=TimedBroker)
    note: str = "simulated in one process: what steps and frames took on the stated link was counted, not waited for"

    def __post_init__(self) -> None:
        self.timeline = Timeline(self.network)
        self._hub: TimedHubLink | None = None

    def hub_link(self, client_id: str, will: tuple[str, bytes] | None, subscriptions: Sequence[str]) -> Any:
        """The link of the hub that they train with."""
        self._hub = TimedHubLink(self, client_id, will, subscriptions)
        return self._hub

    def board(self, *parts: Any) -> Board:
        """A device of this fleet."""
        return TimedBoard(*parts)

    def flush(self, hub: MemoryLink, board: Board | None, at: float) -> None:
        """Put what one side has published on the wire."""
        for message in self.broker.take():
            if board is not None:
                self.timeline.send_up(board.link.client_id, hub, message, at)
                continue
            for name, other in self.boards.items():
                if other.link.wants(message.topic):
                    self.timeline.send_down(name, other.link, message, at)

    def advance(self, until: float) -> bool:
        """Let the next thing happen, unless it is later than `until`; tell whether it did."""
        boards: list[tuple[float, str, TimedBoard]] = [
            (board.ready(), name, board) for name, board in self.boards.items() if isinstance(board, TimedBoard)
        ]
        turn = min(boards, default=None, key=lambda item: item[:2])
        arrival = self.timeline.arrivals[0][0] if self.timeline.arrivals else None
        if arrival is not None and arrival <= until and (turn is None or arrival <= turn[0]):
            at, _, link, message = heapq.heappop(self.timeline.arrivals)
            self.clock.seconds = max(self.clock.seconds, at)
            link.hear(message)
            return True
        if turn is None or turn[0] > until or self._hub is None:
            return False
        self._take_turn(turn[2], turn[0], self._hub)
        return True

    def _take_turn(self, board: TimedBoard, at: float, hub: MemoryLink) -> None:
        self.clock.seconds = max(self.clock.seconds, at)
        before = board.meter.cpu_seconds
        board.turn()
        board.busy_until = self.clock.seconds + (board.meter.cpu_seconds - before) * self.network.slower
        self.flush(hub, board, board.busy_until)


def run(wish: demo.Wish, network: Network) -> None:
    """Train a fleet in this process on a stated link; `training_seconds` of the rounds are the counted time.

    Raises:
        What `hub.demo.run` raises.
    """
    demo.run(wish, partial(train, make=partial(TimedFleet, network=network)))
