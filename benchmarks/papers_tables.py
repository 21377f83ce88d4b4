"""The tables of `papers`, at most 100 columns wide, from recorded rows and nothing else."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

from benchmarks import markdown, runs
from benchmarks.papers_plots import PLOTS
from benchmarks.papers_rows import METHODS, OURS, REFERENCES, SENSITIVE, SEQUENTIAL, SWEEPS, TASKS, THEIRS, Sweep, Task
from benchmarks.results import Row, Run
from benchmarks.runs import LACKING, by_method, c3, limits, mean, moved, same_seeds, scored


def tables(measured: Sequence[Run], words: Sequence[str]) -> str:
    """After the words, for each task a table of what was reached and sent and one of the work; the sensitivity; the sources."""
    parts = [markdown.paragraph(part) for part in words]
    parts += [f"![{what}]({name})" for name, what in PLOTS.items()]
    sources: dict[str, Run] = {}
    for task in TASKS:
        rows, from_ = runs.last_rows(measured, task.name, [*METHODS, *REFERENCES], task.rounds)
        if rows:
            parts += [f"## {task.title}", sizes(rows), _reached(rows), _work(rows)]
            parts += _beside(task, rows)
            sources |= {run.id: run for run in from_}
    swept = _sensitivity(measured, sources)
    if swept:
        parts += ["## Sensitivity of AdaSplit, ours, on the scarce wearers", *swept]
    parts += ["## Where the rows come from"]
    parts += [markdown.birth(replace(source, partial="", ended=True)) for source in sources.values()]
    return "\n\n".join(parts)


def sizes(rows: Sequence[Row]) -> str:
    """Where a task's data come from, and how much of them is used."""
    one = rows[0]
    train, test = (LACKING.join(map(str, dict.fromkeys(one[key]))) for key in ("train", "test"))
    seeds = sorted({row["seed"] for row in rows})
    provenance = ". ".join(part for part in one["provenance"].split("; seed ")[0].split(". ") if part)
    return markdown.paragraph(
        f"{provenance}. {one['devices']} devices, {one['classes']} classes, {train} training and {test} test samples a device, "
        f"{one['rounds']} rounds, seeds {', '.join(map(str, seeds))}."
    )


def _reached(rows: Sequence[Row]) -> str:
    most = limits(rows)
    headings = ["method", "n", "last %", "max %", "sent MB", "recv. MB", "paper MB", "C3"]
    return markdown.table(headings, [_reached_by(group, most) for group in by_method(rows)])


def _reached_by(group: Sequence[Row], most: tuple[float, float]) -> list[str]:
    cells = [group[0]["method"], str(len(group)), percent(group, "accuracy_last"), percent(group, "accuracy_max")]
    cells += [_figure(group, key, 1e6) for key in ("sent_bytes", "received_bytes", "paper_bytes")]
    return [*cells, f"{c3(group, most):.2f}" if scored(group) else LACKING]


def percent(group: Sequence[Row], key: str) -> str:
    """A share in percent, with its deviation where there is more than one seed."""
    values = [100 * row[key] for row in group]
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}"


def _figure(group: Sequence[Row], key: str, unit: float = 1.0) -> str:
    if any(key not in row for row in group):
        return LACKING
    return _number(mean(group, key) / unit)


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 10 or not value else f"{value:#.2g}"


def _work(rows: Sequence[Row]) -> str:
    headings = ["method", "client GFLOP", "total GFLOP", "wall s", "client CPU s", "peak MiB"]
    keys = (
        ("client_flops", 1e9),
        ("total_flops", 1e9),
        ("seconds", 1.0),
        ("cpu_seconds", 1.0),
        ("peak_rss_bytes", 2**20),
    )
    lines = [[group[0]["method"], *(_figure(group, *key) for key in keys)] for group in by_method(rows)]
    return markdown.table(headings, lines)


def _beside(task: Task, rows: Sequence[Row]) -> list[str]:
    """The authors' figures beside ours, bytes and compute as multiples of sequential split learning's."""
    theirs = THEIRS.get(task.name)
    groups = {group[0]["method"]: group for group in by_method(rows)}
    if not theirs or SEQUENTIAL not in groups:
        return []
    base = groups[SEQUENTIAL]
    _, their_bytes, their_flops = theirs[SEQUENTIAL]
    lines = [
        [
            name,
            percent(groups[name], "accuracy_max"),
            f"{accuracy:.2f}",
            f"{moved(groups[name]) / moved(base):.3f}",
            f"{gigabytes / their_bytes:.3f}",
            f"{mean(groups[name], 'client_flops') / mean(base, 'client_flops'):.2f}",
            f"{flops / their_flops:.2f}",
        ]
        for name, (accuracy, gigabytes, flops) in theirs.items()
        if name in groups
    ]
    words = (
        "**Theirs beside ours.** The columns *theirs* are the AdaSplit authors' own figures, from their notebooks: other and larger data, "
        "20 rounds, mean of 5, the maximum over the rounds, bytes without protocol, compute forward only. Not measured here, not "
        f"comparable in size, only in shape; so bytes and client compute are multiples of {SEQUENTIAL}'s. They have one "
        "AdaSplit (κ = η = 0.6, masks), which stands beside both of ours, and one SplitFed."
    )
    headings = ["method", "max %", "theirs %", "bytes / SL", "theirs", "compute / SL", "theirs"]
    return [markdown.paragraph(words), markdown.table(headings, lines)]


def _sensitivity(measured: Sequence[Run], sources: dict[str, Run]) -> list[str]:
    parts = []
    varied = [name for sweep in SWEEPS.values() for name, method in sweep.rows.items() if method]
    rows, from_ = runs.last_rows(measured, SENSITIVE.name, [OURS, *varied])
    groups = {group[0]["method"]: group for group in by_method(rows)}
    sources |= {run.id: run for run in from_}
    for sweep in SWEEPS.values():
        found = same_seeds({name: groups.get(name if method else OURS, []) for name, method in sweep.rows.items()})
        if len(found) > 1:
            parts += [f"### {sweep.title}", _swept(sweep, found)]
    if parts:
        words = (
            "*Theirs* is the authors' accuracy in percent / GB of the whole fleet on Mixed-NonIID, from κ = η = 0.6 with masks: another "
            "task, another model of five layers (their cuts after layer 1, 2, 3, 4), for the direction only. μ is the share of the parameters that "
            "lies on the device, MB what it sent and received. A table has the seeds that all its rows have, so the base's figures differ from table to table. With one or two seeds of 10 wearers, less than three points is chance."
        )
        parts.insert(0, markdown.paragraph(words))
    return parts


def _swept(sweep: Sweep, found: Mapping[str, Sequence[Row]]) -> str:
    headings = ["ours with", "n", "last %", "max %", "MB", "paper MB", "GFLOP", "μ %"]
    lines = []
    for name, group in found.items():
        cells = [name, str(len(group)), percent(group, "accuracy_last"), percent(group, "accuracy_max")]
        cells += [_number(moved(group) / 1e6), _figure(group, "paper_bytes", 1e6)]
        cells += [_figure(group, "client_flops", 1e9), _figure(group, "on_device", 0.01)]
        lines.append(cells + ([sweep.theirs.get(name, LACKING)] if sweep.theirs else []))
    return markdown.table(headings + ["theirs"] * bool(sweep.theirs), lines)
