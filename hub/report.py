"""A run's report: one HTML file that needs nothing else, and its plots as files, made from the run's folder alone."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from edge.wire.budget import APART
from hub.coding import Coded, whole
from hub.drawing import DARK, FONTS, LIGHT, Drawing
from hub.plots import PLOTS, draw
from hub.runlog import Record, RunLog, read_run
from hub.summary import Budgets, Row, evaluation, moved, skipped, training_received, training_sent
from hub.table import MISSING, figure, human, lay_out, unit_of

NAME = "report.html"
FOLDER = "plots"
"""Where the plots lie beside it, each as an SVG file."""
ONE_BLOCK = 10_000
"""A page has no width limit of its own: all columns side by side."""


def write_report(run_folder: Path) -> Path:
    """Write `report.html` and `plots/*.svg` into a run's folder, from its metrics.jsonl and the configuration beside it.

    The same folder gives the same bytes. Returns the page's path.

    Raises:
        FileNotFoundError: the folder has no metrics.jsonl.
        ValueError: metrics.jsonl holds no record of a run.
    """
    log = read_run(run_folder)
    drawn = draw(log)
    _write_plots(drawn, run_folder / FOLDER)
    path = run_folder / NAME
    _write(path, render_report(log, drawn))
    return path


def _write_plots(drawn: Mapping[str, Drawing], folder: Path) -> None:
    if drawn:
        folder.mkdir(exist_ok=True)
    for name in PLOTS:
        path = folder / f"{name}.svg"
        if name in drawn:
            _write(path, drawn[name].alone())
        else:
            path.unlink(missing_ok=True)  # an earlier report's: a resumed run may have lost what it showed


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, "utf-8")
    part.replace(path)


def render_report(log: RunLog, drawn: Mapping[str, Drawing]) -> str:
    """The page as text, with these plots in it."""
    rows, budgets = log.scored()
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        log=log,
        title=_title(log),
        dated=_dated(log),
        summary=_summary(log, rows),
        tiles=_tiles(rows[0], log),
        drawn=drawn,
        figure=lambda name, heading, caption: _figure(drawn, name, heading, caption),
        light=LIGHT,
        dark=DARK,
        fonts=FONTS,
        local=any(record.get("phase") == "local" for record in log.rounds),
        again=any(record.get("socket_retransmitted") is not None for record in log.latest.values()),
        apart=any(APART in record.get("budget", {}) for record in log.latest.values()),
        # Of the objectives only the product with the hub's gradient can be negative.
        led=any((record.get("loss") or 0) < 0 for records in log.devices.values() for record in records),
        coding=rows[0].coding and _bound(rows[0].coding[:1].upper() + rows[0].coding[1:]),
        quantised=any(coded.step is not None for rounds in log.coding().values() for coded in rounds),
        late=log.late(),
        troubled=sorted({*log.late(), *log.refusals}),
        energy=_energy(rows[0]),
        facts=_facts(log.run),
        budgets=budgets,
        bytes_max=human(budgets.bytes, "bytes"),
        flops_max=human(budgets.flops, "flops"),
        c3_lines=[_c3_line(row, budgets) for row in rows],
        ended_early=_ended_early(log),
        **_coded(log),
        **_fleet(log),
        **_result(rows, budgets),
    )


def _result(rows: list[Row], budgets: Budgets) -> dict[str, Any]:
    sheet = lay_out(rows, ONE_BLOCK, budgets)
    block = sheet.blocks[0]
    return {
        "sheet": sheet,
        "groups": [
            (name, len(list(columns))) for name, columns in groupby(block.columns, key=lambda column: column.group)
        ],
        "heads": list(zip(block.columns, block.units, strict=True)),
        "lines": list(zip(sheet.names, sheet.recorded, block.cells, strict=True)),
    }


def _figure(drawn: Mapping[str, Drawing], name: str, heading: str, caption: str) -> Markup:
    """A figure, or nothing where there is no plot of this name: not every method has a loss on the hub, or selects."""
    if name not in drawn:
        return Markup()
    # Not from outside: the heading is the template's, and the texts in the plot went through matplotlib's XML escaping.
    svg = Markup(drawn[name].in_page(name).replace("<svg", f'<svg aria-label="{heading}"', 1))  # noqa: S704
    return Markup("<figure><h3>{}</h3>{}<figcaption>{}</figcaption></figure>").format(heading, svg, caption)


def _title(log: RunLog) -> str:
    return f"{log.row.method} on {log.run.get('dataset', 'unknown data')}, {_count(log.size, 'device')}"


def _dated(log: RunLog) -> str:
    parts = [
        f"Started {_moment(str(log.run['started']))}" if log.run.get("started") else "",
        f"bundle {str(log.run['bundle'])[:12]}" if log.run.get("bundle") else "",
    ]
    return ", ".join(part for part in parts if part)


def _moment(text: str) -> str:
    try:
        return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M %Z").strip()
    except ValueError:
        return text


def _summary(log: RunLog, rows: list[Row]) -> str:
    own, *others = rows
    local = sum(r.get("phase") == "local" for r in log.rounds)
    phases = f" ({local} of them local, without the hub)" if local else ""
    sentences = [
        f"{_count(log.size, 'device')} trained one model together with {own.method} for {_count(len(log.rounds), 'round')}{phases}, which took {_duration(own.seconds)}."
    ]
    if own.accuracy_last is not None and own.accuracy_max is not None:
        sentences.append(
            f"After the last round the model is right on {_percent(own.accuracy_last)} of a device's own test samples, mean of the devices{_spread(log)}; the best round reached {_percent(own.accuracy_max)}."
        )
    if own.sent_bytes is not None and own.received_bytes is not None:
        sentences.append(
            f"For that a device sent {human(own.sent_bytes, 'bytes')} and received {human(own.received_bytes, 'bytes')}."
        )
    sentences += [
        _against(own, other) for other in others if own.accuracy_last is not None and other.accuracy_last is not None
    ]
    return _bound(" ".join(sentences))


def _against(own: Row, other: Row) -> str:
    """How a run stands to a reference, in a sentence."""
    points = 100 * ((own.accuracy_last or 0) - (other.accuracy_last or 0))
    text = f"{other.method[:1].upper()}{other.method[1:]}, for reference, reached {_percent(other.accuracy_last)}: this run is {abs(points):.1f} points {'above' if points >= 0 else 'below'} it"
    mine, theirs = moved(own), moved(other)
    if mine and theirs:
        text += (
            f" and moved {theirs / mine:.1f} times fewer bytes"
            if theirs >= mine
            else f" and moved {mine / theirs:.1f} times as many bytes"
        )
    return text + "."


def _spread(log: RunLog) -> str:
    last: Mapping[str, float] = next(
        (r["accuracies"] for r in reversed(log.rounds) if r.get("accuracy") is not None and r.get("accuracies")), {}
    )
    if len(last) < 2:
        return ""
    low, high = min(last, key=last.__getitem__), max(last, key=last.__getitem__)
    return f" (from {_percent(last[low])} on {low} to {_percent(last[high])} on {high})"


def _tiles(row: Row, log: RunLog) -> list[dict[str, str]]:
    """The figures one looks for first."""
    shown = [
        ("accuracy", _percent(row.accuracy_last), f"last round; best {_percent(row.accuracy_max)}"),
        (
            "sent",
            human(row.sent_bytes, "bytes"),
            f"a device, and {human(row.evaluation_bytes, 'bytes')} for evaluation",
        ),
        ("received", human(row.received_bytes, "bytes"), "a device"),
        ("memory", human(row.peak_rss_bytes, "memory"), "the largest device process"),
        (
            "energy",
            human(row.joules, "joules"),
            f"a device, {row.energy_class}" if row.energy_class else "not known, see below",
        ),
        ("time", _duration(row.seconds), _count(len(log.rounds), "round")),
        ("C3-Score", MISSING if row.c3 is None else figure(row.c3), "worked out below"),
    ]
    return [{"name": name, "value": _bound(value), "remark": _bound(remark)} for name, value, remark in shown]


def _bound(text: str) -> str:
    """Keep figures and their units on one line."""
    return re.sub(r"(?<=\d) (?=[%a-zA-Z]{1,5}\b|%)", "\N{NO-BREAK SPACE}", text)


def _energy_of(record: Record) -> float | None:
    joules: float | None = (record.get("energy") or {}).get("joules")
    return joules


# Heading, family of units, and where the figure stands in a device's record.
FLEET: tuple[tuple[str, str, Callable[[Record], float | None]], ...] = (
    ("steps", "count", lambda record: record.get("steps")),
    ("step", "times", lambda record: record.get("step_seconds")),
    ("sent", "bytes", training_sent),
    ("eval.", "bytes", evaluation),
    ("received", "bytes", training_received),
    ("sent again", "bytes", lambda record: record.get("socket_retransmitted")),
    ("paper", "bytes", lambda record: record.get("paper_bytes")),
    ("compute", "flops", lambda record: record.get("flops")),
    ("memory", "memory", lambda record: record.get("peak_rss_bytes")),
    ("CPU", "seconds", lambda record: record.get("cpu_seconds")),
    ("energy", "joules", _energy_of),
)

# The same of what its activations came to.
CODED: tuple[tuple[str, str, Callable[[Coded], float | None]], ...] = (
    ("elements", "elements", lambda coded: coded.elements),
    ("payload", "bits", lambda coded: coded.bits),
    ("with all else", "bits", lambda coded: coded.socket_bits),
    ("not zero", "share", lambda coded: coded.nonzero),
    ("behind the quantiser", "share", lambda coded: coded.left),
    ("D", "score", lambda coded: coded.step),
    ("D", "deviations", lambda coded: coded.deviations),
)


def _coded(log: RunLog) -> dict[str, Any]:
    """The table of what went up: a line a device that sent anything."""
    found = {name: coded for name, record in log.latest.items() if (coded := whole([record]))}
    heads, columns = [], []
    for heading, family, value in CODED:
        figures = [value(coded) for coded in found.values()]
        size, unit = unit_of(family, [f for f in figures if f is not None])
        heads.append((heading, unit))
        columns.append([MISSING if f is None else figure(f / size) for f in figures])
    return {"coded_heads": heads, "coded": list(zip(found, *columns, strict=True))}


def _ended_early(log: RunLog) -> str:
    """How many orders of which devices had no means for all of their steps."""
    cuts = {name: record.get("budget", {}).get("cut") for name, record in log.latest.items()}
    found = ", ".join(f"{count} on {name}" for name, count in cuts.items() if count)
    return f"Orders that ended early for it: {found}." if found else "No order ended early for it."


def _fleet(log: RunLog) -> dict[str, Any]:
    """The table of devices: a unit a column, a line a device."""
    heads, columns = [("accuracy", "%")], [[_share(log.accuracies().get(name)) for name in log.latest]]
    spared = [skipped(record) for record in log.latest.values()]
    if any(share is not None for share in spared):
        heads.append(("not sent again", "% of samples"))
        columns.append([_share(share) for share in spared])
    for heading, family, value in FLEET:
        figures = [value(record) for record in log.latest.values()]
        known = [f for f in figures if f is not None]
        size, unit = unit_of(family, known)
        heads.append((heading, unit if known else ""))
        columns.append(
            [MISSING if f is None else (f"{f:.0f}" if family == "count" else figure(f / size)) for f in figures]
        )
    heads.append(("late", "rounds"))
    columns.append([str(log.late().get(name, 0)) for name in log.latest])
    return {"fleet_heads": heads, "fleet": list(zip(log.latest, *columns, strict=True))}


def _share(accuracy: float | None) -> str:
    return MISSING if accuracy is None else f"{100 * accuracy:.1f}"


def _energy(row: Row) -> str:
    if row.joules is None:
        return f"Energy: {MISSING} (not known, and nothing was put in its place). The reason: {row.energy_reason}."
    return f"Energy: {human(row.joules, 'joules')} a device, {row.energy_class}, from {row.energy_source}."


def _c3_line(row: Row, budgets: Budgets) -> list[str]:
    flow = moved(row)
    return [
        row.method,
        MISSING if row.accuracy_last is None else f"{row.accuracy_last:.3f}",
        human(flow, "bytes"),
        _ratio(flow, budgets.bytes),
        human(row.client_flops, "flops"),
        _ratio(row.client_flops, budgets.flops),
        MISSING if row.c3 is None else f"{row.c3:.3f}",
    ]


def _ratio(used: float | None, limit: float | None) -> str:
    return MISSING if used is None or not limit else f"{used / limit:.3f}"


SHOWN_ELSEWHERE = frozenset({"record", "strategy", "started", "note"})


def _facts(run: Record) -> list[tuple[str, str]]:
    return [(key.replace("_", " "), _fact(value)) for key, value in run.items() if key not in SHOWN_ELSEWHERE]


def _fact(value: Any) -> str:
    if value is None:
        return "not given"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_fact(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_fact, value))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _percent(share: float | None) -> str:
    return MISSING if share is None else f"{100 * share:.1f} %"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return MISSING
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
