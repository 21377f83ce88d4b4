"""What does delivery make of a bad link, and what do durable steps cost?

A stream of 64 KiB activations goes from a device to its hub over an emulated link, each end in a network namespace with
a TCP of its own: by our mailbox, delivery and `Devices`; by plain paho at QoS 1; and as one raw TCP stream. They take
turns on the same link. While ours runs under full load the hub also gives orders, which the device answers with a report.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks import links_tables
from benchmarks.child import Child
from benchmarks.links_ends import (
    BYTES,
    CONGESTION,
    DEVICE,
    IDLE,
    ROUND_TRIP,
    WAYS,
    alive,
    environ,
    scenario,
    start,
    start_broker,
)
from benchmarks.links_tables import GIVE_UP, TRAINING_SECONDS
from benchmarks.machine import ROOT
from benchmarks.options import Options
from benchmarks.results import Row, Run
from benchmarks.spread import percentile, ratio
from benchmarks.step import Subject, prepare
from hub import processes
from hub.trial.net import Net, open_net
from hub.trial.outages import Outages
from hub.trial.scenario import library

LOSSES = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3)


@dataclass(frozen=True)
class Pace:
    """How long to measure."""

    turns: int
    seconds: float
    """Of a turn, after its first message and `warm` seconds."""
    warm: float
    patience: float
    """Longest time of a turn that has not seen enough messages yet."""
    losses: tuple[float, ...]
    congestion: tuple[str, ...]
    outage: float
    """Seconds."""
    outages: int
    durable: int
    """Steps."""


FULL = Pace(3, 20.0, 3.0, 90.0, LOSSES, CONGESTION, 60.0, 3, 300)
QUICK = Pace(1, 5.0, 2.0, 15.0, (0.0, 0.05), ("cubic",), 15.0, 1, 40)

STEPS = {
    "a step that uploads float32": "float32",
    "a step that uploads quantised:1": "quantised:1",
    "a local step, 8 to a commit": "",
}
"""Codec of what each step uploads."""
ENOUGH = 4
"""Messages that a goodput needs at least: where few come, a turn is longer."""
CONTROL_SECONDS = 0.25
"""Between two orders."""


def run(options: Options) -> Iterator[Row]:
    """Measure every part; a row for each link, outage and disk."""
    pace = QUICK if options.quick else FULL
    for part in (_goodput, _recovery, _durable, _training):
        yield from part(options, pace)


# Goodput, control messages, bytes -----------------------------------------------------------------------------------


def _goodput(options: Options, pace: Pace) -> Iterator[Row]:
    for congestion, loss in product(pace.congestion, pace.losses):
        name = f"goodput/{congestion}/{loss:g}"
        if options.only not in name:
            continue
        options.say(f"links: {name}")
        folder = options.folder / name.replace("/", "-")
        with open_net(scenario(loss), [DEVICE], folder, congestion=congestion) as net:
            if net.congestion != congestion:
                options.say(f"links: {name} is left out: {net.how}")
                continue
            start_broker(net)
            turns: dict[str, list[Row]] = {way: [] for way in WAYS}
            for number in range(pace.turns):
                for way in WAYS[number % len(WAYS) :] + WAYS[: number % len(WAYS)]:
                    turns[way].append(_turn(net, way, folder / f"{way}-{number}", pace))
            turns[IDLE] = [_turn(net, IDLE, folder / f"idle-{number}", pace) for number in range(pace.turns)]
            yield {"part": "goodput", "congestion": congestion, "loss": loss, "how": net.how, **summary(turns)}


def _turn(net: Net, way: str, folder: Path, pace: Pace) -> Row:
    """One contestant on the link, from its first connection on."""
    heard, started = start(net, way, folder, DEVICE, control_seconds=CONTROL_SECONDS)
    begun = time.monotonic()
    try:
        while True:
            time.sleep(0.05)
            heard.look()
            alive(started, folder)
            now = time.monotonic()
            if now - begun > pace.patience or (heard.begun is not None and now - heard.begun > pace.warm):
                break
        before, since = net.counters()[DEVICE], time.monotonic()
        while True:
            time.sleep(0.05)
            heard.look()
            alive(started, folder)
            now = time.monotonic()
            enough = way == IDLE or sum(at > since for at in heard.arrived) >= ENOUGH
            if (now - since > pace.seconds and enough) or now - since > pace.patience:
                break
        after = net.counters()[DEVICE]
    finally:
        processes.stop(started)
    delivered = BYTES * sum(since < at <= now for at in heard.arrived)
    waiting = [now - heard.asked] if heard.asked is not None else []
    wire = {name: after[name].offered_bytes - before[name].offered_bytes for name in ("up", "down")}
    return {
        "bytes_per_second": rate(heard.arrived, since, now),
        "delivered": delivered,
        "wire": wire,
        "seconds": now - since,
        "control": heard.took,
        "unanswered": waiting,
    }


def rate(arrived: Sequence[float], since: float, until: float) -> float:
    """Payload bytes a second: from one whole message to a later one, so that few messages are not rounded; else by the clock."""
    inside = [at for at in arrived if since < at <= until]
    if len(inside) > ENOUGH // 2 and inside[-1] > inside[0]:
        return BYTES * (len(inside) - 1) / (inside[-1] - inside[0])
    return BYTES * len(inside) / (until - since)


def summary(turns: Mapping[str, Sequence[Row]]) -> Row:
    """Figures of all turns on one link."""
    goodput = {way: [turn["bytes_per_second"] for turn in turns[way]] for way in turns if way != IDLE}
    row: Row = {"goodput": {way: [round(value) for value in values] for way, values in goodput.items()}}
    for other in ("tcp", "paho"):
        if min(goodput[other]) > 0:
            found = ratio(goodput["ours"], goodput[other])
            row[f"over_{other}"] = [round(value, 4) for value in (found.middle, found.low, found.high)]
    for way in turns:
        delivered = sum(turn["delivered"] for turn in turns[way])
        if delivered:
            wire = {name: sum(turn["wire"][name] for turn in turns[way]) / delivered for name in ("up", "down")}
            row.setdefault("wire", {})[way] = {name: round(value, 4) for name, value in wire.items()}
    for name, way in (("control", "ours"), ("idle", IDLE)):
        # One that was never answered took at least so long as it was waited for.
        took = [seconds for turn in turns.get(way, ()) for seconds in turn["control"] + turn["unanswered"]]
        if took:
            trips = [seconds / ROUND_TRIP for seconds in took]
            row[name] = {
                "p50": round(percentile(trips, 50), 2),
                "p95": round(percentile(trips, 95), 2),
                "count": len(took),
            }
    return row


# Recovery -----------------------------------------------------------------------------------------------------------


def _recovery(options: Options, pace: Pace) -> Iterator[Row]:
    for way in WAYS:
        name = f"recovery/{way}"
        if options.only not in name:
            continue
        found, how = [], ""
        for number in range(pace.outages if way == "ours" else 1):
            options.say(f"links: {name}, an outage of {pace.outage:g} s")
            seconds, how = _outage(options.folder / f"recovery-{way}-{number}", way, pace.outage)
            found.append(seconds)
        yield {"part": "recovery", "way": way, "outage": pace.outage, "seconds": found, "how": how}


STEADY = 12.0
"""Seconds of a stream before its outage."""


def _outage(folder: Path, way: str, length: float) -> tuple[float | None, str]:
    """Seconds from the end of an outage to half of the rate before it; None where that did not come in time."""
    gone = Outages(((STEADY, length),))
    with open_net(scenario(0.0, gone), [DEVICE], folder) as net:
        opened = time.monotonic()
        start_broker(net)
        heard, started = start(net, way, folder / "turn", DEVICE)
        back = opened + STEADY + length
        found = None
        while found is None and time.monotonic() < back + GIVE_UP:
            time.sleep(0.05)
            heard.look()
            alive(started, folder / "turn")
            found = recovered(heard.arrived, opened + STEADY, back)
        return found, net.how


def recovered(arrived: Sequence[float], gone: float, back: float) -> float | None:
    """Seconds from `back` until a second has had half the messages of a second before `gone`; None while none has."""
    before = sum(gone - 5 <= at < gone for at in arrived) / 5
    after = [at for at in arrived if at >= back]
    need = max(2, round(before / 2))
    for first, last in zip(after, after[need - 1 :], strict=False):
        if last - first <= 1.0:
            return round(last - back, 2)
    return None


# Durable writes -----------------------------------------------------------------------------------------------------


def _durable(options: Options, pace: Pace) -> Iterator[Row]:
    if options.only not in "durable":
        return
    options.say("links: durable writes")
    folder = options.folder / "durable"
    built = prepare(Subject("LeNet, pool1", "export.models:LeNet", "pool1", 0.0), folder, checked=False)
    with Child("links_durable", {}, threads=1) as child:
        disk = child.ask(what="disk", folder=str(folder), count=pace.durable, size=BYTES)["fsync_ms"]
        puts = child.ask(what="puts", folder=str(folder / "puts"), count=pace.durable)
        told = {"device": built["device"], "batches": built["batches"], "count": pace.durable}
        steps: dict[str, Row] = {}
        for name, codec in STEPS.items():
            found = child.ask(what="steps", folder=str(folder / f"steps-{len(steps)}"), codec=codec, **told)
            size = found["message_bytes"] + found["state_bytes"]
            least = child.ask(what="disk", folder=str(folder), count=pace.durable, size=size)["fsync_ms"]
            steps[name] = {**_share(found), "fsync_ms": middle(least)}
    yield {
        "part": "durable",
        "disk": filesystem(folder),
        "fsync_ms": middle(disk),
        "commit_ms": middle(puts["commit_ms"]),
        "files_bytes": puts["files_bytes"],
        "steps": steps,
    }


def _share(told: Mapping[str, Any]) -> Row:
    """Means, not medians: of eight local steps only one commits."""
    step, durable = sum(told["step_ms"]), sum(told["durable_ms"])
    return {
        "step_ms": round(step / len(told["step_ms"]), 3),
        "durable_ms": round(durable / len(told["durable_ms"]), 3),
        "share": round(durable / step, 4),
        "bytes": told["message_bytes"] + told["state_bytes"],
    }


def middle(values: Sequence[float]) -> list[float]:
    """Median, 10th and 90th percentile."""
    return [round(percentile(values, percent), 3) for percent in (50, 10, 90)]


def filesystem(folder: Path) -> str:
    """The kind of file system a folder is on."""
    found = ("?", "")
    for line in Path("/proc/mounts").read_text("utf-8").splitlines():
        _, place, kind, *_ = line.split()
        if str(folder.resolve()).startswith(place) and len(place) >= len(found[1]):
            found = (kind, place)
    return found[0]


# Training -----------------------------------------------------------------------------------------------------------


def _training(options: Options, pace: Pace) -> Iterator[Row]:
    """Rounds an hour and accuracy of every scenario, by the command `trial run`."""
    names, rounds = (["perfect"], 2) if pace is QUICK else (library(), 20)
    for name in names:
        if options.only not in f"training/{name}":
            continue
        options.say(f"links: training on {name}, {rounds} rounds")
        folder = options.folder / f"training-{name}"
        command = [sys.executable, "-m", "hub", "trial", "run", name, "--rounds", str(rounds), "--out", str(folder)]
        try:
            done = subprocess.run(
                command, check=False, capture_output=True, text=True, cwd=ROOT, env=environ(), timeout=TRAINING_SECONDS
            )
        except subprocess.TimeoutExpired:
            options.say(f"links: training on {name} is broken off after {TRAINING_SECONDS:g} s")
        else:
            if done.returncode:
                options.say(f"links: trial run {name} ended with code {done.returncode}: {done.stderr.strip()[-300:]}")
        metrics = folder / "metrics.jsonl"
        if metrics.exists():
            text = metrics.read_text("utf-8")
            yield {"part": "training", "scenario": name, "asked": rounds, **trained(text[: text.rfind("\n") + 1])}


def trained(metrics: str) -> Row:
    """Rounds an hour and the last accuracy, of a run's metrics."""
    records = [json.loads(line) for line in metrics.splitlines()]
    rounds = [record for record in records if record.get("record") == "round"]
    seconds = sum(record["seconds"] for record in rounds)
    accuracies = [record["accuracy"] for record in rounds if record.get("accuracy") is not None]
    return {
        "rounds": len(rounds),
        "rounds_per_hour": round(3600 * len(rounds) / seconds, 1) if seconds else None,
        "accuracy": accuracies[-1] if accuracies else None,
    }


def draw(runs: Sequence[Run]) -> str:
    """Tables of all that was measured."""
    return links_tables.tables(runs)
