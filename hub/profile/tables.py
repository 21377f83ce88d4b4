"""The tables of a profile: figures in their units, the class of each, and a footnote for each that is missing."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge.wire.profile import STAGES, Missing, Profile, Stage, Step
from hub.profile.facts import threads_of
from hub.profile.read import Memory, memory, number, plain
from hub.table import MISSING, figure, human, mark_of

SILENT = "the profile does not say why"
NOTHING_LEAVES = "nothing leaves the process in this stage"


@dataclass(frozen=True)
class Cell:
    """A figure as it is shown, the mark of its footnote, and a small text below it."""

    text: str
    mark: str = ""
    remark: str = ""
    warn: bool = False


@dataclass
class Notes:
    """Footnotes: a mark for every different text, in the order in which they are met."""

    marks: dict[str, str] = field(default_factory=dict)

    def mark(self, text: str) -> str:
        """The mark of a text."""
        return self.marks.setdefault(plain(text, 400), mark_of(len(self.marks)))

    def missing(self, why: str) -> Cell:
        """A dash whose footnote says why."""
        return Cell(MISSING, self.mark(why or SILENT))


@dataclass(frozen=True)
class Line:
    """A row: its name, a small text beside it, and its cells; or, where `why` is not empty, why there are none."""

    name: str
    cells: Sequence[Cell] = ()
    remark: str = ""
    why: str = ""


@dataclass(frozen=True)
class Part:
    """Rows under one heading."""

    heading: str
    lines: Sequence[Line]


@dataclass(frozen=True)
class Table:
    """A table: groups of columns (name, span), columns (heading, unit), parts, footnotes, and how each figure was obtained."""

    first: str
    groups: Sequence[tuple[str, int]]
    heads: Sequence[tuple[str, str]]
    parts: Sequence[Part]
    notes: Notes
    legend: Sequence[tuple[str, str]] = ()


def milliseconds(seconds: float) -> str:
    """Such as "31.2"."""
    return figure(1e3 * seconds)


def plus_minus(value: float, unsure: float) -> str:
    """A value and what it may be off by, both to the second digit of that: "93.2 ± 5.7"."""
    if not unsure:
        return f"{figure(value)} ± 0"
    decimals = min(4, max(0, 1 - math.floor(math.log10(unsure))))
    shown = f"{unsure:.{decimals}f}"
    return f"{value:.{decimals}f} ± {shown if float(shown) else '<0.0001'}"


def configuration(batch: int, threads: int) -> str:
    """Such as "batch 32, 2 threads"."""
    return f"batch {batch}, {threads_of(threads)}"


def configurations(rows: Iterable[Any]) -> list[tuple[int, int]]:
    """Batch sizes and numbers of threads of stages, missing stages, shares or steps."""
    return sorted({(row.batch, row.threads) for row in rows})


def rank(stage: str) -> tuple[int, str]:
    """By which stages are sorted; what this release does not know comes last."""
    return (STAGES.index(stage) if stage in STAGES else len(STAGES)), stage


def label(row: Stage | Missing) -> str:
    """A stage's name with its codec: encode, outbox and send are measured with several."""
    codec = row.codec if isinstance(row, Stage) else ""
    return plain(f"{row.stage} {codec}", 32)


def order(row: Stage | Missing) -> tuple[tuple[int, str], str]:
    """By which stages of one batch size and number of threads are sorted."""
    return rank(row.stage), row.codec if isinstance(row, Stage) else ""


def asked_for(profile: Profile) -> list[Stage | Missing]:
    """What was measured and what was to be."""
    return [*profile.stages, *profile.missing]


def interval_name(profile: Profile) -> str:
    """Such as "95 % interval"."""
    sure = number(profile.conditions, "confidence")
    return f"{100 * sure:g} % interval" if sure else "interval"


# Stages ---------------------------------------------------------------------------------------------------------------


def stages(profile: Profile) -> Table | None:
    """A part for each batch size and number of threads, its stages in their order; None where no stage was to be measured."""
    everything = asked_for(profile)
    if not everything:
        return None
    notes = Notes()
    groups = [
        ("time of one repetition, measured", 6),
        ("energy of the board", 2),
        ("memory, measured", 3),
        ("counted", 1),
    ]
    heads = [
        ("repeats", ""), ("median", "ms"), (interval_name(profile), "ms"), ("p95", "ms"), ("quiet", "ms"), ("CPU", "ms"),
        ("energy", "mJ"), ("class", ""), ("peak", "MiB"), ("own", "MiB"), ("freed", "MiB"), ("out", "bytes"),
    ]  # fmt: skip
    parts = [_part(profile, batch, threads, notes) for batch, threads in configurations(everything)]
    return Table("stage", groups, heads, parts, notes, _stage_legend(profile))


def _part(profile: Profile, batch: int, threads: int, notes: Notes) -> Part:
    here = [row for row in asked_for(profile) if (row.batch, row.threads) == (batch, threads)]
    here.sort(key=order)
    lines = [
        Line(plain(row.stage), why=plain(row.why, 300) or SILENT) if isinstance(row, Missing) else _line(profile, row, notes)
        for row in here
    ]  # fmt: skip
    return Part(configuration(batch, threads), lines)


def _line(profile: Profile, stage: Stage, notes: Notes) -> Line:
    cells = [
        Cell(str(stage.repeats)),
        Cell(milliseconds(stage.median_seconds)),
        _interval(profile, stage, notes),
        Cell(milliseconds(stage.p95_seconds)),
        Cell(milliseconds(stage.quiet_seconds)),
        Cell(milliseconds(stage.cpu_seconds)),
        *_energy(profile, stage, notes),
        mebibytes(stage.peak_bytes, stage.peak_why, notes),
        mebibytes(stage.own_bytes, "", notes),
        mebibytes(stage.unshared_bytes, "", notes),
        notes.missing(NOTHING_LEAVES) if stage.bytes is None else Cell(f"{stage.bytes:,}".replace(",", "\N{THIN SPACE}")),
    ]  # fmt: skip
    return Line(plain(stage.stage), cells, remark=plain(stage.codec, 24))


def _interval(profile: Profile, stage: Stage, notes: Notes) -> Cell:
    wanted = number(profile.conditions, "precision")
    half = (stage.high_seconds - stage.low_seconds) / 2
    text = f"{milliseconds(stage.low_seconds)} … {milliseconds(stage.high_seconds)}"
    if wanted and stage.median_seconds and half > wanted * stage.median_seconds:
        return Cell(text, notes.mark(f"less sure than the ±{100 * wanted:g} % of the median that were wanted"))
    return Cell(text)


def _energy(profile: Profile, stage: Stage, notes: Notes) -> tuple[Cell, Cell]:
    if stage.joules is None:
        return notes.missing(stage.joules_why or "no joules, and " + SILENT), Cell(MISSING)
    unsure = stage.joules_uncertainty
    if unsure is None:
        cell = Cell(figure(1e3 * stage.joules), notes.mark("its uncertainty is not known"))
    elif unsure >= stage.joules:
        text = plus_minus(1e3 * stage.joules, 1e3 * unsure)
        cell = Cell(text, notes.mark("it may be off by as much as it is: too short for the source"))
    else:
        cell = Cell(plus_minus(1e3 * stage.joules, 1e3 * unsure))
    return cell, Cell(plain(stage.joules_kind) or "not recorded", notes.mark(_source(profile, stage)))


def _source(profile: Profile, stage: Stage) -> str:
    """What is said of a source of joules, once for all stages that it was read in."""
    same = [
        each
        for each in profile.stages
        if (each.joules_kind, each.joules_source) == (stage.joules_kind, stage.joules_source) and each.joules is not None
    ]  # fmt: skip
    text = stage.joules_source or "source not recorded"
    for values, say in (
        ([each.joules_hertz for each in same], "read {} times a second"),
        ([each.idle_watts for each in same], "the board takes {} W idle by the same source"),
    ):
        known = sorted({figure(value) for value in values if value is not None}, key=float_of)
        if known:
            text += "; " + say.format(known[0] if len(known) == 1 else f"{known[0]} to {known[-1]}")
    return text


def float_of(text: str) -> float:
    """The number that `figure` wrote."""
    return float(text.lstrip("<"))


def mebibytes(size: int | None, why: str, notes: Notes) -> Cell:
    """A size, or why it is missing."""
    if size is None:
        return notes.missing(why or SILENT)
    return Cell(figure(size / 2**20))


def _stage_legend(profile: Profile) -> list[tuple[str, str]]:
    sure = number(profile.conditions, "confidence")
    hows: dict[str, list[str]] = {}
    for stage in profile.stages:
        if stage.peak_bytes is not None and stage.stage not in hows.setdefault(stage.peak_why, []):
            hows[stage.peak_why].append(stage.stage)
    how = "; ".join(
        plain(text, 200) + (f" ({', '.join(map(plain, names))})" if len(hows) > 1 else "")
        for text, names in hows.items()
        if text
    )
    confidence = f"with {100 * sure:g} % confidence" if sure else "with a confidence that is not recorded"
    return [
        ("median, p95", "measured by the monotonic clock over the repeats, after a warm-up"),
        (interval_name(profile), f"the median lies in it {confidence}"),
        ("quiet", "measured: the tenth percentile, what it takes while nothing else runs"),
        ("CPU", "measured: processor time of the process, all its threads together; the mean"),
        (
            "energy",
            "of the whole board, idle included; the mean of a repetition ± what it may be off by in 95 of 100 cases; the class says whether a meter, a sensor of the board or a model gave it, the footnote which",
        ),
        ("peak", f"highest resident memory meanwhile, interpreter and libraries included{f': {how}' if how else ''}"),
        ("own, freed", "by how much the stage made the process grow; what ending the process would free, after it"),
        ("out", "counted: of a coded message, or over the socket"),
    ]


def silent(profile: Profile) -> list[str]:
    """Stages of which a profile says nothing at all, neither a figure nor a reason."""
    spoken = {row.stage for row in asked_for(profile)}
    return [stage for stage in STAGES if stage not in spoken] if spoken else []


# What is missing ------------------------------------------------------------------------------------------------------


def missing(profile: Profile) -> list[tuple[str, str]]:
    """What is missing and why, each reason once."""
    found: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for row in profile.missing:
        found.setdefault((row.stage, row.why or SILENT), []).append((row.batch, row.threads))
    for what, why in (("energy", _joules_why), ("peak memory", _peak_why)):
        for stage in profile.stages:
            if reason := why(stage):
                found.setdefault((f"{what} of {label(stage)}", reason), []).append((stage.batch, stage.threads))
    everything = configurations(asked_for(profile))
    lines: dict[str, list[str]] = {}
    for (what, reason), where in found.items():
        at = "" if len(where) == len(everything) else f" ({'; '.join(configuration(*one) for one in where)})"
        lines.setdefault(plain(reason, 400), []).append(plain(what) + at)
    most = len({label(row) for row in profile.stages})
    return [(_joined(whats, most), reason) for reason, whats in lines.items()]


def _joined(whats: list[str], most: int) -> str:
    """Several stages' energy under one "energy of"; of that many, they are all."""
    heads: dict[str, list[str]] = {}
    for what in whats:
        head, of, stage = what.partition(" of ")
        heads.setdefault(head if of else what, []).extend([stage] if of else [])
    heads = {head: ["all stages"] if len(stages) == most > 1 else stages for head, stages in heads.items()}
    return ", ".join(f"{head} of {', '.join(stages)}" if stages else head for head, stages in heads.items())


def _joules_why(stage: Stage) -> str:
    return (stage.joules_why or SILENT) if stage.joules is None else ""


def _peak_why(stage: Stage) -> str:
    return (stage.peak_why or SILENT) if stage.peak_bytes is None else ""


# Memory ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Peak:
    """The highest peak of a stage over all batch sizes and threads, and where it was."""

    stage: str
    where: str
    bytes: int
    own_bytes: int | None


def peaks(profile: Profile) -> list[Peak]:
    """A peak for each stage that has one, in their order; of steps by cut and kind where there are no stages."""
    found: dict[str, Peak] = {}
    rows: Sequence[Stage | Step] = profile.stages or profile.steps
    for row in sorted(rows, key=lambda row: order(row) if isinstance(row, Stage) else ((0, ""), "")):
        name = label(row) if isinstance(row, Stage) else plain(f"{row.cut}, {row.kind}", 40)
        if row.peak_bytes is not None and (name not in found or row.peak_bytes > found[name].bytes):
            found[name] = Peak(name, configuration(row.batch, row.threads), row.peak_bytes, row.own_bytes)
    return list(found.values())


def memory_table(profile: Profile) -> Table | None:
    """Peaks against what there is; None where no peak is known."""
    found, room, notes = peaks(profile), memory(profile), Notes()
    if not found:
        return None
    heads = [("peak", "MiB"), ("own", "MiB"), ("left below the limit", "MiB"), ("left on the board", "MiB"), ("at", "")]
    lines = [
        Line(
            peak.stage,
            [
                Cell(figure(peak.bytes / 2**20)),
                mebibytes(peak.own_bytes, "", notes),
                _left(room.limit, peak.bytes, room.limit_source, notes),
                _left(room.total, peak.bytes, "the profile does not say how much memory the board has", notes),
                Cell(peak.where),
            ],
        )
        for peak in found
    ]
    return Table(
        "stage",
        [("highest peak of any batch size and threads", 2), ("headroom, computed", 2), ("", 1)],
        heads,
        [Part("", lines)],
        notes,
    )


def _left(ceiling: int | None, peak: int, why: str, notes: Notes) -> Cell:
    if ceiling is None:
        return notes.missing(why)
    left = ceiling - peak
    text = f"{'−' if left < 0 else ''}{figure(abs(left) / 2**20)}"  # noqa: RUF001  a minus
    return Cell(text, notes.mark("it does not fit") if left < 0 else "", warn=left < 0)


def room_words(profile: Profile) -> str:
    """What there is, in a sentence."""
    room = memory(profile)
    parts = [
        f"The board has {human(room.total, 'memory')}" if room.total else "How much memory the board has is not recorded",
        f", of which {human(room.available, 'memory')} were free to take" if room.available else "",
    ]  # fmt: skip
    unit = plain(profile.conditions.get("unit") or "") or "the process"
    if room.limit is not None:
        parts.append(f"; {unit} may take {human(room.limit, 'memory')} ({plain(room.limit_source, 160)})")
    else:
        parts.append(f"; MemoryMax of {unit}: none known ({plain(room.limit_source, 160)})")
    return "".join(parts) + "."


def headroom(profile: Profile) -> tuple[Peak, int, Memory] | None:
    """The highest peak of all, what is left beside it, and the room; None where either is not known."""
    found, room = peaks(profile), memory(profile)
    if not found or room.ceiling is None:
        return None
    highest = max(found, key=lambda peak: peak.bytes)
    return highest, room.ceiling - highest.bytes, room


# Whole steps, operators -----------------------------------------------------------------------------------------------


def steps(profile: Profile) -> Table | None:
    """Whole steps by model, cut and kind; None where there are none."""
    if not profile.steps:
        return None
    notes = Notes()
    groups = [("", 2), ("time, measured", 4), ("energy", 1), ("memory, measured", 2)]
    heads = [
        ("batch", ""), ("threads", ""), ("repeats", ""), ("median", "ms"), ("p95", "ms"), ("quiet", "ms"), ("energy", "mJ"),
        ("peak", "MiB"), ("own", "MiB"),
    ]  # fmt: skip
    parts: dict[str, list[Line]] = {}
    for step in profile.steps:
        heading = f"{plain(step.model)}: objective {plain(step.objective)}, optimizer {plain(step.optimizer)}"
        parts.setdefault(heading, []).append(_step(step, notes))
    return Table("cut", groups, heads, [Part(heading, lines) for heading, lines in parts.items()], notes)


def _step(step: Step, notes: Notes) -> Line:
    joules = notes.missing(step.joules_why or SILENT) if step.joules is None else Cell(figure(1e3 * step.joules))
    cells = [
        Cell(str(step.batch)),
        Cell(str(step.threads)),
        Cell(str(step.repeats)),
        *(Cell(milliseconds(value)) for value in (step.median_seconds, step.p95_seconds, step.quiet_seconds)),
        joules,
        mebibytes(step.peak_bytes, step.peak_why, notes),
        mebibytes(step.own_bytes, step.peak_why, notes),
    ]
    return Line(plain(step.cut, 40), cells, remark=plain(step.kind))


def shares(profile: Profile) -> Table | None:
    """What the operators take of each graph's step; None where the profiler was not asked."""
    if not profile.shares:
        return None
    parts = []
    for stage in sorted({row.stage for row in profile.shares}, key=rank):
        for batch, threads in configurations(row for row in profile.shares if row.stage == stage):
            here = [row for row in profile.shares if (row.stage, row.batch, row.threads) == (stage, batch, threads)]
            here.sort(key=lambda row: -row.seconds)
            lines = [
                Line(plain(r.op), [Cell(str(r.calls)), Cell(milliseconds(r.seconds)), Cell(f"{100 * r.share:.1f}")])
                for r in here
            ]
            parts.append(Part(f"{plain(stage)}, {configuration(batch, threads)}", lines))
    return Table("operator", [], [("calls", "a step"), ("time", "ms a step"), ("share", "%")], parts, Notes())


SLOWEST = 15


def operators(profile: Profile) -> Table | None:
    """The slowest operators at their shapes; None where there are none."""
    if not profile.operators:
        return None
    slowest = sorted(profile.operators, key=lambda row: -row.seconds)[:SLOWEST]
    lines = [
        Line(
            plain(row.op),
            [Cell(plain(row.inputs, 70)), Cell(plain(row.outputs, 40)), Cell(milliseconds(row.seconds))],
        )
        for row in slowest
    ]
    return Table("operator", [], [("inputs", ""), ("outputs", ""), ("time", "ms")], [Part("", lines)], Notes())
