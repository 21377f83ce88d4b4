"""What do twelve methods reach, send and compute on the papers' tasks, and what are AdaSplit's settings worth?

Every row but the references is a whole run of the demo: device processes, the wire, an embedded broker, float32 where
nothing else is said. Accuracy is the unweighted mean over the devices, each on its own test samples, after the last
round and at its maximum over the rounds (which is what the authors quote); ± is the deviation over the n runs, each
with its own seed. Sent and received are the kernel's count of a device's socket in MB (10^6), the evaluation left out;
`paper` is the authors' way to count (non-zero activations at four bytes). GFLOP are modelled multiply-adds, of a device
and of the whole fleet with the hub. C3 is of the last accuracy, against the table's largest bytes and client GFLOP. Rows of several runs stand in
one table, for accuracy and bytes do not depend on how busy the machine was. **Wall and CPU seconds do**: other work ran
beside these runs, so they tell orders of magnitude. Wall is the sum of the rounds, evaluation included; CPU and memory are a
device process's, the mean of the one and the largest of the other.

Every method has the default options of its file under `hub/strategies`, but for what its name says. `AdaSplit, ours` is the demo's
mode: η = 0.2, no masks, replay 32, a constant learning rate; `AdaSplit, paper's` is the authors' setting. Hub steps on
what was received before (replay) cost no bytes and are open to every method that sends no gradient, so two opponents
have them too: `frozen, as ours` (η = 0.2, no masks, replay 32, constant) and `LocSplitFed, replay 4` (about as many hub
steps). Local only has
each device train the whole model on its own samples; centralised has all samples in one place; both are plain PyTorch.
"""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks import papers_plots, papers_tables, runs
from benchmarks.attempts import Attempts
from benchmarks.options import Options
from benchmarks.papers_data import facts, shares
from benchmarks.papers_data import spec as bundle_spec
from benchmarks.papers_rows import (
    METHODS,
    REFERENCES,
    SENSITIVE,
    SENSITIVITY_SEEDS,
    SEQUENTIAL,
    SWEEPS,
    TASKS,
    Method,
    Task,
)
from benchmarks.results import Row, Run
from benchmarks.runs import known_figures
from export.bundle import example_input
from export.cost import cost_below, cuts
from export.cut import load_factory
from export.objectives import OBJECTIVES
from hub.datasets import Federation
from hub.outcome import record_references
from hub.summary import Row as Figures
from hub.summary import summarise


def run(options: Options) -> Iterator[Row]:
    """Every method on every task; the sensitivity after the first task. A run that fails is told of and the rest goes on.

    Raises:
        BenchmarkError: at the end, where runs failed, or nothing could be measured.
    """
    attempts = Attempts(options)
    for task, seed in attempts.places(TASKS):
        for name, one in _wanted(task, seed, options):
            if (task.name, REFERENCES[-1] if one is None else name, seed, task.rounds) not in options.measured:
                yield from attempts.rows(
                    f"{task.name}: {name}, seed {seed}", partial(_rows, name, one, task, seed, options)
                )
    attempts.close()


def _rows(name: str, method: Method | None, task: Task, seed: int, options: Options) -> Sequence[Row]:
    return _references(task, seed, options) if method is None else [_demo(name, method, task, seed, options)]


def _wanted(task: Task, seed: int, options: Options) -> Iterator[tuple[str, Method | None]]:
    """What is to be run with a seed; None stands for the references."""
    named: dict[str, Method | None] = {"references": None}
    named |= {name: method for name, method in METHODS.items() if not method.tasks or task.name in method.tasks}
    yield from ((name, method) for name, method in named.items() if options.only in f"{task.name}: {name}")
    if task is SENSITIVE and seed < SENSITIVITY_SEEDS:
        for sweep in SWEEPS.values():
            for name, varied in sweep.rows.items():
                if varied and options.only in f"sensitivity: {name}":
                    yield name, varied


def _demo(name: str, method: Method, task: Task, seed: int, options: Options) -> Row:
    federation, folder = shares(task, seed, options)
    spec = bundle_spec(task, federation, method, seed)
    where = runs.filename("bundle", task.name, spec.cut, spec.objective, spec.optimizer, seed)
    arguments = [
        "--seed", str(seed), "--bundle", str(runs.bundle(options.folder / where, spec)), "--devices", str(task.devices),
        "--windows", task.windows, "--rounds", str(task.rounds), "--dataset", task.dataset,
        *(["--data", str(folder)] if folder else []), *method.arguments,
    ]  # fmt: skip
    load = os.getloadavg()[0]
    out = options.folder / runs.filename(task.name, name, seed)
    figures = summarise(runs.demo(name, out, arguments))
    return _row(task, federation, name, seed, figures) | {"load": load} | _segment(task, federation, method)


def _references(task: Task, seed: int, options: Options) -> list[Row]:
    """Both reference rows of a seed, trained with the methods' model, rounds and initial weights."""
    torch.set_num_threads(1)
    federation, _ = shares(task, seed, options)
    out = options.folder / runs.filename(task.name, "references", seed)
    spec = bundle_spec(task, federation, METHODS[SEQUENTIAL], seed)
    built = runs.bundle(out / "bundle", spec)
    record_references(out, federation, built / "hub.bundle", task.rounds, 32, seed)
    figures = [Figures.from_record(record) for record in runs.records_of(out)]
    return [_row(task, federation, one.method, seed, one) for one in figures]


def _row(task: Task, federation: Federation, name: str, seed: int, figures: Figures) -> Row:
    return {**facts(task, federation), "method": name, "seed": seed, **known_figures(figures)}


def _segment(task: Task, federation: Federation, method: Method) -> Row:
    """μ as the share of the model's parameters below the cut, and the values of a sample's smashed data."""
    if OBJECTIVES[method.built[0]].whole:
        return {}
    model = load_factory(task.model, classes=federation.classes, **task.arguments)
    example = example_input(model, federation.shape, None)
    below = next(cut.cost for cut in cuts(model, example) if cut.name == method.cut)
    return {
        "on_device": below.parameters / cost_below(model, example).parameters,
        "smashed_values": below.smashed_bytes // 4,
    }


def draw(measured: Sequence[Run]) -> str:
    """The tables of all that was measured."""
    return papers_tables.tables(measured, (__doc__ or "").split("\n\n")[1:])


def plot(measured: Sequence[Run], folder: Path) -> None:
    """The plots that the tables' text shows, as files beside it."""
    papers_plots.write(measured, folder)
