"""One direction of a device's link for a relay, sans-I/O: bytes of connections instead of packets.

Above TCP nothing gets lost, it only gets late, so this is what a link's faults look like from there:

* Each piece takes its time at the link's rate, with `HEADER_BYTES` around it, and the delay; those of one connection stay
  in order.
* A piece that is lost or corrupted is sent again, and arrives one round trip later (`RETRANSMIT_SECONDS` at least), and so
  does what comes behind it. TCP would slow down besides: that is missing here.
* During an outage nothing is sent and nothing arrives; what was under way is sent again after it.
* A full queue refuses: the caller asks `room` first, and leaves the bytes with who sends them.
"""

import heapq
import math
from collections import deque
from collections.abc import Hashable
from itertools import count
from random import Random
from typing import Any

from hub.trial.channel import Chance, Counters
from hub.trial.outages import Outages
from hub.trial.scenario import Course, Link

HEADER_BYTES = 52
"""Around each piece: IP 20, TCP 20, time stamps 12."""
PIECE_BYTES = 1500 - HEADER_BYTES
RETRANSMIT_SECONDS = 0.2
"""The shortest wait before Linux sends again what was not acknowledged."""
HELD_BYTES = 4 << 20
"""What may be under way, where neither rate nor queue bounds it."""
TRIES = 20
"""A piece that chance or outages take so many times passes."""


class Stream:
    """One direction of a device's link.

    Args:
        course: what this direction does over time.
        back: what the other one does, for the round trip.
        outages: when the link is gone.
        seed: what chance starts from.
        outage_seed: what the outages' jitter starts from.

    `counters` are of the content: lost pieces were sent again, so what was offered is delivered in the end, unless its
    connection broke (`lost_outage`).
    """

    def __init__(self, course: Course, back: Course, outages: Outages, seed: str, outage_seed: str = "") -> None:
        self.counters = Counters()
        self._course, self._back, self._outages, self._outage_seed = course, back, outages, outage_seed
        self._pace = course.pace()
        self._chance = Chance(seed)
        self._corruption, self._jitter = Random(f"corrupt/{seed}"), Random(f"jitter/{seed}")
        self._leaving: deque[tuple[float, int]] = deque()
        self._queued = self._held = 0
        self._arrived: dict[Hashable, float] = {}
        self._arrivals: list[tuple[float, int, Any, bytes]] = []
        self._numbers = count()

    @property
    def next_due(self) -> float | None:
        """When `due` is to be called next."""
        return self._arrivals[0][0] if self._arrivals and self._arrivals[0][0] < math.inf else None

    @property
    def next_room(self) -> float | None:
        """When to look again, where there was no room."""
        first = self._leaving[0][0] if self._leaving else math.inf
        later = min(first, self._arrivals[0][0] if self._arrivals else math.inf)
        return later if later < math.inf else None

    def rate(self, now: float) -> float | None:
        """Bits a second at this moment; None where nothing limits them."""
        rate = self._pace.rate(now)
        return rate if rate < math.inf else None

    def room(self, now: float) -> bool:
        """Whether the next piece fits into the queue."""
        while self._leaving and self._leaving[0][0] <= now:
            self._queued -= self._leaving.popleft()[1]
        fits = self._queued + PIECE_BYTES + HEADER_BYTES <= self._course.at(now).queue_bytes
        return fits and self._held < HELD_BYTES

    def offer(self, connection: Hashable, piece: bytes, now: float) -> None:
        """Take a piece of at most `PIECE_BYTES`; an empty one is the end of its connection and keeps its place."""
        self.counters.offered += 1
        self.counters.offered_bytes += len(piece)
        left, late = self._sent(len(piece), now)
        size = len(piece) + HEADER_BYTES
        self._leaving.append((left, size))
        self._queued += size
        self._held += len(piece)
        link = self._course.at(left)
        at = left + late + link.delay_seconds + self._jitter.uniform(-1, 1) * link.jitter_seconds
        at = max(at, self._arrived.get(connection, 0.0))
        if at < math.inf and (outage := self._outages.at(at, self._outage_seed)):
            at = outage[1]
        self._arrived[connection] = at
        heapq.heappush(self._arrivals, (at, next(self._numbers), connection, piece))

    def due(self, now: float) -> list[tuple[Any, bytes]]:
        """Connections and the pieces that have arrived for them by now."""
        arrived = []
        while self._arrivals and self._arrivals[0][0] <= now:
            _, _, connection, piece = heapq.heappop(self._arrivals)
            self._held -= len(piece)
            self.counters.delivered += 1
            self.counters.delivered_bytes += len(piece)
            if not piece:
                self._arrived.pop(connection, None)
            arrived.append((connection, piece))
        return arrived

    def forget(self, connection: Hashable) -> None:
        """A connection is broken: what is under way for it is lost."""
        for _, _, other, piece in self._arrivals:
            if other == connection:
                self._held -= len(piece)
                self.counters.lost_outage += 1
                self.counters.lost_bytes += len(piece)
        self._arrivals = [arrival for arrival in self._arrivals if arrival[2] != connection]
        heapq.heapify(self._arrivals)
        self._arrived.pop(connection, None)

    def _sent(self, content: int, at: float) -> tuple[float, float]:
        """When a piece has left that needs no further try, and how late the tries before have made it."""
        late = 0.0
        left = at
        for _ in range(TRIES):
            start, left = self._pace.carry(content + HEADER_BYTES, at)
            outage = self._outages.during(start, left, self._outage_seed) if left < math.inf else None
            if outage:
                at = outage[1]
                continue
            link = self._course.at(left)
            if left == math.inf or not self._lost(link):
                break
            self.counters.lost_loss += 1
            self.counters.lost_bytes += content
            round_trip = link.delay_seconds + self._back.at(left).delay_seconds
            late += max(RETRANSMIT_SECONDS, round_trip)
            at = left
        return left, late

    def _lost(self, link: Link) -> bool:
        taken = self._chance.takes(link)
        return taken or (link.corrupt > 0 and self._corruption.random() < link.corrupt)
