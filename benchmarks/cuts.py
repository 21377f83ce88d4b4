"""Does `cutlayer-export cuts` predict what a step takes and what goes over the wire?

Time: three cuts of a model, chosen by what their operators cover of the other cuts', are timed and profiled, and the step of every
other cut is predicted from those operators (`export.cuts.operators`); then it is timed. Bytes: a segment learns on calibration
samples and its messages are measured; then devices with other samples train in a simulated run of AdaSplit whose every batch goes
up, and count what they send.
"""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.markdown import birth, paragraph, table, verdict
from benchmarks.options import BenchmarkError, Options
from benchmarks.results import Row, Run, latest
from benchmarks.step import QUIET, Busy
from export.bundle import BuildSpec, Prepared, build, prepare
from export.cut import legal_cuts, load_factory, trace_layers
from export.cuts import coded, measured
from export.cuts.calibration import Calibration
from export.cuts.measured import Pace, Timing
from export.cuts.operators import choose, learn
from export.cuts.rounds import frames_of
from export.cuts.smashed import train
from export.cuts.strategies import Plan, round_of
from export.graphs import Graph, make_graph
from hub import simulate
from hub.datasets import DeviceData, Federation, Request
from hub.datasets.digits import digits
from hub.datasets.wearables import wearables
from hub.demo import Wish
from hub.outcome import read

BATCH = 32
TIME, BYTES = 0.20, 0.05
"""Wanted: predicted against measured, off by at most."""
ROUNDS, WARM = 8, 4
"""Of a session, and those at its start that do not count: what is sent changes while a segment learns its first steps."""
BATCHES = 8
DEVICES = 3
CODECS = ("float32", "entropy:1")
TOKENS, PLACES, TOPICS = 1000, 64, 4


@dataclass(frozen=True)
class Subject:
    """A model, and the cut at which its bytes are counted."""

    title: str
    model: str
    cut: str
    classes: int


SUBJECTS = {
    "lenet": Subject("LeNet", "export.models:LeNet", "pool1", 10),
    "wearable": Subject("1-D CNN", "export.models:Wearable", "pool1", 7),
    "transformer": Subject("transformer", "export.models:Transformer", "blocks.0", TOPICS),
}


def run(options: Options) -> Iterator[Row]:
    """Predict and measure each subject; a row for each cut's time, and one for each codec's bytes."""
    chosen = [name for name in SUBJECTS if any(options.only in f"{name}/{what}" for what in ("time", "bytes"))]
    if not chosen:
        raise BenchmarkError(
            f"no row's name contains {options.only!r}; there are {', '.join(SUBJECTS)} with /time, /bytes"
        )
    torch.set_num_threads(1)
    for name in chosen:
        subject, data = SUBJECTS[name], list(samples(name))
        if options.only in f"{name}/time":
            options.say(f"cuts: time of {name}")
            yield from ({"subject": name, "what": "time", **row} for row in times(subject, data[0], options))
        for codec in CODECS:
            if options.only in f"{name}/bytes":
                options.say(f"cuts: bytes of {name}, {codec}")
                row = bytes_of(subject, data, codec, options.folder / f"{name}-{codec.replace(':', '-')}")
                yield {"subject": name, "what": "bytes", "codec": codec, **row}


# Time


def times(subject: Subject, data: Calibration, options: Options) -> Iterator[Row]:
    """Predicted and measured milliseconds of the local step of every cut but the three that are learnt from."""
    names = legal_cuts(trace_layers(load_factory(subject.model, classes=subject.classes)))
    if options.quick:
        names = names[::2]
    made = {name: _made(subject, name) for name in names}
    before = Busy.now([])
    taken = _in_turns(made, data, 1 if options.quick else 2)
    others = 1.0 - _own_share(before, Busy.now([]))
    anchors = choose({name: timing.operators for name, timing in taken.items()}, 3)
    model = learn([(min(taken[name].seconds), taken[name].operators) for name in names if name in anchors])
    for name in names:
        if name not in anchors:
            found = model.predict(taken[name].operators)
            yield {
                "cut": name,
                "predicted_ms": 1e3 * found.seconds,
                "measured_ms": 1e3 * min(taken[name].seconds),
                "known": round(found.known, 3),
                "anchors": sorted(anchors),
                "others": round(others, 3),
            }


def _made(subject: Subject, cut: str) -> tuple[Prepared, dict[str, Graph]]:
    prepared = prepare(BuildSpec(subject.model, cut, "contrastive", arguments={"classes": subject.classes}))
    return prepared, {"local": make_graph(prepared.steps, "local")}


def _in_turns(
    made: Mapping[str, tuple[Prepared, dict[str, Graph]]], data: Calibration, turns: int
) -> dict[str, Timing]:
    """All cuts after each other, several times, since a machine is not the same from one minute to the next: of each cut all times, of each operator the quickest."""
    found: dict[str, list[Timing]] = {name: [] for name in made}
    for _ in range(turns):
        for name, (prepared, graphs) in made.items():
            x, y = data.batch(0, BATCH)
            found[name].append(measured.measure(prepared.steps, graphs, x, y, pace=Pace(60, 1.5)).timings["local"])
    return {name: _joined(timings) for name, timings in found.items()}


def _joined(timings: Sequence[Timing]) -> Timing:
    operators = tuple(
        replace(same[0], seconds=min(each.seconds for each in same))
        for same in zip(*(timing.operators for timing in timings), strict=True)
    )
    return Timing([seconds for timing in timings for seconds in timing.seconds], operators)


def _own_share(before: Busy, after: Busy) -> float:
    """At most one core is ours; what is used beyond it is others'."""
    available = after.available - before.available
    return 1.0 - max(0.0, (after.used - before.used) - available / 2) / available


# Bytes


def bytes_of(subject: Subject, data: Sequence[Calibration], codec: str, folder: Path) -> Row:
    """Predicted and counted bytes that a device sends in the later rounds of a run whose every batch goes up."""
    spec = BuildSpec(subject.model, subject.cut, "contrastive", arguments={"classes": subject.classes})
    prepared = prepare(spec)
    trained = train(prepared, data[0], batch=BATCH, steps=ROUNDS * BATCHES, kept=(ROUNDS - WARM) * BATCHES)
    plan = Plan(BATCHES, ROUNDS, DEVICES, kappa=0.0, eta=1.0)
    up, _ = frames_of(round_of("adasplit", plan), coded.sizes(trained.sent, codec), 0.0)
    counted = _session(spec, data[1:], codec, folder)
    rounds = ROUNDS - WARM
    return {
        "cut": subject.cut,
        "predicted_bytes": up,
        "measured_bytes": counted / rounds,
        "batches": BATCHES,
        "devices": DEVICES,
    }


def _session(spec: BuildSpec, data: Sequence[Calibration], codec: str, folder: Path) -> float:
    """Bytes of the frames that a device sent for training after the first rounds, mean over the devices."""
    shares = {
        f"device-{number}": DeviceData(each.x, each.y, each.x[:BATCH], each.y[:BATCH])
        for number, each in enumerate(data, 1)
    }
    classes = int(spec.arguments["classes"])
    federation = Federation(shares, tuple(map(str, range(classes))), "other samples than those of the calibration")
    build(spec, folder / "bundle", checked=False)
    wish = Wish(
        folder=folder / "run",
        devices=len(shares),
        rounds=ROUNDS,
        options={"kappa": 0.0, "eta": 1.0, "schedule": "constant"},
        codec=codec,
        environ={"CUTLAYER_HUB_RUN_EVALUATE_EVERY": "0"},
    )
    wish.folder.mkdir(parents=True)
    simulate.train(wish, federation, shares, folder / "bundle", _Silent())
    sent: dict[str, dict[int, int]] = {name: {} for name in shares}
    for record in read(wish.folder):
        if record["record"] == "device":
            sent[record["device"]][record["round"]] = record["socket_sent"] - record["evaluation_sent"]
    return statistics.fmean(found[ROUNDS - 1] - found[WARM - 1] for found in sent.values())


class _Silent:
    """Nobody watches."""

    def stage(self, text: str) -> None:
        """Nothing."""

    def device(self, name: str, state: str) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def round(self, record: Mapping[str, Any]) -> None:
        """Nothing."""


# Samples


def samples(name: str) -> Iterator[Calibration]:
    """Calibration samples first, then those of each device: other wearers, digits or texts."""
    count = BATCHES * BATCH
    if name == "wearable":
        # Wearers differ: who calibrates has some of several, and none of those of the devices.
        wearers = list(wearables(Request("wearables", 10, "all", 0)).values())
        pool = wearers[DEVICES:]
        yield _exactly(np.concatenate([d.x_train for d in pool]), np.concatenate([d.y_train for d in pool]), count)
        for data in wearers[:DEVICES]:
            yield _exactly(data.x_train, data.y_train, count)
    elif name == "lenet":
        for data in digits(Request("digits", DEVICES + 1, "all", 0)).values():
            wide = data.x_train.repeat(4, axis=2).repeat(4, axis=3)
            yield _exactly(np.repeat(wide, 3, axis=1), data.y_train, count)
    else:
        for number in range(DEVICES + 1):
            rng = np.random.default_rng([0, number])
            y = rng.integers(0, TOPICS, count)
            own = (37 * y[:, None] + rng.integers(0, 40, (count, PLACES))) % TOKENS
            other = rng.zipf(1.3, (count, PLACES)) % TOKENS
            yield Calibration(np.where(rng.random((count, PLACES)) < 0.3, own, other), y)


def _exactly(x: Any, y: Any, count: int) -> Calibration:
    """So many samples by chance, some of them twice where there are fewer."""
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.permutation(len(x)) for _ in range(math.ceil(count / len(x)))])[:count]
    return Calibration(np.ascontiguousarray(x[rows]), y[rows])


# Tables


def draw(runs: Sequence[Run]) -> str:
    """Tables of the run to quote: time, bytes."""
    chosen = latest(runs)
    parts = []
    rows = [row for row in chosen.rows if row["what"] == "time"]
    if rows:
        parts += [
            paragraph(_TIME),
            table(["model, cut", "predicted", "measured", "off", "seen", "wanted"], [_time(row) for row in rows]),
        ]
        parts += [paragraph(_spread(rows)), _disturbed(rows)]
    rows = [row for row in chosen.rows if row["what"] == "bytes"]
    if rows:
        parts += [
            paragraph(_BYTES),
            table(["model, cut, codec", "predicted", "measured", "off", "wanted"], [_bytes(row) for row in rows]),
        ]
    return "\n\n".join([*parts, birth(chosen)])


_TIME = """Milliseconds of a local step of 32 samples, one thread: the quickest of all, as the operators are the quickest of theirs;
`seen`: share of the prediction that comes from operators of the same shapes in the three cuts that were timed."""
_BYTES = f"""Bytes that a device sends in a round of {BATCHES} batches, reports included, in frames on the link, from round {WARM + 1} to
{ROUNDS} of a simulated run; mean over {DEVICES} devices, whose samples are not those of the calibration."""


def _time(row: Row) -> list[str]:
    *compared, met = _compared(row, "ms", ".2f", TIME)
    return [_title(row, "cut"), *compared, f"{row['known']:.0%}", met]


def _bytes(row: Row) -> list[str]:
    return [_title(row, "cut", "codec"), *_compared(row, "bytes", ".0f", BYTES)]


def _title(row: Row, *keys: str) -> str:
    return ", ".join([SUBJECTS[row["subject"]].title, *(row[key] for key in keys)])


def _compared(row: Row, unit: str, digits: str, wanted: float) -> list[str]:
    """Predicted, measured, how far the one is off the other, and whether that is within what is wanted."""
    predicted, measured = row[f"predicted_{unit}"], row[f"measured_{unit}"]
    off = predicted / measured - 1
    shown = f"{off:+.0%}" if wanted >= 0.1 else f"{off:+.1%}"
    return [f"{predicted:{digits}}", f"{measured:{digits}}", shown, verdict(abs(off), wanted)]


def _spread(rows: Sequence[Row]) -> str:
    off = [abs(row["predicted_ms"] / row["measured_ms"] - 1) for row in rows]
    met = sum(each <= TIME for each in off)
    return f"{met} of {len(off)} within {TIME:.0%}; half are off by at most {statistics.median(off):.0%}, the worst by {max(off):.0%}."


def _disturbed(rows: Sequence[Row]) -> str:
    most = max(row["others"] for row in rows)
    warning = f" **More than {QUIET:.0%} is too much: measure again on a quiet machine.**" if most > QUIET else ""
    return paragraph(f"Meanwhile other processes took about {most:.0%} of the processors.{warning}")
