"""A run's folder read back: the records of metrics.jsonl by kind, and the configuration beside it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from hub.coding import Coded, by_round
from hub.summary import Budgets, Row, budgets_of, fleet_size, latest_of_devices, score, summarise

METRICS = "metrics.jsonl"

Record = Mapping[str, Any]


@dataclass(frozen=True)
class RunLog:
    """What a run wrote down, in the order it was written."""

    run: Record
    rounds: tuple[Record, ...]
    devices: Mapping[str, tuple[Record, ...]]
    """By the device's name, in the order of names."""
    refusals: Mapping[str, Mapping[str, int]]
    """Counts by what was refused, for each device and the hub; the last record of each, for they count the whole run; a device's own record may hold them, too."""
    row: Row
    references: tuple[Row, ...]
    configuration: Mapping[str, str]
    """The texts of the folder's TOML files, by file name."""
    damaged_lines: int

    @property
    def size(self) -> int:
        """How many devices the run had."""
        return fleet_size(self.run) or len(self.devices)

    @property
    def latest(self) -> dict[str, Record]:
        """The last record of each device."""
        return latest_of_devices(record for records in self.devices.values() for record in records)

    def scored(self) -> tuple[list[Row], Budgets]:
        """The run's row and the references with their C3-Scores, and the budgets they were measured against."""
        rows = [self.row, *self.references]
        budgets = budgets_of(rows, self.run.get("budgets"))
        return score(rows, budgets), budgets

    def accuracies(self) -> dict[str, float]:
        """Each device's accuracy when it was last evaluated."""
        return {name: share for record in self.rounds for name, share in (record.get("accuracies") or {}).items()}

    def mean_by_round(self, value: Callable[[Record], float | None]) -> dict[int, float]:
        """Mean of a counter at the end of each round, over the devices that have it; a device that was silent keeps its last figure."""
        found = {
            name: {r["round"]: v for r in records if (v := value(r)) is not None}
            for name, records in self.devices.items()
        }
        series = {name: points for name, points in found.items() if points}
        last = dict.fromkeys(series, 0.0)
        means = {}
        for number in sorted({n for points in series.values() for n in points}):
            last |= {name: points[number] for name, points in series.items() if number in points}
            means[number] = fmean(last.values())
        return means

    def coding(self) -> dict[str, tuple[Coded, ...]]:
        """By device, what its activations came to in the rounds in which some went up."""
        return {name: by_round(records) for name, records in self.devices.items()}

    def late(self) -> dict[str, int]:
        """In how many rounds a device was late, for those that were."""
        names = [name for record in self.rounds for name in record.get("late") or ()]
        return {name: names.count(name) for name in sorted(set(names))}


def read_run(folder: Path) -> RunLog:
    """Read what a run left in its folder.

    A line that is no JSON object is skipped and counted: the power may have gone while the last one was written.

    Raises:
        FileNotFoundError: the folder has no metrics.jsonl.
        ValueError: it holds no record of a run.
    """
    path = folder / METRICS
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {METRICS}: it is not the folder of a run")
    lines = path.read_text("utf-8", errors="replace").splitlines()
    records = [record for line in lines if (record := _parse(line)) is not None]
    by_kind = _by_kind(records)
    names = sorted({str(record["device"]) for record in by_kind.get("device", ())})
    row = summarise(records)
    return RunLog(
        run=by_kind["run"][0],
        rounds=tuple(by_kind.get("round", ())),
        devices={name: tuple(r for r in by_kind["device"] if r["device"] == name) for name in names},
        refusals=_refusals(by_kind.get("refusal", []), latest_of_devices(records)),
        row=row,
        references=tuple(Row.from_record(record) for record in by_kind.get("reference", ())),
        configuration={p.name: p.read_text("utf-8", errors="replace") for p in sorted(folder.glob("*.toml"))},
        damaged_lines=sum(1 for line in lines if line.strip()) - len(records),
    )


def _parse(line: str) -> Record | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "record" in record else None


def _by_kind(records: list[Record]) -> dict[str, list[Record]]:
    kinds: dict[str, list[Record]] = {}
    for record in records:
        kinds.setdefault(str(record["record"]), []).append(record)
    return kinds


def _refusals(records: list[Record], devices: Mapping[str, Record]) -> dict[str, dict[str, int]]:
    last = {name: dict(record.get("refused") or {}) for name, record in devices.items()}
    # What the hub refused of a device comes beside what the device refused; the counters run on, so the last one holds.
    of_hub = {str(record.get("device") or "hub"): record for record in records}
    for who, record in of_hub.items():
        mine = last.setdefault(who, {})
        for reason, count in record.items():
            if isinstance(count, int) and reason != "round":
                mine[reason] = mine.get(reason, 0) + count
    counts = {
        who: {k: v for k, v in found.items() if isinstance(v, int) and k != "round" and v}
        for who, found in last.items()
    }
    return {who: count for who, count in sorted(counts.items()) if count}
