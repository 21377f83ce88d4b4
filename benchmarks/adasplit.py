"""How accurate are AdaSplit's boards on the demo's task, and what do they send for it?

Every row but the references is a whole run of the demo: device processes, the wire, an embedded broker. Bytes are the
kernel's count of the device's socket, in MB (10^6) a device, evaluation left out; `paper` is the authors' way to count
(non-zero activations at four bytes), GFLOP are multiply-adds of a device's graphs (modelled). Accuracy is the unweighted mean over the wearers, each on
their own later windows, after the last round and at its maximum over the rounds; ± is the deviation over the n runs, each with its own seed.

Four tasks: `scarce` (each wearer has labelled one stretch of five windows of each exercise), `spread` (five windows from
all of the training time: an easier task), `all` (the full recordings), and `new wearers` (the scarce task with two
wearers left out of training; their accuracy is quoted, each with a trained wearer's lower segment). References train in one process without a network: each device alone, and all data in one place.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from benchmarks import markdown, runs
from benchmarks.options import Options
from benchmarks.results import Row, Run
from benchmarks.runs import LACKING, by_method, known_figures, left, limits, mean, moved, spread
from export.bundle import BuildSpec
from export.models import Wearable
from hub.datasets import Federation, split
from hub.reference import Curve, Share, Training, centralised, local_only
from hub.summary import Row as Figures
from hub.summary import summarise

SEEDS = (0, 1, 2)
FURTHER = (3, 4, 5, 6, 7)
"""More seeds for what the wanted figures compare: from three, a point of difference cannot be told from chance."""


@dataclass(frozen=True)
class Task:
    """What is trained, and for how long."""

    name: str
    windows: Literal["scarce", "spread", "all"]
    rounds: int
    new_wearers: int = 0

    @property
    def devices(self) -> int:
        """Wearers that train."""
        return 10 - self.new_wearers


EVERY = ("scarce", "spread", "all", "new wearers")


@dataclass(frozen=True)
class Method:
    """A row: what the demo is told, and on which tasks it is run."""

    arguments: tuple[str, ...]
    tasks: tuple[str, ...] = EVERY
    objective: str = "contrastive"
    compared: bool = False
    """Whether the scarce task is run with the further seeds too."""


TASKS = (
    Task("scarce", "scarce", 40),
    Task("spread", "spread", 40),
    Task("all", "all", 20),
    Task("new wearers", "scarce", 40, 2),
)

_SCARCE = ("scarce",)
METHODS: dict[str, Method] = {
    "AdaSplit, ours": Method((), compared=True),
    "AdaSplit, paper's": Method(("--mode", "paper")),
    "paper's, constant lr": Method(("--mode", "paper", "--set", 'schedule="constant"'), _SCARCE),
    "paper's + replay 8": Method(("--mode", "paper", "--set", "replay=8"), _SCARCE),
    "ours + masks": Method(("--set", "masks=true"), _SCARCE),
    "ours, no replay": Method(("--set", "replay=0"), _SCARCE),
    "ours, random selection": Method(("--set", 'selection="random"'), _SCARCE),
    "ours + server gradient": Method(("--set", "server_gradient=true"), _SCARCE),
    "ours, frozen lower segment": Method(("--set", "frozen=true", "--set", "eta=0.1"), ("scarce", "all")),
    "ours + handover": Method(("--set", "handover=true", "--set", "select_every=1"), _SCARCE),
    "sequential SL, float32": Method(("--strategy", "split_learning"), objective="gradient", compared=True),
}

REFERENCES: dict[str, tuple[Callable[..., Curve], int, tuple[str, ...]]] = {
    "local only": (local_only, 1, EVERY),
    "local only, 10x rounds": (local_only, 10, ("scarce", "spread")),
    "centralised": (centralised, 1, EVERY),
}
"""How each is trained, how many times the task's rounds, and on which tasks."""


def run(options: Options) -> Iterator[Row]:
    """Every method on every task with every seed."""
    for task in TASKS:
        for name, (reference, times, tasks) in REFERENCES.items():
            if task.name in tasks and options.only in f"{task.name}: {name}":
                for seed in _seeds(task, options, compared=times == 1):
                    yield _reference(name, reference, times, task, seed, options)
        for name, method in METHODS.items():
            if task.name in method.tasks and options.only in f"{task.name}: {name}":
                for seed in _seeds(task, options, compared=method.compared):
                    yield _demo(name, method, task, seed, options)


def _seeds(task: Task, options: Options, *, compared: bool) -> tuple[int, ...]:
    if options.quick:
        return SEEDS[:1]
    return SEEDS + FURTHER if compared and task.name == "scarce" else SEEDS


def _demo(name: str, method: Method, task: Task, seed: int, options: Options) -> Row:
    options.say(f"{task.name}: {name}, seed {seed}")
    arguments = [
        "--seed", str(seed), "--bundle", str(_bundle(method.objective, seed, options)), "--devices", str(task.devices),
        "--windows", task.windows, "--new-wearers", str(task.new_wearers), "--rounds", str(task.rounds),
        *method.arguments,
    ]  # fmt: skip
    records = runs.demo(name, options.folder / runs.filename(task.name, name, seed), arguments)
    trained = {record["device"] for record in records if record["record"] == "device" and record["steps"]}
    of_trained = [record for record in records if record.get("device", next(iter(trained))) in trained]
    return _row(task, name, seed, summarise(of_trained), _new_wearers(records, trained, task))


def _bundle(objective: str, seed: int, options: Options) -> Path:
    spec = BuildSpec("export.models:Wearable", "pool1", objective, arguments={"classes": 7}, seed=seed)
    return runs.bundle(options.folder / f"bundle-{objective}-{seed}", spec)


def _new_wearers(records: Sequence[Mapping[str, Any]], trained: set[str], task: Task) -> float | None:
    if not task.new_wearers:
        return None
    last = [record["accuracies"] for record in records if record["record"] == "round"][-1]
    return statistics.fmean(value for name, value in last.items() if name not in trained)


def _reference(name: str, train: Callable[..., Curve], times: int, task: Task, seed: int, options: Options) -> Row:
    options.say(f"{task.name}: {name}, seed {seed}")
    torch.set_num_threads(1)
    federation = split("wearables", task.devices, task.windows, seed, None, task.new_wearers)
    training = Training(times * task.rounds, seed=seed, evaluate_every=10)
    curve = train(Wearable, _shares(federation), training)
    new = train(Wearable, _tested_on_new(federation), training).last if task.new_wearers else None
    figures = Figures(name, curve.last, curve.max, sent_bytes=0, received_bytes=0, evaluation_bytes=0, paper_bytes=0)
    return _row(task, name, seed, figures, new)


def _shares(federation: Federation) -> dict[str, Share]:
    return {name: (data.x_train, data.y_train, data.x_test, data.y_test) for name, data in federation.items()}


def _tested_on_new(federation: Federation) -> dict[str, Share]:
    """Every wearer's model is tested on all new wearers' windows: what a new wearer may expect of somebody's model."""
    x = np.concatenate([data.x_test for data in federation.unseen.values()])
    y = np.concatenate([data.y_test for data in federation.unseen.values()])
    return {name: (data.x_train, data.y_train, x, y) for name, data in federation.items()}


def _row(task: Task, name: str, seed: int, figures: Figures, new_wearers: float | None) -> Row:
    facts = {"task": task.name, "dataset": "wearables", "windows": task.windows, "devices": task.devices}
    return {**facts, "method": name, "seed": seed, **known_figures(figures), "new_wearers": new_wearers}


def draw(measured: Sequence[Run]) -> str:
    """One table a task, each from the last run that measured all of it; and what was wanted."""
    parts = [markdown.paragraph(part) for part in __doc__.split("\n\n")[1:]]
    for task in TASKS:
        rows, sources = runs.last_rows(measured, task.name, [*REFERENCES, *METHODS])
        if rows:
            parts += [f"## {task.name}: {task.devices} wearers, {task.rounds} rounds", _table(rows)]
            parts += _wanted(rows) if task.name == "scarce" else []
            parts += [markdown.birth(replace(source, partial="", ended=True)) for source in sources]
    return "\n\n".join(parts)


def _table(rows: Sequence[Row]) -> str:
    new = rows[0]["new_wearers"] is not None
    headings = ["method", "n", "new %" if new else "last %", "max %", "sent", "recv.", "paper", "GFLOP", "C3"]
    most = limits(rows)
    return markdown.table(headings, [_line(group, most, new=new) for group in by_method(rows)])


def _line(group: Sequence[Row], most: tuple[float, float], *, new: bool) -> list[str]:
    accuracy = "new_wearers" if new else "accuracy_last"
    cells = [group[0]["method"], str(len(group)), spread(group, accuracy), spread(group, "accuracy_max")]
    cells += [f"{mean(group, key) / 1e6:.2g}" for key in ("sent_bytes", "received_bytes", "paper_bytes")]
    if "client_flops" not in group[0]:
        return [*cells, LACKING, LACKING]
    flops = mean(group, "client_flops")
    score = mean(group, accuracy) * left(moved(group), flops, most)
    return [*cells, f"{flops / 1e9:.2g}", f"{score:.2f}"]


def _wanted(rows: Sequence[Row]) -> list[str]:
    groups = {group[0]["method"]: group for group in by_method(rows)}
    names = ("AdaSplit, ours", "local only", "sequential SL, float32")
    if not all(name in groups for name in names):
        return []
    ours, alone, sequential = (groups[name] for name in names)
    gain = 100 * (mean(ours, "accuracy_last") - mean(alone, "accuracy_last"))
    behind = 100 * (mean(sequential, "accuracy_last") - mean(ours, "accuracy_last"))
    ratio = moved(sequential) / moved(ours)
    wishes = [
        f"* at least 15 points above local only: {gain:+.1f} ({_met(gain >= 15)})",
        f"* within 1 point of sequential SL: {-behind:+.1f} ({_met(behind <= 1)})",
        f"* at most 1/20 of its bytes, float32, sent and received: 1/{ratio:.1f} ({_met(ratio >= 20)})",
    ]
    return ["Wanted on this task:", "\n".join(wishes)]


def _met(met: bool) -> str:
    return "met" if met else "missed"
