"""A broker and its clients in one process, without network, thread or clock: for tests, simulations and a first look.

It loses, repeats and reorders what patterns say, so that a run with bad luck is the same run every time.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle

from edge.gate import Caps, Gate
from edge.link import Connected, Disconnected, Event, LinkError, Message
from edge.tcp_info import SocketBytes

__all__ = ["SOURCE", "MemoryBroker", "MemoryLink"]

SOURCE = "counted on the memory link"
"""What a count of its bytes says of itself: payloads alone, without MQTT and TCP, which are not there."""


@dataclass
class _Late:
    remaining: int
    message: Message


@dataclass
class MemoryBroker:
    """Hands messages from link to link, in the order of publishing but for its patterns.

    A pattern has one entry a message, and starts again at its end: `loss=(0, 0, 1)` loses every third. Retained
    messages and wills are spared.
    """

    loss: Sequence[int] = (0,)
    """1: the message is lost."""
    repeats: Sequence[int] = (0,)
    """How many copies more arrive."""
    delays: Sequence[int] = (0,)
    """How many later messages overtake it."""
    maximum_packet_bytes: int = 1 << 20
    url: str = "memory://"
    retained: dict[str, bytes] = field(default_factory=dict)
    links: list["MemoryLink"] = field(default_factory=list)
    lost: int = 0
    _late: list[_Late] = field(default_factory=list)
    _routes: dict[str, list["MemoryLink"]] = field(default_factory=dict)
    """Who hears a topic, as long as nobody comes or goes."""

    def __post_init__(self) -> None:
        self._fate: Iterator[tuple[int, int, int]] = zip(
            cycle(self.loss), cycle(self.repeats), cycle(self.delays), strict=False
        )
        self._fair = not any((*self.loss, *self.repeats, *self.delays))

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Let one message meet its fate."""
        message = Message(topic, payload)
        if retain:
            self.retained[topic] = payload
            self._deliver(message)
            return
        if self._fair:
            self._deliver(message)
            return
        lost, repeats, delay = next(self._fate)
        overtaking = [late for late in self._late if late.remaining <= 1]
        self._late = [_Late(late.remaining - 1, late.message) for late in self._late if late.remaining > 1]
        if lost:
            self.lost += 1
        elif delay:
            self._late.append(_Late(delay, message))
        else:
            for _ in range(1 + repeats):
                self._deliver(message)
        for late in overtaking:
            self._deliver(late.message)

    def join(self, link: "MemoryLink") -> None:
        """A link comes."""
        self.links.append(link)
        self._routes.clear()

    def leave(self, link: "MemoryLink") -> None:
        """A link goes."""
        self.links.remove(link)
        self._routes.clear()

    def wipe(self) -> None:
        """Lose every connection and all that was retained or late, as a killed broker does."""
        self.retained.clear()
        self._late.clear()
        for link in list(self.links):
            link.break_off("the broker is gone")
        self.retained.clear()

    def _deliver(self, message: Message) -> None:
        hearers = self._routes.get(message.topic)
        if hearers is None:
            hearers = self._routes[message.topic] = [link for link in self.links if link.wants(message.topic)]
        for link in hearers:
            link.hear(message)


class MemoryLink:
    """A link to a `MemoryBroker`; see `edge.link.Link`."""

    def __init__(
        self,
        broker: MemoryBroker,
        client_id: str = "client",
        *,
        will: tuple[str, bytes] | None = None,
        subscriptions: Sequence[str] = (),
    ) -> None:
        self.client_id = client_id
        self._broker = broker
        self._will = will
        self._filters = [topic.split("/") for topic in subscriptions]
        self._events: list[Event] = []
        self._sent = 0
        self._received = 0
        self._gate = Gate()

    @property
    def connected(self) -> bool:
        """Whether publishing is possible now."""
        return self in self._broker.links

    @property
    def waiting(self) -> bool:
        """Whether `poll` would have something."""
        return bool(self._events)

    def open(self, timeout: float = 10.0, stopped: Callable[[], bool] = lambda: False) -> None:  # noqa: ARG002  a memory answers at once
        """Connect, also after `break_off`; a link with the same client id is taken over."""
        for other in [link for link in self._broker.links if link.client_id == self.client_id]:
            other.break_off("session taken over: another client has connected with this client id")
        self._broker.join(self)
        self._events.append(Connected(self._broker.maximum_packet_bytes))
        for topic, payload in self._broker.retained.items():
            if self.wants(topic):
                self.hear(Message(topic, payload))

    def start(self) -> None:
        """The same as `open`: a memory is always there."""
        self.open()

    def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False, bulk: bool = False) -> None:  # noqa: ARG002
        """Hand a payload to the broker.

        Raises:
            LinkError: there is no connection, or the payload is longer than the broker takes.
        """
        most = self._broker.maximum_packet_bytes
        if len(payload) > most:
            raise LinkError(f"{len(payload)} bytes on {topic}: the broker takes {most} a packet")
        if not self.connected:
            raise LinkError(f"not connected to {self._broker.url}")
        if self._gate.bounded and not self._gate.fits(self.counters(), len(payload)):
            return  # lost, as on a link whose budget is spent
        self._sent += len(payload)
        self._broker.publish(topic, bytes(payload), retain=retain)

    def poll(self, timeout: float) -> list[Event]:  # noqa: ARG002  nothing can arrive while we would wait
        """All events since the last call."""
        events, self._events = self._events, []
        return events

    def counters(self) -> SocketBytes:
        """Bytes of payloads so far."""
        return SocketBytes(self._sent, self._received, 0, SOURCE)

    def limit(self, caps: Caps) -> None:
        """How far the counters may go; a memory has no rate."""
        self._gate.set(caps)

    def close(self) -> None:
        """Publish the last will and leave."""
        self.break_off("closed")

    def break_off(self, reason: str = "connection lost") -> None:
        """Lose the connection; the broker publishes the last will. `open` comes back."""
        if not self.connected:
            return
        self._broker.leave(self)
        self._events.append(Disconnected(reason))
        if self._will is not None:
            self._broker.publish(*self._will, retain=True)

    def wants(self, topic: str) -> bool:
        """Whether this is a topic of ours."""
        levels = topic.split("/")
        return any(_matches(wanted, levels) for wanted in self._filters)

    def hear(self, message: Message) -> None:
        """Take in a message on a topic of ours."""
        self._received += len(message.payload)
        self._events.append(message)


def _matches(wanted: list[str], levels: list[str]) -> bool:
    if wanted[-1] == "#":
        wanted, levels = wanted[:-1], levels[: len(wanted) - 1]
    return len(wanted) == len(levels) and all(name in ("+", level) for name, level in zip(wanted, levels, strict=True))
