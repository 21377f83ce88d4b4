"""What does delivery make of a bad link, and what do durable steps cost?

A stream of 64 KiB activations goes from a device to its hub over an emulated link, each end in a network namespace with
a TCP of its own: by our mailbox, delivery and `Devices`; by plain paho at QoS 1; and as one raw TCP stream. They take
turns on the same link. While ours runs under full load the hub also gives orders, which the device answers with a report.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.child import PROGRAMS, Child
from benchmarks.machine import ROOT
from benchmarks.markdown import birth, paragraph, spread, table, verdict
from benchmarks.options import BenchmarkError, Options
from benchmarks.results import Row, Run
from benchmarks.spread import percentile, ratio
from benchmarks.step import Subject, prepare
from hub import processes
from hub.broker import find_mosquitto
from hub.trial.net import HUB, Net, open_net
from hub.trial.outages import Outages
from hub.trial.scenario import Course, Link, Links, Scenario, library

BYTES = 65536
RATE, DELAY, QUEUE = 10e6, 0.025, 128 << 10
ROUND_TRIP = 2 * DELAY
LOSSES = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3)
CONGESTION = ("cubic", "bbr")
WAYS = ("ours", "tcp", "paho")
IDLE = "idle"
"""A turn of control messages alone: what the link itself makes of them."""
AHEAD = 16
"""Messages a sender has handed over and not seen acknowledged: 1 MiB, eight times what the link holds."""
PORT = 1883
FLEET, DEVICE = "bench", "pi"
BUNDLE = "ab" * 32

GOODPUT, CONTROL, RECOVERY, DURABLE = 0.9, 3.0, 5.0, 0.1
"""Wanted: goodput of ours against raw TCP, at least; 95th percentile of a control message in round trips, seconds from the
end of an outage to half of the rate before, and durable writes as a share of a step, at most."""

_MOSQUITTO = """\
listener {port} 0.0.0.0
allow_anonymous true
persistence false
max_packet_size 2097152
max_queued_messages 0
max_queued_bytes 67108864
max_inflight_messages 0
set_tcp_nodelay true
log_dest stderr
log_type error
log_type warning
"""


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
NONE = "-"
"""In place of a figure that is not there."""
ENOUGH = 4
"""Messages that a goodput needs at least: where few come, a turn is longer."""
TRAINING_SECONDS = 900.0
"""After which a scenario is broken off; what it has come to by then counts."""
CONTROL_SECONDS = 0.25
"""Between two orders."""


@dataclass
class Heard:
    """What a receiver has noted so far."""

    path: Path
    ready: bool = False
    arrived: list[float] = field(default_factory=list)
    """When each message was whole."""
    took: list[float] = field(default_factory=list)
    """Seconds of each order that was acknowledged."""
    asked: float | None = None
    """When the order was told that is not acknowledged yet."""
    _read: int = 0
    _answered: float | None = None

    @property
    def begun(self) -> float | None:
        """When the first message was whole, or the first order was answered."""
        return self.arrived[0] if self.arrived else self._answered

    def look(self) -> None:
        """Read what is new."""
        if not self.path.exists():
            return
        with self.path.open(encoding="utf-8") as file:
            file.seek(self._read)
            while (line := file.readline()).endswith("\n"):
                self._read = file.tell()
                self._take(json.loads(line))

    def _take(self, note: Mapping[str, Any]) -> None:
        self.ready = self.ready or "ready" in note
        if "at" in note:
            self.arrived.append(note["at"])
        if "asked" in note:
            self.asked = None if "took" in note else note["asked"]
        if "took" in note:
            self.took.append(note["took"])
            self._answered = self._answered or note["asked"] + note["took"]


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
            _alive(started, folder)
            now = time.monotonic()
            if now - begun > pace.patience or (heard.begun is not None and now - heard.begun > pace.warm):
                break
        before, since = net.counters()[DEVICE], time.monotonic()
        while True:
            time.sleep(0.05)
            heard.look()
            _alive(started, folder)
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
GIVE_UP = 90.0
"""Longest wait for a stream to come back."""


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
            _alive(started, folder / "turn")
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
    """Rounds an hour and accuracy of every scenario, by the command `trial run`, where there is one."""
    names = [name for name in library() if options.only in f"training/{name}"]
    if not names or not _has_trials():
        return
    rounds = 2 if pace is QUICK else 20
    for name in ["perfect"] if pace is QUICK else names:
        options.say(f"links: training on {name}, {rounds} rounds")
        folder = options.folder / f"training-{name}"
        command = [sys.executable, "-m", "hub", "trial", "run", name, "--rounds", str(rounds), "--out", str(folder)]
        try:
            done = subprocess.run(
                command, check=False, capture_output=True, text=True, cwd=ROOT, env=_environ(), timeout=TRAINING_SECONDS
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


def _has_trials() -> bool:
    command = [sys.executable, "-m", "hub", "trial", "run", "--help"]
    return subprocess.run(command, check=False, capture_output=True, cwd=ROOT, env=_environ()).returncode == 0


# Processes ----------------------------------------------------------------------------------------------------------


def scenario(loss: float, outages: Outages | None = None) -> Scenario:
    """The link that is asked for: 10 Mbit/s, 50 ms, a queue of 128 KiB, loss both ways."""
    course = Course(((0.0, Link(RATE, DELAY, loss=loss, queue_bytes=QUEUE)),))
    return Scenario("links", "ours: chosen, not measured", 1, Links(course, course, outages or Outages()))


def start_broker(net: Net) -> None:
    """Mosquitto beside the hub, where the hub's own ends of a link are.

    Raises:
        BenchmarkError: it is not installed or does not start.
    """
    program = find_mosquitto()
    if program is None:
        raise BenchmarkError("mosquitto is not installed: install the package mosquitto")
    text = _MOSQUITTO.format(port=PORT) + ("user root\n" if os.geteuid() == 0 else "")
    path = net.folder / "mosquitto.conf"
    path.write_text(text, encoding="utf-8")
    log = net.folder / "mosquitto.log"
    broker = net.popen(HUB, [program, "-v", "-c", str(path)], log=log)
    until = time.monotonic() + 15
    while not re.search("running|Opening ipv4", log.read_text("utf-8", "replace")):
        if broker.poll() is not None or time.monotonic() > until:
            raise BenchmarkError(f"mosquitto does not start: {log.read_text('utf-8', 'replace').strip()[-300:]}")
        time.sleep(0.05)


def start(
    net: Net, way: str, folder: Path, device: str, *, control_seconds: float = 0.0
) -> tuple[Heard, list["subprocess.Popen[bytes]"]]:
    """A receiver at the hub and a sender at the device, in new processes."""
    folder.mkdir(parents=True)
    # A raw stream has a port of its own for each turn: the last one's may still be kept by the kernel.
    port = PORT if way in ("ours", "paho") else 20000 + len(net.children)
    host, reached = net.endpoint(device, port)
    common = {"way": way, "fleet": FLEET, "device": device, "bundle": BUNDLE, "port": port}
    receiving = {
        **common,
        "url": f"mqtt://{net.address(HUB)}:{PORT}",
        "host": net.address(HUB),
        "out": str(folder / "heard.jsonl"),
        "control_seconds": control_seconds,
    }
    sending = {**common, "host": host, "port": reached, "folder": str(folder / "state"), "ahead": AHEAD}
    heard = Heard(folder / "heard.jsonl")
    receiver = _program(net, HUB, "links_receiver", receiving, folder)
    until = time.monotonic() + 60
    while not heard.ready:
        _alive([receiver], folder)
        if time.monotonic() > until:
            raise BenchmarkError(f"the receiver of {way} is not ready after 60 s")
        time.sleep(0.05)
        heard.look()
    return heard, [_program(net, device, "links_sender", sending, folder), receiver]


def _program(net: Net, node: str, name: str, told: Row, folder: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-P", str(PROGRAMS / f"{name}.py"), json.dumps(told)]
    return net.popen(node, command, log=folder / f"{name}.log", environ=_environ())


def _environ() -> dict[str, str]:
    return {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(ROOT)}


def _alive(started: Sequence["subprocess.Popen[bytes]"], folder: Path) -> None:
    for child in started:
        if child.poll() is not None:
            words = " / ".join(
                path.read_text("utf-8", "replace").strip()[-300:] for path in sorted(folder.glob("*.log"))
            )
            raise BenchmarkError(f"an end of the link ended with code {child.returncode}: {words}")


# Tables -------------------------------------------------------------------------------------------------------------


def draw(runs: Sequence[Run]) -> str:
    """Tables of goodput, control messages and bytes, recovery, durable writes, training: of each row the newest."""
    chosen = newest(runs)
    parts = []
    for name, text, headings, cells in TABLES:
        rows = [line for row in chosen.values() if row["part"] == name for line in cells(row)]
        if rows:
            parts += [paragraph(text), table(headings, rows)]
    hows = sorted({row["how"] for row in chosen.values() if row.get("how")})
    parts += [paragraph(f"Links: {'; '.join(hows)}.")] if hows else []
    quoted = [run for run in runs if any(row in chosen.values() for row in run.rows)]
    return "\n\n".join([*parts, *map(birth, quoted)])


def newest(runs: Sequence[Run]) -> dict[tuple[Any, ...], Row]:
    """Of each row that was measured in several runs, with `--only` one part a run, the last; quick ones where no other is."""
    found: dict[tuple[Any, ...], Row] = {}
    for run in sorted(runs, key=lambda run: "quick" not in run.partial):  # stable: else as they came
        for row in run.rows:
            found[tuple(row.get(name) for name in ("part", "congestion", "loss", "way", "scenario"))] = row
    return dict(sorted(found.items(), key=lambda item: _place(item[1])))


def _place(row: Row) -> tuple[Any, ...]:
    congestion = CONGESTION.index(row["congestion"]) if "congestion" in row else 0
    return congestion, row.get("loss", 0.0), WAYS.index(row["way"]) if "way" in row else 0, row.get("scenario", "")


def _link(row: Row) -> list[str]:
    return [f"{row['congestion']}, {row['loss']:.0%}"]


def _goodput_cells(row: Row) -> list[str]:
    rates = [f"{8e-6 * percentile(row['goodput'][way], 50):.3g}" for way in WAYS]
    over = row.get("over_tcp")
    wanted = f"≥ {GOODPUT:g} {'met' if over[0] >= GOODPUT else 'missed'}" if over else NONE
    return [*_link(row), *rates, _ratio(over), wanted, _ratio(row.get("over_paho"))]


def _ratio(found: Sequence[float] | None) -> str:
    return spread(*found) if found else NONE


def _control_cells(row: Row) -> list[str]:
    control = row.get("control")
    took = (
        [f"{control['p50']:.1f}", f"{control['p95']:.1f}", verdict(control["p95"], CONTROL)] if control else [NONE] * 3
    )
    wire = row.get("wire", {})
    idle = f"{row['idle']['p95']:.1f}" if "idle" in row else NONE
    return [*_link(row), *took, str(control["count"] if control else 0), idle, *(_wire(wire.get(way)) for way in WAYS)]


def _wire(found: Mapping[str, float] | None) -> str:
    return f"{found['up']:.2f} + {found['down']:.2f}" if found else NONE


def _recovery_cells(row: Row) -> list[str]:
    seconds = [f"{value:.1f}" if value is not None else f"over {GIVE_UP:g}" for value in row["seconds"]]
    worst = max(GIVE_UP if value is None else value for value in row["seconds"])
    wanted = verdict(worst, RECOVERY, unit=" s") if row["way"] == "ours" else NONE
    return [row["way"], f"{row['outage']:g}", ", ".join(seconds), wanted]


def _durable_rows(row: Row) -> list[list[str]]:
    floor = f"{row['fsync_ms'][0]:.2f}"
    rows = [[f"64 KiB alone, {row['disk']}", "64", "-", f"{row['commit_ms'][0]:.2f}", floor, "-", "-"]]
    for name, step in row["steps"].items():
        figures = [f"{step[key]:.2f}" for key in ("step_ms", "durable_ms")]
        least = f"{step['fsync_ms'][0]:.2f}"
        share = [f"{step['share']:.0%}", verdict(step["share"], DURABLE)]
        rows.append([name, f"{step['bytes'] / 1024:.0f}", *figures, least, *share])
    return rows


def _training_cells(row: Row) -> list[str]:
    hour = NONE if row["rounds_per_hour"] is None else f"{row['rounds_per_hour']:.0f}"
    accuracy = NONE if row["accuracy"] is None else f"{row['accuracy']:.1%}"
    return [row["scenario"], f"{row['rounds']} of {row['asked']}", hour, accuracy]


Cells = Callable[[Row], list[list[str]]]
TABLES: tuple[tuple[str, str, list[str], Cells], ...] = (
    (
        "goodput",
        (
            f"Goodput of {BYTES >> 10} KiB messages, Mbit/s of payload, counted at the receiver; medians of the turns. Link: "
            f"{RATE / 1e6:g} Mbit/s, round trip {1e3 * ROUND_TRIP:g} ms, queue {QUEUE >> 10} KiB, loss of packets both ways. The "
            "ratio is that of the medians, with 10th to 90th percentile turn by turn."
        ),
        ["congestion, loss", "ours", "raw TCP", "paho", "ours / TCP", "wanted", "ours / paho"],
        lambda row: [_goodput_cells(row)],
    ),
    (
        "goodput",
        (
            f"An order from the hub and the device's report on it while it uploads all it can: round trips of "
            f"{1e3 * ROUND_TRIP:g} ms, measured at the hub, those never answered with the time they were waited for; *idle*: as "
            "many bytes to and fro on a TCP connection without any load, the least the link can do. Bytes of IP "
            "packets that entered the link for each byte of payload delivered, up + down, counted by the emulator."
        ),
        ["congestion, loss", "p50", "p95", "wanted", "orders", "idle p95", "wire, ours", "raw TCP", "paho"],
        lambda row: [_control_cells(row)],
    ),
    (
        "recovery",
        (
            "Seconds from the end of an outage until a second had half the messages of a second before it, no loss besides; "
            "measured at the receiver, each of a new connection."
        ),
        ["way", "outage, s", "seconds", "wanted (the worst)"],
        lambda row: [_recovery_cells(row)],
    ),
    (
        "durable",
        (
            "Durable writes on this machine's disk, ms by the clock. Alone: one message put and one dropped, the median of all "
            "commits. Steps of LeNet to pool1, batch 32, one thread: the step, and what the outbox adds, means. "
            "KiB: the message and, with a step, the state; fsync: as much appended to a file, the median, the least it can cost."
        ),
        ["what", "KiB", "step", "durable", "fsync", "share", "wanted"],
        _durable_rows,
    ),
    (
        "training",
        (
            "Training on every scenario of the library by `cutlayer-hub trial run`, as it comes: four wearers, AdaSplit. Rounds "
            f"done in {TRAINING_SECONDS:g} s at most; an hour's by the hub's clock; accuracy on the devices' test samples when "
            "they were last evaluated."
        ),
        ["scenario", "rounds", "rounds an hour", "accuracy"],
        lambda row: [_training_cells(row)],
    ),
)
"""A table: of which rows, what it shows, its headings, and the lines of a row."""
