"""What a link is: the pipe to the broker. It may lose, repeat and reorder; delivery repairs.

`mqtt_link.py` has the one over a network, `memory_link.py` the one without.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from edge.gate import Caps
from edge.tcp_info import SocketBytes

__all__ = ["Connected", "Disconnected", "Event", "Link", "LinkError", "Message", "SocketBytes"]


PACKET_BYTES = 268_435_460
"""The longest packet that MQTT itself allows."""
PUBLISH_OVERHEAD = 16
"""Bytes of a packet around a payload and its topic, at most."""


class LinkError(OSError):
    """The broker cannot be reached, or did not take something; the message names the endpoint."""


@dataclass(frozen=True)
class Connected:
    """The link is up and subscribed."""

    packet_bytes: int = field(default=PACKET_BYTES, compare=False)
    """The longest packet this broker takes."""

    def room(self, topic: str) -> int:
        """The longest payload that can be published on a topic."""
        return self.packet_bytes - len(topic.encode()) - PUBLISH_OVERHEAD


@dataclass(frozen=True)
class Disconnected:
    """The link is down; it comes back by itself."""

    reason: str


@dataclass(frozen=True)
class Message:
    """Something was published on a topic of ours."""

    topic: str
    payload: bytes = field(repr=False)


Event = Connected | Disconnected | Message


class Link(Protocol):
    """One client's connection to a broker."""

    @property
    def connected(self) -> bool:
        """Whether publishing is possible now."""

    def open(self, timeout: float = 10.0, stopped: Callable[[], bool] = lambda: False) -> None:
        """Connect for the first time; afterwards the link reconnects by itself, for ever.

        Args:
            timeout: in seconds.
            stopped: whether to leave off, and return without a connection.

        Raises:
            LinkError: within `timeout` seconds there was no broker, or it refused.
        """

    def start(self) -> None:
        """Instead of `open`, where the broker may come later: return at once, and connect by itself, for ever."""

    def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False, bulk: bool = False) -> None:
        """Hand a payload to the pipe, which may lose it; bulk lets everything else overtake it.

        Raises:
            LinkError: there is no connection, or the payload is longer than the broker takes.
        """

    def poll(self, timeout: float) -> list[Event]:
        """All events since the last call; waits up to `timeout` seconds for the first."""

    def counters(self) -> SocketBytes:
        """Bytes so far, over all connections."""

    def limit(self, caps: Caps) -> None:
        """How far the counters may go from now on; what does not fit is lost, and at the end so is the connection."""

    def close(self) -> None:
        """Publish the last will, disconnect cleanly, return within two seconds or so."""
