"""What a scenario means for a run: how long the hub waits for a device behind such a link, and the link in a few words."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from hub.trial.outages import Outages
from hub.trial.scenario import Course, Link, Links, Scenario
from hub.trial.traces import OPPORTUNITY_BYTES, RateTrace

TURN_SECONDS, GRACE_SECONDS, GATHER_SECONDS, CONNECT_SECONDS = 60.0, 10.0, 60.0, 30.0
"""What holds on a good link."""

OUTAGE_SECONDS = 60.0
"""The longest outage that a turn waits for; in a longer one the run goes on without the device."""

RECOVERY_SECONDS = 30.0
"""How long a link may take to come back after an outage: the longest pause between two tries to reconnect."""

SPARE = 4.0
"""A turn may take so many times what its bytes alone take: TCP starts slowly, and starts again after each outage."""

ROUND_TRIPS = 20
"""A turn is a few questions and answers, and each of them may be lost."""

SEGMENT_BITS = 1448 * 8

SLOW_SECONDS = 60.0
"""A link is slow where the most that a turn moves, as float32, takes longer than this."""

EVALUATION_SECONDS = 20.0
"""What an evaluation over a slow link may add to a round, on average."""

SLOW_CODEC, SAVES = "entropy:0.5", 12.0
"""How smashed data travel over a slow link, and by how much they are fewer bytes then, about."""


@dataclass(frozen=True)
class Deadlines:
    """How long a hub waits: seconds, of the hub's [run] and [fleet] and of the devices' [broker]."""

    turn_seconds: float
    grace_seconds: float
    gather_seconds: float
    connect_seconds: float


@dataclass(frozen=True)
class Terms:
    """How smashed data travel and how often the fleet is evaluated, of the hub's [run]."""

    codec: str = "float32"
    evaluation_codec: str = "float32"
    evaluate_every: int = 1


def terms(scenario: Scenario, devices: Sequence[str], turn_bytes: float) -> Terms:
    """Terms on which a run behind the worst link of a scenario ends in reasonable time.

    Where a turn's most bytes take more than a minute, data travel quantised, and an evaluation comes so seldom that it adds
    about 20 s to a round; everywhere else nothing is saved. Arguments as for `deadlines`.
    """
    links = [scenario.of(name) for name in devices] or [scenario.links]
    seconds = max(transfer_seconds(one, turn_bytes) for one in links)
    if seconds <= SLOW_SECONDS:
        return Terms()
    return Terms(SLOW_CODEC, SLOW_CODEC, math.ceil(seconds / SAVES / EVALUATION_SECONDS))


def transfer_seconds(links: Links, size: float) -> float:
    """What so many bytes take in the slower direction, at the lower of the link's rate and TCP's, outages included."""
    trip = round_trip(links)
    seconds = max(size * 8 / throughput(course, trip) for course in (links.up, links.down))
    return seconds / (1 - share_gone(links.outages))


def deadlines(scenario: Scenario, devices: Sequence[str], turn_bytes: float) -> Deadlines:
    """Deadlines that the worst link of a scenario lets a device keep.

        turn = 4 x transfer + 20 round trips + 2 x (outage + 30 s), 60 s at least
        transfer = turn_bytes at the lower of the link's rate and TCP's, during the time at which there is no outage
        grace = outage + 30 s, where a link has outages; 10 s where not

    An outage of more than 60 s is not waited for.

    Args:
        scenario: what the links do.
        devices: their names.
        turn_bytes: the most that a turn moves in one direction of a device's link.
    """
    each = [_deadlines(scenario.of(name), turn_bytes) for name in devices] or [_deadlines(scenario.links, turn_bytes)]
    worst = (max(values) for values in zip(*((d.turn_seconds, d.grace_seconds) for d in each), strict=True))
    turn, grace = worst
    return Deadlines(
        turn,
        grace,
        max(d.gather_seconds for d in each),
        max(d.connect_seconds for d in each),
    )


def _deadlines(links: Links, turn_bytes: float) -> Deadlines:
    trip = round_trip(links)
    seconds = transfer_seconds(links, turn_bytes)
    lengths = [length for length in _lengths(links.outages) if length <= OUTAGE_SECONDS]
    waited = max(lengths) + RECOVERY_SECONDS if lengths else 0.0
    turn = SPARE * seconds + ROUND_TRIPS * trip + 2 * waited
    return Deadlines(
        turn_seconds=max(TURN_SECONDS, float(math.ceil(turn))),
        grace_seconds=max(GRACE_SECONDS, float(math.ceil(waited))),
        gather_seconds=GATHER_SECONDS + math.ceil(ROUND_TRIPS * trip + waited),
        connect_seconds=CONNECT_SECONDS + math.ceil(ROUND_TRIPS * trip + waited),
    )


def round_trip(links: Links) -> float:
    """The longest round trip of an empty link, in seconds."""
    return sum(max(link.delay_seconds + link.jitter_seconds for _, link in c.steps) for c in (links.up, links.down))


def lowest_rate(course: Course) -> float:
    """Bits a second: the mean of a trace, the lowest rate of a schedule that is above 0; infinity where nothing limits it."""
    trace = course.trace
    if isinstance(trace, RateTrace):
        if math.isinf(trace.seconds):
            return trace.rates[0]
        spans = pairwise((*trace.times, trace.seconds))
        return sum(rate * (end - start) for rate, (start, end) in zip(trace.rates, spans, strict=True)) / trace.seconds
    if trace is not None:
        return len(trace.milliseconds) * OPPORTUNITY_BYTES * 8 / (trace.milliseconds[-1] / 1000)
    return min((link.rate for _, link in course.steps if link.rate), default=math.inf)


def loss_share(link: Link) -> float:
    """The share of packets that chance takes in the long run."""
    bad = link.p_enter / (link.p_enter + link.p_leave) if link.p_enter else 0.0
    return link.loss * (1 - bad) + link.loss_bad * bad


def throughput(course: Course, trip: float) -> float:
    """Bits a second that TCP gets through a direction at best.

    A sender that halves its speed at each loss reaches 1.22 segments a round trip over the root of the share lost
    (Mathis, Semke, Mahdavi, Ott: The macroscopic behavior of the TCP congestion avoidance algorithm, 1997).

    Args:
        course: the direction.
        trip: the round trip in seconds.
    """
    lost = max(loss_share(link) for _, link in course.steps)
    rate = lowest_rate(course) * (1 - min(lost, 0.9))
    return min(rate, SEGMENT_BITS * 1.22 / (trip * math.sqrt(lost))) if lost and trip else rate


def share_gone(outages: Outages) -> float:
    """The share of time in outages that come again and again."""
    return (outages.for_seconds or 0.0) / outages.every_seconds if outages.every_seconds else 0.0


def outages_until(outages: Outages, end: float, chance: str) -> list[tuple[float, float]]:
    """Start and end of each outage until `end`, cut off there; `chance` is what their jitter starts from."""
    found: list[tuple[float, float]] = []
    at = 0.0
    while at < end and (outage := outages.during(at, end, chance)) and outage[0] < end:
        found.append((max(0.0, outage[0]), min(outage[1], end)))
        at = outage[1]
    return found


def in_words(scenario: Scenario) -> str:
    """What the common link of a scenario does, in a line."""
    links = scenario.links
    parts = [_rates(links), f"round trip {_seconds(round_trip(links))}" if round_trip(links) else ""]
    up, down = (max(loss_share(link) for _, link in course.steps) for course in (links.up, links.down))
    if up or down:
        parts.append(f"{100 * max(up, down):.2g} % lost")
    outages = links.outages
    if outages.every_seconds is not None and outages.for_seconds is not None:
        parts.append(f"gone {_seconds(outages.for_seconds)} every {_seconds(outages.every_seconds)}")
    elif outages.times:
        parts.append(f"gone {len(outages.times)} times")
    if scenario.devices:
        parts.append(f"{', '.join(scenario.devices)} otherwise")
    return ", ".join(part for part in parts if part) or "no limit, no delay, no loss"


def _rates(links: Links) -> str:
    up, down = lowest_rate(links.up), lowest_rate(links.down)
    traced = "on average " if links.up.trace or links.down.trace else ""
    if up == down:
        return "" if math.isinf(up) else f"{traced}{_rate(up)}"
    return f"{traced}{_rate(up)} up, {_rate(down)} down"


def _rate(rate: float) -> str:
    if math.isinf(rate):
        return "no limit"
    size, unit = next(((s, u) for s, u in ((1e6, "Mbit/s"), (1e3, "kbit/s")) if rate >= s), (1.0, "bit/s"))
    return f"{rate / size:.3g} {unit}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def _lengths(outages: Outages) -> Iterator[float]:
    if outages.for_seconds is not None:
        yield outages.for_seconds
    yield from (length for _, length in outages.times)
