"""How fast a link sends at each moment: a rate that changes in steps, or recorded moments at which a packet may leave.

Both kinds of trace begin again at their end. Times are in seconds from the start of the trial.

* Packet trace (the format of Mahimahi, Netravali et al., USENIX ATC 2015): each line is a whole number of milliseconds at
  which 1500 bytes may leave, never smaller than the line before; the last one is also the length of the trace. What a packet
  leaves over of its 1500 bytes serves the next ones that wait; with nothing waiting it is lost.
* Rate trace, CSV: a header with `time`, `rate` and `loss` (seconds from 0, bit/s, share); each row holds until the next one,
  and the last as long as the one before it.

Lines that start with # are remarks in both.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edge.wire.toml_fields import ConfigError

OPPORTUNITY_BYTES = 1500
"""What one line of a packet trace lets through."""

COLUMNS = ("time", "rate", "loss")


@dataclass(frozen=True)
class PacketTrace:
    """Moments at which 1500 bytes may leave."""

    milliseconds: tuple[int, ...]


@dataclass(frozen=True)
class RateTrace:
    """A rate and a loss for each stretch of time; `seconds` is the length of the whole, infinite with one row."""

    times: tuple[float, ...]
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    seconds: float

    def loss(self, at: float) -> float:
        """The share lost at this moment."""
        inside = at % self.seconds if at < math.inf else 0.0
        return self.losses[bisect_right(self.times, inside) - 1]


Trace = PacketTrace | RateTrace


class Pace(Protocol):
    """Sends one packet after the other; it remembers when the last one has left."""

    def carry(self, size: int, at: float) -> tuple[float, float]:
        """When a packet of `size` bytes that comes at `at` begins to leave and has left; infinity where it never does."""
        ...

    def rate(self, at: float) -> float:
        """Bits a second around this moment; infinity where nothing limits it."""
        ...


class SteppedPace:
    """A rate for each stretch of time, again from the first one after `period` seconds."""

    def __init__(self, times: Sequence[float], rates: Sequence[float], period: float = math.inf) -> None:
        self._times, self._rates, self._period = (*times, period), tuple(rates), period
        once = sum(r * (b - a) for r, a, b in zip(rates, times, self._times[1:], strict=True) if r)
        self._bits = once if period < math.inf else math.inf
        self._free = 0.0

    def carry(self, size: int, at: float) -> tuple[float, float]:
        """As `Pace` says."""
        start = max(at, self._free)
        self._free = self._finish(size * 8.0, start) if start < math.inf else math.inf
        return start, self._free

    def _finish(self, bits: float, at: float) -> float:
        cycle, index = self._place(at)
        if self._bits < bits:  # whole rounds of the trace at once; what is left is above 0
            rounds = math.ceil(bits / self._bits) - 1
            cycle, at, bits = cycle + rounds, at + rounds * self._period, bits - rounds * self._bits
        while True:
            rate, until = self._rates[index], self._start(cycle, index + 1)
            room = rate * (until - at) if rate else 0.0
            if rate and bits <= room:
                return at + bits / rate
            if until == math.inf:
                return math.inf
            at, bits, index = max(at, until), bits - max(0.0, room), index + 1
            if index == len(self._rates):
                cycle, index = cycle + 1, 0

    def _place(self, at: float) -> tuple[int, int]:
        cycle = int(at // self._period)
        inside = at - cycle * self._period if cycle else at
        return cycle, min(bisect_right(self._times, inside), len(self._rates)) - 1

    def _start(self, cycle: int, index: int) -> float:
        return self._times[index] + (cycle * self._period if cycle else 0.0)

    def rate(self, at: float) -> float:
        """As `Pace` says."""
        return self._rates[self._place(at)[1]]


class PacketPace:
    """The moments of a packet trace."""

    def __init__(self, trace: PacketTrace) -> None:
        self._moments = trace.milliseconds
        self._period = trace.milliseconds[-1]
        self._next, self._left = 0, OPPORTUNITY_BYTES

    def carry(self, size: int, at: float) -> tuple[float, float]:
        """As `Pace` says; a packet leaves in no time when its moment comes."""
        first = self._first_from(at)
        if first > self._next:
            self._next, self._left = first, OPPORTUNITY_BYTES
        if self._left == 0:
            self._next, self._left = self._next + 1, OPPORTUNITY_BYTES
        start = self._moment(self._next)
        beyond = max(0, size - self._left)
        moments = -(-beyond // OPPORTUNITY_BYTES)
        self._left += moments * OPPORTUNITY_BYTES - size
        self._next += moments
        return start, self._moment(self._next)

    def _first_from(self, at: float) -> int:
        """The number of the first moment that is not before `at`, counted through all rounds of the trace."""
        # A millisecond has no exact float: without rounding, what comes at one would miss it.
        cycle, inside = divmod(round(at * 1000, 6), self._period)
        if cycle and not inside:  # the last moment of one round, not yet the start of the next
            cycle, inside = cycle - 1, self._period
        return int(cycle) * len(self._moments) + bisect_left(self._moments, inside)

    def _moment(self, number: int) -> float:
        cycle, index = divmod(number, len(self._moments))
        return (cycle * self._period + self._moments[index]) / 1000

    def rate(self, at: float) -> float:
        """What may leave in the second from here on."""
        return (self._first_from(at + 1) - self._first_from(at)) * OPPORTUNITY_BYTES * 8.0


def read_trace(path: Path) -> Trace:
    """Read a trace: `.csv` is a rate trace, every other name a packet trace.

    Raises:
        ConfigError: naming file, line, value and what would be right.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    lines = [(n, line.strip()) for n, line in enumerate(text.splitlines(), 1)]
    lines = [(n, line) for n, line in lines if line and not line.startswith("#")]
    return (_rates if path.suffix.lower() == ".csv" else _packets)(str(path), lines)


def _packets(name: str, lines: list[tuple[int, str]]) -> PacketTrace:
    moments: list[int] = []
    for number, line in lines:
        if not (line.isascii() and line.isdigit()):
            raise ConfigError(f'{name} line {number}: "{line}": must be a whole number of milliseconds')
        if moments and int(line) < moments[-1]:
            raise ConfigError(f"{name} line {number}: {line} comes after {moments[-1]}: milliseconds must not go back")
        moments.append(int(line))
    if not moments or moments[-1] == 0:
        raise ConfigError(f"{name}: must have a line above 0, for the last one is the length of the trace")
    return PacketTrace(tuple(moments))


def _rates(name: str, lines: list[tuple[int, str]]) -> RateTrace:
    if not lines or [part.strip() for part in lines[0][1].split(",")] != list(COLUMNS):
        given = f' line {lines[0][0]}: "{lines[0][1]}"' if lines else ""
        raise ConfigError(f"{name}{given}: must begin with the header {','.join(COLUMNS)}")
    rows = list(_rows(name, lines[1:]))
    if not rows or rows[0][0] != 0:
        raise ConfigError(f"{name}: must have rows, the first at time 0")
    times, rates, losses = (tuple(column) for column in zip(*rows, strict=True))
    if not any(rates):
        raise ConfigError(f"{name}: every rate is 0: must have one above 0, for nothing would ever pass")
    end = 2 * times[-1] - times[-2] if len(times) > 1 else math.inf
    return RateTrace(times, rates, losses, end)


def _rows(name: str, lines: list[tuple[int, str]]) -> Iterator[tuple[float, float, float]]:
    last = -math.inf
    for number, line in lines:
        try:
            time, rate, loss = (float(part) for part in line.split(","))
        except ValueError:
            raise ConfigError(f'{name} line {number}: "{line}": must be three numbers: time, rate, loss') from None
        if not last < time < math.inf:
            raise ConfigError(f"{name} line {number}: time {time:g} must be above that of the row before")
        if not 0 <= rate < math.inf:
            raise ConfigError(f"{name} line {number}: rate {rate:g} must be a number of bit/s of at least 0")
        if not 0 <= loss <= 1:
            raise ConfigError(f"{name} line {number}: loss {loss:g} must be a share from 0 to 1")
        last = time
        yield time, rate, loss
