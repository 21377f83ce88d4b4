"""What does the entropy codec make of real activations: bytes against the entropy and other coders, and time?

Lower segments as `step` has them train for 60 local steps on a batch of 32; then what they would send is coded. Steps,
encoding and decoding take turns in one process with one thread.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import wheels
from benchmarks.child import Child
from benchmarks.markdown import birth, paragraph, table
from benchmarks.options import BenchmarkError, Options
from benchmarks.results import Row, Run, latest
from benchmarks.spread import ratio
from benchmarks.step import QUIET, Busy
from hub.datasets.digits import digits
from hub.datasets.federation import Request
from hub.datasets.wearables import wearables

BATCH = 32
BATCHES = 12
DEVIATIONS = (0.5, 1.0, 2.0)
ENTROPY, SPEED, SHARE = 1.05, 40.0, 0.15
"""Wanted: bits against the conditional entropy at most; MB/s of float32 at least; encoding against the step at most."""
RIVALS = ("quantised", "bz2", "zlib Z_RLE", "zlib Z_HUFFMAN", "zstd", "pcodec", "brotli")
PACKAGES = {"zstd": "backports.zstd", "pcodec": "pcodec", "brotli": "brotli"}
"""Rivals that are not in Python, and where they are: the extra `bench`."""


@dataclass(frozen=True)
class Subject:
    """A lower segment and what it is trained on."""

    title: str
    model: str
    cut: str
    channels_last: bool = False


SUBJECTS = {
    "lenet-pool1": Subject("LeNet, pool1", "export.models:LeNet", "pool1"),
    "lenet-pool2": Subject("LeNet, pool2", "export.models:LeNet", "pool2"),
    "wearable-pool1": Subject("1-D CNN, pool1", "export.models:Wearable", "pool1"),
    "transformer-block": Subject("transformer", "export.models:Transformer", "blocks.0", channels_last=True),
}


def run(options: Options) -> Iterator[Row]:
    """Measure every subject at every step; a row each, and one for what the rivals' wheels weigh."""
    chosen = [name for name in SUBJECTS if any(options.only in f"{name}/{step:g}" for step in DEVIATIONS)]
    if not chosen:
        raise BenchmarkError(
            f"no row's name contains {options.only!r}; there are {', '.join(SUBJECTS)} with /0.5, /1, /2"
        )
    turns = 6 if options.quick else 30
    for name in chosen:
        subject = SUBJECTS[name]
        options.say(f"codec: building {name}")
        folder = options.folder / name
        folder.mkdir()
        with Child("build", {"threads": 1}) as builder:
            built = builder.ask(what="bundle", model=subject.model, cut=subject.cut, out=str(folder), checked=False)
        data = _write_batches(name, options.data, folder / "batches.npz")
        told = {
            "bundle": built["device"],
            "batches": str(folder / "batches.npz"),
            "channels_last": subject.channels_last,
        }
        with Child("coded", told, threads=1) as device:
            for deviations in DEVIATIONS:
                if options.only in f"{name}/{deviations:g}":
                    options.say(f"codec: measuring {name}/{deviations:g}")
                    yield {
                        "subject": name,
                        "data": data,
                        "deviations": deviations,
                        **measure(device, deviations, turns),
                    }
    if not options.only:
        yield {"wheels": _wheels(options)}


def measure(device: Child, deviations: float, turns: int) -> Row:
    """Sizes, then step, encode and decode in turns; milliseconds are medians, the share has its spread."""
    sizes = device.ask(what="sizes", deviations=deviations)
    busy = Busy.now([device])
    times: dict[str, list[float]] = {"step": [], "encode": [], "decode": []}
    for _ in range(turns):
        for what, found in times.items():
            found.append(statistics.median(device.ask(what=what, count=3)["wall"]))
    others = busy.others(Busy.now([device]))
    share = ratio(times["encode"], times["step"])
    return {
        **sizes,
        "ms": {what: statistics.median(found) for what, found in times.items()},
        "train_ms": statistics.median(device.ask(what="train", count=3)["wall"]),
        "share": [share.middle, share.low, share.high],
        "turns": turns,
        "others": round(others, 3),
    }


def draw(runs: Sequence[Run]) -> str:
    """Tables of the run to quote: bits, rivals, time."""
    chosen = latest(runs)
    rows = [row for row in chosen.rows if "subject" in row]
    parts = []
    for text, headings, cells in TABLES:
        named = [[SUBJECTS[row["subject"]].title, f"{row['deviations']:g}", *cells(row)] for row in rows]
        parts += [paragraph(text), table(["segment", "D", *headings], named)]
    said = "; ".join(dict.fromkeys(f"{SUBJECTS[row['subject']].title}: {row['data']}" for row in rows))
    return "\n\n".join([*parts, _disturbed(rows), *_weights(chosen), paragraph(f"Trained on: {said}."), birth(chosen)])


def _disturbed(rows: Sequence[Row]) -> str:
    least, most = (pick(row["others"] for row in rows) for pick in (min, max))
    warning = f" **More than {QUIET:.0%} is too much to quote milliseconds and MB/s.**" if most > QUIET else ""
    return paragraph(f"Meanwhile other processes took {least:.0%} to {most:.0%} of the processors.{warning}")


def _bits(row: Mapping[str, Any]) -> list[str]:
    against = row["ours"] / row["conditional"]
    figures = [f"{row[name]:.3f}" for name in ("ours", "conditional")]
    return [
        *figures,
        f"{against:.3f}",
        _met(against <= ENTROPY),
        f"{row['single']:.3f}",
        f"{row['first']:.3f}",
        str(row["table_bytes"]),
        f"{row['nonzero']:.0%}",
    ]


def _met(met: bool) -> str:
    return "met" if met else "missed"


def _rivals(row: Mapping[str, Any]) -> list[str]:
    found = {name: row["rivals"].get(name) for name in RIVALS}
    best = min(bits for bits in found.values() if bits is not None)
    shown = [f"{bits:.2f}" if bits is not None else "none" for bits in found.values()]
    return [f"{row['ours']:.2f}", *shown, f"{row['ours'] / best:.2f}"]


def _times(row: Mapping[str, Any]) -> list[str]:
    ms, megabytes = row["ms"], 4e-6 * row["elements"]
    speeds = [1e3 * megabytes / ms[what] for what in ("encode", "decode")]
    slowest = min(speeds)
    middle, low, high = row["share"]
    return [
        *(f"{speed:.0f}" for speed in speeds),
        _met(slowest >= SPEED),
        f"{ms['encode']:.1f}",
        f"{ms['step']:.1f}",
        f"{100 * middle:.0f} ({100 * low:.0f}-{100 * high:.0f})",
        _met(middle <= SHARE),
        f"{row['train_ms']:.0f}",
    ]


TABLES = (
    (
        """Bits an element of whole payloads (`ours`: the table is known at the other side, as from the second message on)
        at a step of D standard deviations; H: empirical entropy given the channel and the symbol in the row above (1-D and
        transformer: one place earlier), which is not a bound, since ours also looks at neighbours in the row, but knows
        each tensor by heart; H0: of single symbols; `first`: a first message, which holds its table of so many bytes.""",
        ["ours", "H", "ours / H", f"≤ {ENTROPY:g}", "H0", "first", "table", "≠ 0"],
        _bits,
    ),
    (
        """The same symbols, a byte each, by others, bits an element; the last column is ours against the best of them.
        `quant.` is the codec `quantised`: the best of the next three, with its head; `none`: not
        installed.""",
        ["ours", "quant.", "bz2", "RLE", "Huffman", "zstd", "pcodec", "brotli", "of best"],
        _rivals,
    ),
    (
        """MB/s of float32, quantising included; and the encoding of a batch of 32 beside its training step, ms by the clock,
        one thread, medians in turns, with the 10th to 90th percentile of the ratio turn by turn. `table`: what training a
        table takes, ms, which is done at the first message and now and then.""",
        ["enc", "dec", f"≥ {SPEED:g}", "ms", "step", "share, %", f"≤ {SHARE:.0%}", "table"],
        _times,
    ),
)


def _weights(run: Run) -> list[str]:
    found = next((row["wheels"] for row in run.rows if "wheels" in row), None)
    if found is None:
        return []
    said = ", ".join(
        f"{name} {found[package] / 2**20:.2f}" if package in found else f"{name} could not be had"
        for name, package in PACKAGES.items()
    )
    return [paragraph(f"Wheels for 64-bit ARM, MiB, counted: {said}; ours is part of the base install and needs none.")]


def _wheels(options: Options) -> dict[str, int]:
    """Bytes of the rivals' wheels for a board, by package; what pip cannot find is missing."""
    found = {}
    for package in PACKAGES.values():
        folder = options.folder / f"wheel-{package}"
        try:
            wheels.pip("download", "--no-deps", "--only-binary=:all:", *wheels.AARCH64, "--dest", str(folder), package)
        except BenchmarkError as error:
            options.say(f"codec: {error}")
            continue
        found[package] = sum(wheels.sizes(folder).values())
    return found


def _write_batches(name: str, folder: Path | None, path: Path) -> str:
    """Write batches x (12, 32, …) and y (12, 32); returns what they are."""
    x, y, words = _samples(name, folder)
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.permutation(len(x)) for _ in range(-(-BATCHES * BATCH // len(x)))])[: BATCHES * BATCH]
    np.savez(path, x=x[rows].reshape(BATCHES, BATCH, *x.shape[1:]), y=y[rows].reshape(BATCHES, BATCH))
    return words


def _samples(name: str, folder: Path | None) -> tuple[Any, Any, str]:
    if name.startswith("wearable"):
        data = next(iter(wearables(Request("wearables", 10, "all", 0)).values()))
        return data.x_train, data.y_train, "a wearer's windows"
    if name.startswith("transformer"):
        rng = np.random.default_rng(0)
        y = rng.integers(0, 4, 512)
        own = (37 * y[:, None] + rng.integers(0, 40, (512, 64))) % 1000
        return np.where(rng.random((512, 64)) < 0.3, own, rng.zipf(1.3, (512, 64)) % 1000), y, "random tokens (Zipf)"
    if folder is not None:
        from benchmarks.sources import mixed_cifar  # noqa: PLC0415  needs --data

        data = next(iter(mixed_cifar(Request("mixed_cifar", 5, "all", 0, folder)).values()))
        return data.x_train, data.y_train, "CIFAR-10"
    data = next(iter(digits(Request("digits", 1, "all", 0)).values()))
    wide = data.x_train.repeat(4, axis=2).repeat(4, axis=3)
    return np.repeat(wide, 3, axis=1), data.y_train, "the 8x8 digits four times as large (no --data)"
