"""A profile for a terminal of 80 columns."""

import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from edge.memory import Room
from edge.wire.profile import Profile, Share, Stage

WIDTH = 80
NAMES = {"local": "local step", "backward": "backward step"}
"""Stages whose name alone would not tell."""
MIB = 1 << 20
MANY = 5
"""Operators that are named; the others are one sum."""


def table(profile: Profile) -> str:
    """Board and conditions; a block for each batch size and number of threads; what is missing; memory; operators."""
    return "\n".join(_lines(profile)) + "\n"


def _lines(profile: Profile) -> Iterator[str]:
    conditions = profile.conditions
    yield from _wrapped(_board(profile))
    yield from _wrapped(f"bundle {str(conditions.get('bundle', ''))[:8]}, cut after {conditions.get('cut')}; data: {conditions.get('data')}")  # fmt: skip
    for warning in warnings(profile):
        yield from _wrapped(warning)
    for (batch, threads), rows in groupby(profile.stages, lambda row: (row.batch, row.threads)):
        yield ""
        yield f"batch {batch}, {threads} thread{'s' if threads > 1 else ''}"
        yield from _block(list(rows))
    yield ""
    yield from _missing(profile)
    yield from _wrapped(energy(profile))
    yield from _wrapped(memory(profile))
    largest = max((row.batch for row in profile.shares), default=0)
    fewest = min((row.threads for row in profile.shares), default=0)
    for key, shares in groupby(profile.shares, lambda row: (row.stage, row.batch, row.threads)):
        stage, batch, threads = key
        if (batch, threads) != (largest, fewest):
            continue
        yield from _wrapped(f"{NAMES.get(stage, stage)}, batch {batch}, {threads} thr.: {_operators(list(shares))}")


def _board(profile: Profile) -> str:
    board = profile.board
    clocks = board.get("clocks") or [{}]
    parts = [
        profile.name,
        board.get("cpu") if board.get("cpu") != profile.name else None,
        f"{board.get('cores')} cores",
        f"governor {governor}" if (governor := clocks[0].get("governor")) else None,
        f"{profile.memory_bytes / (1 << 30):.1f} GiB" if profile.memory_bytes else None,
        f"Linux {board.get('kernel')}",
        f"onnxruntime {board.get('onnxruntime')}",
    ]
    return ", ".join(str(part) for part in parts if part)


def warnings(profile: Profile) -> Iterator[str]:
    """What makes these figures less than they should be."""
    conditions = profile.conditions
    if conditions.get("slowed"):
        yield f"SLOWED DOWN: {conditions['slowed']}"
    if drifts := sorted(conditions.get("drifts", ()), key=lambda row: -row["ratio"]):
        row, more = drifts[0], f" ({len(drifts)} stages; the most)" if len(drifts) > 1 else ""
        place = ", ".join(filter(None, [f"batch {row['batch']}", f"{row['threads']} thr.", row["codec"]]))
        slower = f"{NAMES.get(row['stage'], row['stage'])} ({place}) by {100 * (row['ratio'] - 1):.0f} %"
        yield f"slower at the end than at the beginning: {slower}{more}"
    busy = conditions.get("busy_share")
    if busy is not None and busy > 0.1:
        yield f"other processes took {100 * busy:.0f} % of the processors meanwhile: measure again on a quiet board"


def _block(rows: Sequence[Stage]) -> Iterator[str]:
    yield f"{'':<21}{'median':>9} {'95 % interval':>15}{'p95':>8}{'CPU':>8}{'peak':>6}{'bytes':>11}"
    yield f"{'':<21}{'ms':>9} {'ms':>15}{'ms':>8}{'ms':>8}{'MiB':>6}"
    joules = any(row.joules is not None for row in rows)
    for row in rows:
        name = " ".join(filter(None, [NAMES.get(row.stage, row.stage), row.codec]))
        interval = f"{_ms(row.low_seconds)} - {_ms(row.high_seconds)}"
        peak = "-" if row.peak_bytes is None else f"{row.peak_bytes / MIB:.0f}"
        size = "" if row.bytes is None else f"{row.bytes:,}"
        yield f"{name:<21.21}{_ms(row.median_seconds):>9} {interval:>15}{_ms(row.p95_seconds):>8}{_ms(row.cpu_seconds):>8}{peak:>6}{size:>11}"
        if joules:
            yield f"{'':<21}{_joules(row)}"


def _joules(row: Stage) -> str:
    if row.joules is None:
        return f"no joules: {row.joules_why}"[: WIDTH - 21]
    off = "" if row.joules_uncertainty is None else f" ± {1000 * row.joules_uncertainty:.2g}"
    return f"{1000 * row.joules:.4g}{off} mJ ({row.joules_kind})" + (": window too short" if row.joules_why else "")


def _ms(seconds: float) -> str:
    value = 1000 * seconds
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 100 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"  # fmt: skip


def _missing(profile: Profile) -> Iterator[str]:
    for why, rows in groupby(sorted(profile.missing, key=lambda row: row.why), lambda row: row.why):
        found = list(rows)
        stages = dict.fromkeys(NAMES.get(row.stage, row.stage) for row in found)
        places = dict.fromkeys(f"{row.batch} x {row.threads}" for row in found)
        yield from _wrapped(f"not measured: {', '.join(stages)} (batch x threads {', '.join(places)}): {why}")


def energy(profile: Profile) -> str:
    """Where joules come from, or why there are none."""
    conditions = profile.conditions
    if not conditions.get("energy"):
        return f"no joules: {conditions.get('energy_missing') or 'not asked for'}"
    idle: dict[str, Any] = conditions.get("idle") or {}
    watts = f"; idle {idle['joules'] / idle['seconds']:.2f} W" if idle.get("joules") and idle.get("seconds") else ""
    share = conditions.get("sampling_share")
    return f"joules: {conditions['energy']}{watts}; reading it took {100 * (share or 0):.2g} % of a core"


def memory(profile: Profile) -> str:
    """The highest peak, the model's own share, and what is left."""
    peaks = [row.peak_bytes for row in profile.stages if row.peak_bytes is not None]
    if not peaks:
        return "memory: not measured"
    own = max((row.own_bytes or 0 for row in profile.stages if row.stage not in ("outbox", "send")), default=0)
    text = f"memory: peak {max(peaks) / MIB:.0f} MiB, of which a stage's own up to {own / MIB:.1f}"
    fields = profile.conditions.get("room")
    left = Room(**fields).headroom_bytes(max(peaks)) if fields else None
    if left is None:
        return text
    limit = fields["limit_bytes"] if fields else None
    whose = f"the {limit / MIB:.0f} MiB of {fields['limit_source']}" if fields and limit else "the board's memory"
    return (
        f"{text}; {left / MIB:.0f} MiB below {whose}"
        if left >= 0
        else f"{text}: {-left / MIB:.0f} MiB MORE than {whose}"
    )


def _operators(shares: Sequence[Share]) -> str:
    named = [f"{row.op} {100 * row.share:.0f} %" for row in shares[:MANY]]
    rest = sum(row.share for row in shares[MANY:])
    return ", ".join([*named, *([f"the others {100 * rest:.0f} %"] if len(shares) > MANY else [])])


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_long_words=False)
