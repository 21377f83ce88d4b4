"""What a run came to: its table, with the reference rows that let a newcomer judge it.

Three rows stand below every demo: each device alone without a network and one model on all data, trained here and now with
the same model and rounds; and the last recorded split-learning run on the same task, marked as recorded.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console

from export.bundle import example_input, load_hub_bundle
from export.cost import cost_below
from export.cut import load_factory
from hub.datasets import Federation
from hub.reference import Training, centralised, local_only
from hub.summary import Row, budgets_of, summarise
from hub.table import render, rich_table

RECORDED = "sequential SL, float32"
"""The row of recorded results that stands for split learning."""


class OutcomeError(ValueError):
    """A folder that holds no run; the message names it and what is missing."""


def read(folder: Path) -> list[dict[str, Any]]:
    """The records of a run's metrics.

    Raises:
        OutcomeError: the folder is not that of a run.
    """
    path = folder / "metrics.jsonl"
    try:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise OutcomeError(f"{folder} is not the folder of a run: {path.name} cannot be read: {error}") from error
    if not any(record.get("record") == "run" for record in records):
        raise OutcomeError(f"{folder} is not the folder of a run: {path.name} holds no 'run' record")
    return records


def rows(folder: Path) -> list[Row]:
    """The run's own row and its reference rows."""
    records = read(folder)
    return [summarise(records), *(Row.from_record(record) for record in records if record["record"] == "reference")]


def show(folder: Path) -> None:
    """Print the run's table: rich on a terminal, plain text elsewhere."""
    found = rows(folder)
    budgets = budgets_of(found, next(record for record in read(folder) if record["record"] == "run")["budgets"])
    console = Console()
    if console.is_terminal:
        console.print(rich_table(found, console.width, budgets))
    else:
        print(render(found, 80, budgets))


def record_references(folder: Path, federation: Federation, bundle: Path, rounds: int, batch: int, seed: int) -> None:
    """Train each device alone, and one model on all data, with the run's model and rounds; add both to its metrics."""
    half = load_hub_bundle(bundle)
    data = {name: (share.x_train, share.y_train, share.x_test, share.y_test) for name, share in federation.items()}
    training = Training(rounds=rounds, batch=batch, seed=seed)
    model = load_factory(half.model, **half.arguments)
    flops = cost_below(model, example_input(model, half.input.shape, half.input.dtype)).training
    alone = [_trained(len(share.y_train), federation, batch) for share in federation.values()]
    curve = local_only(lambda: load_factory(half.model, **half.arguments), data, training)
    local = Row(
        method="local only",
        accuracy_last=curve.last,
        accuracy_max=curve.max,
        sent_bytes=0,
        received_bytes=0,
        evaluation_bytes=0,
        paper_bytes=0,
        client_flops=flops * fmean(alone) * rounds,
        total_flops=flops * sum(alone) * rounds,
        reference="trained in this process: each device alone with the whole model, no network",
        missing=dict.fromkeys(_OF_DEVICES, "this row ran in one process, not on devices"),
    )
    curve = centralised(lambda: load_factory(half.model, **half.arguments), data, training)
    everything = sum(len(share.y_train) for share in federation.values())
    central = Row(
        method="centralised",
        accuracy_last=curve.last,
        accuracy_max=curve.max,
        total_flops=flops * everything * rounds,
        reference="trained in this process: one model on the data of all devices, as if they lay in one place",
        missing=dict.fromkeys(_OF_DEVICES, "this row ran in one process, not on devices")
        | dict.fromkeys((*_OF_THE_NETWORK, "client_flops"), "the data are in one place: no device works or sends"),
    )
    for row in (local, central):
        _append(folder, row)


def _trained(samples: int, federation: Federation, batch: int) -> int:
    """Samples a device with so many trains on in a round: its epochs until the largest device's batches are done."""
    steps = max(-(-len(share.y_train) // batch) for share in federation.values())
    epochs, rest = divmod(steps, -(-samples // batch))
    return epochs * samples + min(rest * batch, samples)


def record_recorded(folder: Path, results: Path) -> None:
    """Add the last recorded split-learning run on the same task, or the reason why there is none."""
    run = next(record for record in read(folder) if record["record"] == "run")
    task = {name: run.get(name) for name in ("dataset", "windows")} | {"devices": len(run["devices"])}
    found = _last_recorded(results / "adasplit.jsonl", task)
    if found is None:
        reason = f"no split-learning run on this task is recorded in {results.name}"
        row = Row(method="split learning", reference=reason, missing=dict.fromkeys(_ALL, reason))
    else:
        row = Row.from_record(
            {
                **found,
                "method": "split learning",
                "reference": f"recorded {found['date']}, mean of {found['seeds']} seeds",
            }
        )
    _append(folder, row)


def _last_recorded(path: Path, task: Mapping[str, Any]) -> dict[str, Any] | None:
    """Mean over the seeds of the last recorded run that has split learning on this task; see benchmarks/README.md."""
    if not path.exists():
        return None
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    dates = {line["run"]: line["date"] for line in lines if "date" in line}
    fitting = [line for line in lines if _fits(line.get("row", {}), task)]
    if not fitting:
        return None
    last = fitting[-1]["run"]
    rows = [line["row"] for line in fitting if line["run"] == last]
    means = {key: fmean(row[key] for row in rows) for key, value in rows[0].items() if isinstance(value, float | int)}
    return {**rows[0], **means, "date": dates[last], "seeds": len(rows)}


def _fits(row: Mapping[str, Any], task: Mapping[str, Any]) -> bool:
    return row.get("method") == RECORDED and all(row.get(name) == value for name, value in task.items())


def _append(folder: Path, row: Row) -> None:
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"record": "reference", **asdict(row)}) + "\n")


_OF_THE_NETWORK = ("sent_bytes", "received_bytes", "evaluation_bytes", "paper_bytes")
_OF_DEVICES = ("peak_rss_bytes", "cpu_seconds", "joules", "seconds")
_ALL = (
    "accuracy_last",
    "accuracy_max",
    "sent_bytes",
    "received_bytes",
    "evaluation_bytes",
    "paper_bytes",
    "client_flops",
    "total_flops",
    *_OF_DEVICES,
)
