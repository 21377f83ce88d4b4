"""What do a training step and its memory cost on the device, against PyTorch eager?

Ours is `edge.segment` as the agent calls it; theirs is the same model, cut, head, loss, Adam and initial weights in
PyTorch eager: as the documentation would have it (`default`), with channels_last and fused Adam (`tuned`), and with
loss, head and LRN written anew for speed as well (`rewritten`). Each is a process of its own; they work in turns, so
that what else the machine does meets all alike.
"""

import math
import os
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from benchmarks.child import Child
from benchmarks.markdown import birth, paragraph, spread, table, verdict
from benchmarks.options import BenchmarkError, Options
from benchmarks.results import Row, Run, latest
from benchmarks.spread import percentile, ratio

BATCH = 32
THREADS = (1, 2)
BATCHES = 8
TOKENS = 1000
OPPONENTS = ("default", "tuned", "rewritten")
METHODS = ("ours", *OPPONENTS)

CONVOLUTION, TRANSFORMER = 1.0, 0.8
"""Wanted: time of ours against tuned eager, at most."""
MEMORY = 0.35
"""Wanted: peak memory of ours against the leanest of the eager processes, at most."""
QUIET = 0.1
"""Share of the processors that other processes may take before the table says so."""


@dataclass(frozen=True)
class Subject:
    """A lower segment to train."""

    title: str
    model: str
    cut: str
    wanted: float
    """Time of ours against tuned eager, at most."""
    noisy: bool = False
    """Has dropout, so that two implementations never have the same loss."""


SUBJECTS = {
    "lenet-pool1": Subject("LeNet, pool1", "export.models:LeNet", "pool1", CONVOLUTION),
    "lenet-pool2": Subject("LeNet, pool2", "export.models:LeNet", "pool2", CONVOLUTION),
    "wearable-pool1": Subject("1-D CNN, pool1", "export.models:Wearable", "pool1", CONVOLUTION),
    "wearable-pool2": Subject("1-D CNN, pool2", "export.models:Wearable", "pool2", CONVOLUTION),
    "depthwise-block3": Subject("depthwise blocks", "export.models:Depthwise", "block3", CONVOLUTION),
    "resnet-stage2": Subject("ResNet stages (BN)", "export.models:ResNet", "stage2", CONVOLUTION),
    "transformer-block": Subject("transformer block", "export.models:Transformer", "blocks.0", TRANSFORMER, noisy=True),
}


@dataclass(frozen=True)
class Pace:
    """How long to measure: turns of about so many milliseconds of steps each."""

    turns: int
    milliseconds: float
    forward_turns: int


FULL, QUICK = Pace(40, 250.0, 12), Pace(8, 120.0, 4)


@dataclass(frozen=True)
class Busy:
    """Processor seconds since the machine started: all there were, all used, and used by the processes measured."""

    available: float
    used: float
    measured: float

    @classmethod
    def now(cls, children: Iterable[Child]) -> Self:
        """Read the kernel's counters."""
        ticks = [int(word) for word in Path("/proc/stat").read_text("ascii").split("\n", 1)[0].split()[1:9]]
        hertz = os.sysconf("SC_CLK_TCK")
        measured = sum(child.ask(what="memory")["cpu_seconds"] for child in children)
        # The fourth and fifth are idle and waiting for a disk.
        return cls(sum(ticks) / hertz, (sum(ticks) - ticks[3] - ticks[4]) / hertz, measured)

    def others(self, later: Self) -> float:
        """Share of the processors that everything but the processes measured has taken since."""
        spent = (later.used - self.used) - (later.measured - self.measured)
        return max(0.0, spent / (later.available - self.available))


def run(options: Options) -> Iterator[Row]:
    """Measure every subject with 1 thread and with 2; a row each."""
    chosen = [(name, threads) for name in SUBJECTS for threads in THREADS if options.only in f"{name}/{threads}"]
    if not chosen:
        raise BenchmarkError(f"no row's name contains {options.only!r}; there are {', '.join(SUBJECTS)} with /1 and /2")
    built: dict[str, Row] = {}
    for name, threads in chosen:
        if name not in built:
            options.say(f"step: building {name}")
            built[name] = prepare(SUBJECTS[name], options.folder / name, checked=not options.quick)
        options.say(f"step: measuring {name}/{threads}")
        row = measure(SUBJECTS[name], built[name], threads, QUICK if options.quick else FULL)
        if row["others"] > QUIET:
            options.say(f"step: other processes took {row['others']:.0%} of the processors meanwhile")
        yield {"subject": name, "threads": threads, **row}


def prepare(subject: Subject, folder: Path, *, checked: bool) -> Row:
    """Build a subject's bundle and random batches in a new folder; returns what the contestants must be told."""
    folder.mkdir(parents=True)
    with Child("build", {"threads": 1}) as builder:
        built = builder.ask(what="bundle", model=subject.model, cut=subject.cut, out=str(folder), checked=checked)
    built["batches"] = str(folder / "batches.npz")
    write_batches(Path(built["batches"]), tuple(built["input"]["shape"]), built["input"]["dtype"], built["classes"])
    return built


def measure(subject: Subject, built: Mapping[str, Any], threads: int, pace: Pace) -> Row:
    """Let the contestants work in turns; returns their figures and ratios."""
    told = {"bundle": built["device"], "batches": built["batches"], "threads": threads}
    with ExitStack() as down:
        contestants = {
            "ours": down.enter_context(Child("ours", told, threads=threads)),
            **{
                method: down.enter_context(Child("eager", told | {"method": method}, threads=threads))
                for method in OPPONENTS
            },
        }
        differ = _agree(subject, contestants)
        busy = Busy.now(contestants.values())
        step = _in_turns(contestants, "step", pace.turns, pace.milliseconds)
        # Before the forward graph has a session of its own in our process.
        memory = {method: child.ask(what="memory")["peak"] for method, child in contestants.items()}
        forward = _in_turns(contestants, "forward", pace.forward_turns, pace.milliseconds)
        others = busy.others(Busy.now(contestants.values()))
    return {
        "step_ms": {method: _middle(turns, "wall") for method, turns in step.items()},
        "step_cpu_ms": {method: _middle(turns, "cpu") for method, turns in step.items()},
        "forward_ms": {method: _middle(turns, "wall") for method, turns in forward.items()},
        "ratio": {method: _ratio(step, method, "wall") for method in OPPONENTS},
        "cpu_ratio": {method: _ratio(step, method, "cpu") for method in OPPONENTS},
        "forward_ratio": {method: _ratio(forward, method, "wall") for method in OPPONENTS},
        "peak_bytes": memory,
        "turns": pace.turns,
        "losses_differ": differ,
        "others": round(others, 3),
        "flops": built["flops"],
    }


def draw(runs: Sequence[Run]) -> str:
    """Tables of the run to quote: time, the other opponents, memory, forward."""
    chosen = latest(runs)
    parts = []
    for text, headings, cells in TABLES:
        named = [[SUBJECTS[row["subject"]].title, str(row["threads"]), *cells(row)] for row in chosen.rows]
        parts += [paragraph(text), table(["segment", "threads", *headings], named)]
    return "\n\n".join([*parts, _disturbed(chosen.rows), birth(chosen)])


def _disturbed(rows: Sequence[Row]) -> str:
    worst = max(rows, key=lambda row: row["others"])
    warning = f" **More than {QUIET:.0%} is too much: measure again on a quiet machine.**"
    return paragraph(
        f"Meanwhile other processes took at most {worst['others']:.0%} of the processors "
        f"({worst['subject']}, {worst['threads']} thread{'s' * (worst['threads'] > 1)})."
        f"{warning if worst['others'] > QUIET else ''}"
    )


def write_batches(path: Path, shape: tuple[int, ...], dtype: str, classes: int) -> None:
    """Write random batches x (batches, 32, *shape) and y (batches, 32)."""
    rng = np.random.default_rng(0)
    whole = (BATCHES, BATCH, *shape)
    tokens = dtype == "int64"
    x = rng.integers(0, TOKENS, whole) if tokens else rng.standard_normal(whole, np.float32)
    np.savez(path, x=x, y=rng.integers(0, classes, (BATCHES, BATCH)))


def _agree(subject: Subject, contestants: Mapping[str, Child]) -> float | None:
    """Three steps each from the same weights: the largest relative difference of a loss, so that all do the same work.

    Raises:
        BenchmarkError: they do not.
    """
    losses = {method: child.ask(what="step", count=2)["loss"] for method, child in contestants.items()}
    if subject.noisy:
        return None
    differ = max(abs(losses[method] / losses["ours"] - 1) for method in OPPONENTS)
    if not differ < 1e-2:
        raise BenchmarkError(
            f"{subject.title}: after three steps the losses are {losses}: these are not the same training"
        )
    return float(f"{differ:.1e}")


Turns = list[dict[str, float]]


def _in_turns(contestants: Mapping[str, Child], what: str, turns: int, milliseconds: float) -> dict[str, Turns]:
    """A B C, B C A, …: after each other in every turn, each first in its time."""
    counts = {method: _count(child, what, milliseconds) for method, child in contestants.items()}
    figures: dict[str, Turns] = {method: [] for method in contestants}
    names = list(contestants)
    for turn in range(turns):
        for method in names[turn % len(names) :] + names[: turn % len(names)]:
            times = contestants[method].ask(what=what, count=counts[method])
            figures[method].append({clock: statistics.median(times[clock]) for clock in ("wall", "cpu")})
    return figures


def _count(child: Child, what: str, milliseconds: float) -> int:
    """How many steps fill a turn, after a warm-up."""
    once = statistics.median(child.ask(what=what, count=5)["wall"])
    return max(3, min(200, math.ceil(milliseconds / once)))


def _middle(turns: Turns, clock: str) -> list[float]:
    """Median, 10th and 90th percentile over the turns."""
    values = [turn[clock] for turn in turns]
    return [round(value, 4) for value in (statistics.median(values), percentile(values, 10), percentile(values, 90))]


def _ratio(figures: Mapping[str, Turns], method: str, clock: str) -> list[float]:
    found = ratio([turn[clock] for turn in figures["ours"]], [turn[clock] for turn in figures[method]])
    return [round(value, 4) for value in (found.middle, found.low, found.high)]


def _time_cells(row: Row) -> list[str]:
    wanted = verdict(row["ratio"]["tuned"][0], SUBJECTS[row["subject"]].wanted)
    return [*_times(row, "ours", "tuned"), spread(*row["ratio"]["tuned"]), wanted]


def _others_cells(row: Row) -> list[str]:
    default, rewritten = _times(row, "default", "rewritten")
    ratios = [spread(*row["ratio"][method]) for method in ("default", "rewritten")]
    return [default, ratios[0], rewritten, ratios[1]]


def _memory_cells(row: Row) -> list[str]:
    peaks = row["peak_bytes"]
    share = peaks["ours"] / min(peaks[method] for method in OPPONENTS)
    sizes = [f"{peaks[method] / 2**20:.0f}" for method in METHODS]
    return [*sizes, f"{share:.2f}", verdict(share, MEMORY)]


def _forward_cells(row: Row) -> list[str]:
    step, forward = row["step_ms"], row["forward_ms"]
    passes = [f"{step[method][0] / forward[method][0]:.1f}" for method in ("ours", "tuned")]
    times = [f"{forward[method][0]:.2f}" for method in ("ours", "tuned")]
    return [*times, spread(*row["forward_ratio"]["tuned"]), *passes]


def _times(row: Row, *methods: str) -> list[str]:
    return [f"{row['step_ms'][method][0]:.2f}" for method in methods]


TABLES: tuple[tuple[str, list[str], Callable[[Row], list[str]]], ...] = (
    (
        f"A step on a batch of {BATCH}, ms by the clock, medians; ratio: ours / theirs, with 10th to 90th percentile turn by turn.",
        ["ours", "tuned", "ours / tuned", "wanted"],
        _time_cells,
    ),
    (
        "The same against the two other opponents.",
        ["default", "ours / default", "rewritten", "ours / rewritten"],
        _others_cells,
    ),
    (
        "Peak memory of the process that trains, counted by the kernel, MiB; the ratio is to the leanest of the others.",
        [*METHODS, "ratio", "wanted"],
        _memory_cells,
    ),
    (
        "The forward pass alone, in training mode, ms; and how many forward passes a training step costs.",
        ["ours", "tuned", "ours / tuned", "step/fwd ours", "tuned"],
        _forward_cells,
    ),
)
"""A table: what it shows, its headings, and the cells of a row."""
