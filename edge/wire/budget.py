"""What a device may spend, and what is left of it. No clock and no I/O: both are arguments.

A budget is written in amounts with units, each for a period:

    up_per_run = "200 kB"      bytes that leave the board, IP and TCP headers included
    down_per_day = "5 MB"      bytes that reach it
    rate = "2 kB/s"            how fast bulk may leave, on the average
    cpu_seconds_per_round = "3 s"      what the orders of a round may take of the processor
    joules_per_round = "500 mJ"        and of the board's energy, where a sensor measures it

A run is one of the hub's runs, a round one of its rounds, a day one of the calendar (UTC). A board's clock may be wrong: days
begin only where it is later than it has ever been before, or, where it is not, after twenty-four hours of running.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

from edge.wire.toml_fields import Example, Pattern

_BYTE_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_AMOUNT = r"\d+(\.\d+)?"
_JOULE_UNITS = {"mJ": 1e-3, "J": 1.0, "kJ": 1e3}
_SECOND_UNITS = {"ms": 1e-3, "s": 1.0}
_UNITS = {**_BYTE_UNITS, **_JOULE_UNITS, **_SECOND_UNITS}
_BYTES = Pattern(rf"{_AMOUNT} ?({'|'.join(_BYTE_UNITS)})", 'an amount above 0 with its unit, like "200 kB"')
_RATE = Pattern(rf"{_AMOUNT} ?({'|'.join(_BYTE_UNITS)})/s", 'a rate above 0 with its unit, like "2 kB/s"')
_JOULES = Pattern(rf"{_AMOUNT} ?({'|'.join(_JOULE_UNITS)})", 'an energy above 0 with its unit, like "2 J" or "500 mJ"')
_SECONDS = Pattern(rf"{_AMOUNT} ?({'|'.join(_SECOND_UNITS)})", 'a time above 0 with its unit, like "3 s" or "250 ms"')

WAYS = ("up", "down")
PERIODS = ("run", "day", "round")
DAY_SECONDS = 86_400.0

LEAST_UP = {"run": 16_000, "day": 16_000, "round": 4_000}
"""The smallest amounts that carry a connection, a hello and the reports; bytes."""
LEAST_DOWN = {"run": 24_000, "day": 24_000, "round": 16_000}
"""The same; 10 kB more, which may be under way to here at any time."""


@dataclass(frozen=True)
class BudgetConfig:
    """What a device may spend. Amounts have units; without any it spends what it takes."""

    up_per_run: Annotated[str | None, _BYTES, Example("2 MB")] = None
    """Bytes that may leave the device in one run of the hub, IP and TCP headers included."""

    up_per_day: Annotated[str | None, _BYTES, Example("1.6 MB")] = None
    """The same in one day, by UTC."""

    up_per_round: Annotated[str | None, _BYTES, Example("100 kB")] = None
    """The same in one round."""

    down_per_run: Annotated[str | None, _BYTES, Example("2 MB")] = None
    """Bytes that may reach the device in one run."""

    down_per_day: Annotated[str | None, _BYTES, Example("1.6 MB")] = None
    """The same in one day."""

    down_per_round: Annotated[str | None, _BYTES, Example("100 kB")] = None
    """The same in one round."""

    rate: Annotated[str | None, _RATE, Example("2 kB/s")] = None
    """How fast bulk may leave the device, on the average."""

    joules_per_round: Annotated[str | None, _JOULES, Example("2 J")] = None
    """What the board may take for the orders of one round. The next step is not begun when it would pass this, by the mean of the
    steps so far, and nor is any other of that round. Needs a sensor of energy: without one a device refuses to start."""

    cpu_seconds_per_round: Annotated[str | None, _SECONDS, Example("3 s")] = None
    """The same in seconds of the device's process on the processor, all threads together."""

    evaluation: Literal["counted", "apart"] = "counted"
    """counted: test samples that go up for an evaluation are spent like all else, so a run is evaluated at its end, where that fits;
    and so are the joules and CPU seconds that it takes. apart: they are not, for trials in which the budget is that of training."""

    def problems(self) -> Iterator[str]:
        """Yields what is nothing, and what is too little to carry even the control messages."""
        amounts = self.amounts()
        for name, amount in amounts.items():
            if amount <= 0:
                yield f'{name} = "{getattr(self, name)}": must be more than 0'
                continue
            way, _, period = name.partition("_per_")
            least = {"up": LEAST_UP, "down": LEAST_DOWN}.get(way, {}).get(period, 0)
            if amount < least:
                yield (
                    f'{name} = "{getattr(self, name)}" carries not even the control messages: the smallest that works is '
                    f'"{least / 1000:g} kB"'
                )

    def amounts(self) -> dict[str, float]:
        """What is given, in bytes, bytes a second, joules and seconds; `apart` is 1 where evaluation is not counted."""
        given = {name: getattr(self, name) for name in NAMES if name != APART}
        amounts = {name: amount_of(text) for name, text in given.items() if text is not None}
        return {**amounts, APART: 1.0} if amounts and self.evaluation == "apart" else amounts


APART = "apart"
NAMES = (*(field.name for field in fields(BudgetConfig) if field.name != "evaluation"), APART)
"""What amounts are called."""
EFFORT = {"cpu_seconds": "cpu_seconds_per_round", "joules": "joules_per_round"}
"""What is measured, and the name of its amount."""


def of_bytes(amounts: Iterable[str]) -> bool:
    """Whether any of these amounts is one of bytes."""
    return any(name not in (APART, *EFFORT.values()) for name in amounts)


def amount_of(text: str) -> float:
    """The number that a text like `200 kB`, `2 kB/s` or `500 mJ` stands for.

    Raises:
        ValueError: it is none.
    """
    found = re.fullmatch(rf"({_AMOUNT}) ?([A-Za-z]+)(/s)?", text)
    if found is None:
        raise ValueError(f"{text!r} is no amount with a unit")
    number, unit = float(found[1]), found[3]
    if unit not in _UNITS:
        raise ValueError(f"{text!r}: {unit} is no unit; there are {', '.join(_UNITS)}")
    return number * _UNITS[unit]


@dataclass
class Spent:
    """What a device has sent and received, and when the periods in hand began. Survives power cuts."""

    up: int = 0
    down: int = 0
    apart: dict[str, int] = field(default_factory=lambda: dict.fromkeys(WAYS, 0))
    """By way: what of that was for evaluation, where it is not counted."""
    began: dict[str, dict[str, int]] = field(default_factory=dict)
    """By period: what up and down were when it began."""
    day: int = 0
    """The last day that the clock has shown, counted from 1970."""
    uptime: float = 0.0
    """Seconds that the device has run in this day."""

    def begin(self, period: str) -> None:
        """A period of this kind begins now."""
        self.began[period] = {way: self.counted(way) for way in WAYS}

    def begin_with_order(self, period: str) -> None:
        """A run or round begins with an order that has come: with it all since the last report, the order's own bytes too."""
        self.began[period] = dict(self.began.get("report", dict.fromkeys(WAYS, 0)))

    def counted(self, way: str) -> int:
        """Bytes that the budget is about."""
        total: int = getattr(self, way)
        return total - self.apart[way]

    def in_period(self, way: str, period: str) -> int:
        """Bytes since the period in hand began."""
        return self.counted(way) - self.began.get(period, {}).get(way, 0)

    def look_at_clock(self, wall: float, passed: float) -> None:
        """Begin a new day where one has begun.

        Args:
            wall: seconds since 1970, as far as the board knows.
            passed: seconds that it has run since it was asked last.
        """
        self.uptime += passed
        day = int(wall // DAY_SECONDS)
        if day > self.day:
            # A clock that was never right says nothing of how much time has passed.
            renewed = self.day >= SANE_DAY or self.uptime >= DAY_SECONDS
            self.day = day
        else:
            renewed = self.uptime >= DAY_SECONDS
        if renewed:
            self.begin("day")
            self.uptime = 0.0

    def to_record(self) -> dict[str, Any]:
        """As plain values."""
        return dict(vars(self))

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Spent":
        """From `to_record`."""
        return cls(**record)


SANE_DAY = 20_400
"""Earlier days, before November 2025, are those of boards without a clock."""


def left(amounts: Mapping[str, float], spent: Spent, way: str) -> int | None:
    """Bytes that may still go this way; None where nothing limits them. Never negative."""
    found = [
        int(amounts[name]) - spent.in_period(way, period)
        for period in PERIODS
        if (name := f"{way}_per_{period}") in amounts
    ]
    return max(0, min(found)) if found else None
