"""What the cases that run the demo share: one `hub demo` as a process, the row it makes, and tables of rows by method and seed."""

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.options import BenchmarkError
from benchmarks.results import Row, Run
from export.bundle import BuildSpec, build
from hub.summary import Budgets, c3_score
from hub.summary import Row as Figures

SECONDS = 900
"""Longest time one run may take."""
LACKING = "–"  # noqa: RUF001  the dash of a figure that is missing


def demo(name: str, out: Path, arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Run the demo into the folder `out` and return the records of its metrics.

    Raises:
        BenchmarkError: it failed, or took too long.
    """
    command = [sys.executable, "-m", "hub", "demo", "--out", str(out), "--no-references", *arguments]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(f"{name} was not done after {SECONDS} s") from error
    if done.returncode:
        raise BenchmarkError(f"{name} ended with code {done.returncode}: {done.stderr.strip()[-500:]}")
    return records_of(out)


def records_of(out: Path) -> list[dict[str, Any]]:
    """The records of the run in the folder `out`."""
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]


def bundle(folder: Path, spec: BuildSpec) -> Path:
    """Build what the spec says into the folder, unless it is there: the same weights for every method of a seed."""
    if not folder.exists():
        build(spec, folder, checked=False)
    return folder


def filename(*parts: object) -> str:
    """A name for a run's folder."""
    text = "-".join(map(str, parts))
    return text.replace(" ", "-").replace("/", "_").replace(",", "").replace("'", "")


def known_figures(figures: Figures) -> Row:
    """The figures a row keeps: those that are known."""
    return {key: value for key, value in asdict(figures).items() if value is not None and key not in _NO_FIGURES}


_NO_FIGURES = ("missing", "method")


def last_rows(
    runs: Sequence[Run], task: str, known: Sequence[str], rounds: int | None = None
) -> tuple[list[Row], list[Run]]:
    """The last row of each of the known methods and each seed, in their order, and the runs they come from.

    With `rounds`, only rows of so many: the task may have been shorter once, or have kept no count.

    Accuracy and bytes do not depend on how busy the machine was, so rows of several runs may stand in one table.
    """
    last: dict[tuple[str, int], tuple[Row, Run]] = {}
    for run in runs:
        last |= {
            (row["method"], row["seed"]): (row, run)
            for row in run.rows
            if row["task"] == task and (rounds is None or row.get("rounds") == rounds)
        }
    # A method that is no longer asked about keeps its rows in the file and has none in the table.
    kept = [item for (method, _), item in last.items() if method in known]
    found = sorted(kept, key=lambda item: (known.index(item[0]["method"]), item[0]["seed"]))
    sources = {run.id: run for _, run in found}
    return [row for row, _ in found], list(sources.values())


def by_method(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows of one method together, in the order in which the methods first come."""
    return [[row for row in rows if row["method"] == name] for name in dict.fromkeys(row["method"] for row in rows)]


def same_seeds(groups: Mapping[str, Sequence[Row]]) -> dict[str, list[Row]]:
    """Only the rows of seeds that all have: seeds differ by more than what is compared. Groups without a row are left out."""
    filled = {name: group for name, group in groups.items() if group}
    every = [{row["seed"] for row in group} for group in filled.values()]
    kept = set.intersection(*every) if every else set()
    return {name: [row for row in group if row["seed"] in kept] for name, group in filled.items() if kept}


def limits(rows: Sequence[Row]) -> tuple[float, float]:
    """B_max and C_max of the C3-Score: the largest means of the table, of methods that use the network."""
    groups = [group for group in by_method(rows) if scored(group)]
    return (
        max(map(moved, groups), default=0.0),
        max((mean(group, "client_flops") for group in groups), default=0.0),
    )


def scored(group: Sequence[Row]) -> bool:
    """Whether a method has a C3-Score: references have none, for they use no network."""
    return "client_flops" in group[0] and "reference" not in group[0]


def left(flow: float, flops: float, most: tuple[float, float]) -> float:
    """What C3 leaves of an accuracy of 1, with `most` as B_max and C_max."""
    return c3_score(1.0, flow, flops, Budgets(*most, "the table's maxima")) or 0.0


def c3(group: Sequence[Row], most: tuple[float, float]) -> float:
    """C3-Score of a method's means: of its last accuracy, with `most` as B_max and C_max."""
    return mean(group, "accuracy_last") * left(moved(group), mean(group, "client_flops"), most)


def moved(group: Sequence[Row]) -> float:
    """Bytes a device sent and received for training, mean over the seeds."""
    return mean(group, "sent_bytes") + mean(group, "received_bytes")


def mean(group: Sequence[Mapping[str, Any]], key: str) -> float:
    """Mean of a figure over the seeds."""
    return statistics.fmean(row[key] for row in group)


def spread(group: Sequence[Mapping[str, Any]], key: str) -> str:
    """A share in percent with its deviation over the seeds."""
    values = [100 * row[key] for row in group]
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.1f} ± {deviation:.1f}"
