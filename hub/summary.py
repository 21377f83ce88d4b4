"""What a run reached and what it cost: from the records in its metrics.jsonl to one row, and the C3-Score.

Every figure is per device unless its name says otherwise. A figure that is not known is `None` with a reason; it is never 0. Accuracy is a share, 0 to 1.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from statistics import fmean
from typing import Any

from hub.coding import whole

TEMPERATURE = 8.0
"""T of the C3-Score."""
CLASSES_OF_ENERGY = ("modelled", "sensor", "metered")
"""From the least to the most trustworthy."""


@dataclass(frozen=True)
class Row:
    """What one method reached and what it cost.

    Bytes are means over the devices, on the socket and without the evaluation's, which stand apart; `client_flops` and `cpu_seconds` are means over the devices too, `joules` as well;
    `peak_rss_bytes` is the largest device's; `total_flops` is the whole fleet's and the hub's.
    """

    method: str
    accuracy_last: float | None = None
    accuracy_max: float | None = None
    sent_bytes: float | None = None
    received_bytes: float | None = None
    evaluation_bytes: float | None = None
    paper_bytes: float | None = None
    client_flops: float | None = None
    total_flops: float | None = None
    peak_rss_bytes: float | None = None
    cpu_seconds: float | None = None
    joules: float | None = None
    energy_class: str | None = None
    energy_source: str | None = None
    energy_reason: str | None = None
    seconds: float | None = None
    c3: float | None = None
    note: str | None = None
    coding: str | None = None
    """What the activations came to behind the codec, in words; None where none went up."""
    bytes_source: str | None = None
    """Who counted the bytes, as the devices said it: "TCP_INFO" is the kernel."""
    reference: str | None = None
    """Set where the row was not measured in this run: where it was recorded."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Why a figure is missing, by the name of its field."""

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Row":
        """Take the fields of a row from a JSON record; others are left alone."""
        names = {f.name for f in fields(cls)}
        return cls(**{key: value for key, value in record.items() if key in names})


@dataclass(frozen=True)
class Budgets:
    """B_max and C_max of the C3-Score: bytes sent and received, and FLOPs, of one device; `origin` says where they come from."""

    bytes: float | None
    flops: float | None
    origin: str


def summarise(records: Iterable[Mapping[str, Any]]) -> Row:
    """Work out a run's row from the records of its metrics.jsonl; the C3-Score is left to `score`, which needs the other rows.

    Raises:
        ValueError: there is no record of the run.
    """
    kept = list(records)
    run = next((r for r in kept if r.get("record") == "run"), None)
    if run is None:
        raise ValueError("these records hold no 'run' record: they are not the metrics of a run")
    rounds = [r for r in kept if r.get("record") == "round"]
    last = latest_of_devices(kept)
    devices = list(last.values())
    accuracies = [r["accuracy"] for r in rounds if r.get("accuracy") is not None]
    figures: dict[str, float | None] = {
        "accuracy_last": accuracies[-1] if accuracies else None,
        "accuracy_max": max(accuracies, default=None),
        "sent_bytes": _mean([training_sent(d) for d in devices]),
        "received_bytes": _mean([training_received(d) for d in devices]),
        "evaluation_bytes": _mean([evaluation(d) for d in devices]),
        "paper_bytes": _mean([d.get("paper_bytes") for d in devices]),
        "client_flops": _mean([d.get("flops") for d in devices]),
        "total_flops": _total_flops(devices, rounds),
        "peak_rss_bytes": max(
            (d["peak_rss_bytes"] for d in devices if d.get("peak_rss_bytes") is not None), default=None
        ),
        "cpu_seconds": _mean([d.get("cpu_seconds") for d in devices]),
        "seconds": sum(r["seconds"] for r in rounds) if rounds else None,
    }
    missing = {name: _reason(name, devices, run) for name, figure in figures.items() if figure is None}
    sources = sorted({d["socket_source"] for d in devices if d.get("socket_source")})
    return Row(
        method=run.get("strategy", "?"),
        **figures,  # type: ignore[arg-type]
        **_energy(last),
        note="; ".join(text for text in (run.get("note"), unkept(devices), _known(devices)) if text) or None,
        coding=coding_of(devices),
        bytes_source=", ".join(sources) or None,
        missing=missing,
    )


def coding_of(devices: Sequence[Mapping[str, Any]]) -> str | None:
    """A sentence on the elements of the activations that went up in training, from the devices' last records."""
    coded = whole(devices)
    if coded is None:
        return None
    parts = []
    if coded.bits is not None:
        socket = (
            "" if coded.socket_bits is None else f" ({coded.socket_bits:.3g} with all else that was sent for training)"
        )
        parts.append(f"an element of an activation took {coded.bits:.3g} bits{socket}")
    if coded.step is not None and coded.deviations is not None:
        parts.append(f"D was {coded.step:.3g}, {coded.deviations:.3g} standard deviations")
    if coded.nonzero is not None:
        behind = "" if coded.left is None else f", {100 * coded.left:.1f} % behind the quantiser"
        parts.append(f"{100 * coded.nonzero:.1f} % of the elements were not zero{behind}")
    return "; ".join(parts) or None


def unkept(devices: Sequence[Mapping[str, Any]]) -> str | None:
    """A sentence on joules that the hub's budget limits and nobody measures; None where there are none."""
    silent = [d for d in devices if "joules_spent" in (b := d.get("budget") or {}) and b["joules_spent"] is None]
    if not silent:
        return None
    limits = sorted({f"{device['budget']['joules_per_round']:g} J" for device in silent})
    reasons = sorted({str((device.get("energy") or {}).get("reason") or "no reason was given") for device in silent})
    return f"the budget of {', '.join(limits)} a round was not kept to on {len(silent)} of {len(devices)} devices: {'; '.join(reasons)}"


def skipped(device: Mapping[str, Any]) -> float | None:
    """Share of the samples of a device's uploads that were not sent, since the hub knew them; None where none might be skipped."""
    known = device.get("known") or {}
    count = known.get("sent", 0) + known.get("skipped", 0)
    return known.get("skipped", 0) / count if count else None


def _known(devices: Sequence[Mapping[str, Any]]) -> str | None:
    """How much was not sent again, in a sentence."""
    shares = [share for device in devices if (share := skipped(device)) is not None]
    if not shares:
        return None
    return f"{100 * fmean(shares):.0f} % of the samples were not sent again: the hub had kept them"


def latest_of_devices(records: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Each device's last record by the device's name, in the order of names: the counters in it cover the run so far."""
    last = {r["device"]: r for r in records if r.get("record") == "device"}
    return dict(sorted(last.items()))


def training_sent(device: Mapping[str, Any]) -> float | None:
    """Bytes a device sent for training: what the socket sent, less what evaluation sent over it."""
    sent, evaluation = device.get("socket_sent"), device.get("evaluation_sent")
    return None if sent is None else sent - (evaluation or 0)


def training_received(device: Mapping[str, Any]) -> float | None:
    """Bytes a device received for training: what the socket received, less what came for evaluation."""
    received = device.get("socket_received")
    return None if received is None else received - (device.get("evaluation_received") or 0)


def evaluation(device: Mapping[str, Any]) -> float | None:
    """Bytes a device sent and received for evaluation."""
    sent = device.get("evaluation_sent")
    return None if sent is None else sent + (device.get("evaluation_received") or 0)


def fleet_size(run: Mapping[str, Any]) -> int | None:
    """How many devices a run has, written down as a number or as their names."""
    devices = run.get("devices")
    return len(devices) if isinstance(devices, list | tuple) else devices


def c3_score(accuracy: float, sent_and_received: float, flops: float, budgets: Budgets) -> float | None:
    """C3 = Â · exp(-(B̂ + Ĉ)/8) of AdaSplit, with accuracy in 0..1; `None` where a budget is missing or 0.

    Name and purpose are as the paper has them; the form is recalled, not checked against its text. A method that moves no byte, where nobody does, uses none of the budget: 0/0 counts as 0.
    """
    shares = []
    for used, limit in ((sent_and_received, budgets.bytes), (flops, budgets.flops)):
        if limit is None or (limit == 0 and used > 0):
            return None
        shares.append(used / limit if limit else 0.0)
    return accuracy * math.exp(-sum(shares) / TEMPERATURE)


def budgets_of(rows: Sequence[Row], given: Mapping[str, float | None] | None) -> Budgets:
    """The budgets a run was given, and for those it was not, the maximum over the rows."""
    given = given or {}
    flows = [flow for row in rows if (flow := moved(row)) is not None]
    works = [row.client_flops for row in rows if row.client_flops is not None]
    limit_bytes, limit_flops = given.get("bytes"), given.get("flops")
    origins = [
        "bytes: " + ("the largest in the table" if limit_bytes is None else "the budget given"),
        "compute: " + ("the largest in the table" if limit_flops is None else "the budget given"),
    ]
    return Budgets(
        max(flows, default=None) if limit_bytes is None else limit_bytes,
        max(works, default=None) if limit_flops is None else limit_flops,
        "; ".join(origins),
    )


def score(rows: Sequence[Row], budgets: Budgets) -> list[Row]:
    """The rows with their C3-Score of the last round's accuracy."""
    return [_scored(row, budgets) for row in rows]


def moved(row: Row) -> float | None:
    """Bytes a device sent and received for training."""
    return None if row.sent_bytes is None or row.received_bytes is None else row.sent_bytes + row.received_bytes


def _scored(row: Row, budgets: Budgets) -> Row:
    flow = moved(row)
    lacking = [
        name
        for name, value in (("accuracy", row.accuracy_last), ("bytes", flow), ("FLOPs", row.client_flops))
        if value is None
    ]
    if row.accuracy_last is None or flow is None or row.client_flops is None:
        return replace(row, c3=None, missing={"c3": f"not known without {' and '.join(lacking)}", **row.missing})
    value = c3_score(row.accuracy_last, flow, row.client_flops, budgets)
    return replace(
        row,
        c3=value,
        missing=row.missing if value is not None else {**row.missing, "c3": "there is no budget to measure against"},
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def _total_flops(devices: Sequence[Mapping[str, Any]], rounds: Sequence[Mapping[str, Any]]) -> float | None:
    hub = next((r["hub_flops"] for r in reversed(rounds) if r.get("hub_flops") is not None), None)
    clients = [d["flops"] for d in devices if d.get("flops") is not None]
    return hub + sum(clients) if hub is not None and clients and len(clients) == len(devices) else None


def _reason(name: str, devices: Sequence[Mapping[str, Any]], run: Mapping[str, Any]) -> str:
    if name.startswith("accuracy"):
        return "no round was evaluated"
    if not devices:
        return "no device reported"
    if name == "total_flops":
        return "the hub's operations were not counted"
    reasons = [(d.get("missing") or {}).get(name) for d in devices]
    if reasons[0] and len(set(reasons)) == 1:
        return str(reasons[0])
    silent = len({str(d["device"]) for d in devices if d.get(_RECORDED_AS.get(name, name)) is None})
    return f"{silent} of {fleet_size(run) or len(devices)} devices did not report it" if silent else "not recorded"


_RECORDED_AS = {
    "sent_bytes": "socket_sent",
    "received_bytes": "socket_received",
    "evaluation_bytes": "evaluation_sent",
    "client_flops": "flops",
}


def _trust(energy_class: str) -> int:
    """How far a class of energy is to be trusted; one nobody knows, least."""
    return CLASSES_OF_ENERGY.index(energy_class) if energy_class in CLASSES_OF_ENERGY else -1


def _energy(devices: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Mean energy a device where all devices know theirs; its class is the least trustworthy among them."""
    parts = {name: device.get("energy") or {} for name, device in devices.items()}
    known = [part for part in parts.values() if part.get("joules") is not None]
    if known and len(known) == len(parts):
        classes = [str(part.get("class") or part.get("kind")) for part in known]
        return {
            "joules": fmean(part["joules"] for part in known),
            "energy_class": min(classes, key=_trust),
            "energy_source": ", ".join(sorted({str(part["source"]) for part in known})),
        }
    reasons = sorted(
        {str(part.get("reason") or "no reason was given") for part in parts.values() if part.get("joules") is None}
    )
    many = f"{len(parts) - len(known)} of {len(parts)} devices: " if known else ""
    return {"energy_reason": many + "; ".join(reasons) if reasons else "no device reported"}
