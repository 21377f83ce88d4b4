"""What the activations of a device came to behind its codec: from the counters in its records to figures an element.

Counters run from the start of the run, so a round is the difference of two records. A figure that is not known is None: a
codec without a quantiser has no step, and a round in which nothing went up has no figures at all.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Coded:
    """Activations of some time, in training; bits are means over their elements, and so is D."""

    round: int
    elements: int
    bits: float | None
    """Of an element in the payload of its message."""
    socket_bits: float | None
    """All that the device sent for training in that time, on the socket, by the elements that it was sent for."""
    nonzero: float | None
    """Share of the elements that were not zero, before any codec."""
    step: float | None
    """D, the quantiser's step, in units of the activation."""
    deviations: float | None
    """D in standard deviations of the activation."""
    left: float | None
    """Share of the elements that were not zero behind the quantiser."""


def by_round(records: Iterable[Record]) -> tuple[Coded, ...]:
    """One device's rounds in which activations went up."""
    found = []
    before: Record = {}
    for record in records:
        if (record.get("elements") or 0) < (before.get("elements") or 0):
            before = {}  # a board that has lost its memory counts anew
        coded = _between(before, record)
        if coded:
            found.append(coded)
        before = record
    return tuple(found)


def whole(records: Iterable[Record]) -> Coded | None:
    """What one or more devices came to, from their last records; None where nothing went up."""
    sums: dict[str, Any] = {"round": 0, "coded": {}}
    for record in records:
        if not record.get("elements"):
            continue
        for name in ("elements", "paper_bytes", "socket_sent", "evaluation_sent"):
            sums[name] = sums.get(name, 0) + (record.get(name) or 0)
        for name, value in (record.get("coded") or {}).items():
            sums["coded"][name] = sums["coded"].get(name, 0) + value
    return _between({}, sums)


def _between(before: Record, record: Record) -> Coded | None:
    elements = (record.get("elements") or 0) - (before.get("elements") or 0)
    if elements <= 0:
        return None
    coded, coded_before = record.get("coded") or {}, before.get("coded") or {}

    def share(name: str) -> float | None:
        """Where the record before has not said it though something had gone up, the difference would be too large."""
        known = name in coded and (name in coded_before or not before.get("elements"))
        return (coded[name] - coded_before.get(name, 0)) / elements if known else None

    paid, paper = share("bytes"), record.get("paper_bytes")
    sent = None if record.get("socket_sent") is None else _trained(record) - _trained(before)
    return Coded(
        record["round"],
        elements,
        None if paid is None else 8 * paid,
        None if sent is None else 8 * sent / elements,
        None if paper is None else (paper - (before.get("paper_bytes") or 0)) / 4 / elements,
        share("step"),
        share("deviations"),
        share("nonzeros"),
    )


def _trained(record: Record) -> float:
    """Bytes sent for training; 0 where nothing is known of them yet."""
    sent: float = (record.get("socket_sent") or 0) - (record.get("evaluation_sent") or 0)
    return sent
