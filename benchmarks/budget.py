"""How accurate is AdaSplit inside a byte budget, and does it ever spend more?

Every row is whole runs of the demo on the scarce task, with real processes and an embedded broker: the budget is what may
leave a device in the run, IP and TCP headers included, evaluation apart. Accuracy as in `adasplit`. `sent` and `recv.` are the
kernel's count of a device's socket, means over the devices; `wire` is the most that left any device with headers, as the
device itself counts it (`tests/system/test_budget.py` has it counted from outside), all in kB; `msgs` and `samples` went up, of a
device. `paired`: both steps of a round in one turn (`select_every=2`), which halves orders and reports. `known`: samples that have
changed by less than a tenth since they were sent are not sent again (`[known] skip_below`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks import markdown, runs
from benchmarks.options import Options
from benchmarks.results import Row, Run
from benchmarks.runs import by_method, known_figures, mean, moved, spread
from export.bundle import BuildSpec
from hub.summary import summarise

SEEDS = (0, 1, 2)
TASK = "scarce"
ROUNDS = 40
UNCOMPRESSED = "float32, any"
SPLIT_LEARNING_BYTES = 18.57e6
"""Of sequential split learning on this task, sent and received: `results/adasplit.md`."""


@dataclass(frozen=True)
class Method:
    """A row: the codec, and what a device may send."""

    codec: str = "entropy:1.5"
    budget: str | None = None
    more: tuple[str, ...] = ()

    @property
    def arguments(self) -> list[str]:
        """Of the demo."""
        given = ["--codec", self.codec, *self.more]
        if self.budget is None:
            return given
        return [*given, "--budget", f"up_per_run={self.budget}", "--budget", "evaluation=apart"]


# Both steps of a round in one turn: half of the orders and reports.
_TOGETHER = ("--set", "select_every=2")
_KNOWN = ("--known", "skip_below=0.1")

METHODS = {
    UNCOMPRESSED: Method("float32"),
    "entropy:1.5, any": Method(),
    "entropy:1.5, any, known": Method(more=_KNOWN),
    "60 kB": Method(budget="60 kB"),
    "60 kB, paired": Method(budget="60 kB", more=_TOGETHER),
    "40 kB, paired": Method(budget="40 kB", more=_TOGETHER),
    "30 kB, paired": Method(budget="30 kB", more=_TOGETHER),
    "30 kB, paired, known": Method(budget="30 kB", more=(*_TOGETHER, *_KNOWN)),
    "24 kB, paired": Method(budget="24 kB", more=_TOGETHER),
}


def run(options: Options) -> Iterator[Row]:
    """Every budget with every seed."""
    for name, method in METHODS.items():
        if options.only in name:
            for seed in SEEDS[:1] if options.quick else SEEDS:
                yield _demo(name, method, seed, options)


def _demo(name: str, method: Method, seed: int, options: Options) -> Row:
    options.say(f"budget: {name}, seed {seed}")
    spec = BuildSpec("export.models:Wearable", "pool1", "contrastive", arguments={"classes": 7}, seed=seed)
    bundle = runs.bundle(options.folder / f"bundle-{seed}", spec)
    arguments = ["--seed", str(seed), "--bundle", str(bundle), "--rounds", str(ROUNDS), *method.arguments]
    records = runs.demo(name, options.folder / runs.filename(name, seed), arguments)
    told = [record["budget"] for record in records if record["record"] == "device" and "budget" in record]
    figures: dict[str, Any] = known_figures(summarise(records))
    row = {"task": TASK, "method": name, "seed": seed, "budget": method.budget, **figures}
    if not told:
        return row
    last = [r["budget"] for r in records if r["record"] == "device" and r["round"] == ROUNDS and "budget" in r]
    return {
        **row,
        "wire_bytes": max(one["up_spent"] for one in told),
        "over": sum(one["up_spent"] > one["up_per_run"] for one in told),
        **{name: sum(one[name] for one in last) / len(last) for name in ("messages", "samples", "withheld")},
    }


def draw(measured: Sequence[Run]) -> str:
    """The table, and what was wanted."""
    parts = [markdown.paragraph(part) for part in (__doc__ or "").split("\n\n")[1:]]
    rows, sources = runs.last_rows(measured, TASK, list(METHODS))
    if rows:
        heads = ["AdaSplit, kB", "n", "last %", "max %", "sent", "recv.", "wire", "msgs", "samples", "over"]
        groups = by_method(rows)
        parts += [markdown.table(heads, [_line(group) for group in groups]), *_wanted(groups)]
        parts += [markdown.birth(replace(source, partial="", ended=True)) for source in sources]
    return "\n\n".join(parts)


def _line(group: Sequence[Row]) -> list[str]:
    cells = [group[0]["method"], str(len(group)), spread(group, "accuracy_last"), spread(group, "accuracy_max")]
    cells += [f"{mean(group, key) / 1e3:.1f}" for key in ("sent_bytes", "received_bytes")]
    if "wire_bytes" not in group[0]:
        return [*cells, "-", "-", "-", "-"]
    cells += [f"{max(row['wire_bytes'] for row in group) / 1e3:.1f}"]
    return [*cells, *(f"{mean(group, key):.0f}" for key in ("messages", "samples")), str(sum(r["over"] for r in group))]


def _wanted(groups: Sequence[Sequence[Row]]) -> list[str]:
    named = {group[0]["method"]: group for group in groups}
    if UNCOMPRESSED not in named:
        return []
    plain = named[UNCOMPRESSED]
    best, bytes_of_plain = 100 * mean(plain, "accuracy_last"), moved(plain)
    lines = [
        f"* {name}: {100 * mean(group, 'accuracy_last') - best:+.1f} points at 1/{bytes_of_plain / moved(group):.0f} of its bytes, "
        f"1/{SPLIT_LEARNING_BYTES / moved(group):.0f} of sequential split learning's"
        for name, group in named.items()
        if name != UNCOMPRESSED
    ]
    return [
        "Wanted: uncompressed AdaSplit's accuracy within 0.5 points at 1/30 of its bytes, and 1/500 of split learning's; sent and received:",
        "\n".join(lines),
    ]
