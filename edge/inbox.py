"""Events between a link's network thread and the loop."""

import threading
from collections import deque

from edge.link import Event, Message


class Inbox:
    """Events between the network thread and the loop; bounded in bytes of payload, frames beyond that are dropped."""

    def __init__(self, limit: int) -> None:
        self.dropped = 0
        self._limit = limit
        self._events: deque[Event] = deque()
        self._bytes = 0
        self._condition = threading.Condition()

    def put(self, event: Event) -> None:
        """Add an event; a message that does not fit is dropped and counted."""
        size = len(event.payload) if isinstance(event, Message) else 0
        with self._condition:
            if size and self._bytes + size > self._limit:
                self.dropped += 1
                return
            self._bytes += size
            self._events.append(event)
            self._condition.notify()

    def take(self, timeout: float) -> list[Event]:
        """All events, waiting for the first."""
        with self._condition:
            if not self._events and timeout > 0:
                self._condition.wait(timeout)
            events = list(self._events)
            self._events.clear()
            self._bytes = 0
            return events
