"""A profile: the board, one measured process after the other, and the conditions around them."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edge import board, bundle, thermal
from edge.config import DeviceConfig
from edge.energy import Energy
from edge.energy.activity import activity
from edge.files import Files, UnreadableError
from edge.memory import room
from edge.meters import Meter
from edge.profile.asked import GRAPHS, Asked, Setting
from edge.profile.children import ChildError, measured
from edge.profile.operators import merged
from edge.profile.spread import CONFIDENCE
from edge.vcgencmd import Vcgencmd
from edge.wire.manifest import Manifest
from edge.wire.profile import Missing, Operator, Profile, Share, Stage, Step

BASELINE_SECONDS = 3.0
"""Of the idle board, where there is a meter."""
DRIFTED = 1.1
"""From here on the last third of a stage's repetitions is told to have been slower than the first."""
COURSE_SECONDS = 1.0
UNIT = "cutlayer.service"


@dataclass
class Surroundings:
    """How warm the board is and how fast its clock runs, once a second."""

    files: Files
    now: Callable[[], float] = time.monotonic
    began: float | None = None
    course: list[tuple[float, float | None, int | None]] = field(default_factory=list)
    """Seconds since the start, °C, Hz of the first clock."""

    def look(self) -> None:
        """Note both, if it is time to."""
        now = self.now()
        self.began = now if self.began is None else self.began
        seconds = now - self.began
        if self.course and seconds < self.course[-1][0] + COURSE_SECONDS:
            return
        clock = next(iter(self.files.names(f"{thermal.CPUS}/cpufreq", "policy*")), "")
        kilohertz = self.files.number_or_none(f"{thermal.CPUS}/cpufreq/{clock}/scaling_cur_freq") if clock else None
        hertz = None if kilohertz is None else 1000 * kilohertz
        self.course.append((seconds, thermal.temperature(self.files).celsius, hertz))


@dataclass
class _Found:
    """What the measured processes have said."""

    stages: list[Stage] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    shares: list[Share] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)
    drifts: list[dict[str, Any]] = field(default_factory=list)
    done: list[Mapping[str, Any]] = field(default_factory=list)
    begun: str = ""

    def hear(self, line: Mapping[str, Any]) -> None:
        """Take in a line."""
        if "stage" in line:
            row = Stage(**line["stage"])
            self.stages.append(row)
            if line.get("drift", 1.0) >= DRIFTED:
                place = {"stage": row.stage, "batch": row.batch, "threads": row.threads, "codec": row.codec}
                self.drifts.append({**place, "ratio": line["drift"]})
        elif "missing" in line:
            self.missing.append(Missing(**line["missing"]))
        self.shares += [Share(**row) for row in line.get("shares", ())]
        self.operators += [Operator(**row) for row in line.get("operators", ())]
        self.done += [line["done"]] if "done" in line else []
        self.begun = line.get("begins", self.begun)


def take(
    asked: Asked,
    settings: DeviceConfig | None,
    *,
    told: Callable[[str], None] = lambda _: None,
    root: Path = Path("/"),
    at: datetime,
) -> Profile:
    """Measure a bundle on this board.

    Args:
        asked: what, with the paths of bundle and configuration.
        settings: the configuration; None without one.
        told: hears in words what is being measured.
        root: where /proc and /sys start.
        at: the date of the profile.

    Raises:
        BundleError, RefusalError, and what else a user can mend: nothing can be measured.
    """
    loaded = bundle.load(Path(asked.bundle))
    files = Files(root)
    firmware = Vcgencmd(settings.energy.vcgencmd if settings else "vcgencmd")
    before = thermal.thermal(files, firmware)
    idle, source, missing = _baseline(settings, told)
    around, found = Surroundings(files), _Found()
    around.look()
    with _busy_share(files) as busy, _folder(settings) as folder:
        for number, (batch, threads) in enumerate((b, t) for b in asked.batches for t in asked.threads):
            apart = folder / str(number)
            apart.mkdir()
            idle_watts = idle.joules / idle.seconds if idle and idle.joules is not None and idle.seconds else None
            setting = Setting(asked, batch, threads, apart, idle_watts, asked.stages)
            _one(setting, found, around, told)
    after = thermal.thermal(files, firmware)
    providers = next((line["providers"] for line in found.done), None)
    conditions = {
        "date": at.isoformat(timespec="seconds"),
        "cutlayer": metadata.version("cutlayer"),
        "bundle": loaded.id,
        **{name: getattr(loaded.manifest, name) for name in ("model", "cut", "objective", "optimizer")},
        "data": next((line["data"] for line in found.done), ""),
        "confidence": CONFIDENCE,
        "seconds": asked.seconds,
        "precision": asked.precision,
        "slowed": thermal.slowed(before, after),
        "drifts": found.drifts,
        "thermal_before": before.to_record(),
        "thermal_after": after.to_record(),
        "course": around.course,
        "room": room(files, UNIT).to_record(),
        "unit": UNIT,
        "energy": source,
        "energy_missing": missing,
        "idle": idle.to_record() if idle else None,
        "sampling_share": _sampling_share(found.done),
        "busy_share": busy(sum(line["cpu_seconds"] for line in found.done)),
        "flops": dict(loaded.manifest.flops),
    }
    return Profile(
        board.recognise(files, vcgencmd=firmware, providers=providers).to_record(),
        _steps(found.stages, loaded.manifest),
        merged(found.operators),
        found.stages,
        found.missing,
        found.shares,
        conditions,
    )


def _one(setting: Setting, found: _Found, around: Surroundings, told: Callable[[str], None]) -> None:
    """One measured process; if it dies, what it had not measured is missing for that, and the next may be luckier."""

    def hear(line: Mapping[str, Any]) -> None:
        found.hear(line)
        if "begins" in line:
            told(
                f"batch {setting.batch}, {setting.threads} thread{'s' if setting.threads > 1 else ''}: {line['begins']}"
            )

    try:
        measured(setting, hear, around.look)
    except ChildError as error:
        place = setting.batch, setting.threads
        rows: list[Stage | Missing] = [*found.stages, *found.missing]
        over = {row.stage for row in rows if (row.batch, row.threads) == place}
        over.discard(found.begun)
        found.missing += [Missing(stage, *place, str(error)) for stage in setting.stages if stage not in over]


def _steps(stages: list[Stage], manifest: Manifest) -> list[Step]:
    """The graphs' stages, by what they are the cost of."""
    rows = (row for row in stages if row.stage in GRAPHS)
    names = ("batch", "threads", "repeats", "median_seconds", "p95_seconds", "quiet_seconds", "joules", "joules_why", "peak_bytes", "own_bytes", "peak_why")  # fmt: skip
    return [
        Step(
            manifest.model, manifest.cut, manifest.objective, manifest.optimizer, row.stage,
            **{name: getattr(row, name) for name in names},
        )
        for row in rows
    ]  # fmt: skip


def _baseline(settings: DeviceConfig | None, told: Callable[[str], None]) -> tuple[Energy | None, str, str]:
    """The idle board's energy, the source, and why there is none."""
    with Meter(config=settings.energy if settings else None) as meter:
        if meter.missing_energy:
            return None, "", meter.missing_energy
        told(f"idle board, {BASELINE_SECONDS:g} s")
        return meter.take_baseline(BASELINE_SECONDS), meter.energy_source, ""


def _sampling_share(done: list[Mapping[str, Any]]) -> float:
    seconds = sum(line["seconds"] for line in done)
    return sum(line["sampling_cpu_seconds"] for line in done) / seconds if seconds else 0.0


@contextmanager
def _busy_share(files: Files, now: Callable[[], float] = time.monotonic) -> Iterator[Callable[[float], float | None]]:
    """Yields what tells which share of the processors others have taken since, given the CPU seconds that were ours."""

    def busy() -> float | None:
        try:
            return activity(files).cpu_seconds
        except UnreadableError:
            return None

    began, start = now(), busy()

    def share(ours: float) -> float | None:
        end, seconds = busy(), now() - began
        if start is None or end is None or seconds <= 0:
            return None
        return min(1.0, max(0.0, (end - start - ours) / seconds / (os.cpu_count() or 1)))

    yield share


@contextmanager
def _folder(settings: DeviceConfig | None) -> Iterator[Path]:
    """An empty folder beside the device's state, so that the outbox is measured on its disk; it is gone afterwards."""
    beside = settings.device.state_directory.absolute().parent if settings else Path.cwd()
    try:
        with TemporaryDirectory(prefix=".cutlayer-profile-", dir=beside if beside.is_dir() else None) as name:
            yield Path(name)
    except PermissionError as error:
        raise UnreadableError(
            f"{beside} cannot be written, and the outbox is measured there: {error.strerror}"
        ) from None
