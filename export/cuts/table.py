"""The cuts as tables of at most 80 columns, and as JSON."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from export.cuts.candidates import Candidate
from export.cuts.choice import Choice, Option, kilobytes, megabytes

WIDTH = 80
FORMAT = 1
"""Version of the JSON."""


def cut_table(candidates: Sequence[Candidate], options: Mapping[str, Option], best: Collection[str]) -> str:
    """What lies below each cut, and what its step takes; `*` marks the Pareto front."""
    head = ("", "cut", "smashed", "elements", "params", "forward", "step", "peak", "ms")
    rows = []
    for each in candidates:
        option, cost = options.get(each.name), each.cost
        if option is None or cost is None:
            continue
        peak = option.board.peak_bytes
        rows.append(
            (
                "*" if each.name in best else "",
                each.name[:20],
                "x".join(map(str, cost.smashed_shape)),
                f"{cost.smashed_bytes // 4}",
                f"{cost.parameters}",
                count(cost.forward),
                "-" if each.training is None else count(each.training),
                "-" if peak is None else megabytes(peak),
                f"{1e3 * option.step_seconds:.1f}" + ("~" if option.board.source == "predicted" else ""),
            )
        )
    return aligned(head, rows)


def round_table(options: Mapping[str, Option], best: Collection[str], codec: str) -> str:
    """What a round of each cut comes to, with bytes of one activation and what it gives away."""
    head = ("", "cut", "activation", "bits", "up", "down", "round s", "joules", "dcor", "NMSE")
    rows = []
    for option in options.values():
        sizes, cost = option.candidate.sizes[codec], option.candidate.cost
        elements = cost.smashed_bytes / 4 * option.batch if cost else 1
        leak = option.leak
        rows.append(
            (
                "*" if option.name in best else "",
                option.name[:20],
                kilobytes(sizes.activation),
                f"{8 * sizes.activation / elements:.2f}",
                kilobytes(option.round.up_bytes),
                kilobytes(option.round.down_bytes),
                f"{option.round.seconds:.3g}",
                "-" if option.round.joules is None else f"{option.round.joules:.3g}",
                "-" if leak is None else f"{leak.correlation:.2f}",
                "-" if leak is None or leak.nmse is None else f"{leak.nmse:.2f}",
            )
        )
    return aligned(head, rows)


def leak_table(candidates: Sequence[Candidate]) -> str:
    """What each cut gives away behind each codec."""
    head = ("", "cut", "codec", "activation", "dcor", "NMSE")
    rows = [
        (
            "",
            each.name[:20],
            found.codec,
            kilobytes(each.sizes[found.codec].activation),
            f"{found.correlation:.3f}",
            "-" if found.nmse is None else f"{found.nmse:.3f}",
        )
        for each in candidates
        for found in each.leaks
    ]
    return aligned(head, rows)


def as_json(
    candidates: Sequence[Candidate],
    options: Mapping[str, Option],
    best: Collection[str],
    choice: Choice | None,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """All of it, for programs; a figure that is not known is null."""
    return {
        "format": FORMAT,
        **facts,
        "cuts": [_json(each, options.get(each.name), best) for each in candidates],
        "choice": None
        if choice is None
        else {
            "cut": choice.option.name if choice.option else None,
            "why": choice.why,
            "rounds_per_day": choice.rounds_per_day if choice.rounds_per_day < float("inf") else None,
            "refused": choice.refused,
        },
    }


def _json(each: Candidate, option: Option | None, best: Collection[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"cut": each.name, "why_not": each.why or None}
    if each.cost is not None:
        row |= asdict(each.cost) | {"training": each.training}
    if option is None:
        return row
    return row | {
        "pareto": each.name in best,
        "steps": {kind: asdict(cost) for kind, cost in option.board.steps.items()},
        "steps_source": option.board.source,
        "peak_bytes": option.board.peak_bytes,
        "own_bytes": each.measured.own_bytes if each.measured else None,
        "messages": {codec: asdict(sizes) for codec, sizes in each.sizes.items()},
        "weights_bytes": each.weights_bytes,
        "leaks": [asdict(leak) for leak in each.leaks],
        "round": asdict(option.round) | {"seconds": option.round.seconds, "bytes": option.round.bytes},
    }


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned text: the first two columns to the left, all others to the right."""
    widths = [max(len(row[place]) for row in [head, *rows]) for place in range(len(head))]
    lines = []
    for row in [head, *rows]:
        cells = [
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(" ".join(cells).rstrip())
    return "\n".join(lines)


def count(number: float) -> str:
    """A number of multiply-adds in words."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"
