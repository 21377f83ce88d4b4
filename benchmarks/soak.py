"""Do memory and files stay flat when a run goes on for an hour at a high rate?

Real processes on this machine's loopback: an embedded broker, a hub, and devices with a tiny model whose rounds are as many
and as small as can be. Nothing waits for anything but the others.
"""

import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from benchmarks.markdown import birth, paragraph, table
from benchmarks.options import BenchmarkError, Options
from benchmarks.results import Row, Run, latest
from export.bundle import BuildSpec, Built, build
from hub import processes
from hub.broker import start_broker
from hub.datasets import DeviceData, split, write_device_file
from hub.demo import as_toml

if TYPE_CHECKING:
    import subprocess

SECONDS, QUICK_SECONDS = 3600.0, 40.0
DEVICES, SAMPLES, TESTED, BATCH = 2, 32, 8, 8
EVALUATE_EVERY = 10
"""Rounds."""

GROWTH = 0.1
"""Wanted: memory and files grow by no more than this over their value after the first quarter."""
SLACK = 256 << 10
"""Bytes that a file may grow besides: a write-ahead log is cut at a size, not at each write."""
TOGETHER = 5
"""Samples whose median counts: memory that is there for an instant is not what this is about."""

RECORDER_BYTES = 256 << 10
"""Of each device: the ring is full within the first quarter."""

PER_ROUND = ("metrics.jsonl", "hub.txt")
"""Files that have a line for each round, and so grow with the rounds; what a round adds must stay."""


@dataclass(frozen=True)
class Sample:
    """One look at everything."""

    seconds: float
    """Since the devices were started."""
    rss: Mapping[str, int]
    """Resident bytes of each process."""
    files: Mapping[str, int]
    """Bytes of each file, by its path in the soak's folder."""
    rounds: int


@dataclass(frozen=True)
class Flatness:
    """How one thing has gone on after the first quarter."""

    name: str
    after_quarter: int
    """Bytes, or bytes a round where the file grows with them."""
    highest: int
    """The same, at its highest since."""
    slack: int = 0

    @property
    def growth(self) -> float:
        """Share of the value after the first quarter."""
        return self.highest / self.after_quarter - 1 if self.after_quarter else 0.0

    @property
    def flat(self) -> bool:
        """Whether it has stayed."""
        return self.highest <= self.after_quarter * (1 + GROWTH) + self.slack


def run(options: Options) -> Iterator[Row]:
    """One soak; a row for each process and each file."""
    seconds = QUICK_SECONDS if options.quick else SECONDS
    options.say(f"soak: {seconds:g} s")
    samples = soak(options.folder / "soak", seconds)
    rounds = samples[-1].rounds
    yield {"what": "run", "seconds": seconds, "rounds": rounds, "samples": len(samples)}
    for kind, found in (("memory", memory(samples)), ("file", files(samples)), ("a round", each_round(samples))):
        for thing in found:
            yield {
                "what": kind,
                "name": thing.name,
                "after_quarter": thing.after_quarter,
                "highest": thing.highest,
                "growth": round(thing.growth, 4),
                "flat": thing.flat,
            }


def soak(folder: Path, seconds: float, bundles: Built | None = None) -> list[Sample]:
    """Train for so long, and look at everything once a second or so.

    Args:
        folder: a new one, for all files.
        seconds: from the first round on.
        bundles: of the digits; built here if None.

    Raises:
        BenchmarkError: a process has ended by itself.
    """
    folder.mkdir(parents=True)
    if bundles is None:
        bundles = build(BuildSpec("export.models:Digits", "pool1"), folder / "bundles", checked=False)
    names = _write_data(folder)
    with ExitStack() as down:
        started = start_broker("embedded", folder / "broker")
        down.callback(started.stop)
        _write_configurations(folder, names, started.url, bundles.hub, bundles.device)
        running: dict[str, subprocess.Popen[bytes]] = {}
        down.callback(lambda: processes.stop(list(running.values())))
        running["hub"] = _start(folder, "hub", "-m", "hub", "serve", "--config", str(folder / "hub.toml"))
        for name in names:
            running[name] = _start(folder, name, "-m", "edge", "run", "--config", str(folder / name / "device.toml"))
        return _watch(folder, {**running, "broker": started.process}, seconds)


def memory(samples: Sequence[Sample]) -> list[Flatness]:
    """Of each process."""
    quarter = _quarter(samples)
    found = []
    for name in samples[-1].rss:
        smooth = _smooth([sample.rss[name] for sample in samples])
        found.append(Flatness(name, smooth[quarter], max(smooth[quarter:])))
    return found


def files(samples: Sequence[Sample]) -> list[Flatness]:
    """Of each file that should not grow with the rounds: its highest size until, and since, the end of the first quarter."""
    quarter = _quarter(samples)
    found = []
    for name in sorted({name for sample in samples for name in sample.files}):
        if not name.endswith(PER_ROUND):
            sizes = [sample.files.get(name, 0) for sample in samples]
            found.append(Flatness(name, max(sizes[: quarter + 1]), max(sizes[quarter:]), SLACK))
    return found


def each_round(samples: Sequence[Sample]) -> list[Flatness]:
    """Bytes a round of the files that have a line for each: in the second quarter, and at most in one of the later two."""
    marks = [samples[len(samples) * part // 4 - (part == 4)] for part in (1, 2, 3, 4)]
    found = []
    for name in sorted(name for name in samples[-1].files if name.endswith(PER_ROUND)):
        rates = [
            round((later.files[name] - one.files.get(name, 0)) / max(1, later.rounds - one.rounds))
            for one, later in pairwise(marks)
        ]
        # Numbers have more digits with time: a round's record may grow by so many bytes.
        found.append(Flatness(name, rates[0], max(rates[1:]), 64))
    return found


def _quarter(samples: Sequence[Sample]) -> int:
    return len(samples) // 4


def _smooth(values: Sequence[int]) -> list[int]:
    return [round(statistics.median(values[max(0, at - TOGETHER + 1) : at + 1])) for at in range(len(values))]


# Processes and files ------------------------------------------------------------------------------------------------


def _watch(folder: Path, running: Mapping[str, "subprocess.Popen[bytes]"], seconds: float) -> list[Sample]:
    watched = {name: psutil.Process(process.pid) for name, process in running.items()}
    counter = _Rounds(folder / "run" / "metrics.jsonl")
    samples: list[Sample] = []
    until, begun = time.monotonic() + 120.0, None
    while begun is None or time.monotonic() < begun + seconds:
        time.sleep(min(1.0, seconds / 60))
        for name, process in running.items():
            if process.poll() is not None:
                raise BenchmarkError(f"{name} ended with code {process.returncode}: {_words(folder / f'{name}.txt')}")
        rounds = counter.read()
        if begun is None:
            begun = time.monotonic() if rounds else None
            if time.monotonic() > until:
                raise BenchmarkError(f"no round is over after 120 s: {_words(folder / 'hub.txt')}")
            continue
        rss = {name: one.memory_info().rss for name, one in watched.items()}
        samples.append(Sample(time.monotonic() - begun, rss, _sizes(folder), rounds))
    return samples


@dataclass
class _Rounds:
    """Counts the rounds in a file that is being written."""

    path: Path
    rounds: int = 0
    _place: int = 0
    _rest: bytes = field(default=b"", repr=False)

    def read(self) -> int:
        if self.path.exists():
            with self.path.open("rb") as file:
                file.seek(self._place)
                *lines, self._rest = (self._rest + file.read()).split(b"\n")
                self._place = file.tell()
            self.rounds += sum(b'"record": "round"' in line or b'"record":"round"' in line for line in lines)
        return self.rounds


def _sizes(folder: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for path in folder.rglob("*"):
        with suppress(OSError):  # gone meanwhile: written beside and renamed
            if path.is_file() and path.suffix != ".new":  # which is there for an instant, and becomes the other
                # A recorder's files come and go; it is their sum that is bounded.
                thing = path.parent if path.parent.name == "recorder" else path
                name = thing.relative_to(folder).as_posix()
                found[name] = found.get(name, 0) + path.stat().st_size
    return found


def _write_data(folder: Path) -> list[str]:
    names = []
    for name, data in split("digits", DEVICES, "all", 0, None).items():
        (folder / name).mkdir()
        some = DeviceData(data.x_train[:SAMPLES], data.y_train[:SAMPLES], data.x_test[:TESTED], data.y_test[:TESTED])
        write_device_file(folder / name / "data.npz", some)
        names.append(name)
    return names


def _write_configurations(folder: Path, names: Sequence[str], url: str, hub: Path, device: Path) -> None:
    (folder / "hub.toml").write_text(
        as_toml(
            {
                "broker": {"url": url},
                "fleet": {"name": "soak", "devices": len(names)},
                "bundle": {"path": hub},
                "run": {"folder": "run", "rounds": 1_000_000, "batch": BATCH, "evaluate_every": EVALUATE_EVERY},
                "strategy": {"kappa": 0.0, "eta": 1.0},
            }
        ),
        "utf-8",
    )
    for name in names:
        (folder / name / "device.toml").write_text(
            as_toml(
                {
                    "device": {"name": name, "state_directory": "state"},
                    "broker": {"url": url},
                    "bundle": {"path": device},
                    "data": {"source": folder / name / "data.npz"},
                    "run": {"fleet": "soak", "recorder_bytes": RECORDER_BYTES},
                }
            ),
            "utf-8",
        )


def _start(folder: Path, name: str, *arguments: str) -> "subprocess.Popen[bytes]":
    environ = {"OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
    return processes.start([sys.executable, *arguments], folder / f"{name}.txt", environ=environ)


def _words(path: Path) -> str:
    return " / ".join(path.read_text("utf-8", "replace").strip().splitlines()[-6:])


# Tables -------------------------------------------------------------------------------------------------------------


def draw(runs: Sequence[Run]) -> str:
    """Memory and files of the run to quote."""
    chosen = latest(runs)
    about = next(row for row in chosen.rows if row["what"] == "run")
    parts = [
        paragraph(
            f"{about['rounds']} rounds in {about['seconds']:g} s, {DEVICES} devices, {SAMPLES // BATCH} batches of {BATCH} "
            f"in a round, an evaluation every {EVALUATE_EVERY}; looked at {about['samples']} times. Each figure after the "
            f"first quarter, and its highest since; wanted: not more than {GROWTH:.0%} above (files: and "
            f"{SLACK >> 10} KiB)."
        )
    ]
    texts = {
        "memory": ("Resident memory, MiB, as the kernel counts it; median of five samples.", 2**20, "{:.1f}"),
        "file": ("Files, KiB, counted.", 1024, "{:.0f}"),
        "a round": ("Files with a line for each round: bytes a round in the second quarter, and later.", 1, "{:.0f}"),
    }
    for kind, (text, unit, form) in texts.items():
        rows = [
            [
                row["name"],
                form.format(row["after_quarter"] / unit),
                form.format(row["highest"] / unit),
                f"{row['growth']:+.1%}",
                "met" if row["flat"] else "missed",
            ]
            for row in chosen.rows
            if row["what"] == kind
        ]
        parts += [paragraph(text), table(["", "after a quarter", "highest since", "growth", "wanted"], rows)]
    return "\n\n".join([*parts, birth(chosen)])
