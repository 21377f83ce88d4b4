"""Links by `tc`, where the kernel has netem: what it is told, and what its counters say; `shaper.py` is the process.

Each direction is two queueing disciplines, one after the other, so that it is made as the emulator's `Channel`:

    tbf      the rate, and a queue of so many bytes; what does not fit is lost (queue)
    netem    loss, delay, jitter, duplicates, corruption, reordering; during an outage it loses all (outage)

Bytes are those of IP packets: the size table takes the Ethernet header off. netem gets a rate far above any link's, for
only with one does it keep packets in order when their delay varies. What happens is not a function of the scenario's seed:
the kernel rolls its own dice.
"""

import json
import math
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from hub.trial.channel import Counters, seeds
from hub.trial.outages import Outages
from hub.trial.scenario import Course, Link, Links, Scenario
from hub.trial.traces import PacketTrace, RateTrace

HEADER_BYTES = 14
BURST_SECONDS, BURST_BYTES = 0.001, 3000
"""What may leave at once: two packets, and what the rate makes of a time by which the kernel may look too late."""

LEAST_RATE, MOST_RATE = 8.0, 100e9
FLYING_PACKETS = 1_000_000
LOOK_SECONDS = 0.0005
"""An edge this near is taken for reached, so that none is missed by a rounding."""

AHEAD_SECONDS = 0.1
"""Counters are read so long before a change, so that the change itself has to wait for nothing."""

TOOL_SECONDS = 10.0


class ToolError(OSError):
    """`tc` or `ip` is not there, or refuses; the message is theirs."""


def inexact(scenario: Scenario, devices: Sequence[str]) -> list[str]:
    """What of a scenario netem does otherwise than it is written, a clause each; none of it holds for the emulator."""
    courses = [course for device in devices for course in _both(scenario.of(device))]
    links = [link for course in courses for _, link in course.steps]
    traces = [course.trace for course in courses]
    rates = [rate for trace in traces if isinstance(trace, RateTrace) for rate in trace.rates]
    found = {
        "a packet trace becomes the rate of each of its seconds": any(isinstance(t, PacketTrace) for t in traces),
        f"a rate of 0 becomes {LEAST_RATE:g} bit/s": 0 in rates or any(link.rate == 0 for link in links),
        "corruption hits headers only and is not counted": any(link.corrupt for link in links),
        "what overtakes is not counted": any(link.reorder for link in links),
    }
    return [clause for clause, holds in found.items() if holds]


def _both(links: Links) -> tuple[Course, Course]:
    return links.up, links.down


def queue(rate: float, queue_bytes: int) -> str:
    """The first discipline, of a rate in bit/s."""
    rate = min(max(rate, LEAST_RATE), MOST_RATE)
    burst = BURST_BYTES + math.ceil(rate / 8 * BURST_SECONDS)
    return f"stab overhead -{HEADER_BYTES} tbf rate {rate:.0f}bit burst {burst} limit {queue_bytes}"


def air(link: Link, *, gone: bool = False) -> str:
    """The second one; what is not named here would keep its value, so everything is."""
    jitter = f" {1e6 * link.jitter_seconds:.0f}us" if link.jitter_seconds else ""
    parts = [
        f"stab overhead -{HEADER_BYTES} netem limit {FLYING_PACKETS}",
        f"delay {1e6 * link.delay_seconds:.0f}us{jitter}",
        "loss 100%" if gone else _loss(link),
        f"duplicate {_percent(link.duplicate)}",
        f"corrupt {_percent(link.corrupt)}",
        *([f"reorder {_percent(link.reorder)}"] if link.reorder else []),
        f"rate {MOST_RATE:.0f}bit",
    ]
    return " ".join(parts)


def _loss(link: Link) -> str:
    if link.p_enter:
        shares = (link.p_enter, link.p_leave, link.loss_bad, link.loss)
        return f"loss gemodel {' '.join(map(_percent, shares))}"
    return f"loss {_percent(link.loss)}"


def _percent(share: float) -> str:
    return f"{100 * share:.6g}%"


class Tools(Protocol):
    """What runs `tc` and `ip`."""

    def batch(self, program: str, lines: Sequence[str]) -> None:
        """Have a program carry out lines, each of them or none after the first that fails."""
        ...

    def shown(self, program: str, *arguments: str) -> list[dict[str, Any]]:
        """What a program prints as JSON."""
        ...


class Programs:
    """The programs of this machine, in the namespace that we are in.

    Args:
        descriptors: of namespaces, which lines may name as /proc/self/fd/NUMBER.
    """

    def __init__(self, descriptors: Sequence[int] = ()) -> None:
        self._descriptors = descriptors

    def batch(self, program: str, lines: Sequence[str]) -> None:
        """Carry out lines.

        Raises:
            ToolError: the program is not there, or refuses one.
        """
        if lines:
            self._run(program, ["-batch", "-"], "\n".join(lines) + "\n")

    def shown(self, program: str, *arguments: str) -> list[dict[str, Any]]:
        """What a program prints as JSON.

        Raises:
            ToolError: the program is not there, or refuses.
        """
        found: list[dict[str, Any]] = json.loads(self._run(program, ["-s", "-j", *arguments]) or "[]")
        return found

    def _run(self, program: str, arguments: Sequence[str], said: str = "") -> str:
        path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
        if path is None:
            raise ToolError(f"there is no program {program}")
        done = subprocess.run(  # noqa: S603  ours, with our arguments
            [path, *arguments],
            input=said,
            text=True,
            capture_output=True,
            timeout=TOOL_SECONDS,
            check=False,
            pass_fds=self._descriptors,
        )
        if done.returncode:
            raise ToolError(f"{program} refuses: {' '.join(done.stderr.split())[-300:]}")
        return done.stdout


class Shaped:
    """One direction of a device's link; a `Direction` of the timeline.

    Args:
        course: what it does over time.
        outages: when it is gone.
        chance: what the outages' jitter starts from.
        entry: the interface at which its packets come in.
        first: the one whose discipline is the queue.
        second: the one whose discipline is the air.
    """

    def __init__(self, course: Course, outages: Outages, chance: str, entry: str, first: str, second: str) -> None:
        self.counters = Counters()
        self._course, self._outages, self._chance = course, outages, chance
        self._pace = course.pace()
        self._entry, self._first, self._second = entry, first, second
        self._set: dict[str, str] = {}
        self._gone = self._was_gone = False
        self._dropped = 0
        self._doubles = any(link.duplicate for _, link in course.steps)

    def rate(self, now: float) -> float | None:
        """Bits a second at this moment; None where nothing limits them."""
        rate = self._pace.rate(now)
        return rate if rate < math.inf else None

    def changes(self, now: float) -> list[str]:
        """The lines for `tc` that make what holds now of what was set before; after them, it is taken for set."""
        now += LOOK_SECONDS
        link = self._course.at(now)
        self._was_gone, self._gone = self._gone, self._is_gone(now, link.delay_seconds)
        wanted = {
            self._first: queue(self._pace.rate(now), link.queue_bytes),
            self._second: air(link, gone=self._gone),
        }
        lines = [
            f"qdisc {'change' if interface in self._set else 'add'} dev {interface} root handle 1: {text}"
            for interface, text in wanted.items()
            if self._set.get(interface) != text
        ]
        self._set = wanted
        return lines

    @property
    def turned(self) -> bool:
        """Whether an outage has begun or ended since the counters were read."""
        return self._gone != self._was_gone

    def next_change(self, now: float) -> float:
        """When something else holds; infinity if never."""
        now += LOOK_SECONDS
        return min((at for at in self._edges(now) if at > now), default=math.inf)

    def read(self, links: Mapping[str, Any], disciplines: Mapping[str, Any]) -> None:
        """Take over what `ip` and `tc` have counted, by interface.

        Neither counts the bytes of what is lost, nor what is twice: these are what is left over.
        """
        got, waiting, flying = links[self._entry]["rx"], disciplines[self._first], disciplines[self._second]
        counters = self.counters
        counters.offered = got["packets"]
        counters.offered_bytes = got["bytes"] - HEADER_BYTES * got["packets"]
        counters.delivered, counters.delivered_bytes = flying["packets"], flying["bytes"]
        counters.lost_queue = waiting["drops"]
        dropped, self._dropped = flying["drops"] - self._dropped, flying["drops"]
        if self._gone or self._was_gone:
            counters.lost_outage += dropped
        else:
            counters.lost_loss += dropped
        self._was_gone = self._gone
        if self._doubles:
            twice = flying["packets"] + flying["drops"] + flying["qlen"] - waiting["packets"]
            counters.duplicated = max(counters.duplicated, twice)
        inside = waiting["backlog"] + flying["backlog"]
        # The numbers are not of one moment: a packet between them must not make what is lost go down again.
        lost_bytes = counters.offered_bytes - counters.delivered_bytes - inside
        counters.lost_bytes = max(counters.lost_bytes, lost_bytes if counters.lost else 0)

    def _is_gone(self, now: float, delay: float) -> bool:
        """What leaves now is lost if the link is gone, and also if it will be when it arrives."""
        return any(self._outages.at(moment, self._chance) for moment in (now, now + delay))

    def _edges(self, now: float) -> Iterator[float]:
        delay = self._course.at(now).delay_seconds
        for ahead in (0.0, delay):
            moment = now + ahead
            if outage := self._outages.during(moment, math.inf, self._chance):
                yield outage[0] - ahead
                yield outage[1] - ahead
        yield from (start for start, _ in self._course.steps)
        trace = self._course.trace
        if isinstance(trace, PacketTrace):
            yield math.floor(now) + 1.0
        elif isinstance(trace, RateTrace):
            begun = now // trace.seconds * trace.seconds if trace.seconds < math.inf else 0.0
            yield from (begun + time for time in (*trace.times, trace.seconds))


class Air:
    """All links of a trial, in the namespace where their interfaces are: d1 to h1 of the first device, and so on.

        device: radio - d1   x1 - y1   h1 - radio1 :hub
        up: in at d1, queue on x1, air on h1; down: in at h1, queue on y1, air on d1

    Args:
        scenario: what the links do.
        devices: their names, in order.
        tools: run `tc` and `ip` there.
    """

    def __init__(self, scenario: Scenario, devices: Sequence[str], tools: Tools) -> None:
        self._tools = tools
        self._change, self._ready = math.inf, False
        self.links: dict[str, dict[str, Shaped]] = {}
        for number, device in enumerate(devices, 1):
            of, chance = scenario.of(device), seeds(scenario.seed, device, "")[1]
            near, left, right, far = interfaces(number)
            self.links[device] = {
                "up": Shaped(of.up, of.outages, chance, near, left, far),
                "down": Shaped(of.down, of.outages, chance, far, right, near),
            }

    @property
    def _directions(self) -> list[Shaped]:
        return [direction for both in self.links.values() for direction in both.values()]

    def begin(self) -> None:
        """Set what holds at the start.

        Raises:
            ToolError: `tc` is not there, or this kernel has no netem.
        """
        self._tools.batch("tc", self._changes(0.0))

    @property
    def next(self) -> float:
        """When to adjust next."""
        return self._change if self._ready else self._change - AHEAD_SECONDS

    def adjust(self, now: float) -> None:
        """Set what holds now; what was lost before an outage or after it is told from what was lost in it."""
        if now < self.next - LOOK_SECONDS:
            return
        if not self._ready:
            self.read()
            self._ready = True
        if now >= self._change - LOOK_SECONDS:
            self._tools.batch("tc", self._changes(now))
            if any(direction.turned for direction in self._directions):
                self.read()

    def read(self) -> None:
        """Take over all counters."""
        links = {link["ifname"]: link["stats64"] for link in self._tools.shown("ip", "link", "show")}
        disciplines = {found["dev"]: found for found in self._tools.shown("tc", "qdisc", "show") if found.get("root")}
        for direction in self._directions:
            direction.read(links, disciplines)

    def _changes(self, now: float) -> list[str]:
        lines = [line for direction in self._directions for line in direction.changes(now)]
        self._change = min((direction.next_change(now) for direction in self._directions), default=math.inf)
        self._ready = False
        return lines


def interfaces(number: int) -> tuple[str, str, str, str]:
    """Those of a device in the middle, from the device's to the hub's."""
    return f"d{number}", f"x{number}", f"y{number}", f"h{number}"
