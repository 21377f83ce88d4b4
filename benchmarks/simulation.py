"""What does a simulated run cost beside a plain PyTorch loop doing the same mathematics?

Ours is `hub.simulate`: the hub and all devices in one process with the real graphs, frames and delivery. Theirs is the
same method as one would write it without devices: the same model, batches, losses, selections and Adam (fused) in one
loop. Both are a process of their own with one thread, and do a round in turns.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.child import Child
from benchmarks.markdown import birth, paragraph, spread, table, verdict
from benchmarks.options import BenchmarkError, Options
from benchmarks.results import Row, Run, latest
from benchmarks.spread import ratio
from benchmarks.step import QUIET, Busy
from export.bundle import BuildSpec, build
from hub.datasets import DeviceData, Federation, Request
from hub.demo import MODES

WANTED = 1.5
"""Wall clock of ours against theirs, at most."""
BATCH = 32
PICTURES = 128
"""Random pictures a device trains on; it is tested on half as many."""


@dataclass(frozen=True)
class Subject:
    """A run to simulate."""

    title: str
    strategy: Literal["split_learning", "adasplit"]
    model: str
    classes: int
    rounds: int
    """To measure; the first one warms up."""
    quick: int
    """The same, where it only has to work."""
    dataset: str = "wearables"
    windows: Literal["scarce", "all"] = "all"
    devices: int = 10
    evaluated: bool = False
    """Whether both sides test every device after every round."""
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def spec(self) -> dict[str, Any]:
        """What the bundle is built of."""
        objective = "gradient" if self.strategy == "split_learning" else "contrastive"
        return {"model": self.model, "cut": "pool1", "objective": objective, "arguments": {"classes": self.classes}}


_WEARABLE, _LENET = "export.models:Wearable", "export.models:LeNet"
_PICTURES = "benchmarks.simulation:pictures"
_OURS = {"kappa": 0.6, **MODES["ours"]}

SUBJECTS = {
    "sl-all": Subject("SL, all", "split_learning", _WEARABLE, 7, 25, 3),
    "sl-all-tested": Subject("SL, all, tested", "split_learning", _WEARABLE, 7, 25, 3, evaluated=True),
    "sl-scarce": Subject("SL, scarce", "split_learning", _WEARABLE, 7, 60, 6, windows="scarce"),
    "adasplit-scarce": Subject("AdaSplit", "adasplit", _WEARABLE, 7, 40, 6, windows="scarce", options=_OURS),
    "sl-lenet": Subject("SL, LeNet", "split_learning", _LENET, 10, 12, 2, dataset=_PICTURES, devices=4),
}


def pictures(request: Request) -> Federation:
    """CIFAR-shaped noise with random labels: what a step costs does not depend on what there is to see."""
    rng = np.random.default_rng(request.seed)
    shares = {}
    for number in range(request.devices):
        x = rng.standard_normal((PICTURES + PICTURES // 2, 3, 32, 32), np.float32)
        y = rng.integers(0, 10, len(x))
        shares[f"device-{number + 1:02d}"] = DeviceData(x[:PICTURES], y[:PICTURES], x[PICTURES:], y[PICTURES:])
    return Federation(shares, tuple(map(str, range(10))), "random pictures with random labels")


def run(options: Options) -> Any:
    """Measure every subject; a row for each kind of round."""
    chosen = [name for name in SUBJECTS if options.only in name]
    if not chosen:
        raise BenchmarkError(f"no row's name contains {options.only!r}; there are {', '.join(SUBJECTS)}")
    for name in chosen:
        subject = SUBJECTS[name]
        options.say(f"simulation: {name}")
        folder = options.folder / name
        build(BuildSpec(**subject.spec), folder / "bundle", checked=False)
        ours, theirs, others = _in_turns(subject, folder, subject.quick if options.quick else subject.rounds)
        differ = _agree(subject, ours, theirs)
        for row in _rows(ours, theirs):
            yield {"subject": name, **row, "losses_differ": differ, "others": others}


Turns = list[dict[str, Any]]


def _in_turns(subject: Subject, folder: Path, rounds: int) -> tuple[Turns, Turns, float]:
    """Ours and theirs, round by round, each first in its time; and the share of the processors that others took meanwhile."""
    told = {
        "strategy": subject.strategy,
        "options": subject.options,
        "data": {"name": subject.dataset, "devices": subject.devices, "windows": subject.windows},
        "batch": BATCH,
        "evaluated": subject.evaluated,
        "rounds": rounds + 1,  # a hub always tests after the last round, which is left out here
    }
    ours: Turns = []
    theirs: Turns = []
    mine = {"folder": str(folder / "run"), "bundles": str(folder / "bundle")}
    with (
        Child("simulated", told | mine, threads=1) as simulated,
        Child("plain", told | {"spec": subject.spec}, threads=1) as plain,
    ):
        sides = [(simulated, ours), (plain, theirs)]
        before = Busy.now(())
        for number in range(rounds):
            if number == 1:
                before = Busy.now(())
            for child, turns in sides[:: -1 if number % 2 else 1]:
                turns.append(child.ask(what="round"))
    spent = sum(turn["cpu"] for turn in (*ours[1:], *theirs[1:]))
    others = before.others(dataclasses.replace(Busy.now(()), measured=spent))
    return ours, theirs, round(others, 3)


def _agree(subject: Subject, ours: Turns, theirs: Turns) -> float:
    """Relative difference of the hub's loss in the first round in which it learns; later, rounding goes its own ways.

    Raises:
        BenchmarkError: the two did not do the same work.
    """
    losses = [(mine["loss"], other["loss"]) for mine, other in zip(ours, theirs, strict=True)]
    if any((mine is None) != (other is None) for mine, other in losses):
        raise BenchmarkError(f"{subject.title}: the hub learned in different rounds: {losses}")
    mine, other = next(pair for pair in losses if pair[0] is not None)
    differ = abs(mine / other - 1)
    if not differ < 1e-3:
        raise BenchmarkError(
            f"{subject.title}: the first losses are {mine} and {other}: these are not the same training"
        )
    return float(f"{differ:.1e}")


def _rows(ours: Turns, theirs: Turns) -> list[Row]:
    whole = sum(turn["wall"] for turn in ours) / sum(turn["wall"] for turn in theirs)
    pairs = list(zip(ours, theirs, strict=True))[1:]
    rows = []
    for phase, group in groupby(pairs, key=lambda pair: str(pair[0]["phase"])):
        turns = list(group)
        rows.append(
            {
                "phase": phase,
                "rounds": len(turns),
                **{f"{clock}_ratio": _ratio(turns, clock) for clock in ("wall", "cpu")},
                "round_ms": [round(1e3 * _middle([side[place]["wall"] for side in turns]), 1) for place in (0, 1)],
                "whole_ratio": round(whole, 4),
            }
        )
    return rows


def _ratio(turns: Sequence[tuple[Any, Any]], clock: str) -> list[float]:
    found = ratio([mine[clock] for mine, _ in turns], [other[clock] for _, other in turns])
    return [round(value, 4) for value in (found.middle, found.low, found.high)]


def _middle(values: Sequence[float]) -> float:
    return sorted(values)[math.floor(len(values) / 2)]


def draw(runs: Sequence[Run]) -> str:
    """The table of the run to quote."""
    chosen = latest(runs)
    headings = ["run", "ours", "plain", "ours / plain", "processor", "whole run", "wanted"]
    worst = max(row["others"] for row in chosen.rows)
    warning = f" **More than {QUIET:.0%} is too much: measure again on a quiet machine.**" if worst > QUIET else ""
    return "\n\n".join(
        [
            *(paragraph(part) for part in __doc__.split("\n\n")[1:]),
            paragraph(_LEGEND),
            table(headings, [_cells(row) for row in chosen.rows]),
            paragraph(f"Meanwhile other processes took up to {worst:.0%} of the processors.{warning}"),
            birth(chosen),
        ]
    )


_LEGEND = (
    "Milliseconds of a round by the clock, medians; the ratio is that of the medians, with the range from the 10th to the "
    "90th percentile of the ratios round by round. `processor` is the same ratio in processor seconds. Neither counts the "
    "first round; `whole run` sums up all rounds of the run. Split learning (SL) and AdaSplit (with the demo's options, on "
    "the scarce task) on the ten wearers; LeNet with four devices on random pictures. Batches of 32. `tested`: both sides "
    "test every device after every round."
)


def _cells(row: Row) -> list[str]:
    subject = SUBJECTS[row["subject"]]
    phase = f", {row['phase']} rounds" if subject.strategy == "adasplit" else ""
    ours, theirs = row["round_ms"]
    return [
        subject.title + phase,
        f"{ours:.0f}",
        f"{theirs:.0f}",
        spread(*row["wall_ratio"]),
        f"{row['cpu_ratio'][0]:.2f}",
        f"{row['whole_ratio']:.2f}",
        verdict(row["wall_ratio"][0], WANTED),
    ]
