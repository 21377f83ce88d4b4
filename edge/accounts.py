"""What a device has spent since its run began: bytes, operations, seconds, joules. Survives restarts.

Each figure carries how it was obtained: bytes with the source of the socket's counters, joules with class and source
or with the reason why there are none.
"""

from typing import Any, Protocol

import numpy.typing as npt

from edge.energy import Energy
from edge.link import Link
from edge.meters import Measurement
from edge.outbox import Outbox
from edge.wire.figures import figures_of
from edge.wire.manifest import Manifest

_WINDOW = "report"

_CODED = ("coded_bytes", "coded_nonzeros", "step_sum", "deviations_sum")
"""What the uploads came to behind the codec: of reports only those that had uploads tell them."""
_START = {
    "sent": 0,
    "received": 0,
    "retransmitted": 0,
    "evaluation_sent": 0,
    "evaluation_received": 0,
    "paper_bytes": 0,
    "elements": 0,
    "coded_bytes": 0,
    "coded_nonzeros": 0,
    "step_sum": 0.0,
    "deviations_sum": 0.0,
    "flops": 0.0,
    "paper_flops": 0.0,
    "cpu_seconds": 0.0,
    "peak_rss_bytes": 0,
    "joules": 0.0,
    "energy_gap": None,
    "beyond_steps": 0,
    "restarts": -1,
}


_OPENED = ("sent", "received", "elements", "paper_bytes")


class Meter(Protocol):
    """Measures what happens between `begin` and `end`: `edge.meters.Meter`, or what a simulated device has in its place."""

    def begin(self, window: str) -> None:
        """A window of this name begins."""

    def end(self, window: str) -> Measurement:
        """What it cost."""


class Accounts:
    """Running totals of one device; `open` when an order arrives, `close` when its report is written."""

    def __init__(self, outbox: Outbox, link: Link, meter: Meter, manifest: Manifest) -> None:
        self._outbox = outbox
        self._link = link
        self._meter = meter
        self._flops = manifest.flops
        self._total: dict[str, Any] = {**_START, **outbox.fact("totals", {})}
        self._total["restarts"] += 1
        # The socket's counters start at zero with the process; what came before is in the totals.
        self._before = {name: self._total[name] for name in ("sent", "received", "retransmitted")}
        self._opened: dict[str, int] = outbox.fact("opened", dict.fromkeys(_OPENED, 0))
        self._received_at_close = self._total["received"]
        meter.begin(_WINDOW)

    def open(self) -> None:
        """An order begins: what is sent from here on belongs to it, and what came since the last one, which may be weights."""
        self._count()
        self._opened = {**{name: self._total[name] for name in _OPENED}, "received": self._received_at_close}
        self._outbox.put_fact("opened", self._opened)

    def ran(self, kind: str, rows: int) -> None:
        """A graph of this kind ran on so many samples. Evaluation is no part of training, and stands apart as its bytes do."""
        if kind == "evaluate":
            return
        forward, training = self._flops["forward"], self._flops["training"]
        self._total["flops"] += rows * (training if kind in ("local", "backward") else forward)
        if kind in ("local", "forward"):
            # The papers count the forward pass of a training step and nothing else.
            self._total["paper_flops"] += rows * forward

    def went_beyond(self) -> None:
        """A step was done that no order asked for, while the hub was away."""
        self._total["beyond_steps"] += 1

    def uploaded(self, smashed: npt.NDArray[Any], packed: bytes) -> None:
        """Smashed data was put into the outbox, in this message; the paper counts its non-zero elements at four bytes each."""
        figures = figures_of(smashed, packed)
        self._total["paper_bytes"] += 4 * figures.nonzeros
        self._total["elements"] += figures.elements
        self._total["coded_bytes"] += figures.payload_bytes
        self._total["coded_nonzeros"] += figures.left or 0
        # Sums over the elements, so that the difference of two reports has the mean of what lies between them.
        self._total["step_sum"] += (figures.step or 0.0) * figures.elements
        self._total["deviations_sum"] += (figures.deviations or 0.0) * figures.elements

    def close(self, kind: str) -> dict[str, Any]:
        """The totals as an order ends, for its report; all but the seconds since the run began."""
        self._count()
        if kind == "evaluate":
            self._total["evaluation_sent"] += self._total["sent"] - self._opened["sent"]
            self._total["evaluation_received"] += self._total["received"] - self._opened["received"]
        self._received_at_close = self._total["received"]
        measured = self._meter.end(_WINDOW)
        self._meter.begin(_WINDOW)
        self._total["cpu_seconds"] += measured.cpu_seconds
        self._total["peak_rss_bytes"] = max(self._total["peak_rss_bytes"], measured.peak_rss_bytes)
        energy = self._add_energy(measured.energy)
        record = {name: value for name, value in self._total.items() if name not in ("joules", "energy_gap", *_CODED)}
        record |= self._coding()
        record["source"] = self._link.counters().source
        record["seconds"] = measured.seconds
        record["energy"] = energy
        return record

    def _coding(self) -> dict[str, Any]:
        """What was uploaded in this order, and what the codec made of it since the run began; nothing where nothing was."""
        total, elements = self._total, self._total["elements"] - self._opened["elements"]
        if not elements:
            return {}
        share = (total["paper_bytes"] - self._opened["paper_bytes"]) / 4 / elements
        quantised = {
            "nonzeros": total["coded_nonzeros"],
            "step": total["step_sum"],
            "deviations": total["deviations_sum"],
        }
        coded = {"bytes": total["coded_bytes"], **(quantised if total["step_sum"] else {})}
        return {"nonzero_share": round(share, 4), "coded": coded}

    def _add_energy(self, window: Energy) -> dict[str, Any]:
        """The energy so far; a total with a window missing would be too low, so it is missing too, and says why."""
        record = window.to_report()
        if window.joules is None:
            self._total["energy_gap"] = window.reason
        else:
            self._total["joules"] += window.joules
        gap = self._total["energy_gap"]
        return {**record, "joules": None, "reason": gap} if gap else {**record, "joules": self._total["joules"]}

    def put(self, outbox: Outbox) -> None:
        """Keep the totals with the step that changed them."""
        self._count()
        outbox.put_fact("totals", self._total)

    def _count(self) -> None:
        counters = self._link.counters()
        for name, before in self._before.items():
            self._total[name] = before + getattr(counters, name)
