"""How accurate is AdaSplit inside a byte budget, what are others for the same bytes, and does it ever spend more?

Every row is whole runs of the demo, with real processes and an embedded broker, on the tasks of `papers` (its data sets, sizes,
models and rounds). Accuracy is the mean over the devices after the last round; ± is the deviation over the n runs, each with its own
seed. `sent` and `recv.` are the kernel's count of a device's socket, means over the devices, the evaluation left out; all bytes are in kB (10^3).

A budget is what may leave a device in the run, IP and TCP headers included, evaluation apart. `AdaSplit, 1/30` may send one
thirtieth of what `AdaSplit, uncompressed` sent with the same seed, on the socket; 16 kB is the smallest budget that is allowed, so that
no smaller part can be had. `budget` is that in kB, `wire` the most that left any device with headers, as the
device itself counts it (`tests/system/test_budget.py` has it counted from outside), `over` in how many runs a device spent more,
`samples` how many went up, of a device.

All AdaSplit is the demo's mode (η = 0.2, no masks, replay 32, constant learning rate 0.001), with the codec `entropy:1.5` where nothing else is
said. With `topk` or `randtopk` both steps of a round are in one turn (`select_every=2`), which halves orders and reports; with a budget that follows what the devices can pay. `known`:
samples that have changed by less than a tenth since they were sent are not sent again (`[known] skip_below`).
Evaluation is in float32, but for `topk` and `randtopk`: their hub has seen sparse samples only, so it is tested on the same share by `topk`, as the paper does.

The others may have what `tuning` found best for them, on other seeds of the scarce wearers and in float32: SplitFed v1 a learning rate of 0.01, v2 0.003,
FedAvg 0.01 and five epochs, sequential split learning (float32) its default; AdaSplit keeps its own, though a third of it was 2.5 points better there.
On Fashion-MNIST and Mixed-CIFAR nothing was tuned: FedAvg has its defaults there (*untuned*), as in `papers`. SplitFed sends activations and gradients by
`entropy:1.5` and weights by `entropy:1`, FedAvg's weights are float32 or `uniform:8`, both ways. With two classes a device and eight rounds,
sequential split learning stays at chance on both: to be as good as it for 1/500 of its bytes says something on the wearers only.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import budget_plots, budget_tables, runs
from benchmarks.attempts import Attempts
from benchmarks.budget_rows import METHODS, TASKS, UNCOMPRESSED, Method
from benchmarks.options import BenchmarkError, Options
from benchmarks.papers_data import facts, shares, spec
from benchmarks.papers_rows import Task
from benchmarks.results import Row, Run
from benchmarks.runs import known_figures
from hub.summary import latest_of_devices, skipped, summarise


def run(options: Options) -> Iterator[Row]:
    """Every method on every task with every seed. A run that fails is told of and the rest goes on.

    Where a part of the uncompressed upload is asked for and no row of it is recorded, that is measured first, asked for or not.

    Raises:
        BenchmarkError: at the end, where runs failed, or nothing could be measured.
    """
    attempts = Attempts(options)
    for task, seed in attempts.places(TASKS):
        upload = _recorded(task, seed, options)
        for name in _wanted(task, seed, upload, options):
            measure = partial(_demo, name, METHODS[name], task, seed, upload, options)
            for row in attempts.rows(f"{task.name}: {name}, seed {seed}", measure):
                upload = row["sent_bytes"] if name == UNCOMPRESSED else upload
                yield row
    attempts.close()


def _recorded(task: Task, seed: int, options: Options) -> float | None:
    """What a device sent, uncompressed, in the last run with this seed that is recorded."""
    rows, _ = runs.last_rows(options.recorded, task.name, [UNCOMPRESSED], task.rounds)
    return next((row["sent_bytes"] for row in rows if row["seed"] == seed), None)


def _wanted(task: Task, seed: int, upload: float | None, options: Options) -> list[str]:
    """The methods to run, uncompressed AdaSplit before those that may send a part of its bytes."""
    names = [
        name
        for name, method in METHODS.items()
        if task.name in method.tasks
        and options.only in f"{task.name}: {name}"
        and (task.name, name, seed, task.rounds) not in options.measured
    ]
    needed = upload is None and any(METHODS[name].part for name in names)
    return [UNCOMPRESSED, *names] if needed and UNCOMPRESSED not in names else names


def _demo(name: str, method: Method, task: Task, seed: int, upload: float | None, options: Options) -> list[Row]:
    budget = method.bytes(upload)
    federation, folder = shares(task, seed, options)
    wanted = spec(task, federation, method.trained, seed)
    where = runs.filename("bundle", task.name, wanted.cut, wanted.objective, wanted.optimizer, seed)
    arguments = [
        "--seed", str(seed), "--bundle", str(runs.bundle(options.folder / where, wanted)), "--devices", str(task.devices),
        "--windows", task.windows, "--rounds", str(task.rounds), "--dataset", task.dataset,
        *_data(folder), *method.arguments(budget),
    ]  # fmt: skip
    records = runs.demo(name, options.folder / runs.filename(task.name, name, seed), arguments)
    figures = known_figures(summarise(records))
    of_task = facts(task, federation)
    return [{**of_task, "method": name, "seed": seed, **figures, **_spent(records, budget), **_skipped(records)}]


def _data(folder: Path | None) -> list[str]:
    return ["--data", str(folder)] if folder else []


def _spent(records: Sequence[Mapping[str, Any]], budget: int | None) -> Row:
    """What the devices say of the budget, the means over them; nothing where there was none.

    Raises:
        BenchmarkError: a device says nothing of a budget that it was given.
    """
    if budget is None:
        return {}
    told = [record["budget"] for record in records if record["record"] == "device" and "budget" in record]
    last = [record["budget"] for record in latest_of_devices(records).values() if "budget" in record]
    if not last or len(last) != len(latest_of_devices(records)):
        raise BenchmarkError(f"{len(last)} of {len(latest_of_devices(records))} devices told of their budget")
    return {
        "budget": budget,
        "wire_bytes": max(one["up_spent"] for one in told),
        "over": sum(one["up_spent"] > one["up_per_run"] for one in last),
        **{key: sum(one[key] for one in last) / len(last) for key in ("messages", "samples", "withheld")},
    }


def _skipped(records: Sequence[Mapping[str, Any]]) -> Row:
    """Share of the samples that were not sent again; nothing where none might be skipped."""
    found = [skipped(device) for device in latest_of_devices(records).values()]
    kept = [share for share in found if share is not None]
    return {"skipped": sum(kept) / len(kept)} if kept else {}


def draw(measured: Sequence[Run]) -> str:
    """The tables of all that was measured, and what was wanted."""
    return budget_tables.tables(measured, (__doc__ or "").split("\n\n")[1:])


def plot(measured: Sequence[Run], folder: Path) -> None:
    """The plot that the tables' text shows, as a file beside it."""
    budget_plots.write(measured, folder)
