"""Where joules come from on a board: RAPL, a power sensor of hwmon, a battery's gauge. What is not measured is None and a reason.

Every source reads files below a root, so tests lay out a tree of their own. A source is either a counter of energy (RAPL), whose
differences are summed, or a gauge of power, whose readings are integrated by trapezoids. Nothing here is modelled.
"""

import dataclasses
import fnmatch
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Kind = Literal["metered", "sensor", "modelled"]

MOST_WATTS = 1000.0  # no board or CPU package draws more: beyond it a reading is a fault, or a counter wrapped unseen
COUNTER_SECONDS = 10.0  # how often to look at a counter, so that none wraps twice unseen
RAPL_SECONDS = 0.001  # RAPL refreshes about every millisecond
SENSOR_SECONDS = 0.1  # an INA2xx without update_interval: the driver's conversions take up to about this long
BATTERY_SECONDS = 10.0  # gauges of batteries refresh every 1 to 30 s

# Rails that feed all others of their board: beside one of these, the rest would be counted twice.
WHOLE_BOARD_RAILS = ("VDD_IN", "POM_5V_IN", "VIN", "5V_IN", "TOTAL")


class UnreadableError(Exception):
    """A file of a sensor cannot be read, or holds no sensible number; the text is the reason to report."""


@dataclass(frozen=True)
class Energy:
    """Joules of a window and how they were obtained, or None and why there are none.

    `kind` is the class: `metered` (an external meter), `sensor` (on the board) or `modelled`. `resolution` says how often was read.
    """

    joules: float | None = None
    kind: Kind | None = None
    source: str | None = None
    reason: str | None = None
    resolution: str | None = None

    def to_record(self) -> dict[str, float | str | None]:
        """Returns the fields as a plain dictionary for reports."""
        return dataclasses.asdict(self)


class Files:
    """The files below a root; messages show their paths as they would be on the board."""

    def __init__(self, root: Path, read: Callable[[Path], str] = Path.read_text) -> None:
        self.root = root
        self._read = read

    def text(self, path: str) -> str:
        """Returns the content without white space around it; raises UnreadableError with path and cause."""
        try:
            return self._read(self.root / path).strip()
        except PermissionError:
            raise UnreadableError(
                f"/{path} wants read permission (it is often root's alone; a udev rule can grant it)"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise UnreadableError(f"/{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None

    def number(self, path: str) -> int:
        """Returns the whole number in a file."""
        text = self.text(path)
        try:
            return int(text)
        except ValueError:
            raise UnreadableError(f"/{path} holds {text[:40]!r}, not a whole number") from None

    def exists(self, path: str) -> bool:
        """Whether there is such a file, readable or not."""
        return (self.root / path).exists()

    def names(self, folder: str, pattern: str = "*") -> list[str]:
        """Returns what lies in a folder and matches, sorted by number and name; nothing when there is no such folder."""
        try:
            found = [entry.name for entry in (self.root / folder).iterdir()]
        except OSError:
            return []
        return sorted(fnmatch.filter(found, pattern), key=lambda name: (len(name), name))


class Source(Protocol):
    """A place where energy or power is read. `seconds_between` is how often to read, `refresh_seconds` how often it changes."""

    name: str
    seconds_between: float
    refresh_seconds: float

    def joules_since(self, seconds: float) -> float:
        """Reads once; returns the joules since the last good reading, `seconds` ago. Raises UnreadableError.

        The first reading, and the first after a failure, is preceded by `restart()` and returns 0.
        """

    def restart(self) -> None:
        """Forgets the last reading, so that no energy is made up for a gap."""


@dataclass
class _Package:
    """One RAPL zone: a counter in µJ that starts over after `range`."""

    path: str
    range: int
    last: int | None = None

    def joules_to(self, now: int, seconds: float) -> float:
        before, self.last = self.last, now
        if before is None:
            return 0.0
        if seconds * MOST_WATTS * 1e6 > self.range:
            raise UnreadableError(f"/{self.path} was not read for {seconds:.0f} s and may have wrapped more than once")
        joules = (now - before if now >= before else now - before + self.range) / 1e6
        if joules > MOST_WATTS * max(seconds, RAPL_SECONDS):
            raise UnreadableError(f"/{self.path} jumped by {joules:.6g} J in {seconds:.3g} s")
        return joules


class Rapl:
    """CPU packages of Intel and AMD: energy_uj of /sys/class/powercap/intel-rapl:N.

    Subzones (core, uncore, dram) lie within a package or have counters of their own kind, psys contains the packages, and
    intel-rapl-mmio shows package 0 once more: only zones called `package-…` are summed.
    """

    seconds_between = COUNTER_SECONDS
    refresh_seconds = RAPL_SECONDS

    def __init__(self, files: Files) -> None:
        folder = "sys/class/powercap"
        zones = [f"{folder}/{name}" for name in files.names(folder) if re.fullmatch(r"intel-rapl:\d+", name)]
        zones = [zone for zone in zones if files.text(f"{zone}/name").startswith("package-")]
        if not zones:
            raise UnreadableError(f"no RAPL under /{folder}")
        self._files = files
        self._packages = [_Package(f"{zone}/energy_uj", files.number(f"{zone}/max_energy_range_uj")) for zone in zones]
        for package in self._packages:
            files.number(package.path)
        names = ", ".join(files.text(f"{zone}/name") for zone in zones)
        self.name = f"RAPL {names} (CPU only, not the board)"

    def joules_since(self, seconds: float) -> float:
        """Reads every package's counter; returns the sum of what they advanced by."""
        readings = [self._files.number(package.path) for package in self._packages]
        return sum(package.joules_to(now, seconds) for package, now in zip(self._packages, readings, strict=True))

    def restart(self) -> None:
        """Forgets the last counters."""
        for package in self._packages:
            package.last = None


class Gauge:
    """A sensor of power, read now and then: the energy between two readings is their mean times the time."""

    def __init__(self, name: str, watts: Callable[[], float], seconds_between: float, refresh_seconds: float) -> None:
        self.name = name
        self.seconds_between = seconds_between
        self.refresh_seconds = refresh_seconds
        self._watts = watts
        self._last: float | None = None

    def joules_since(self, seconds: float) -> float:
        """Reads the power; returns the trapezoid between the last reading and this."""
        watts = self._watts()
        if not -MOST_WATTS <= watts <= MOST_WATTS:
            raise UnreadableError(f"{self.name} reads {watts:.6g} W, beyond the {MOST_WATTS:.0f} W that are credible")
        before, self._last = self._last, watts
        return 0.0 if before is None else (before + watts) / 2 * seconds

    def restart(self) -> None:
        """Forgets the last power."""
        self._last = None


@dataclass(frozen=True)
class Rail:
    """One supply line: its label and the files that multiply to its power."""

    label: str
    factors: tuple[str, ...]
    unit: float

    def watts(self, files: Files) -> float:
        """Reads the rail's power."""
        product = self.unit
        for path in self.factors:
            product *= files.number(path)
        return product


def hwmon(files: Files, seconds_between: float = SENSOR_SECONDS) -> Gauge:
    """Finds the INA2xx and INA3221 sensors below /sys/class/hwmon: all rails, or the one that feeds the others."""
    folder = "sys/class/hwmon"
    chips = [f"{folder}/{name}" for name in files.names(folder)]
    chips = [chip for chip in chips if files.exists(f"{chip}/name") and _is_power_sensor(files.text(f"{chip}/name"))]
    rails = [rail for chip in chips for rail in _rails(files, chip)]
    rails = [rail for rail in rails if rail.label.upper() in WHOLE_BOARD_RAILS] or rails
    if not rails:
        raise UnreadableError(f"no power sensor under /{folder}")
    for rail in rails:
        rail.watts(files)
    name = f"hwmon {', '.join(rail.label for rail in rails)}"
    refresh = max(_refresh_seconds(files, chip) for chip in chips)
    return Gauge(name, lambda: sum(rail.watts(files) for rail in rails), seconds_between, refresh)


def _is_power_sensor(chip: str) -> bool:
    """Whether a chip measures a supply rail; batteries, disks and graphics cards show power in hwmon too."""
    return re.fullmatch(r"ina(2\d\d|3221)x?", chip) is not None


def _rails(files: Files, chip: str) -> Iterator[Rail]:
    """Yields a chip's rails: power in µW where the chip multiplies, else mV times mA of the same channel.

    in0 of an INA2xx and in4 to in6 of an INA3221 are the voltage over the shunt, curr4 is a sum: channels are 1 to 3.
    """
    name = files.text(f"{chip}/name")
    for n in (1, 2, 3):
        power, pair = f"{chip}/power{n}_input", (f"{chip}/in{n}_input", f"{chip}/curr{n}_input")
        if files.exists(f"{chip}/in{n}_enable") and files.text(f"{chip}/in{n}_enable") == "0":
            continue
        if files.exists(power):
            yield Rail(_label(files, chip, n, name), (power,), 1e-6)
        elif all(files.exists(path) for path in pair):
            yield Rail(_label(files, chip, n, name), pair, 1e-6)


def _label(files: Files, chip: str, n: int, name: str) -> str:
    """The channel's own label, else the chip's from the device tree, else chip and channel."""
    for path in (f"{chip}/power{n}_label", f"{chip}/in{n}_label", f"{chip}/label"):
        if files.exists(path):
            return files.text(path)
    return f"{name} {chip.rsplit('/', 1)[-1]} channel {n}"


def _refresh_seconds(files: Files, chip: str) -> float:
    path = f"{chip}/update_interval"
    return max(files.number(path) / 1e3, 1e-3) if files.exists(path) else SENSOR_SECONDS


def battery(files: Files, seconds_between: float = SENSOR_SECONDS) -> Gauge:
    """Finds the batteries that feed the board; their gauges speak only while they discharge and nothing charges."""
    folder = "sys/class/power_supply"
    supplies = [f"{folder}/{name}" for name in files.names(folder)]
    packs = [supply for supply in supplies if _feeds_the_board(files, supply)]
    rails = {pack: rail for pack in packs if (rail := _battery_rail(files, pack))}
    if not rails:
        raise UnreadableError(f"no battery under /{folder}")

    def watts() -> float:
        states = {pack: files.text(f"{pack}/status") for pack in rails}
        feeding = [pack for pack, state in states.items() if state == "Discharging"]
        if not feeding or "Charging" in states.values():
            said = ", ".join(f"{rails[pack].label} is {state}" for pack, state in states.items())
            raise UnreadableError(f"a battery's gauge shows the board only while it discharges: {said}")
        # Some drivers give the current a sign while discharging, others do not.
        return sum(abs(rails[pack].watts(files)) for pack in feeding)

    name = f"battery {', '.join(rail.label for rail in rails.values())}"
    return Gauge(name, watts, max(seconds_between, 1.0), BATTERY_SECONDS)


def _feeds_the_board(files: Files, supply: str) -> bool:
    """Whether a supply is a battery of the board, not that of a mouse plugged into it."""
    if not files.exists(f"{supply}/type") or files.text(f"{supply}/type") != "Battery":
        return False
    return not (files.exists(f"{supply}/scope") and files.text(f"{supply}/scope") == "Device")


def _battery_rail(files: Files, pack: str) -> Rail | None:
    label, power = pack.rsplit("/", 1)[-1], f"{pack}/power_now"
    pair = (f"{pack}/voltage_now", f"{pack}/current_now")
    if files.exists(power):
        return Rail(label, (power,), 1e-6)
    return Rail(label, pair, 1e-12) if all(files.exists(path) for path in pair) else None


# What is tried, best first: how to open it, given the files and the seconds between two readings that the user wants.
# A counter misses nothing between readings; a rail shows the whole board; a battery's gauge is slow.
SOURCES: tuple[Callable[[Files, float], Source], ...] = (
    lambda files, _: Rapl(files),
    hwmon,
    battery,
)


def find(files: Files, seconds_between: float = SENSOR_SECONDS) -> tuple[Source | None, str]:
    """Returns the best source that can be read and an empty reason, or None and what was looked for and not found."""
    missing = []
    for open_source in SOURCES:
        try:
            return open_source(files, seconds_between), ""
        except UnreadableError as error:
            missing.append(str(error))
    return None, "no meter: " + ", ".join(missing)


@dataclass(frozen=True)
class Mark:
    """Where the running sum stood at a moment: joules, readings and failures since the start, and whether this reading failed."""

    time: float
    joules: float
    readings: int
    failures: int
    failed: bool


class Integrator:
    """The running sum of one source, from which windows take differences; one failed reading voids the windows around it."""

    def __init__(self, source: Source | None, missing: str) -> None:
        self.source = source
        self.missing = missing
        """Why there is no source; empty where there is one."""
        self._last: float | None = None
        self._joules = 0.0
        self._readings = self._failures = 0
        self.failure = ""
        """Why the last reading failed that did."""

    def due(self, now: float) -> bool:
        """Whether it is time for another reading."""
        return self.source is not None and (self._last is None or now - self._last >= self.source.seconds_between)

    def rest(self) -> None:
        """Says that nobody measures until the next reading: what is used till then belongs to no window."""
        if self.source is not None:
            self.source.restart()
            self._last = None

    def advance(self, now: float) -> Mark:
        """Reads the source and returns where the sum stands. Never raises: a failure is counted and remembered."""
        failed = self.source is not None and not self._read(self.source, now)
        return Mark(now, self._joules, self._readings, self._failures, failed)

    def _read(self, source: Source, now: float) -> bool:
        seconds, self._last = (0.0 if self._last is None else now - self._last), now
        try:
            self._joules += source.joules_since(seconds)
        except UnreadableError as error:
            self._failures += 1
            self.failure = str(error)
            source.restart()
            return False
        self._readings += 1
        return True

    def between(self, begin: Mark, end: Mark) -> Energy:
        """Returns the energy of a window from two marks, with the reason where there is none."""
        if self.source is None:
            return Energy(reason=self.missing)
        seconds, joules, readings = end.time - begin.time, end.joules - begin.joules, end.readings - begin.readings + 1
        fine = Energy(joules, "sensor", self.source.name, None, self._resolution(seconds, readings))
        if begin.failed or end.failures > begin.failures:
            return dataclasses.replace(fine, joules=None, kind=None, reason=self.failure)
        if joules == 0:
            reason = f"{self.source.name} did not move in {seconds:.3g} s: the window is too short, or the sensor is not live"
            return dataclasses.replace(fine, joules=None, kind=None, reason=reason)
        return fine

    def _resolution(self, seconds: float, readings: int) -> str:
        refresh = self.source.refresh_seconds if self.source else 0.0
        said = f"{readings} readings in {seconds:.3g} s"
        if seconds < 2 * refresh:
            said += f"; shorter than two samples of the sensor, which are {refresh:g} s apart"
        return said
