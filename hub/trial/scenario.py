"""What the links of a trial do: a scenario, read from TOML.

    [scenario]                  name, source, seed
    [link]                      both directions: rate, delay, loss, …; [up] and [down] say what is different there
    [outages]                   when both directions are gone
    [trace]                     recorded rates instead of a constant one
    [[schedule]]                from at_seconds on, values of [link] change; [schedule.up], [schedule.down] for one direction
    [devices.NAME.link]         what is different for one device, and so for each of the tables above but the first;
                                outages, trace and schedule of a device stand in place of the common ones

Up is from the device to the hub. Times are seconds from the start of the trial.
"""

import dataclasses
import math
import re
import tomllib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from edge.wire import toml_fields
from edge.wire.toml_fields import ConfigError, Example, Pattern, Range
from hub.trial.outages import Outages
from hub.trial.traces import Pace, PacketPace, PacketTrace, RateTrace, SteppedPace, Trace, read_trace

FOLDER = Path(__file__).parent / "scenarios"
"""Where the scenarios that come with the package are."""

HEADING = """A scenario of a trial: what the link of each device does.
Up is from the device to the hub; times are seconds from the start of the trial."""

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"

_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)bit(?:/s|ps)?", re.IGNORECASE)


@dataclass(frozen=True)
class Link:
    """What one direction does to packets; up and down are alike unless [up] or [down] says otherwise."""

    rate: Annotated[
        float | None,
        Pattern(_RATE.pattern, "a rate such as 256kbit or 10mbit, or a number of bit/s"),
        Example("10mbit"),
    ] = None
    """Bits a second, of IP packets; without it nothing limits them."""

    delay_seconds: Annotated[float, Range(0, 60)] = 0.0
    """From the last bit sent to its arrival."""

    jitter_seconds: Annotated[float, Range(0, 60)] = 0.0
    """The delay of each packet is up to this much more or less, evenly; none overtakes another by it."""

    loss: Annotated[float, Range(0, 1)] = 0.0
    """Share of packets lost, each on its own; with p_enter the share in the good state (Gilbert-Elliott)."""

    p_enter: Annotated[float, Range(0, 1)] = 0.0
    """Chance, for each packet, that the good state turns bad before it."""

    p_leave: Annotated[float, Range(0, 1)] = 0.0
    """Chance, for each packet, that the bad state turns good before it."""

    loss_bad: Annotated[float, Range(0, 1)] = 1.0
    """Share of packets lost in the bad state."""

    queue_bytes: Annotated[int, Range(1500, 1e9)] = 65536
    """What waits to be sent, the packet under way included; what does not fit is lost."""

    corrupt: Annotated[float, Range(0, 1)] = 0.0
    """Share of packets with one bit flipped."""

    duplicate: Annotated[float, Range(0, 1)] = 0.0
    """Share of packets that arrive twice."""

    reorder: Annotated[float, Range(0, 1)] = 0.0
    """Share of packets that skip the delay and so overtake those before them."""

    def problems(self) -> Iterator[str]:
        """What does not go together."""
        if self.jitter_seconds > self.delay_seconds:
            yield (
                f"jitter_seconds = {self.jitter_seconds:g} must not be above delay_seconds = {self.delay_seconds:g}: "
                "nothing arrives before it is sent"
            )
        if self.p_enter and not self.p_leave:
            yield f"p_enter = {self.p_enter:g} needs p_leave, a chance above 0: else the bad state never ends"
        if self.reorder and not self.delay_seconds:
            yield f"reorder = {self.reorder:g} needs delay_seconds above 0: there is nothing to overtake"


@dataclass(frozen=True)
class Course:
    """One direction over time: what it does from each moment on, the first at 0, and the trace that paces it."""

    steps: tuple[tuple[float, Link], ...] = ((0.0, Link()),)
    trace: Trace | None = None

    def at(self, seconds: float) -> Link:
        """What it does at this moment."""
        if len(self.steps) == 1 and not isinstance(self.trace, RateTrace):
            return self.steps[0][1]
        link = self.steps[max(0, bisect_right(self.steps, seconds, key=lambda step: step[0]) - 1)][1]
        if isinstance(self.trace, RateTrace):
            return dataclasses.replace(link, loss=self.trace.loss(seconds))
        return link

    def pace(self) -> Pace:
        """How it sends, from the start of the trial."""
        if isinstance(self.trace, PacketTrace):
            return PacketPace(self.trace)
        if isinstance(self.trace, RateTrace):
            return SteppedPace(self.trace.times, self.trace.rates, self.trace.seconds)
        rates = [math.inf if link.rate is None else link.rate for _, link in self.steps]
        return SteppedPace([start for start, _ in self.steps], rates)


@dataclass(frozen=True)
class Links:
    """Both directions of a device's link, and when it is gone."""

    up: Course = Course()
    down: Course = Course()
    outages: Outages = field(default_factory=Outages)


@dataclass(frozen=True)
class Scenario:
    """What the links of a trial do."""

    name: str
    source: str
    seed: int = 0
    links: Links = Links()
    devices: Mapping[str, Links] = field(default_factory=dict)
    """Those whose links are different."""

    def of(self, device: str) -> Links:
        """What this device's link does."""
        return self.devices.get(device, self.links)

    def check(self, devices: Iterable[str]) -> None:
        """Refuse a scenario that speaks of devices the trial does not have."""
        known = list(devices)
        strange = [name for name in self.devices if name not in known]
        if strange:
            raise ConfigError(f"scenario {self.name}: [devices.{strange[0]}] must be one of {', '.join(known)}")


def library() -> dict[str, Path]:
    """The scenarios that come with the package, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def load(name: str | Path) -> Scenario:
    """Read a scenario of the library by its name, or any other by its path.

    Raises:
        ConfigError: naming every problem, one a line, with file, key, value and what would be right.
    """
    path = library().get(str(name)) or Path(name)
    if not path.exists() and path.suffix != ".toml":
        raise ConfigError(f"scenario {name}: must be a file, or one of {', '.join(library())}")
    try:
        return read(path.read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None


def read(text: str, path: Path) -> Scenario:
    """Read a scenario from the content of `path`, which messages name and whose folder traces start from; as `load` says."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    reading = _Reading(path)
    scenario = reading.scenario(tables)
    # With a wrong value replaced by its default, what is said about its company would mislead: that comes after it.
    if problems := reading.problems or reading.company:
        raise ConfigError(*dict.fromkeys(problems))
    return scenario


def describe() -> str:
    """An annotated example to start from."""
    return toml_fields.describe(_Sections, HEADING) + _MORE


@dataclass(frozen=True)
class _About:
    """Which scenario this is."""

    name: Annotated[str, Pattern(NAME, "a name of letters, digits, points, dashes"), Example("my-link")]
    """What reports call it."""

    source: Annotated[str, Example("ours: chosen, not measured")]
    """Where its numbers come from, or `ours`."""

    seed: Annotated[int, Range(0, 2**31 - 1)] = 0
    """What chance starts from."""


@dataclass(frozen=True)
class _Files:
    """Recorded traces in place of a rate: .csv has time,rate,loss, every other file is a packet trace of Mahimahi."""

    up: Annotated[str | None, Example("phone.up")] = None
    """A file, from the folder of this one, for the way to the hub."""

    down: Annotated[str | None, Example("phone.down")] = None
    """A file for the way to the device."""


@dataclass(frozen=True)
class _Change:
    """One change of the schedule."""

    at_seconds: Annotated[float, Range(0, 1e9), Example(60.0)]
    """From when on it holds."""


@dataclass(frozen=True)
class _Sections:
    """What an annotated example shows, and where keys are looked up."""

    scenario: _About
    link: Link
    outages: Outages
    trace: _Files


_MORE = """
# What is different in one direction: the keys of [link].
[up]

[down]

# What changes with time: the keys of [link], for both directions or under [schedule.up] and [schedule.down].
# [[schedule]]
# at_seconds = 60.0
# rate = "64kbit"

# What is different for one device; its outages, trace and schedule stand in place of the common ones.
# [devices.pi-1.link]
# rate = "1mbit"
"""

_KEYS = {
    **toml_fields.keys_of(_Sections),
    "change": toml_fields.keys_of(dataclasses.make_dataclass("_One", [("change", _Change)]))["change"],
}
_TABLES = ("link", "up", "down", "outages", "trace", "schedule")
_DIRECTIONS = ("up", "down")

Table = dict[str, Any]


@dataclass
class _Reading:
    """One pass over one file: it collects problems and goes on with defaults in the place of what is wrong."""

    path: Path
    problems: list[str] = field(default_factory=list)
    company: list[str] = field(default_factory=list)
    """What is right alone, and wrong together."""

    def scenario(self, tables: Table) -> Scenario:
        self._unknown("", tables, ("scenario", *_TABLES, "devices"))
        about = self._built(_About, "scenario", self._values("scenario", "scenario", tables.get("scenario", {})))
        common = {name: tables[name] for name in _TABLES if name in tables}
        links = self._links("", common)
        devices = {}
        for device, own in self._table("devices", tables.get("devices", {})).items():
            if not re.fullmatch(NAME, device):
                self._wrong(f"[devices] {_shown(device)}: must be a name of letters, digits, points, dashes")
                continue
            where = f"devices.{device}."
            own = self._table(where[:-1], own)  # noqa: PLW2901  what is no table is empty from here on
            self._unknown(where, own, _TABLES)
            devices[device] = self._links(where, common, own)
        return Scenario(about.name, about.source, about.seed, links, devices)

    def _links(self, where: str, common: Table, own: Table | None = None) -> Links:
        own = own or {}
        at = {name: where if name in own else "" for name in _TABLES}
        chosen = {**common, **own}
        values = self._values("outages", f"{at['outages']}outages", chosen.get("outages", {}))
        outages = self._built(Outages, f"{at['outages']}outages", values)
        traces = self._traces(f"{at['trace']}trace", chosen.get("trace", {}))
        schedule = self._schedule(f"{at['schedule']}schedule", chosen.get("schedule", []))
        courses = []
        for direction in _DIRECTIONS:
            # From the most common to the most particular; the own [link] of a device comes after the common [up].
            given: Table = {}
            alike = direction not in common and direction not in own
            for prefix, tables in (("", common), (where, own)):
                for name in ("link", direction):
                    given |= self._values("link", f"{prefix}{name}", tables.get(name, {}))
            courses.append(
                self._course(
                    f"{where}{'link' if alike else direction}", given, schedule[direction], traces.get(direction)
                )
            )
        return Links(courses[0], courses[1], outages)

    def _course(self, where: str, given: Table, changes: list[tuple[float, Table]], trace: Trace | None) -> Course:
        now = 0.0
        steps: list[tuple[float, Link]] = [(now, self._built(Link, where, given))]
        for at, change in changes:
            given = {**given, **change}
            link = self._built(Link, f"{where} from {at:g} s", given)
            if at == now:
                steps.pop()
            now = at
            steps.append((now, link))
        if trace is not None and "rate" in given:
            self.company.append(
                f"{self.path}: [{where}] rate = {_shown(given['rate'])}: must be left out, for the trace gives it"
            )
        if isinstance(trace, RateTrace) and "loss" in given:
            self.company.append(
                f"{self.path}: [{where}] loss = {_shown(given['loss'])}: must be left out, for the trace gives it"
            )
        return Course(tuple(steps), trace)

    def _schedule(self, where: str, given: Any) -> dict[str, list[tuple[float, Table]]]:
        """The changes of each direction."""
        changes: dict[str, list[tuple[float, Table]]] = {name: [] for name in _DIRECTIONS}
        if not isinstance(given, list):
            self._wrong(f"[{where}]: must be written [[{where}]], once for each change")
            return changes
        last = -1.0
        for table in given:
            table = self._table(where, table)  # noqa: PLW2901
            parts = {name: table.get(name, {}) for name in _DIRECTIONS}
            own = {name: value for name, value in table.items() if name in _KEYS["change"]}
            rest = {name: value for name, value in table.items() if name not in (*_DIRECTIONS, *own)}
            change = self._built(_Change, where, self._values("change", where, own))
            both = self._values("link", where, rest)
            for name in _DIRECTIONS:
                one = self._values("link", f"{where}.{name}", parts[name])
                changes[name].append((change.at_seconds, {**both, **one}))
            if change.at_seconds <= last:
                self.company.append(
                    f"{self.path}: [[{where}]] at_seconds = {change.at_seconds:g} comes after {last:g}: "
                    "must be above the one before"
                )
            last = change.at_seconds
        return changes

    def _traces(self, where: str, given: Any) -> dict[str, Trace]:
        traces = {}
        for direction, file in self._values("trace", where, given).items():
            try:
                traces[direction] = read_trace(self.path.parent / file)
            except ConfigError as error:
                self._wrong(f"[{where}] {direction} = {_shown(file)}: {error}")
        return traces

    def _values(self, section: str, where: str, given: Any) -> Table:
        """The keys of one table that are right, in their types."""
        values = {}
        for name, value in self._table(where, given).items():
            key = _KEYS[section].get(name)
            if key is None:
                self._wrong(f"[{where}] has no key {name}; known: {', '.join(_KEYS[section])}")
                continue
            try:
                values[name] = _accepted(key, value)
            except (TypeError, ValueError):
                self._wrong(f"[{where}] {name} = {_shown(value)}: must be {key.wants()}")
        return values

    def _built(self, kind: type, where: str, values: Table) -> Any:
        section = {Link: "link", Outages: "outages", _Change: "change", _About: "scenario"}[kind]
        missing = [key for key in _KEYS[section].values() if key.required and key.name not in values]
        for key in missing:
            if not any(f"[{where}] {key.name} = " in problem for problem in self.problems):
                self._wrong(f"[{where}] {key.name} is missing: must be {key.wants()}, such as {_shown(key.example)}")
        built = kind(**{key.name: key.example for key in missing}, **values)
        for problem in built.problems() if isinstance(built, Link | Outages) else ():
            self.company.append(f"{self.path}: [{where}] {problem}")
        return built

    def _table(self, where: str, given: Any) -> Table:
        if isinstance(given, dict):
            return given
        self._wrong(f"{where} = {_shown(given)}: must be a table, written [{where}]")
        return {}

    def _unknown(self, where: str, tables: Table, known: tuple[str, ...]) -> None:
        for name in tables:
            if name not in known:
                self._wrong(
                    f"[{where}{name}] is not a table of a scenario; known: {', '.join(where + k for k in known)}"
                )

    def _wrong(self, sentence: str) -> None:
        self.problems.append(f"{self.path}: {sentence}")


def _accepted(key: toml_fields.Key, value: Any) -> Any:
    """The value in the key's type; raises ValueError or TypeError where it is not of that type, range or form."""
    if key.name == "rate":
        return _rate(value)
    if key.name == "times":
        return tuple((_number(start), _number(length)) for start, length in value)
    if key.type is not str:
        typed = _number(value)
        bounds = next(mark for mark in key.marks if isinstance(mark, Range))
        if not bounds.minimum <= typed <= bounds.maximum or (key.type is int and typed != value):
            raise ValueError("out of range")
        if key.type is int and not isinstance(value, int):
            raise ValueError("not whole")
        return typed if key.type is float else value
    pattern = next((mark.regex for mark in key.marks if isinstance(mark, Pattern)), "(?s:.+)")
    if not re.fullmatch(pattern, value):
        raise ValueError("not of that form")
    return value


def _rate(value: Any) -> float:
    match = _RATE.fullmatch(value.strip()) if isinstance(value, str) else None
    rate = float(match[1]) * _UNITS[match[2].lower()] if match else _number(value)
    if not 0 <= rate <= 1e12:
        raise ValueError("out of range")
    return rate


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("not a number")
    return float(value)


def _shown(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
