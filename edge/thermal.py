"""How warm a board is, and whether it has been slowed down for it (or for a weak power supply)."""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from edge.files import Files, UnreadableError
from edge.vcgencmd import Vcgencmd

# Names under which kernels show the temperature of the processor, best first; other zones are chargers, radios, disks.
CPU_ZONES = (
    "cpu-thermal",
    "cpu_thermal",
    "cpu-therm",
    "x86_pkg_temp",
    "soc-thermal",
    "soc_thermal",
    "cpu0-thermal",
    "acpitz",
)
ZONES = "sys/class/thermal"
CPUS = "sys/devices/system/cpu"
FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"

# Of `vcgencmd get_throttled`; the same 16 bits higher: it has happened since the board was switched on.
FLAGS = {0: "under-voltage", 1: "clock capped", 2: "throttled", 3: "soft temperature limit"}

SLOWS = re.compile("cpufreq|processor|powerclamp")
"""Cooling devices that lower clocks; others are fans."""


@dataclass(frozen=True)
class Temperature:
    """The processor's temperature in °C and the zone it was read from, or None and why."""

    celsius: float | None = None
    source: str | None = None
    reason: str | None = None


def temperature(files: Files) -> Temperature:
    """Reads the processor's thermal zone below /sys/class/thermal, in °C."""
    zones: dict[str, str] = {}
    try:
        for name in files.names(ZONES, "thermal_zone*"):
            zones.setdefault(files.text(f"{ZONES}/{name}/type").lower(), f"{ZONES}/{name}/temp")
        kind = next(kind for kind in CPU_ZONES if kind in zones)
        return Temperature(files.number(zones[kind]) / 1000, f"/{zones[kind]} ({kind})")
    except StopIteration:
        found = f": only {', '.join(zones)}" if zones else ""
        return Temperature(reason=f"no processor zone under /{ZONES}{found}")
    except UnreadableError as error:
        return Temperature(reason=str(error))


@dataclass(frozen=True)
class Zone:
    """One thermal zone: its kind, its temperature now, and the temperatures at which something happens, with what."""

    kind: str
    celsius: float | None
    trips: tuple[tuple[str, float], ...]
    """Such as ("passive", 80.0): at 80 °C clocks are lowered."""


@dataclass(frozen=True)
class Thermal:
    """How warm a board is at a moment, and what has slowed it down so far."""

    temperature: Temperature
    zones: tuple[Zone, ...]
    flags: tuple[str, ...] | None
    """What slows it now: "under-voltage", "clock capped", "throttled", "soft temperature limit"; None where nobody tells."""
    since_start: tuple[str, ...] | None
    """The same of any time since it was switched on."""
    flags_source: str
    """Where the flags were read, or why there are none."""
    cooling: tuple[tuple[str, int, int], ...]
    """What the kernel does against heat: device (such as "cpufreq-cpu0" or "pwm-fan"), its state now, and the highest there is."""
    throttle_count: int | None
    """Of x86: how often cores and packages were throttled since the start; None elsewhere."""

    def to_record(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return asdict(self)


def thermal(files: Files, vcgencmd: Vcgencmd | None = None) -> Thermal:
    """Reads zones, flags and counters.

    Args:
        files: below the root.
        vcgencmd: asked where the kernel has no file for the flags; None asks nobody.
    """
    bits, source = _bits(files, vcgencmd)
    return Thermal(
        temperature(files),
        tuple(_zones(files)),
        None if bits is None else _named(bits),
        None if bits is None else _named(bits >> 16),
        source,
        tuple(_cooling(files)),
        _throttle_count(files),
    )


def slowed(before: Thermal, after: Thermal) -> str:
    """Says what slowed the board down between two moments, in words; empty where nothing is known to have."""
    said = list(after.flags or ())
    said += [
        f"{flag} in between" for flag in after.since_start or () if flag not in (*(before.since_start or ()), *said)
    ]
    count = (after.throttle_count or 0) - (before.throttle_count or 0)
    if count > 0:
        said.append(f"throttled {count} times")
    said += [
        f"{name} is at {state} of {most}"
        for name, state, most in after.cooling
        if state > 0 and SLOWS.search(name.lower())
    ]
    for zone in after.zones:
        for kind, celsius in zone.trips:
            if kind == "passive" and zone.celsius is not None and zone.celsius >= celsius:
                said.append(f"{zone.kind} is at {zone.celsius:.0f} °C, from {celsius:.0f} °C its clock is lowered")
    return ", ".join(said)


def _bits(files: Files, vcgencmd: Vcgencmd | None) -> tuple[int | None, str]:
    if text := files.text_or_none(FIRMWARE):
        try:
            return int(text, 16), f"/{FIRMWARE}"
        except ValueError:
            return None, f"/{FIRMWARE} holds {text[:40]!r}, not a hexadecimal number"
    if vcgencmd is None:
        return None, f"there is no /{FIRMWARE}"
    try:
        answer = vcgencmd.ask("get_throttled")
        return int(answer.partition("throttled=")[2], 16), f"{vcgencmd.program} get_throttled"
    except UnreadableError as error:
        return None, str(error)
    except ValueError:
        return None, f"{vcgencmd.program} get_throttled says {answer[:40]!r}"


def _named(bits: int) -> tuple[str, ...]:
    return tuple(name for bit, name in FLAGS.items() if bits >> bit & 1)


def _zones(files: Files) -> Iterator[Zone]:
    for name in files.names(ZONES, "thermal_zone*"):
        folder = f"{ZONES}/{name}"
        milli = files.number_or_none(f"{folder}/temp")
        trips = []
        for entry in files.names(folder, "trip_point_*_temp"):
            kind = files.text_or_none(f"{folder}/{entry.removesuffix('temp')}type")
            at = files.number_or_none(f"{folder}/{entry}")
            # Trips that are switched off stand at 0 or below.
            if kind and at is not None and at > 0:
                trips.append((kind, at / 1000))
        yield Zone(files.text_or_none(f"{folder}/type") or name, None if milli is None else milli / 1000, tuple(trips))


def _cooling(files: Files) -> Iterator[tuple[str, int, int]]:
    for name in files.names(ZONES, "cooling_device*"):
        folder = f"{ZONES}/{name}"
        state, most = files.number_or_none(f"{folder}/cur_state"), files.number_or_none(f"{folder}/max_state")
        if state is not None and most is not None:
            yield files.text_or_none(f"{folder}/type") or name, state, most


def _throttle_count(files: Files) -> int | None:
    """Cores' own counters summed, and the packages', which each of their cores shows."""
    cores, packages = [], {}
    for cpu in files.names(CPUS, "cpu[0-9]*"):
        folder = f"{CPUS}/{cpu}"
        core = files.number_or_none(f"{folder}/thermal_throttle/core_throttle_count")
        package = files.number_or_none(f"{folder}/thermal_throttle/package_throttle_count")
        if core is not None:
            cores.append(core)
        if package is not None:
            packages[files.number_or_none(f"{folder}/topology/physical_package_id")] = package
    return sum(cores) + sum(packages.values()) if cores or packages else None
