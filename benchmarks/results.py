"""The file between measuring and drawing: `results/<case>.jsonl`.

A run is a head line (id, date, machine facts), a line for each row as it was measured, and an end line. A run that was
broken off has no end line and keeps what it has.
"""

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import machine

Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One run of one case."""

    id: str
    date: str
    machine: Mapping[str, Any]
    partial: str = ""
    """Why its figures are not the ones to quote: `quick`, or what part was asked for; empty for a full run."""
    rows: list[Row] = field(default_factory=list)
    ended: bool = False


class ResultsError(ValueError):
    """A results file that cannot be read or drawn; the message names the file and the line."""


def record(path: Path, rows: Iterable[Row], *, partial: str = "") -> Run:
    """Append a run to `path`, each row as soon as `rows` gives it."""
    run = Run(secrets.token_hex(4), machine.today(), machine.facts(), partial)
    head = {"run": run.id, "date": run.date, "machine": run.machine} | ({"partial": partial} if partial else {})
    _append(path, head)
    for row in rows:
        _append(path, {"run": run.id, "row": row})
        run.rows.append(row)
    _append(path, {"run": run.id, "end": machine.today()})
    return Run(run.id, run.date, run.machine, partial, run.rows, ended=True)


def read(path: Path) -> list[Run]:
    """All runs in the order they were begun.

    Raises:
        ResultsError: a line is not what `record` writes.
    """
    runs: dict[str, Run] = {}
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            _take(json.loads(line), runs)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ResultsError(f"{path.name}, line {number}: not a line of results ({error!r})") from error
    return list(runs.values())


def latest(runs: Sequence[Run]) -> Run:
    """The run to quote: the last full one that ended; failing that the last that ended; failing that the last with rows.

    Raises:
        ResultsError: no run has a row.
    """
    filled = [run for run in runs if run.rows]
    if not filled:
        raise ResultsError("there are no results yet: run the case first")
    return max(enumerate(filled), key=lambda item: (item[1].ended, item[1].ended and not item[1].partial, item[0]))[1]


def _append(path: Path, line: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _take(line: Mapping[str, Any], runs: dict[str, Run]) -> None:
    if "machine" in line:
        runs[line["run"]] = Run(line["run"], line["date"], line["machine"], line.get("partial", ""))
    elif "row" in line:
        runs[line["run"]].rows.append(line["row"])
    else:
        run = runs[line["run"]]
        runs[run.id] = Run(run.id, run.date, run.machine, run.partial, run.rows, ended=bool(line["end"]))
