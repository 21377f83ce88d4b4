"""Profiles of boards as one HTML page that needs nothing else: a board, or several side by side."""

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from edge.wire.profile import Profile, Stage
from hub.drawing import DARK, FONTS, LIGHT, Drawing
from hub.profile import comparison, facts, plots, tables
from hub.profile.read import Shown, course, number, plain, words
from hub.table import MISSING, human

__all__ = ["PageError", "render", "save"]

NOBREAK = "\N{NO-BREAK SPACE}"


class PageError(Exception):
    """A page that could not be written; the message names the file."""


def save(path: Path, text: str) -> Path:
    """Write a file whole or not at all: under another name first. Returns its path.

    Raises:
        PageError: the folder cannot be made or written.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, "utf-8")
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise PageError(f"{path} cannot be written: {error.strerror}") from error
    return path


def render(shown: Sequence[Shown]) -> str:
    """The page as text. The same profiles give the same bytes."""
    environment = Environment(
        loader=FileSystemLoader([Path(__file__).parent, Path(__file__).parents[1]]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        title=_title(shown),
        dated=_dated(shown),
        alerts=[(one.name, facts.slowed(one.profile)) for one in shown if facts.slowed(one.profile)],
        cautions=[(one.name, text) for one in shown for text in facts.cautions(one.profile)],
        shown=shown,
        several=len(shown) > 1,
        board=facts.board(shown),
        conditions=facts.conditions(shown),
        comparison=comparison.table(shown) if len(shown) > 1 else None,
        compared=_figure(plots.compared(shown) if len(shown) > 1 else None, "compared", "Medians of all"),
        unlike=comparison.unlike(shown) if len(shown) > 1 else [],
        boards=[_board(one, place) for place, one in enumerate(shown)],
        light=LIGHT,
        dark=DARK,
        fonts=FONTS,
    )


def _title(shown: Sequence[Shown]) -> str:
    return f"Profile of {shown[0].name}" if len(shown) == 1 else f"Profiles of {len(shown)} boards"


def _dated(shown: Sequence[Shown]) -> str:
    if len(shown) > 1:
        return ", ".join(one.name for one in shown)
    told = shown[0].profile.conditions
    date, version, bundle = (
        facts.date(shown[0].profile),
        plain(words(told, "cutlayer")),
        plain(words(told, "bundle")[:12]),
    )
    parts = [
        f"Measured {date}" if date else "When it was measured is not recorded",
        f"cutlayer {version}" if version else "",
        f"bundle {bundle}" if bundle else "",
    ]
    return ", ".join(filter(None, parts))


def _board(one: Shown, place: int) -> dict[str, Any]:
    """What the template shows of one profile."""
    profile = one.profile
    drawn = plots.operators(profile)
    return {
        "name": one.name,
        "place": place,
        "summary": _summary(profile),
        "tiles": _tiles(profile),
        "stages": tables.stages(profile),
        "stages_plot": _figure(plots.stages(profile), f"stages-{place}", "Medians and their intervals"),
        "energy_plot": _figure(plots.energy(profile), f"energy-{place}", "What they cost"),
        "batches_plot": _figure(plots.batches(profile), f"batches-{place}", "Where a larger batch pays"),
        "silent": tables.silent(profile),
        "missing": tables.missing(profile),
        "room": _bound(tables.room_words(profile)),
        "memory": tables.memory_table(profile),
        "memory_plot": _figure(plots.peaks_of_memory(profile), f"memory-{place}", "Peaks against what there is"),
        "unfit": _unfit(profile),
        "operator_plots": [
            _figure(drawing, f"operators-{place}-{number_}", f"Operators of {stage}")
            for number_, (stage, drawing) in enumerate(drawn.items())
        ],
        "shares": tables.shares(profile),
        "operators": tables.operators(profile),
        "operators_known": len(profile.operators),
        "course_plot": _figure(plots.temperature_and_clock(profile), f"course-{place}", "While it was measured"),
        "course_why": _course_why(profile),
        "steps": tables.steps(profile),
        "steps_plot": _figure(
            None if profile.stages else plots.whole_steps(profile), f"steps-{place}", "Whole steps, cut by cut"
        ),
    }


def _figure(drawing: Drawing | None, name: str, heading: str) -> Markup:
    """A figure's head and plot; its caption is the template's. Empty where there is nothing to draw."""
    if drawing is None:
        return Markup()
    # The texts in the plot went through matplotlib's XML escaping; heading and label are escaped here.
    label = Markup('<svg aria-label="{}"').format(heading)
    svg = Markup(drawing.in_page(name).replace("<svg", label, 1))  # noqa: S704
    return Markup("<h3>{}</h3>{}").format(heading, svg)


def _course_why(profile: Profile) -> str:
    if not profile.conditions:
        return "Whoever wrote this profile recorded neither temperature nor clock."
    if not course(profile):
        return "No course was recorded."
    reason = plain(words(profile.conditions, "thermal_before", "temperature", "reason"), 200)
    return f"Neither temperature nor clock could be read{f': {reason}' if reason else ''}."


def _main(profile: Profile) -> Stage | None:
    """The stage that one asks for first: a step of the largest batch, on the threads on which it is quickest."""
    for name in ("local", "backward", "forward"):
        rows = [row for row in profile.stages if row.stage == name]
        if rows:
            most = max(row.batch for row in rows)
            return min((row for row in rows if row.batch == most), key=lambda row: row.median_seconds)
    return None


NAMES = {"local": "local step", "backward": "backward step", "forward": "forward pass"}


def _summary(profile: Profile) -> str:
    main = _main(profile)
    if main is None:
        cuts = len({(step.model, step.cut) for step in profile.steps})
        if not profile.steps:
            return "This profile has neither stages nor steps: what is missing, and why, stands below."
        return (
            f"Only whole steps of {cuts} cut{'' if cuts == 1 else 's'} were timed on this machine, as cutlayer-export cuts "
            "does; stages, intervals, energy and temperature come with cutlayer profile."
        )
    text = f"A {NAMES[main.stage]} of {main.batch} samples takes {human(main.median_seconds, 'times')} on {facts.threads_of(main.threads)}"
    text += f" ({tables.interval_name(profile)} {tables.milliseconds(main.low_seconds)} to {tables.milliseconds(main.high_seconds)} ms)"
    if main.joules is None:
        text += f"; what it costs in joules is not known: {plain(main.joules_why, 200) or tables.SILENT}"
    else:
        text += f" and {_joules(main)} ({plain(main.joules_kind) or 'class not recorded'})"
    return _bound(text + ".")


def _joules(stage: Stage) -> str:
    if stage.joules is None:
        return MISSING
    unsure = stage.joules_uncertainty
    if unsure is None:
        return human(stage.joules, "joules")
    size, unit = (1.0, "J") if stage.joules >= 1 else (1e-3, "mJ")
    return f"{tables.plus_minus(stage.joules / size, unsure / size)} {unit}"


def _tiles(profile: Profile) -> list[tuple[str, str, str]]:
    """The figures one looks for first: name, figure, and how it is meant; what is missing says why."""
    main, found = _main(profile), []
    if main is not None:
        where = f"batch {main.batch}, {facts.threads_of(main.threads)}"
        sure = f"{tables.milliseconds(main.low_seconds)} to {tables.milliseconds(main.high_seconds)} ms"
        found.append((NAMES[main.stage], human(main.median_seconds, "times"), f"measured: {where}; {sure}"))
        if main.joules is None:
            found.append(("energy", MISSING, plain(main.joules_why, 90) or tables.SILENT))
        else:
            value, _, unsure = _joules(main).partition(" ± ")
            unit = f" {unsure.rpartition(' ')[2]}" if unsure else ""
            remark = f"{plain(main.joules_kind) or 'class not recorded'}: the board, a {NAMES[main.stage]}"
            found.append(("energy", value + unit, f"{remark}; ± {unsure}" if unsure else f"{remark}; ± not known"))
    elif profile.steps:
        quickest = min(
            profile.steps, key=lambda step: step.median_seconds / step.batch if step.batch else step.median_seconds
        )
        where = f"measured: {plain(quickest.cut, 24)}, {plain(quickest.kind)}, {tables.configuration(quickest.batch, quickest.threads)}"
        found.append(("quickest step", human(quickest.median_seconds, "times"), where))
        found.append(("steps timed", str(len(profile.steps)), f"{len({s.cut for s in profile.steps})} cuts"))
    room = tables.headroom(profile)
    if room is not None:
        peak, left, memory = room
        found.append(("peak memory", human(peak.bytes, "memory"), f"measured: {peak.stage}, {peak.where}"))
        below = "MemoryMax" if memory.limit is not None and memory.ceiling == memory.limit else "the board's memory"
        found.append(
            ("headroom", human(max(left, 0), "memory") if left >= 0 else "does not fit", f"computed: below {below}")
        )
    coded = [row for row in profile.stages if row.bytes is not None and row.stage in {"encode", "send"}]
    if coded and main:
        row = max(coded, key=lambda row: (row.batch == main.batch, row.stage == "send", -(row.bytes or 0)))
        found.append((f"bytes, {row.stage}", human(row.bytes, "bytes"), f"counted: batch {row.batch}{f', {plain(row.codec, 24)}' if row.codec else ''}"))  # fmt: skip
    after = number(profile.conditions, "thermal_after", "temperature", "celsius")
    if after is not None:
        before = number(profile.conditions, "thermal_before", "temperature", "celsius")
        found.append(("temperature", f"{after:.1f} °C", f"sensor: after; {f'{before:.1f} °C' if before is not None else 'not known'} before"))  # fmt: skip
    return [(name, _bound(value), _bound(remark)) for name, value, remark in found]


def _unfit(profile: Profile) -> str:
    room = tables.headroom(profile)
    if room is None or room[1] >= 0:
        return ""
    return f"{room[0].stage} ({room[0].where}) does not fit: it is {human(-room[1], 'memory')} above what there is."


def _bound(text: str) -> str:
    """Figures and units on one line."""
    return re.sub(r"(?<=\d) (?=(?:ms|s|mJ|J|MiB|kB|MB|B|°C|threads?|samples)\b|%)", NOBREAK, text)
