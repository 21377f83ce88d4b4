"""How far do the methods get on the scarce wearers when each may choose its learning rate, and federated ones their epochs?

A comparison is only as fair as the rates it gives to the others. Here every method tries a grid of learning rates on the
demo's task (ten wearers, 40 rounds), those that train the whole model also one and five local epochs a round; a run is a
simulation in one process, which is the same to the last bit as one with processes and a broker. The seeds are others than
those of `papers` and `adasplit`, whose rows *tuned* take the best mean of this table: what was chosen on these seeds is
judged on those. Accuracy in percent after the last round, mean over the seeds; * is the best of a row, ° the default of
the method's file, and a mean that a diverged run pulls down counts that run as 0.
"""

import contextlib
import io
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks import markdown, runs
from benchmarks.options import Options
from benchmarks.papers_rows import METHODS
from benchmarks.results import Row, Run
from export.bundle import BuildSpec
from hub.demo import MODES, Wish
from hub.simulate import run as simulate
from hub.strategies import STRATEGIES
from hub.summary import summarise

SEEDS = (100, 101)
ROUNDS = 40
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
ADAM = RATES[:4]
SGD = RATES[3:]


@dataclass(frozen=True)
class Grid:
    """A row: a method, what it is told besides, and the rates it tries."""

    strategy: str
    rates: Sequence[float] = ADAM
    options: Mapping[str, Any] = field(default_factory=dict)


_FIVE = {"epochs": 5}

GRIDS: dict[str, Grid] = {
    "AdaSplit, ours": Grid("adasplit", options=MODES["ours"]),
    "AdaSplit, paper's": Grid("adasplit"),
    "frozen (masks only)": Grid("frozen"),
    "frozen, as ours": Grid("frozen", options=METHODS["frozen, as ours"].options),
    "sequential SL": Grid("split_learning"),
    "parallel SL": Grid("parallel_split_learning"),
    "SplitFed v1": Grid("splitfed"),
    "SplitFed v2": Grid("splitfed", options={"version": "v2"}),
    "LocSplitFed": Grid("locsplitfed"),
    "LocFedMix-SL": Grid("locfedmix"),
    "one-shot (Ampere)": Grid("one_shot"),
    "FedAvg": Grid("fedavg"),
    "FedAvg, 5 epochs": Grid("fedavg", options=_FIVE),
    "FedAvg by SGD": Grid("fedavg", SGD, {"optimizer": "sgd"}),
    "FedAvg by SGD, 5 epochs": Grid("fedavg", SGD, {"optimizer": "sgd", **_FIVE}),
    "FedProx": Grid("fedprox"),
    "FedProx, 5 epochs": Grid("fedprox", options=_FIVE),
    "SCAFFOLD": Grid("scaffold", SGD),
    "SCAFFOLD, 5 epochs": Grid("scaffold", SGD, _FIVE),
    "FedNova": Grid("fednova", SGD),
    "FedNova, 5 epochs": Grid("fednova", SGD, _FIVE),
}


def run(options: Options) -> Iterator[Row]:
    """Every method with every rate of its row and every seed."""
    for name, grid in GRIDS.items():
        for rate in grid.rates[:1] if options.quick else grid.rates:
            if options.only in name:
                for seed in SEEDS[:1] if options.quick else SEEDS:
                    options.say(f"tuning: {name}, lr {rate:g}, seed {seed}")
                    yield _measure(name, grid, rate, seed, options)


def _measure(name: str, grid: Grid, rate: float, seed: int, options: Options) -> Row:
    told = {**grid.options, "lr": rate}
    strategy = STRATEGIES[grid.strategy](STRATEGIES[grid.strategy].options(**told))
    spec = BuildSpec(
        "export.models:Wearable",
        "pool1",
        strategy.objective,
        strategy.optimizer,
        {"classes": 7},
        seed=seed,
    )
    folder = options.folder / runs.filename(name, f"{rate:g}", seed)
    built = options.folder / runs.filename("bundle", strategy.objective, strategy.optimizer, seed)
    wish = Wish(
        folder,
        rounds=2 if options.quick else ROUNDS,
        strategy=grid.strategy,
        options=told,
        bundle=runs.bundle(built, spec),
        references=False,
        seed=seed,
    )
    with contextlib.redirect_stdout(io.StringIO()):  # its progress is nobody's question here
        simulate(wish)
    figures = summarise(runs.records_of(folder))
    return {
        "method": name,
        "lr": rate,
        "seed": seed,
        "rounds": 2 if options.quick else ROUNDS,
        "accuracy_last": figures.accuracy_last,
        "accuracy_max": figures.accuracy_max,
    }


def draw(measured: Sequence[Run]) -> str:
    """A row a method, a column a rate; then what would be quoted as tuned."""
    found, sources = _latest(measured)
    lines = []
    for name, grid in GRIDS.items():
        tried = {rate: found[name, rate] for rate in RATES if (name, rate) in found}
        means = {rate: statistics.fmean(row["accuracy_last"] or 0.0 for row in rows) for rate, rows in tried.items()}
        if means:
            lines.append([name, *(_cell(means, rate, _default(grid)) for rate in RATES)])
    parts = [markdown.paragraph(part) for part in (__doc__ or "").split("\n\n")[1:]]
    parts.append(markdown.table(["lr", *(f"{rate:.0e}".replace("e-0", "e-") for rate in RATES)], lines))
    parts.append(f"Seeds {', '.join(map(str, SEEDS))}.")
    return "\n\n".join([*parts, *(markdown.birth(source) for source in sources)])


def _default(grid: Grid) -> float:
    return float(STRATEGIES[grid.strategy].options().lr)


def _cell(means: Mapping[float, float], rate: float, default: float) -> str:
    if rate not in means:
        return ""
    text = f"{100 * means[rate]:.1f}"
    return ("*" if means[rate] == max(means.values()) else "") + text + ("°" if rate == default else "")


def _latest(measured: Sequence[Run]) -> tuple[dict[tuple[str, float], list[Row]], list[Run]]:
    """The last rows of every method and rate, one a seed, of those with the most rounds."""
    last: dict[tuple[str, float, int], tuple[Row, Run]] = {}
    for one in measured:
        last |= {(row["method"], row["lr"], row["seed"]): (row, one) for row in one.rows}
    longest = max(row["rounds"] for row, _ in last.values())
    found: dict[tuple[str, float], list[Row]] = {}
    sources: dict[str, Run] = {}
    for row, one in last.values():
        if row["rounds"] == longest:
            found.setdefault((row["method"], row["lr"]), []).append(row)
            sources[one.id] = one
    return found, list(sources.values())
