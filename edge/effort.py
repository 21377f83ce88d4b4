"""What a round's orders take of the processor and of the board's energy, against what they may take.

    bears   asked before every step: takes in what the last one took, and says whether another one fits
    FITS    go on        LATER    not before the next commit        SPENT    no further step of this round

Another step is expected to cost what those of its kind cost on the average so far; the first that a process does loads its
graph, which is counted, but says nothing of the next. While nothing is known one step is tried. Counted is all that the process takes
while an order is in hand, waiting included, from the order to its report; joules are the board's, of which nobody can say
whose they are. As with bytes, a step is begun only below a ceiling that is on the disk: a device that loses power counts
up to that ceiling. Nothing here is modelled, unless the device's configuration names a model: a round whose sensor fails has no
further step.
"""

import logging
from collections.abc import Mapping
from enum import Enum, auto
from typing import Any, Protocol

from edge.meters import Used
from edge.outbox import Outbox
from edge.wire.budget import EFFORT, BudgetConfig
from edge.wire.toml_fields import ConfigError

log = logging.getLogger("cutlayer.device")

FACT = "effort"
"""Name of what it puts into the outbox."""
AHEAD = 8
"""A ceiling lies this part of what is left ahead, or what two steps take that are as dear as the dearest so far."""
STILL_STEPS = 64
"""A sensor that has not moved in so many steps is not live."""
_COMMIT = "commit"
"""What is noted beside the kinds of steps: a turn that only moves the ceiling."""


class Gauge(Protocol):
    """Where it is read: `edge.meters.Meter`, or what a simulated device has in its place."""

    @property
    def missing_energy(self) -> str:
        """Why joules are not measured here; empty where they are."""
        ...

    def used(self, *, joules: bool) -> Used:
        """What has been taken so far; `joules` asks for them, too, which may cost a reading of the sensor."""


def refuse_unmeasured(budget: BudgetConfig, gauge: Gauge) -> None:
    """Refuse a device's own budget of joules where nothing measures them.

    Raises:
        ConfigError: with what was looked for.
    """
    if budget.joules_per_round is not None and gauge.missing_energy:
        raise ConfigError(
            f'[budget] joules_per_round = "{budget.joules_per_round}" cannot be kept to on this board, '
            f"{gauge.missing_energy}: leave it out, or limit cpu_seconds_per_round"
        )


class Verdict(Enum):
    """Whether another step may be begun."""

    FITS = auto()
    LATER = auto()
    """Once what was put into the outbox is committed."""
    SPENT = auto()


class Effort:
    """Of one device, over its rounds.

    Args:
        outbox: keeps what was taken.
        gauge: measures it.
    """

    def __init__(self, outbox: Outbox, gauge: Gauge) -> None:
        self._outbox, self._gauge = outbox, gauge
        kept = outbox.fact(FACT, {})
        self._taken: dict[str, float] = dict(kept.get("taken", dict.fromkeys(EFFORT, 0.0)))
        """In this round, so far; after a power cut up to the ceiling of the process before."""
        self._committed = dict(self._taken)
        self._ceiling = dict(self._taken)
        self._steps: dict[str, dict[str, Any]] = kept.get("steps", {})
        """By kind of step: how many steps, what they took together, and what the dearest took."""
        self._spent: str = kept.get("spent", "")
        """What this round has no more of; empty while it has."""
        self._rounds: int = kept.get("rounds", 1)
        """That the order in hand covers: it has the means of all of them."""
        self._cut: int = kept.get("cut", 0)
        """Orders of this run that ended early."""
        self._last: Used | None = None
        """Where the gauge stood when it was last asked; None while no order is in hand."""
        self._begun: str | None = None
        """The kind of the step that was begun since."""
        self._warm: set[str] = set()
        """Kinds of which this process has done a step."""
        self._apart = False
        self._blind = False
        """Whether the ceiling was put where it is without knowing what a step takes."""
        self._told = False

    def limits(self, amounts: Mapping[str, float]) -> dict[str, float]:
        """Those of these amounts that can be kept to here: joules only with a sensor."""
        found = {what: self._rounds * amounts[name] for what, name in EFFORT.items() if name in amounts}
        if "joules" in found and (missing := self._gauge.missing_energy):
            del found["joules"]
            if not self._told:
                log.warning(
                    "%s = %g J cannot be kept to here: %s", EFFORT["joules"], amounts[EFFORT["joules"]], missing
                )
            self._told = True
        return found

    def begin(self, period: str, amounts: Mapping[str, float], rounds: int = 1) -> None:
        """A run or a round begins, or so many rounds that one order covers."""
        self._rounds = rounds
        limits = self.limits(amounts)
        if not limits:
            return
        self._look(limits)
        self._taken = dict.fromkeys(EFFORT, 0.0)
        self._spent = ""
        if period == "run":
            self._steps, self._cut = {}, 0
        self._keep(self._taken)

    def open(self, amounts: Mapping[str, float], *, apart: bool = False) -> None:
        """An order begins.

        Args:
            amounts: that hold.
            apart: whether what it takes is not counted.
        """
        limits = self.limits(amounts)
        if limits:
            self._look(limits)  # of an order that was never reported
            self._apart = apart
            self._last = self._gauge.used(joules="joules" in limits)

    def bears(self, kind: str, amounts: Mapping[str, float]) -> Verdict:
        """Whether another step of this kind may be begun; if so, it is taken to be."""
        limits = self.limits(amounts)
        if not limits:
            return Verdict.FITS
        self._look(limits)
        if self._apart:
            return Verdict.FITS
        self._spent = self._spent or self._lacking(kind, limits)
        if self._spent:
            self._cut += 1
            self._keep(self._taken)
            return Verdict.SPENT
        blind, self._blind = self._blind, kind not in self._steps
        if blind > self._blind or any(self._committed[what] < self._need(what, kind, limits[what]) for what in limits):
            self._keep({**self._taken, **{what: self._ahead(what, kind, limit) for what, limit in limits.items()}})
            self._begun = _COMMIT
            return Verdict.LATER
        self._begun = kind
        return Verdict.FITS

    @property
    def spent(self) -> str:
        """What this round has no more of, and for joules perhaps why; empty while it has."""
        return self._spent

    def apply(self) -> None:
        """What was put is on the disk."""
        self._committed = dict(self._ceiling)

    def pause(self, amounts: Mapping[str, float]) -> None:
        """No order is in hand any more: what is taken from here on is nobody's."""
        if self._last is not None:
            self._look(self.limits(amounts))
            self._last, self._apart = None, False

    def account(self, amounts: Mapping[str, float]) -> dict[str, float | None]:
        """For a report: what this round has taken, None where it is not measured, and how many orders of the run ended early."""
        limits = self.limits(amounts)
        given = [what for what, name in EFFORT.items() if name in amounts]
        return {
            **{f"{what}_spent": self._taken[what] if what in limits else None for what in given},
            **({"cut": self._cut} if given else {}),
        }

    def close(self, amounts: Mapping[str, float]) -> None:
        """The process ends: keep exactly what was taken."""
        if self.limits(amounts):
            self.pause(amounts)
            self._keep(self._taken)
            self._outbox.commit()

    def _look(self, limits: Mapping[str, float]) -> None:
        """Take in what was taken since the last look, and put it down to the step that was begun."""
        last, begun = self._last, self._begun
        now = self._gauge.used(joules="joules" in limits)
        self._begun = None
        if last is None:
            self._last = now  # of a process that has just started
            return
        self._last = now
        if self._apart:
            return
        taken = {"cpu_seconds": now.cpu_seconds - last.cpu_seconds}
        if "joules" in limits:
            if now.joules is None:
                self._spent = self._spent or f"joules: {now.reason}"
            elif last.joules is not None:
                taken["joules"] = max(0.0, now.joules - last.joules)
        for what, amount in taken.items():
            self._taken[what] += amount
        if begun in (_COMMIT, *self._warm):
            self._learn(begun, taken)
        elif begun:
            self._warm.add(begun)

    def _learn(self, kind: str, taken: Mapping[str, float]) -> None:
        known = self._steps.setdefault(kind, {"count": 0, "sum": {}, "most": {}})
        known["count"] += 1
        for what, amount in taken.items():
            known["sum"][what] = known["sum"].get(what, 0.0) + amount
            known["most"][what] = max(known["most"].get(what, 0.0), amount)

    def _lacking(self, kind: str, limits: Mapping[str, float]) -> str:
        """What does not carry another step; empty where all does."""
        known = self._steps.get(kind, {"count": 0, "sum": {}})
        for what, limit in limits.items():
            mean = known["sum"].get(what, 0.0) / max(1, known["count"])
            if self._taken[what] >= limit or self._taken[what] + mean > limit:
                return what
        if "joules" in limits and known["count"] >= STILL_STEPS and not known["sum"].get("joules"):
            return f"joules: the sensor did not move in {known['count']} steps"
        return ""

    def _need(self, what: str, kind: str, limit: float) -> float:
        """Where the ceiling must be before a step; all that there is, while none of this kind has shown what it takes."""
        return limit if kind not in self._steps else min(limit, self._taken[what] + self._most(what, kind))

    def _ahead(self, what: str, kind: str, limit: float) -> float:
        """Where a new ceiling lies."""
        if kind not in self._steps:
            return limit
        ahead = 2 * (self._most(what, kind) + self._most(what, _COMMIT))
        return min(limit, self._taken[what] + max(ahead, (limit - self._taken[what]) / AHEAD))

    def _most(self, what: str, kind: str) -> float:
        most: float = self._steps.get(kind, {"most": {}})["most"].get(what, 0.0)
        return most

    def _keep(self, ceiling: Mapping[str, float]) -> None:
        self._ceiling = dict(ceiling)
        record = {"taken": self._ceiling, "steps": self._steps, "spent": self._spent, "cut": self._cut}
        record["rounds"] = self._rounds
        self._outbox.put_fact(FACT, record)
