"""What does the base install cost a board: download, disk, import time, memory before and with a model?

The base install (our wheel, its dependencies, no torch) goes into a venv of its own; the processes measured run there.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import wheels
from benchmarks.child import Child, run_program
from benchmarks.machine import ROOT
from benchmarks.markdown import birth, paragraph, table, verdict
from benchmarks.options import Options
from benchmarks.results import Row, Run, latest
from benchmarks.step import write_batches

MIB = 2**20
COMMAND = ("edge.__main__", "edge.config", "edge.device")
"""What `cutlayer run` imports."""
PARTS = ("numpy", "onnxruntime", "paho.mqtt.client", "sqlite3", "psutil", *COMMAND)
"""The same, with what it pulls named first, so that each bears its own cost."""
DEMO = {"model": "export.models:Wearable", "cut": "pool1"}
STEPS = 50

WANTED = {"download": 40.0, "disk": 120.0, "before": 64.0}
"""MiB, at most."""
SMALLEST = 0.1
"""MiB; what is less is not named in the table."""


def run(options: Options) -> Iterator[Row]:
    """Download, install, import, load, step."""
    here, there = options.folder / "here", options.folder / "aarch64"
    options.say("device: downloading the base install")
    wheels.download(here)
    yield _download(here, "this machine")
    wheels.download(there, wheels.AARCH64)
    yield _download(there, "aarch64")
    options.say("device: installing")
    python = wheels.install(here, options.folder / "venv")
    packages = next((options.folder / "venv" / "lib").glob("python*/site-packages"))
    yield _disk(packages, "this machine")
    wheels.install_foreign(there, options.folder / "foreign")
    yield _disk(options.folder / "foreign", "aarch64")
    # After all packages, so that the measured programs find their helper and everything else is what was installed.
    (packages / "checkout.pth").write_text(f"{ROOT}\n", encoding="utf-8")
    options.say("device: importing")
    yield from _imports(python, repeats=3 if options.quick else 5)
    options.say("device: stepping")
    yield _stepping(python, options.folder / "bundle")


def draw(runs: Sequence[Run]) -> str:
    """A table of totals, and what they are made of."""
    chosen = latest(runs)
    rows = {(row["figure"], row.get("where", "")): row for row in chosen.rows}
    return "\n\n".join([
        table(["figure", "measured", "wanted"], [cells for row in chosen.rows for cells in _lines(row)]),
        *(_made_of(rows[key], title) for key, title in MADE_OF.items() if key in rows),
        paragraph(HOW),
        birth(chosen),
    ])  # fmt: skip


TITLES = {
    "download": "download",
    "disk": "installed",
    "import": "import",
    "before": "memory before a model",
    "stepping": "memory with the demo's bundle, stepping",
}

MADE_OF = {
    ("download", "aarch64"): "Download for aarch64, MiB a wheel:",
    ("disk", "this machine"): "Installed on this machine, MiB a folder:",
    ("disk", "aarch64"): "Installed for aarch64, MiB a folder:",
    ("before", ""): "Memory before a model, MiB that each import adds:",
}

HOW = """
Counted: sizes of the wheels pip resolves under constraints.txt, our own with them; blocks that site-packages takes on
the disk after pip has installed them into a venv without pip (the interpreter and the venv come on top; the aarch64
wheels are installed into a folder, by the same pip); pip writes bytecode for all files unless it is told --no-compile,
and then only what is used gets some. Measured: seconds and resident memory of fresh
processes that import what `cutlayer run` imports, medians, the files being in the page cache; memory with the bundle is
the peak after loading it and training on batches of 32 with one thread. MiB are 2^20 bytes.
"""


def _lines(row: Row) -> Iterator[list[str]]:
    figure = row["figure"]
    title = ", ".join(part for part in (TITLES[figure], row.get("where")) if part)
    if figure == "import":
        low, high = row["range"]
        yield [title, f"{row['seconds']:.2f} ({low:.2f}–{high:.2f}) s", ""]  # noqa: RUF001  the dash of a range
        return
    yield _size(title, row["mib"], WANTED.get(figure))
    if figure == "disk":
        yield _size(f"{title}, without bytecode", row["mib"] - row["bytecode_mib"], WANTED[figure])


def _size(title: str, mib: float, limit: float | None) -> list[str]:
    return [title, f"{mib:.1f} MiB", verdict(mib, limit, unit=" MiB") if limit else ""]


def _made_of(row: Row, title: str) -> str:
    parts = sorted(row["parts"].items(), key=lambda item: -item[1])
    return paragraph(f"{title} " + ", ".join(f"{name} {mib:.1f}" for name, mib in parts if mib >= SMALLEST))


def _download(folder: Path, where: str) -> Row:
    return {"figure": "download", "where": where, **_sum(wheels.sizes(folder))}


def _disk(packages: Path, where: str) -> Row:
    parts = {path.name: _mib(wheels.occupied(path)) for path in sorted(packages.iterdir()) if path.is_dir()}
    bytecode = _mib(wheels.occupied(packages, "*.pyc"))
    return {
        "figure": "disk",
        "where": where,
        "mib": _mib(wheels.occupied(packages)),
        "bytecode_mib": bytecode,
        "parts": parts,
    }


def _imports(python: Path, repeats: int) -> Iterator[Row]:
    told = {"modules": COMMAND}
    run_program("imports", told, python)  # writes what bytecode the installation left out
    found = [run_program("imports", told, python) for _ in range(repeats)]
    seconds = [sum(cost["seconds"] for cost in answer["costs"]) for answer in found]
    yield {
        "figure": "import",
        "seconds": round(statistics.median(seconds), 3),
        "range": [round(min(seconds), 3), round(max(seconds), 3)],
        "repeats": repeats,
    }
    parts = run_program("imports", {"modules": PARTS}, python)
    yield {
        "figure": "before",
        "mib": _mib(statistics.median(answer["rss"] for answer in found)),
        "peak_mib": _mib(statistics.median(answer["peak"] for answer in found)),
        "parts": _steps_up(parts),
    }


def _stepping(python: Path, folder: Path) -> Row:
    folder.mkdir()
    with Child("build", {"threads": 1}) as builder:
        built = builder.ask(what="bundle", out=str(folder), checked=False, **DEMO)
    batches = folder / "batches.npz"
    write_batches(batches, tuple(built["input"]["shape"]), built["input"]["dtype"], built["classes"])
    told = {"bundle": built["device"], "batches": str(batches), "threads": 1, "imports": COMMAND}
    with Child("ours", told, python=python) as device:
        loaded = device.ask(what="memory")
        times = device.ask(what="step", count=STEPS)
        after = device.ask(what="memory")
    return {
        "figure": "stepping",
        "mib": _mib(after["peak"]),
        "loaded_mib": _mib(loaded["rss"]),
        "milliseconds": round(statistics.median(times["wall"]), 3),
    }


def _sum(parts: Mapping[str, int]) -> dict[str, Any]:
    return {"mib": _mib(sum(parts.values())), "parts": {name: _mib(size) for name, size in parts.items()}}


def _steps_up(answer: Mapping[str, Any]) -> dict[str, float]:
    """What each import added, in MiB, beginning with the bare interpreter."""
    levels = [answer["bare"], *(cost["rss"] for cost in answer["costs"])]
    names = [cost["module"] for cost in answer["costs"]]
    grown = {name: _mib(after - before) for name, before, after in zip(names, levels, levels[1:], strict=False)}
    return {"interpreter": _mib(answer["bare"]), **grown}


def _mib(size: float) -> float:
    return round(size / MIB, 2)
