"""A link with some topics led aside: what comes on them is for somebody beside the agent, whose flight recorder does not see it."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edge.gate import Caps
from edge.link import Connected, Disconnected, Event, Link, Message
from edge.tcp_info import SocketBytes

KEPT = 256
"""Most messages that wait; further ones are dropped, and asked for again."""


@dataclass
class SideLink:
    """A link (see `edge.link.Link`) whose messages on `topics` wait for `aside`; connections are seen on both sides.

    Args:
        link: the whole of it.
        topics: that are led aside.
        answers: topic on which whatever comes is the hub's answer.
    """

    link: Link
    topics: frozenset[str]
    answers: str

    def __post_init__(self) -> None:
        self._aside: deque[Event] = deque(maxlen=KEPT)
        self.answered = False
        """Whether the hub has said anything to this process."""

    @property
    def connected(self) -> bool:
        """Whether publishing is possible now."""
        return self.link.connected

    def open(self, timeout: float = 10.0, stopped: Callable[[], bool] = lambda: False) -> None:
        """Connect for the first time.

        Raises:
            LinkError: within `timeout` seconds there was no broker, or it refused.
        """
        self.link.open(timeout, stopped)

    def start(self) -> None:
        """Connect by itself, for ever; return at once."""
        self.link.start()

    def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False, bulk: bool = False) -> None:
        """Hand a payload to the pipe, which may lose it.

        Raises:
            LinkError: there is no connection, or the payload is longer than the broker takes.
        """
        self.link.publish(topic, payload, qos=qos, retain=retain, bulk=bulk)

    def poll(self, timeout: float) -> list[Event]:
        """All events of the other topics since the last call; returns early also where some came that are led aside."""
        events = self.link.poll(timeout)
        if not self.answered:
            self.answered = any(isinstance(event, Message) and event.topic == self.answers for event in events)
        self._aside.extend(event for event in events if self._is_aside(event) or not isinstance(event, Message))
        return [event for event in events if not self._is_aside(event)]

    def aside(self) -> Iterable[Connected | Disconnected | Message]:
        """What has been led aside since the last call."""
        while self._aside:
            yield self._aside.popleft()

    def counters(self) -> SocketBytes:
        """Bytes so far, over all connections and topics."""
        return self.link.counters()

    def limit(self, caps: Caps) -> None:
        """How far the counters may go."""
        self.link.limit(caps)

    def close(self) -> None:
        """Publish the last will, disconnect cleanly, return within two seconds or so."""
        self.link.close()

    def _is_aside(self, event: Event) -> bool:
        return isinstance(event, Message) and event.topic in self.topics
