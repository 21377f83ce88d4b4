"""How do accuracy and time to a target change with the number of devices, on a link of 1 Mbit/s and 20 ms?

The LocFedMix-SL paper's question, with our devices: each has 36 labelled digits of its own and is tested on the same 120
others; more devices bring more data. All methods take Adam with a learning rate of 3e-3, batches of 12, and the rest as
it comes (AdaSplit `ours` with the demo's options). A run is a simulation in one process with the real graphs and frames,
in which time is counted: steps take the processor time they take on this machine (measured, one thread), frames what the link makes
of their bytes (modelled: a rate and a delay for each device, nothing lost, 60 bytes around each frame; the hub's own link
is no bottleneck). Evaluation is not counted. A round is one local epoch.
"""

# ruff: noqa: RUF001  the dash of a figure that is missing

import contextlib
import io
import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import markdown
from benchmarks.options import BenchmarkError, Options
from benchmarks.results import Row, Run
from export.bundle import BuildSpec, build
from hub.datasets import DeviceData, Federation
from hub.datasets.digits import load
from hub.datasets.federation import Request
from hub.demo import MODES, Wish
from hub.strategies import STRATEGIES
from hub.virtual_time import Network
from hub.virtual_time import run as simulate

DEVICES = (2, 4, 8, 16, 32)
SEEDS = (0, 1)
ROUNDS = 40
SAMPLES, TESTED = 36, 120
BATCH = 12
TARGET = 0.8
"""Accuracy whose first round counts."""
LINK = Network(up=125_000.0, down=125_000.0, delay=0.02)
LR = 3e-3


@dataclass(frozen=True)
class Method:
    """A strategy and what it is told."""

    strategy: str
    options: Mapping[str, Any] = field(default_factory=dict)


METHODS = {
    "sequential SL": Method("split_learning"),
    "parallel SL": Method("parallel_split_learning"),
    "SplitFed V1": Method("splitfed", {"version": "v1"}),
    "SplitFed V2": Method("splitfed", {"version": "v2"}),
    "LocSplitFed": Method("locsplitfed"),
    "LocFedMix-SL": Method("locfedmix"),
    "AdaSplit, paper's": Method("adasplit"),
    "AdaSplit, ours": Method("adasplit", MODES["ours"]),
}


def digits(request: Request) -> Federation:
    """The digits: 36 of their own for each device, and the same 120 to be tested on for all."""
    x, y = load()
    order = np.random.default_rng([request.seed, 5]).permutation(len(y))
    tested, rest = order[:TESTED], order[TESTED:]
    if SAMPLES * request.devices > len(rest):
        raise BenchmarkError(
            f"{request.devices} devices need {SAMPLES * request.devices} digits; there are {len(rest)}"
        )
    shares = {
        f"device-{number + 1:02d}": DeviceData(x[own], y[own], x[tested], y[tested])
        for number in range(request.devices)
        for own in [rest[number * SAMPLES : (number + 1) * SAMPLES]]
    }
    return Federation(shares, tuple(map(str, range(10))), f"digits, {SAMPLES} a device, tested on {TESTED} others")


def run(options: Options) -> Iterator[Row]:
    """Every method with every number of devices and every seed."""
    torch.set_num_threads(1)
    for devices in DEVICES[:2] if options.quick else DEVICES:
        for name, method in METHODS.items():
            if options.only in f"{name}/{devices}":
                for seed in SEEDS[:1] if options.quick else SEEDS:
                    options.say(f"scaling: {name}, {devices} devices, seed {seed}")
                    yield _measure(name, method, devices, seed, options)


def _measure(name: str, method: Method, devices: int, seed: int, options: Options) -> Row:
    folder = options.folder / f"{method.strategy}-{len(list(options.folder.iterdir()))}"
    told = {**method.options, "lr": LR}
    wish = Wish(
        folder,
        devices=devices,
        rounds=4 if options.quick else ROUNDS,
        strategy=method.strategy,
        options=told,
        dataset="benchmarks.scaling:digits",
        windows="all",
        bundle=_bundle(method, told, seed, options),
        references=False,
        batch=BATCH,
        seed=seed,
    )
    with contextlib.redirect_stdout(io.StringIO()):  # its progress is nobody's question here
        simulate(wish, LINK)
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    rounds = [record for record in records if record["record"] == "round"]
    last = {record["device"]: record for record in records if record["record"] == "device"}
    accuracies = [record["accuracy"] for record in rounds]
    reached = next((n for n, accuracy in enumerate(accuracies, 1) if (accuracy or 0.0) >= TARGET), None)
    seconds = [record["training_seconds"] for record in rounds]
    return {
        "method": name,
        "devices": devices,
        "seed": seed,
        "accuracy_last": accuracies[-1],
        "accuracies": accuracies,
        "rounds_to_target": reached,
        "seconds_to_target": None if reached is None else sum(seconds[:reached]),
        "seconds": sum(seconds),
        "sent_bytes": statistics.fmean(d["socket_sent"] - d["evaluation_sent"] for d in last.values()),
        "received_bytes": statistics.fmean(d["socket_received"] - d["evaluation_received"] for d in last.values()),
    }


def _bundle(method: Method, told: Mapping[str, Any], seed: int, options: Options) -> Path:
    strategy = STRATEGIES[method.strategy]
    made = strategy(strategy.options(**told))
    folder = options.folder / f"bundle-{made.objective}-{made.optimizer}-{seed}"
    if not folder.exists():
        spec = BuildSpec("export.models:Digits", "pool1", made.objective, made.optimizer, seed=seed)
        build(spec, folder, checked=False)
    return folder


def draw(runs: Sequence[Run]) -> str:
    """A table a figure: methods down, numbers of devices across; means over the seeds."""
    rows, sources = _latest(runs)
    parts = [markdown.paragraph(part) for part in __doc__.split("\n\n")[1:]]
    rounds = len(rows[0]["accuracies"])
    for title, cell in _tables(rounds):
        parts += [f"## {title}", _table(rows, cell)]
    return "\n\n".join([*parts, *(markdown.birth(source) for source in sources)])


def _latest(runs: Sequence[Run]) -> tuple[list[Row], list[Run]]:
    """The last row of every method, number and seed."""
    last: dict[tuple[str, int, int], tuple[Row, Run]] = {}
    for one in runs:
        last |= {(row["method"], row["devices"], row["seed"]): (row, one) for row in one.rows}
    longest = max(len(row["accuracies"]) for row, _ in last.values())
    kept = [(row, one) for row, one in last.values() if len(row["accuracies"]) == longest]
    return [row for row, _ in kept], list({one.id: one for _, one in kept}.values())


def _tables(rounds: int) -> list[tuple[str, Callable[[list[Row]], str]]]:
    return [
        (f"Accuracy after {rounds} rounds, %, mean ± deviation over the seeds", _accuracy),
        (
            f"Rounds to {TARGET:.0%}; – where not every seed got there",
            lambda group: _mean(group, "rounds_to_target", ".1f"),
        ),
        (
            f"Seconds to {TARGET:.0%} (steps measured here, link modelled); – where not every seed got there",
            lambda group: _mean(group, "seconds_to_target", ".1f"),
        ),
        (
            f"Seconds of {rounds} rounds (steps measured here, link modelled)",
            lambda group: _mean(group, "seconds", ".1f"),
        ),
        (
            f"MB (10^6) a device sent and received in {rounds} rounds, counted: payloads of frames",
            lambda group: f"{statistics.fmean(r['sent_bytes'] + r['received_bytes'] for r in group) / 1e6:.2f}",
        ),
    ]


def _table(rows: Sequence[Row], cell: Callable[[list[Row]], str]) -> str:
    numbers = sorted({row["devices"] for row in rows})
    names = [name for name in METHODS if any(row["method"] == name for row in rows)]
    lines = []
    for name in names:
        groups = [[row for row in rows if (row["method"], row["devices"]) == (name, number)] for number in numbers]
        lines.append([name, *(cell(group) if group else "" for group in groups)])
    return markdown.table(["method", *(f"{number} devices" for number in numbers)], lines)


def _accuracy(group: list[Row]) -> str:
    values = [100 * row["accuracy_last"] for row in group]
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.1f} ± {spread:.1f}"


def _mean(group: list[Row], key: str, form: str) -> str:
    values = [row[key] for row in group]
    return "–" if None in values else f"{statistics.fmean(values):{form}}"
