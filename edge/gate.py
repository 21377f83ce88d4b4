"""Stands before the socket: nothing leaves that would exceed a cap, also if all that is under way has to be sent once more."""

import threading
from dataclasses import dataclass

from edge.tcp_info import HEADER_BYTES, SocketBytes

__all__ = ["Caps", "Gate"]

SEGMENT_BYTES = 1200
"""Payload of a TCP segment, at least; for estimating headers."""
MARGIN_BYTES = 1024
"""Kept for what nobody decides: acknowledgements of what arrives, pings, the end of the connection."""
BUFFER_BYTES, WINDOW_BYTES = 4 << 10, 10 << 10
"""Where what arrives is limited: receive buffer of the connection, and the most bytes that may be under way to here with it: Linux
doubles the buffer, and offers nearly all of that; headers and the probes of a closed window come on top."""
_LEAST_READ = 64
BURST_SECONDS = 2.0
"""How much of the rate a rest may save up."""


@dataclass(frozen=True)
class Caps:
    """How far the link's counters may go, IP and TCP headers included; None: any distance."""

    up: int | None = None
    down: int | None = None
    rate: float | None = None
    """Bytes a second that bulk may leave at, on the average."""
    unknown: bool = False
    """Whether there may be caps that are not known yet: nothing is limited, but little may be under way to here."""

    @property
    def any(self) -> bool:
        """Whether there is anything to watch."""
        return self.up is not None or self.down is not None


class Gate:
    """Decides for one link. Its counters are arguments."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._caps = Caps()
        self._tokens = 0.0
        self._filled_at: float | None = None

    @property
    def bounded(self) -> bool:
        """Whether there is a cap on what leaves: without one nobody has to look at counters for each packet."""
        return self._caps.up is not None

    def set(self, caps: Caps) -> None:
        """Other caps from now on."""
        with self._lock:
            self._caps = caps

    def fits(self, counted: SocketBytes, size: int) -> bool:
        """Whether a packet of so many bytes may be given to the kernel."""
        up = self._caps.up
        if up is None:
            return True
        cost = size + HEADER_BYTES * (2 + size // SEGMENT_BYTES)
        again = counted.waiting + HEADER_BYTES * (1 + counted.waiting // SEGMENT_BYTES)
        return counted.wire_sent + again + cost + MARGIN_BYTES <= up

    def overdrawn(self, counted: SocketBytes) -> bool:
        """Whether the connection has to be given up now: what is under way could not be sent once more, or too much arrives."""
        caps = self._caps
        over = caps.up is not None and counted.wire_sent + counted.waiting + MARGIN_BYTES // 2 > caps.up
        return over or (caps.down is not None and counted.wire_received + self.window > caps.down)

    def readable(self, counted: SocketBytes) -> int | None:
        """Bytes that may be read before this is asked again; None: any number.

        Reading is what lets the other side send more: by this a cap holds however late the thread is that watches it.
        """
        down = self._caps.down
        if down is None:
            return None
        rest = down - counted.wire_received - self.window
        return 0 if rest <= 0 else max(_LEAST_READ, rest // 4)  # of small packets more than half are headers

    def carries(self, counted: SocketBytes, least: int) -> bool:
        """Whether so many bytes each way are left for a new connection."""
        caps = self._caps
        return (caps.up is None or counted.wire_sent + least + MARGIN_BYTES <= caps.up) and (
            caps.down is None or counted.wire_received + least + self.window <= caps.down
        )

    @property
    def window(self) -> int:
        """Bytes that may be under way to here, so that they cannot exceed what may arrive; 0 where nothing limits them."""
        if self._caps.down is None:
            return 0
        return WINDOW_BYTES

    def wait(self, size: int, now: float) -> float:
        """Seconds until bulk of so many bytes may leave; where that is 0, they are taken off."""
        with self._lock:
            rate = self._caps.rate
            if rate is None:
                return 0.0
            burst = max(rate * BURST_SECONDS, float(size))
            passed = 0.0 if self._filled_at is None else now - self._filled_at
            self._tokens = burst if self._filled_at is None else min(burst, self._tokens + passed * rate)
            self._filled_at = now
            if self._tokens >= size:
                self._tokens -= size
                return 0.0
            return (size - self._tokens) / rate
