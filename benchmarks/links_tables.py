"""Tables of the recorded rows of `links`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from benchmarks.links_ends import BYTES, CONGESTION, QUEUE, RATE, ROUND_TRIP, WAYS
from benchmarks.markdown import birth, paragraph, spread, table, verdict
from benchmarks.results import Row, Run
from benchmarks.spread import percentile

GOODPUT, CONTROL, RECOVERY, DURABLE = 0.9, 3.0, 5.0, 0.1
"""Wanted: goodput of ours against raw TCP, at least; 95th percentile of a control message in round trips, seconds from the
end of an outage to half of the rate before, and durable writes as a share of a step, at most."""
NONE = "-"
"""In place of a figure that is not there."""
GIVE_UP = 90.0
"""Longest wait for a stream to come back."""
TRAINING_SECONDS = 900.0
"""After which a scenario is broken off; what it has come to by then counts."""


def tables(runs: Sequence[Run]) -> str:
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
    # A run of one part is as good as one of all.
    births = [birth(run if "quick" in run.partial else replace(run, partial="")) for run in quoted]
    return "\n\n".join([*parts, *births])


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
    idle = [f"{row['idle'][name]:.1f}" for name in ("p50", "p95")] if "idle" in row else [NONE] * 2
    return [*_link(row), *took, str(control["count"] if control else 0), *idle]


def _wire_cells(row: Row) -> list[str]:
    return [*_link(row), *(_wire(row.get("wire", {}).get(way)) for way in WAYS)]


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
        ["link", "ours", "raw TCP", "paho", "ours / TCP", "wanted", "ours / paho"],
        lambda row: [_goodput_cells(row)],
    ),
    (
        "goodput",
        (
            f"An order from the hub and the device's report on it while it uploads all it can: round trips of "
            f"{1e3 * ROUND_TRIP:g} ms, measured at the hub, those never answered with the time they were waited for; *idle*: as "
            "many bytes to and fro on a TCP connection without any load, the least the link can do."
        ),
        ["link", "p50", "p95", "wanted", "orders", "idle: p50", "p95"],
        lambda row: [_control_cells(row)],
    ),
    (
        "goodput",
        "Bytes of IP packets that entered the link for each byte of payload delivered, up + down, counted by the emulator.",
        ["link", "ours", "raw TCP", "paho"],
        lambda row: [_wire_cells(row)],
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
