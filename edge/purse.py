"""What a device has spent of its budget and what is left, on the disk before it is spent.

The link may go no further than a ceiling that is committed, a little ahead of what has been spent: a device that loses
power counts up to that ceiling, which may be too much and is never too little.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from edge.effort import FACT, Effort, Gauge, Verdict
from edge.gate import Caps
from edge.link import Link
from edge.outbox import Outbox
from edge.wire.budget import APART, NAMES, WAYS, Spent, left, of_bytes

SPENT = ("spent", "hub_budget", "uploads", FACT)
MEANS = "means"
"""Names of what it puts into the outbox: what was spent, and what it had for an activation."""
RESERVE = 0.1
"""Share of each amount that activations leave for control messages, acknowledgements and weights."""
AHEAD = {"up": (6_144, 65_536, 8), "down": (16_384, 1 << 20, 2)}
"""Least and most bytes that a ceiling lies ahead, and between them which part of what is left. What comes nobody here can hold back."""
OVERHEAD = 1.08
"""Bytes on the wire of a byte in the outbox: frames, MQTT, TCP and IP around it."""


_NOTHING = {"messages": 0, "bytes": 0, "samples": 0, "withheld": 0}
"""Activations of the run: how many were sent, of how many bytes and samples; and how many were not, for want of means."""


class Purse:
    """One device's means.

    Args:
        outbox: keeps what was spent.
        link: counts it, and is told how far it may go.
        own: amounts of the device's own configuration; the hub's hold where it says nothing.
        gauge: measures joules and CPU seconds; without one they are not limited.
        wall: seconds since 1970, as far as the board knows.
        now: seconds that pass while it runs.
    """

    def __init__(
        self,
        outbox: Outbox,
        link: Link,
        own: Mapping[str, float],
        *,
        gauge: Gauge | None = None,
        wall: Callable[[], float] = time.time,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._outbox, self._link, self._own = outbox, link, dict(own)
        self._wall, self._now = wall, now
        given = outbox.fact("hub_budget")
        self._heard = given is not None
        """Whether a hub has ever said what its devices may spend."""
        self._given: dict[str, float] = given or {}
        self._spent = Spent.of(outbox.fact("spent", {}))
        self._before = {way: getattr(self._spent, way) for way in WAYS}
        self._ceiling = dict(self._before)
        self._looked_at = now()
        self._order_began = self._spent.up
        self._allowance: int | None = None
        self._apart = False
        """Whether what is spent now is not counted."""
        self._done: dict[str, int] = {**_NOTHING, **outbox.fact("uploads", {})}
        self._effort = Effort(outbox, gauge) if gauge else None

    @property
    def amounts(self) -> dict[str, float]:
        """The limits that hold."""
        return {**self._given, **self._own}

    @property
    def limited(self) -> bool:
        """Whether there are any."""
        return bool(self.amounts)

    @property
    def _counted(self) -> bool:
        """Whether any of them is of bytes."""
        return of_bytes(self.amounts)

    def hear(self, given: Mapping[str, float]) -> None:
        """The hub's amounts, for what the device's own configuration leaves open."""
        given = {name: amount for name, amount in given.items() if name in NAMES and amount > 0}
        if given != self._given or not self._heard:
            self._given, self._heard = given, True
            self._outbox.put_fact("hub_budget", given)
            if self._counted:
                self._keep()

    def begin(self, period: str, rounds: int = 1) -> None:
        """A run or a round begins, or so many rounds that one order covers."""
        if not self.limited:
            return
        if self._effort:
            self._effort.begin(period, self.amounts, rounds)
        if period == "run":
            self._done = dict(_NOTHING)
            self._outbox.put_fact("uploads", self._done)
        if self._counted:
            self.look()
            self._spent.begin_with_order(period)
            self._keep()

    def open(self, allowance: int | None, *, evaluation: bool = False) -> None:
        """An order begins, whose uploads may take so many bytes on the wire."""
        self.look()
        self._order_began, self._allowance = self._spent.up, allowance
        apart = evaluation and APART in self.amounts
        self._apart = apart and self._counted
        if self._effort:
            self._effort.open(self.amounts, apart=apart)

    def bears(self, kind: str) -> Verdict:
        """Whether the round's joules and CPU seconds carry another step of this kind."""
        return self._effort.bears(kind, self.amounts) if self._effort else Verdict.FITS

    @property
    def lacking(self) -> str:
        """What of these the round has no more of; empty while it has."""
        return self._effort.spent if self._effort else ""

    def pause(self) -> None:
        """No order is in hand any more."""
        if self._effort:
            self._effort.pause(self.amounts)

    def look(self, unsent: int = 0) -> None:
        """Take in what has been spent since, and what time it is; a ceiling that is near is raised with the next commit.

        Args:
            unsent: bytes that lie in the outbox, and shall find room below the ceiling.
        """
        if not self._counted:
            return
        counted, now = self._link.counters(), self._now()
        for way, total in (("up", counted.wire_sent), ("down", counted.wire_received)):
            spent = self._before[way] + total
            if self._apart:
                self._spent.apart[way] += spent - getattr(self._spent, way)
            setattr(self._spent, way, spent)
        self._spent.look_at_clock(self._wall(), now - self._looked_at)
        self._looked_at = now
        due = int(unsent * OVERHEAD)
        if any(self._ceiling[way] - getattr(self._spent, way) < due + self._ahead(way) // 2 for way in WAYS):
            self._keep(due)

    def left(self, way: str) -> int | None:
        """Bytes that may still go this way; None where nothing limits them."""
        return left(self.amounts, self._spent, way)

    @property
    def narrow(self) -> bool:
        """Whether bytes are limited, or may be: no hub has ever said what its devices may spend."""
        return self._counted or not self._heard

    def spare(self, way: str, keep: float) -> int | None:
        """Bytes that may go this way and leave that share of each limit for what matters more; None where nothing limits them."""
        return left({name: (1 - keep) * amount for name, amount in self.amounts.items()}, self._spent, way)

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

    def lacks(self, size: int, unsent: int) -> str:
        """Why a message of so many bytes would leave nothing for orders and reports, beside what lies unsent; empty where it would."""
        rest = left({name: (1 - RESERVE) * amount for name, amount in self.amounts.items()}, self._spent, "up")
        if rest is None or (size + unsent) * OVERHEAD <= rest:
            return ""
        return f"the budget leaves {max(0, int(rest / OVERHEAD) - unsent)} bytes"

    def apply(self) -> None:
        """What was put is on the disk: the link may go up to it."""
        if self._effort:
            self._effort.apply()
        if not self._counted:
            self._link.limit(Caps(unknown=not self._heard))
            return
        if self._apart:
            self._link.limit(Caps(rate=self.amounts.get("rate")))
            return
        caps = {}
        for way in WAYS:
            rest = self.left(way)
            reach = self._ceiling[way] - self._before[way]
            caps[way] = None if rest is None else min(reach, getattr(self._spent, way) - self._before[way] + rest)
        self._link.limit(Caps(caps["up"], caps["down"], self.amounts.get("rate")))

    def sent(self, size: int, samples: int) -> None:
        """An activation of so many bytes is on its way."""
        if self.limited:
            self._count(messages=1, bytes=size, samples=samples)

    def withhold(self) -> None:
        """An activation was not sent, for want of means."""
        self._count(withheld=1)

    def account(self) -> dict[str, Any]:
        """For a report: what was spent in the periods in hand, what is left, and how it was counted."""
        record: dict[str, Any] = {**self._done, **self.amounts}
        if self._effort:
            self._effort.pause(self.amounts)
            record |= self._effort.account(self.amounts)
        if not self._counted:
            return record
        self.look()
        self._spent.begin("report")
        for way in WAYS:
            record[f"{way}_spent"] = self._spent.in_period(way, "run")
            record[f"{way}_left"] = self.left(way)
        return record

    def close(self) -> None:
        """The link is closed: keep exactly what was spent, without the distance to the ceiling."""
        if self._effort:
            self._effort.close(self.amounts)
        if self._counted:
            self.look()
            self._ceiling = {way: getattr(self._spent, way) for way in WAYS}
            self._outbox.put_fact("spent", self._spent.to_record())
            self._outbox.commit()

    def _count(self, **more: int) -> None:
        self._done = {name: count + more.get(name, 0) for name, count in self._done.items()}
        self._outbox.put_fact("uploads", self._done)

    def _ahead(self, way: str) -> int:
        rest = self.left(way)
        least, most, part = AHEAD[way]
        return most if rest is None else min(most, max(least, rest // part))

    def _keep(self, due: int = 0) -> None:
        for way in WAYS:
            self._ceiling[way] = getattr(self._spent, way) + due + self._ahead(way)
        self._outbox.put_fact("spent", {**self._spent.to_record(), **self._ceiling})
