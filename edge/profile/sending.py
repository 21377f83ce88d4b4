"""How long a message takes to the broker: it goes there in pieces, and behind it a mark that comes back."""

import secrets
import struct
from typing import Self

from edge.config import DeviceConfig
from edge.device import link_to
from edge.link import Disconnected, LinkError, Message
from edge.wire import topics

PATIENCE_SECONDS = 60.0
"""Longest wait for a mark: a message on a slow link takes its time."""
POLLS = 600


class Sender:
    """A connection of its own to the device's broker.

    A broker takes what a client publishes in its order, so that a mark which has come back tells that all before it has arrived:
    seconds are those of the message's way up and of the small mark's way back.

    Raises:
        LinkError: no broker answers, or it refuses.
    """

    def __init__(self, config: DeviceConfig, timeout: float = 10.0) -> None:
        fleet, name = config.run.fleet, config.device.name
        self._up, self._mark = (topics.profile(fleet, name, leaf) for leaf in ("up", "mark"))
        self._chunk_bytes = config.run.chunk_bytes
        self._number = 0
        self._link = link_to(config.broker, f"{name}-profile-{secrets.token_hex(4)}", subscriptions=[self._mark])
        self._link.open(timeout)

    @property
    def sent_bytes(self) -> int:
        """Of the socket so far, with estimated headers of IP and TCP."""
        return self._link.counters().wire_sent

    def send(self, message: bytes) -> None:
        """Return once the broker has the whole of a message.

        Raises:
            LinkError: the connection broke, or nothing came back for a minute.
        """
        for start in range(0, len(message), self._chunk_bytes):
            self._link.publish(self._up, message[start : start + self._chunk_bytes], bulk=True)
        self._number += 1
        mark = struct.pack("<Q", self._number)
        self._link.publish(self._mark, mark, bulk=True)  # bulk, too: nothing else waits its turn behind the message
        for _ in range(POLLS):
            for event in self._link.poll(PATIENCE_SECONDS / POLLS):
                if isinstance(event, Message) and event.payload == mark:
                    return
                if isinstance(event, Disconnected):
                    raise LinkError(f"the connection to {self._link.url} broke: {event.reason}")
        raise LinkError(f"{self._link.url} had not taken {len(message)} bytes within {PATIENCE_SECONDS:g} s")

    def close(self) -> None:
        """Disconnect."""
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
