"""What a device has spent of its budget and what is left, on the disk before it is spent.

The link may go no further than a ceiling that is committed, a little ahead of what has been spent: a device that loses
power counts up to that ceiling, which may be too much and is never too little.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from edge.gate import Caps
from edge.link import Link
from edge.outbox import Outbox
from edge.wire.budget import NAMES, WAYS, Spent, left

SPENT = ("spent", "hub_budget", "withheld")
MEANS = "means"
"""Names of what it puts into the outbox: what was spent, and what it had for an activation."""
RESERVE = 0.1
"""Share of each amount that activations leave for control messages, acknowledgements and weights."""
AHEAD = (2_048, 65_536)
"""Least and most bytes that a ceiling lies ahead; between them an eighth of what is left."""
OVERHEAD = 1.08
"""Bytes on the wire of a byte in the outbox: frames, MQTT, TCP and IP around it."""


class Purse:
    """One device's means.

    Args:
        outbox: keeps what was spent.
        link: counts it, and is told how far it may go.
        own: amounts of the device's own configuration; the hub's hold where it says nothing.
        wall: seconds since 1970, as far as the board knows.
        now: seconds that pass while it runs.
    """

    def __init__(
        self,
        outbox: Outbox,
        link: Link,
        own: Mapping[str, float],
        *,
        wall: Callable[[], float] = time.time,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._outbox, self._link, self._own = outbox, link, dict(own)
        self._wall, self._now = wall, now
        self._given: dict[str, float] = outbox.fact("hub_budget", {})
        self._spent = Spent.of(outbox.fact("spent", {}))
        self._before = {way: getattr(self._spent, way) for way in WAYS}
        self._ceiling = dict(self._before)
        self._looked_at = now()
        self._order_began = self._spent.up
        self._allowance: int | None = None
        self._withheld = int(outbox.fact("withheld", 0))

    @property
    def amounts(self) -> dict[str, float]:
        """The limits that hold."""
        return {**self._given, **self._own}

    @property
    def limited(self) -> bool:
        """Whether there are any."""
        return bool(self._given or self._own)

    def hear(self, given: Mapping[str, float]) -> None:
        """The hub's amounts, for what the device's own configuration leaves open."""
        given = {name: amount for name, amount in given.items() if name in NAMES and amount > 0}
        if given != self._given:
            self._given = given
            self._outbox.put_fact("hub_budget", given)
            self._keep()

    def begin(self, period: str) -> None:
        """A run or a round begins."""
        self.look()
        self._spent.begin(period)
        if period == "run":
            self._withheld = 0
        self._keep()

    def open(self, allowance: int | None) -> None:
        """An order begins, whose uploads may take so many bytes on the wire."""
        self.look()
        self._order_began, self._allowance = self._spent.up, allowance

    def look(self) -> None:
        """Take in what has been spent since, and what time it is; a ceiling that is near is raised with the next commit."""
        if not self.limited:
            return
        counted, now = self._link.counters(), self._now()
        self._spent.up = self._before["up"] + counted.wire_sent
        self._spent.down = self._before["down"] + counted.wire_received
        self._spent.look_at_clock(self._wall(), now - self._looked_at)
        self._looked_at = now
        if any(self._ceiling[way] - getattr(self._spent, way) < self._ahead(way) // 2 for way in WAYS):
            self._keep()

    def left(self, way: str) -> int | None:
        """Bytes that may still go this way; None where nothing limits them."""
        return left(self.amounts, self._spent, way)

    def room(self, unsent: int) -> int | None:
        """Bytes that another activation may have in the outbox, where so many lie there unsent; None where nothing limits it."""
        found = [left({name: (1 - RESERVE) * amount for name, amount in self.amounts.items()}, self._spent, "up")]
        if self._allowance is not None:
            found.append(max(0, self._allowance - (self._spent.up - self._order_began)))
        given = [value for value in found if value is not None]
        if not given:
            return None
        room = int(min(given) / OVERHEAD) - unsent
        self._outbox.put_fact(MEANS, room)  # so that the flight recorder knows what was decided upon
        return room

    def apply(self) -> None:
        """What was put is on the disk: the link may go up to it."""
        if not self.limited:
            return
        caps = {}
        for way in WAYS:
            rest = self.left(way)
            reach = self._ceiling[way] - self._before[way]
            caps[way] = None if rest is None else min(reach, getattr(self._spent, way) - self._before[way] + rest)
        self._link.limit(Caps(caps["up"], caps["down"], self.amounts.get("rate")))

    def withhold(self) -> None:
        """An activation was not sent, for want of means."""
        self._withheld += 1
        self._outbox.put_fact("withheld", self._withheld)

    def account(self) -> dict[str, Any]:
        """For a report: what was spent in the periods in hand, what is left, and how it was counted."""
        self.look()
        record: dict[str, Any] = {"withheld": self._withheld}
        for way in WAYS:
            record[f"{way}_spent"] = self._spent.in_period(way, "run")
            record[f"{way}_left"] = self.left(way)
        return record

    def close(self) -> None:
        """The link is closed: keep exactly what was spent, without the distance to the ceiling."""
        if self.limited:
            self.look()
            self._ceiling = {way: getattr(self._spent, way) for way in WAYS}
            self._outbox.put_fact("spent", self._spent.to_record())
            self._outbox.commit()

    def _ahead(self, way: str) -> int:
        rest = self.left(way)
        least, most = AHEAD
        return most if rest is None else min(most, max(least, rest // 8))

    def _keep(self) -> None:
        for way in WAYS:
            self._ceiling[way] = getattr(self._spent, way) + self._ahead(way)
        self._outbox.put_fact("spent", {**self._spent.to_record(), **self._ceiling})
