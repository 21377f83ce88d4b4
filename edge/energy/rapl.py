"""RAPL: counters of energy of Intel's and AMD's CPU packages, in /sys/class/powercap."""

import math
import re
from dataclasses import dataclass

from edge.energy.measure import Kind
from edge.energy.source import MOST_WATTS
from edge.files import Files, UnreadableError

COUNTER_SECONDS = 10.0  # how often to look at a counter, so that none wraps twice unseen
RAPL_SECONDS = 0.001  # RAPL refreshes about every millisecond
COUNTER_STATES = (
    2**32
)  # the hardware's counter has 32 bits, so its range tells its unit (61 µJ, on servers and AMD 15.3 µJ)


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
    """CPU packages of Intel and AMD: energy_uj of /sys/class/powercap/intel-rapl:N (AMD's bear the same name).

    Subzones (core, uncore, dram) lie within a package or have counters of their own kind, psys contains the packages, and
    intel-rapl-mmio shows package 0 once more: only zones called `package-…` are summed (several dies are `package-0-die-1`).
    """

    kind: Kind = "sensor"
    seconds_between = COUNTER_SECONDS
    refresh_seconds = RAPL_SECONDS
    unseen = 0.0  # a counter misses nothing

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

    def sigma(self, joules: float, seconds: float) -> float:
        """One unit of each counter, and up to one refresh of the mean power, at both ends."""
        units = sum((package.range / COUNTER_STATES / 1e6) ** 2 for package in self._packages)
        aged = (joules / seconds * self.refresh_seconds) ** 2 if seconds else 0.0
        return math.sqrt((units + aged) / 6)

    def restart(self) -> None:
        """Forgets the last counters."""
        for package in self._packages:
            package.last = None

    def close(self) -> None:
        """Nothing is open."""
