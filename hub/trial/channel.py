"""One direction of a link, sans-I/O: packets are offered, and come out when they are due.

    offer    what does not fit into the queue is lost (queue); the rest waits for its turn
    leave    one after the other at the link's rate; what leaves during an outage, or is lost by chance, ends here
    arrive   the delay later, in order unless reordering is asked for; what would arrive during an outage is lost, too

The caller gives the time, in seconds from the start of the trial and never going back, and calls `due` at `next_due`.
What happens is a function of the seed and of what was offered when.
"""

import heapq
import math
from collections import deque
from dataclasses import dataclass
from itertools import count
from random import Random

from hub.trial.outages import Outages
from hub.trial.scenario import Course, Link


@dataclass
class Counters:
    """What has happened to the packets of one direction so far; bytes are those of whole IP packets.

    Once nothing is under way, offered + duplicated = delivered + lost.
    """

    offered: int = 0
    offered_bytes: int = 0
    delivered: int = 0
    delivered_bytes: int = 0
    lost_loss: int = 0
    """By chance."""
    lost_queue: int = 0
    """Because the queue was full."""
    lost_outage: int = 0
    lost_bytes: int = 0
    corrupted: int = 0
    duplicated: int = 0
    reordered: int = 0

    @property
    def lost(self) -> int:
        """Packets lost for whatever cause."""
        return self.lost_loss + self.lost_queue + self.lost_outage


class Chance:
    """Decides what is lost: each packet on its own, or in bursts (Gilbert-Elliott).

    E. O. Elliott, Estimates of error rates for codes on burst-noise channels, Bell System Technical Journal, 1963. The
    state may change before each packet; in the long run the share p_enter / (p_enter + p_leave) meets the bad state.
    """

    def __init__(self, seed: str) -> None:
        # One source for each question: a change of one parameter leaves the answers to the others alone.
        self._changes, self._losses = Random(f"state/{seed}"), Random(f"loss/{seed}")
        self._bad = False

    def takes(self, link: Link) -> bool:
        """Whether the next packet is lost."""
        if link.p_enter:
            self._bad = self._changes.random() < (1 - link.p_leave if self._bad else link.p_enter)
        elif self._bad:
            self._bad = False  # the schedule has put an end to bursts
        share = link.loss_bad if self._bad else link.loss
        return share > 0 and self._losses.random() < share


class Channel:
    """One direction of a device's link.

    Args:
        course: what the direction does over time.
        outages: when it is gone.
        seed: what chance starts from, another one for each direction of each device.
        outage_seed: what the outages' jitter starts from, the same for both directions.
    """

    def __init__(self, course: Course, outages: Outages, seed: str, outage_seed: str = "") -> None:
        self.counters = Counters()
        self._course, self._outages, self._outage_seed = course, outages, outage_seed
        self._pace = course.pace()
        self._chance = Chance(seed)
        self._dice = {name: Random(f"{name}/{seed}") for name in ("jitter", "corrupt", "duplicate", "reorder", "bit")}
        self._leaving: deque[tuple[float, int]] = deque()
        self._queued = 0
        self._last_arrival = 0.0
        # (when, number, packet or None, its bytes, the counter it ends in)
        self._ends: list[tuple[float, int, bytes | None, int, str]] = []
        self._numbers = count()

    @property
    def next_due(self) -> float | None:
        """When `due` is to be called next; None while nothing is under way or nothing will ever arrive."""
        return self._ends[0][0] if self._ends and self._ends[0][0] < math.inf else None

    def rate(self, now: float) -> float | None:
        """Bits a second at this moment; None where nothing limits them."""
        rate = self._pace.rate(now)
        return rate if rate < math.inf else None

    def offer(self, packet: bytes, now: float) -> None:
        """Take a packet; `due` has it, once it arrives."""
        size = len(packet)
        self.counters.offered += 1
        self.counters.offered_bytes += size
        if self._waiting(now) + size > self._course.at(now).queue_bytes:
            self._lose("lost_queue", size)
            return
        start, left = self._pace.carry(size, now)
        self._leaving.append((left, size))
        self._queued += size
        link = self._course.at(left)
        # In any case, so that an outage does not change whom chance takes afterwards.
        taken = self._chance.takes(link)
        if self._outages.during(start, left, self._outage_seed):
            self._end(left, None, size, "lost_outage")
        elif taken:
            self._end(left, None, size, "lost_loss")
        else:
            self._arrive(packet, left, link)

    def due(self, now: float) -> list[bytes]:
        """The packets that have arrived by now, in the order of their arrival."""
        arrived = []
        while self._ends and self._ends[0][0] <= now:
            _, _, packet, size, counter = heapq.heappop(self._ends)
            if packet is None:
                self._lose(counter, size)
                continue
            self.counters.delivered += 1
            self.counters.delivered_bytes += size
            arrived.append(packet)
        return arrived

    def _waiting(self, now: float) -> int:
        while self._leaving and self._leaving[0][0] <= now:
            self._queued -= self._leaving.popleft()[1]
        return self._queued

    def _arrive(self, packet: bytes, left: float, link: Link) -> None:
        at = left + link.delay_seconds + self._drawn("jitter") * link.jitter_seconds
        if self._happens("reorder", link.reorder):
            at = left
            self.counters.reordered += 1
        else:
            at = self._last_arrival = max(at, self._last_arrival)
        if at < math.inf and self._outages.at(at, self._outage_seed):
            self._end(at, None, len(packet), "lost_outage")
            return
        if self._happens("corrupt", link.corrupt):
            packet = self._flipped(packet)
            self.counters.corrupted += 1
        self._end(at, packet, len(packet), "delivered")
        if self._happens("duplicate", link.duplicate):
            self._end(at, packet, len(packet), "delivered")
            self.counters.duplicated += 1

    def _end(self, at: float, packet: bytes | None, size: int, counter: str) -> None:
        heapq.heappush(self._ends, (at, next(self._numbers), packet, size, counter))

    def _lose(self, counter: str, size: int) -> None:
        setattr(self.counters, counter, getattr(self.counters, counter) + 1)
        self.counters.lost_bytes += size

    def _happens(self, name: str, share: float) -> bool:
        return share > 0 and self._dice[name].random() < share

    def _drawn(self, name: str) -> float:
        return self._dice[name].uniform(-1, 1)

    def _flipped(self, packet: bytes) -> bytes:
        bit = self._dice["bit"].randrange(len(packet) * 8)
        changed = bytearray(packet)
        changed[bit // 8] ^= 1 << bit % 8
        return bytes(changed)


def seeds(seed: int, device: str, direction: str) -> tuple[str, str]:
    """What chance starts from in one direction of a device's link, and what its outages' jitter starts from."""
    return f"{seed}/{device}/{direction}", f"{seed}/{device}"
