"""Links without namespaces: for each device a TCP relay on the loopback, in a process of its own.

A device connects to its relay's port instead of the hub's; the relay connects to the hub's and passes both directions through
the `Stream`s of that device. When a stream's queue is full, its connections are not read, so that TCP holds their senders back.

The kernel's TCP only sees the loopback. What a real link does to it (congestion control, time-outs, what it makes of
duplicates) is missing, and loss is a delay: see `stream.py`. The first bytes of a sender vanish into buffers of the loopback.
"""

import contextlib
import selectors
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hub.trial.channel import seeds
from hub.trial.emulator import Alarms, Desk, Net, Owner, Watched, heading, launch
from hub.trial.scenario import Scenario
from hub.trial.stream import PIECE_BYTES, RETRANSMIT_SECONDS, Stream

if TYPE_CHECKING:
    import subprocess

    from hub.trial.outages import Outages

LOOPBACK = "127.0.0.1"
BREAK_SECONDS = 60.0
"""An outage of this length ends the connections."""

TICK_SECONDS = 0.1
_WAITING_BYTES = 256 << 10
"""What a connection may have waiting for a receiver that does not read, before nothing more is read for it."""
_RECEIVE_BYTES = 64 << 10
_BATCH = 32
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER for no time: closing resets


class RelayNet(Net):
    """Links through relays on the loopback.

    Args:
        scenario: what the links do.
        devices: their names.
        folder: for logs and the timeline.
        break_seconds: an outage of this length ends the connections.

    Raises:
        ConfigError: a device's name cannot be used, or the scenario speaks of one that is not there.
        NetError: the emulator did not start.
    """

    means = "relay"
    congestion = "the loopback's: none that matters"

    def __init__(
        self, scenario: Scenario, devices: Sequence[str], folder: Path, *, break_seconds: float = BREAK_SECONDS
    ) -> None:
        self.how = (
            "emulator on the loopback: a TCP relay for each device; a lost segment comes a round trip later "
            f"({RETRANSMIT_SECONDS:g} s at least), congestion control, duplicates and reordering are not emulated, "
            f"and connections break after an outage of {break_seconds:g} s"
        )
        self._ports: dict[tuple[str, int], int] = {}
        super().__init__("relay", scenario, devices, folder, {"break_seconds": break_seconds, "how": self.how})

    def start(
        self, node: str, command: Sequence[str], log: Path, environ: Mapping[str, str]
    ) -> "subprocess.Popen[bytes]":
        """Start a process; all nodes share the loopback."""
        del node
        return launch(command, log, environ)

    def address(self, node: str) -> str:
        """The loopback."""
        self._known(node)
        return LOOPBACK

    def endpoint(self, device: str, port: int) -> tuple[str, int]:
        """Where the device's relay to the hub's port listens."""
        self._known(device)
        if (device, port) not in self._ports:
            self._ports[device, port] = self.ask({"ask": "listen", "device": device, "port": port})["port"]
        return LOOPBACK, self._ports[device, port]


def main(descriptor: int) -> None:
    """Relay until the owner is gone."""
    owner = Owner(descriptor)
    setup = owner.setup
    with Path(setup["timeline"]).open("w", encoding="utf-8") as file:
        relay = Relay(owner, file)
        owner.answer({})
        relay.run()


@dataclass(eq=False)
class Way:
    """One direction of one connection."""

    source: socket.socket
    sink: socket.socket
    stream: Stream
    waiting: bytearray = field(default_factory=bytearray)
    """Arrived, and not yet taken by the sink."""
    read_out: bool = False
    """The source has no more."""
    arrived: bool = False
    """The end has arrived: after what waits, the sink is told."""
    told: bool = False

    @property
    def wants_more(self) -> bool:
        """Whether there is anything to read, and somewhere to put it but the stream."""
        return not self.read_out and len(self.waiting) < _WAITING_BYTES


@dataclass(eq=False)
class Connection:
    """A device's connection and the one to the hub that belongs to it."""

    device: str
    up: Way
    down: Way

    @property
    def ways(self) -> tuple[Way, Way]:
        """Both directions."""
        return self.up, self.down

    @property
    def over(self) -> bool:
        """Whether both directions have come to their end."""
        return self.up.told and self.down.told


class Relay:
    """The loop that moves bytes."""

    def __init__(self, owner: Owner, file: Any) -> None:
        setup = owner.setup
        scenario: Scenario = setup["scenario"]
        self._break_seconds: float = setup["break_seconds"]
        self._streams: dict[str, tuple[Stream, Stream]] = {}
        self._outages: dict[str, tuple[Outages, str]] = {}
        links: Watched = {}
        for device in setup["devices"]:
            of = scenario.of(device)
            up = Stream(of.up, of.down, of.outages, *seeds(scenario.seed, device, "up"))
            down = Stream(of.down, of.up, of.outages, *seeds(scenario.seed, device, "down"))
            seed = seeds(scenario.seed, device, "")[1]
            self._streams[device], self._outages[device] = (up, down), (of.outages, seed)
            links[device] = ({"up": up, "down": down}, of.outages, seed)
        self._desk = Desk(owner, links, file, heading(setup, setup["how"]))
        self._alarms = Alarms()
        self._selector = selectors.DefaultSelector()
        self._selector.register(owner.fileno(), selectors.EVENT_READ)
        self._connections: list[Connection] = []

    def run(self) -> None:
        """Until the owner is gone or says so."""
        desk = self._desk
        while desk.open:
            now = desk.now()
            self._deliver(now)
            desk.tick(now)
            self._break(now)
            wake = min(self._interests(now), self._alarms.next(), desk.next_second)
            for key, events in self._selector.select(max(0.0, wake - desk.now())):
                if key.data is None:
                    desk.talk({"listen": self._listen})
                elif isinstance(key.data, Connection):
                    self._serve(key.data, key.fileobj, events)
                else:
                    self._accept(key.fileobj, *key.data)

    def _listen(self, question: Mapping[str, Any]) -> dict[str, Any]:
        try:
            listener = socket.create_server((LOOPBACK, 0))
            # Small, and before connections inherit it: what the kernel takes in at once, our rate does not hold back.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        except OSError as error:
            return {"error": f"no port for {question['device']}: {error.strerror}"}
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, (question["device"], question["port"]))
        return {"port": listener.getsockname()[1]}

    def _accept(self, listener: Any, device: str, port: int) -> None:
        try:
            near, _ = listener.accept()
        except OSError:
            return
        far = socket.socket()
        for end in (near, far):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        far.connect_ex((LOOPBACK, port))  # whether it worked, the first read says
        up, down = self._streams[device]
        self._connections.append(Connection(device, Way(near, far, up), Way(far, near, down)))

    def _interests(self, now: float) -> float:
        """Wait for what can go on; returns when those that cannot are to be looked at again."""
        again = now + TICK_SECONDS
        for connection in self._connections:
            wanted = {connection.up.source: 0, connection.down.source: 0}
            for way in connection.ways:
                if way.wants_more and way.stream.room(now):
                    wanted[way.source] |= selectors.EVENT_READ
                elif way.wants_more:
                    again = min(again, way.stream.next_room or again)
                if way.waiting:
                    wanted[way.sink] |= selectors.EVENT_WRITE
            for end, events in wanted.items():
                self._wait_for(end, events, connection)
        return again

    def _wait_for(self, end: socket.socket, events: int, connection: Connection) -> None:
        known = self._selector.get_map().get(end)
        if known is None and events:
            self._selector.register(end, events, connection)
        elif known is not None and not events:
            self._selector.unregister(end)
        elif known is not None and known.events != events:
            self._selector.modify(end, events, connection)

    def _serve(self, connection: Connection, end: Any, events: int) -> None:
        if end.fileno() < 0:  # closed by what came before in this round
            return
        for way in connection.ways:
            if events & selectors.EVENT_READ and way.source is end:
                self._read(way)
            if events & selectors.EVENT_WRITE and way.sink is end:
                self._write(connection, way)

    def _read(self, way: Way) -> None:
        for _ in range(_BATCH):
            now = self._desk.now()
            if not (way.wants_more and way.stream.room(now)):
                break
            try:
                piece = way.source.recv(PIECE_BYTES)
            except BlockingIOError:
                break
            except OSError:
                piece = b""
            way.read_out = not piece
            way.stream.offer(way, piece, now)
        self._alarms.set(way.stream, way.stream.next_due)

    def _deliver(self, now: float) -> None:
        owners = {way: connection for connection in self._connections for way in connection.ways}
        for stream in self._alarms.due(now):
            for way, piece in stream.due(now):
                if way not in owners:  # closed meanwhile
                    continue
                way.waiting += piece
                way.arrived = way.arrived or not piece
                self._write(owners[way], way)
            self._alarms.set(stream, stream.next_due)

    def _write(self, connection: Connection, way: Way) -> None:
        try:
            while way.waiting:
                del way.waiting[: way.sink.send(way.waiting)]
        except BlockingIOError:
            return
        except OSError:  # whoever was there has gone: the other direction will tell
            way.waiting.clear()
            way.read_out = way.arrived = True
        if way.arrived and not way.told:
            way.told = True
            with contextlib.suppress(OSError):
                way.sink.shutdown(socket.SHUT_WR)
        if connection.over:
            self._close(connection)

    def _break(self, now: float) -> None:
        """Reset what has been cut off for too long."""
        for connection in list(self._connections):
            outages, seed = self._outages[connection.device]
            outage = outages.at(now, seed)
            if outage and now - outage[0] >= self._break_seconds:
                for way in connection.ways:
                    way.source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    way.stream.forget(way)
                self._close(connection)

    def _close(self, connection: Connection) -> None:
        if connection not in self._connections:
            return
        self._connections.remove(connection)
        for way in connection.ways:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(way.source)
            way.source.close()
