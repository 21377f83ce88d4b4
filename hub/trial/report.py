"""What a trial came to: figures of each device from the folder it left, as a table that says how each was obtained.

Links from links.jsonl and trial.json (the emulator's counters), the hub's view from events.jsonl, training and the device's own
counters from metrics.jsonl. A figure that is missing is a dash with its reason, never 0.
"""

import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from hub.outcome import OutcomeError
from hub.runlog import Record, RunLog, read_run
from hub.summary import evaluation
from hub.table import MISSING, Block, Sheet, figure, mark_of, printed, unit_of
from hub.trial.at_hub import EVENTS
from hub.trial.emulator import TIMELINE
from hub.trial.run import FACTS, PERFECT

Span = tuple[float, float]
"""Start and end, in seconds from the opening of the links."""

NAME_WIDTH, CELL_WIDTH = 16, 9
FLEET = "fleet"

NOT_REPORTED = "not reported by the device"


@dataclass(frozen=True)
class Round:
    """One round on the time axis."""

    number: int
    span: Span
    took_part: frozenset[str]
    """Devices that have reported training steps."""
    late: frozenset[str]
    accuracy: float | None


@dataclass(frozen=True)
class Found:
    """A trial's folder, read back; `against` is the same run on links without faults."""

    folder: Path
    log: RunLog
    facts: Mapping[str, Any]
    events: Sequence[Mapping[str, Any]]
    seconds: Sequence[Mapping[str, Any]]
    """The records of links.jsonl without its first line."""
    opened: float
    """When the links opened, in seconds since 1970."""
    against: "Found | None" = None

    @property
    def devices(self) -> list[str]:
        """Their names, in order."""
        return list(self.facts["devices"])

    @cached_property
    def rounds(self) -> list[Round]:
        """The rounds, each from the end of the one before."""
        found: list[Round] = []
        start = self._training_began
        steps = {
            (record["round"], name): record.get("steps") or 0
            for name, records in self.log.devices.items()
            for record in records
        }
        for event in self.events:
            if event["event"] != "round":
                continue
            record, end = event["record"], event["time"] - self.opened
            number = record["round"]
            took = frozenset(name for name in self.devices if steps.get((number, name)))
            found.append(Round(number, (start, end), took, frozenset(record["late"]), record["accuracy"]))
            start = end
        return found

    @property
    def training(self) -> Span:
        """From the moment at which all devices were there to the end of the last round."""
        return self._training_began, self.rounds[-1].span[1] if self.rounds else self._training_began

    @property
    def training_seconds(self) -> float:
        """What the rounds took."""
        return self.training[1] - self.training[0]

    @property
    def rounds_an_hour(self) -> float | None:
        """At the pace of this run."""
        return 3600 * len(self.rounds) / self.training_seconds if self.training_seconds > 0 else None

    def offline(self, device: str) -> list[Span]:
        """When the hub saw a device offline: from the broker's word that it is gone until it greets again, in the time of training."""
        spans, since = [], None
        for event in self.events:
            if event["event"] != "device" or event["name"] != device:
                continue
            at = event["time"] - self.opened
            if event["state"] == "offline":
                since = at if since is None else since
            # A device that is gone may still be late; every other word means that something came from it, or goes to it.
            elif since is not None and event["state"] != "late":
                spans.append((since, at))
                since = None
        if since is not None:
            spans.append((since, self.training[1]))
        return within(spans, self.training)

    def outages(self, device: str) -> list[Span]:
        """When the link was gone, as the scenario has it."""
        return [(start, end) for start, end in self.facts.get("outages", {}).get(device, [])]

    def missed(self, device: str) -> list[bool]:
        """Of each round in which anybody trained, whether this device did not."""
        return [device not in one.took_part for one in self.rounds if one.took_part]

    @property
    def _training_began(self) -> float:
        for event in self.events:
            if event["event"] == "stage" and event["text"] == "training":
                return float(event["time"]) - self.opened
        return 0.0


def within(spans: Sequence[Span], limits: Span) -> list[Span]:
    """What of these spans lies between the limits."""
    cut = [(max(start, limits[0]), min(end, limits[1])) for start, end in spans]
    return [(start, end) for start, end in cut if start < end]


def read(folder: Path, against: Path | None = None) -> Found:
    """Read a trial's folder.

    Args:
        folder: of the trial.
        against: of the same on `perfect`; None takes the folder `perfect` inside, if there is one.

    Raises:
        OutcomeError: it is not the folder of a trial.
    """
    other = against or (folder / PERFECT if (folder / PERFECT / FACTS).exists() else None)
    return _read(folder, _read(other, None) if other else None)


def _read(folder: Path, against: Found | None) -> Found:
    try:
        facts = json.loads((folder / FACTS).read_text("utf-8"))
        heading, *seconds = _lines(folder / TIMELINE)
        return Found(folder, read_run(folder), facts, _lines(folder / EVENTS), seconds, float(heading["time"]), against)
    except (OSError, ValueError) as error:
        raise OutcomeError(f"{folder} is not the folder of a trial: {error}") from error


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of JSON; the last one may have been cut off."""
    found = []
    for line in path.read_text("utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


# The figures ----------------------------------------------------------------------------------------------------

Value = float | str
"""A figure, or the reason why there is none."""


@dataclass(frozen=True)
class Column:
    """A figure of a device: heading, family of its unit, how the fleet's is made of the devices', how it was obtained."""

    heading: str
    family: str
    together: Callable[[Sequence[float]], float]
    how: str
    value: Callable[[Found, str], Value]


def _latest(found: Found, device: str) -> Record:
    return found.log.latest.get(device, {})


def _of_record(key: str) -> Callable[[Found, str], Value]:
    def value(found: Found, device: str) -> Value:
        record = _latest(found, device)
        figure_found = record.get(key)
        return float(figure_found) if figure_found is not None else _why_not(record, key)

    return value


def _why_not(record: Record, key: str) -> str:
    return str(record.get("missing", {}).get(key.removeprefix("socket_"), "the device never reported"))


def _again(found: Found, device: str) -> Value:
    if found.facts["means"] == "relay":
        return "a relay's TCP has nothing to send again: what its link loses comes later"
    return _of_record("socket_retransmitted")(found, device)


def _goodput(found: Found, device: str) -> Value:
    record = _latest(found, device)
    if record.get("socket_sent") is None:
        return _why_not(record, "socket_sent")
    if found.training_seconds <= 0:
        return "no round was finished"
    moved = record["socket_sent"] + record["socket_received"]
    useless = (record.get("socket_retransmitted") or 0) + (evaluation(record) or 0)
    # Of what was sent again some may have been evaluation's, and is then taken off twice.
    return max(0.0, float(moved - useless)) / found.training_seconds


def _gone(found: Found, device: str) -> Value:
    return sum(end - start for start, end in within(found.outages(device), found.training))


def _outages(found: Found, device: str) -> Value:
    return float(len(within(found.outages(device), found.training)))


def _offline(found: Found, device: str) -> Value:
    return sum(end - start for start, end in found.offline(device))


def _lost(cause: str) -> Callable[[Found, str], Value]:
    def value(found: Found, device: str) -> Value:
        ways = found.facts.get("counters", {}).get(device)
        return float(sum(way[cause] for way in ways.values())) if ways else "the trial was cut off before its end"

    return value


def _delivery(name: str) -> Callable[[Found, str], Value]:
    def value(found: Found, device: str) -> Value:
        counted = _latest(found, device).get("delivery")
        # What a device has never counted it leaves out.
        return NOT_REPORTED if counted is None else float(counted.get(name, 0))

    return value


def _expired(found: Found, device: str) -> Value:
    given_up = _latest(found, device).get("expired")
    return NOT_REPORTED if given_up is None else float(given_up)


def _refused(found: Found, device: str) -> Value:
    return float(sum(found.log.refusals.get(device, {}).values()))


def _late(found: Found, device: str) -> Value:
    return float(sum(device in one.late for one in found.rounds))


def _missed(found: Found, device: str) -> Value:
    return float(sum(found.missed(device)))


def _stale(found: Found, device: str) -> Value:
    longest = running = 0
    for missed in found.missed(device):
        running = running + 1 if missed else 0
        longest = max(longest, running)
    return float(longest)


def _accuracy(found: Found, device: str) -> Value:
    return found.log.accuracies().get(device, "the device was never evaluated")


def _on_perfect(found: Found, device: str) -> Value:
    return _accuracy(found.against, device) if found.against else "there is no run on perfect"


LINK = (
    Column(
        "goodput", "rate", fmean,
        "(sent + recv. - again - evaluation's bytes) / seconds of training: what a device moves for training, MQTT and "
        "what delivery repeats included",
        _goodput,
    ),
    Column("sent", "bytes", sum, "counted by the kernel (TCP_INFO): the device's bytes on the socket", _of_record("socket_sent")),
    Column("recv.", "bytes", sum, "the same, the other way", _of_record("socket_received")),
    Column("again", "bytes", sum, "counted by the kernel (TCP_INFO): bytes of sent that TCP sent again", _again),
    Column("gone", "seconds", fmean, "the scenario: time in which the link let nothing through, while the fleet trained", _gone),
    Column("outages", "count", sum, "the scenario: how often, while the fleet trained", _outages),
    Column(
        "offline", "seconds", fmean,
        "the hub saw the device offline: from the broker's word that it is gone until it greets again or something else comes "
        "from it; a device that has nothing to say is not offline",
        _offline,
    ),
)  # fmt: skip
REPAIR = (
    Column("chance", "count", sum, "counted by the emulator: packets lost by chance, both directions", _lost("lost_loss")),
    Column("queue", "count", sum, "the same, because the link's queue was full", _lost("lost_queue")),
    Column("outage", "count", sum, "the same, in an outage", _lost("lost_outage")),
    Column("repeated", "count", sum, "counted by the device: frames that delivery sent again", _delivery("frames_repeated")),
    Column("twice", "count", sum, "counted by the device: frames that came to it more than once", _delivery("duplicates")),
    Column("asked", "count", sum, "counted by the device: questions to the hub, what has arrived", _delivery("questions")),
    Column("refused", "count", sum, "counted by device and hub: frames and messages that were not taken", _refused),
)  # fmt: skip
TRAINING = (
    Column("expired", "count", sum, "counted by the device: activations given up, for its outbox was full", _expired),
    Column("late", "count", sum, "the hub: rounds in which a turn gave the device up", _late),
    Column("missed", "count", sum, "the hub: rounds from which no training step of the device was reported", _missed),
    Column("stale", "count", max, "the longest row of missed rounds", _stale),
    Column("accuracy", "share", fmean, "on the device's own test samples, when it was last evaluated", _accuracy),
)
AGAINST = Column("perfect", "share", fmean, "the same where the link has no faults", _on_perfect)


def lay_out(found: Found) -> Sheet[Column]:
    """Units, texts and footnotes of the table."""
    training = (*TRAINING, AGAINST) if found.against else TRAINING
    marks: dict[str, str] = {}
    blocks = tuple(_block(columns, found, marks) for columns in (LINK, REPAIR, training))
    legend = [(column.heading, column.how) for block in blocks for column in block.columns]
    if len(found.devices) > 1:
        legend.append((FLEET, "sums; means of goodput, gone, offline and accuracy; of stale the largest"))
    names = (*found.devices, *([FLEET] if len(found.devices) > 1 else []))
    return Sheet(names, blocks, tuple(legend), tuple((mark, reason) for reason, mark in marks.items()))


def _block(columns: Sequence[Column], found: Found, marks: dict[str, str]) -> Block[Column]:
    texts, units = [], []
    for column in columns:
        values = [column.value(found, name) for name in found.devices]
        known = [value for value in values if not isinstance(value, str)]
        if len(values) > 1:
            values.append(column.together(known) if known else next(v for v in values if isinstance(v, str)))
        size, unit = _unit(column, [value for value in values if not isinstance(value, str)])
        units.append(unit if known else "")
        texts.append([_text(value, column, size, marks) for value in values])
    return Block(tuple(columns), tuple(units), tuple(zip(*texts, strict=True)))


def _unit(column: Column, values: Sequence[float]) -> tuple[float, str]:
    if column.family == "rate":
        size, unit = unit_of("bytes", values)
        return size, f"{unit}/s"
    return unit_of(column.family, values)


def _text(value: Value, column: Column, size: float, marks: dict[str, str]) -> str:
    if isinstance(value, str):
        return MISSING + marks.setdefault(value, mark_of(len(marks)))
    if column.family == "count":
        return f"{value:.0f}"
    return f"{100 * value:.1f}" if column.family == "share" else figure(value / size)


# In words -------------------------------------------------------------------------------------------------------


def summary(found: Found) -> list[str]:
    """The run in sentences: what was emulated, how far training came, what it would have been without faults."""
    facts, run = found.facts, found.log.run
    told = [
        f"{facts['scenario']}, seed {facts['seed']}. Source: {facts['source']}.",
        f"Links: {facts['how']}.",
        f"{run['strategy']} on {run.get('dataset', 'unknown data')}, {_count(len(found.devices), 'device')}: {_course(found)}.",
    ]
    if found.against:
        told.append(f"On perfect: {_course(found.against)}.")
    return told


def _course(found: Found) -> str:
    wanted = found.log.run.get("rounds", len(found.rounds))
    pace = f", {found.rounds_an_hour:.0f} an hour" if found.rounds_an_hour else ""
    accuracy = found.log.row.accuracy_last
    reached = f"accuracy {100 * accuracy:.1f} %" if accuracy is not None else "never evaluated"
    return f"{len(found.rounds)} of {_count(wanted, 'round')} in {found.training_seconds:.1f} s{pace}; {reached}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def render(found: Found, width: int = 80) -> str:
    """The report as plain text of at most `width` characters a line."""
    told = "\n".join(textwrap.fill(sentence, width) for sentence in summary(found))
    return printed(lay_out(found), "device", NAME_WIDTH, CELL_WIDTH, width, [told])
