"""An order being carried out, and how it is spoken of."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

import numpy.typing as npt

from edge.bundle import Bundle
from edge.mailbox import Arrived, Mailbox
from edge.purse import Purse
from edge.segment import Segment, SegmentError
from edge.sensors import Batch
from edge.wire.messages import Order, Place

log = logging.getLogger("cutlayer.device")


@dataclass
class Work:
    """One order being carried out."""

    order: Order
    step: int
    """The step to do next; the order is done when it reaches `end`."""
    spare: bool = False
    """Whether it is done, and goes on while the hub is away."""
    kept: int = 0
    """The step that was next when the state was put into the outbox last."""
    waiting: Batch | None = None
    """An exchange step between its upload and the gradient for it."""
    gradient: tuple[Arrived, npt.NDArray[Any]] | None = None
    """The message it came in, and the gradient: `(batch, *smashed)`."""
    spent: bool = False
    """Whether the means of this order are spent."""
    cut: str = ""
    """What of the round's joules or CPU seconds ended this order early; empty where nothing did."""
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    metrics: dict[str, list[float]] = field(default_factory=dict)

    @property
    def end(self) -> int:
        """One past the order's last step."""
        return self.order.first_step + self.order.steps * self.order.rounds

    @property
    def place(self) -> tuple[int, int]:
        """Round and step of the batch to do next; steps beyond the order's end go on in its last round."""
        order = self.order
        behind = min((self.step - order.first_step) // order.steps, order.rounds - 1) if order.steps else 0
        return order.round + behind, self.step - behind * order.steps

    @property
    def waits(self) -> bool:
        """Whether each activation waits for its gradient, and so has to go up with all its samples."""
        return self.order.kind == "exchange"

    @property
    def done(self) -> int:
        """Steps of it that are done."""
        return self.step - self.order.first_step

    @property
    def over(self) -> bool:
        """Whether no step is to be done any more."""
        return self.step >= self.end or bool(self.cut)

    @property
    def kind(self) -> str:
        """What the next step is like, for what it will cost: coding an activation may cost as much as training on it."""
        return f"{self.order.kind}, sending" if self.step in self.order.send else self.order.kind

    @property
    def unsent(self) -> list[int]:
        """Steps from here on that were to upload."""
        return [step for step in self.order.send if step >= self.step]

    def figures(self) -> dict[str, Any]:
        """What a report says of its steps."""
        found: dict[str, Any] = {name: fmean(values) for name, values in self.metrics.items()}
        if self.order.kind != "evaluate":
            found["steps"] = self.done
            found |= {"step_seconds": median(self.seconds)} if self.seconds else {}
        return {**found, "cut": self.cut} if self.cut else found

    @property
    def settings(self) -> dict[str, float]:
        """Of the order's end, whose steps may be fewer than were ordered: `local_steps` is how many there were."""
        known = self.order.settings
        return {**known, "local_steps": float(self.done)} if self.cut and "local_steps" in known else dict(known)

    @property
    def due(self) -> bool:
        """Whether a step can be done now, without waiting for the hub."""
        return self.waiting is None or self.gradient is not None


def fault_of(order: Order, bundle: Bundle, segment: Segment) -> str | None:
    """Why a device with this bundle cannot carry an order out, or None."""
    if order.bundle != bytes.fromhex(bundle.id[:8]):
        return f"the order is for bundle {order.bundle.hex()}, this device has {bundle.id[:8]}"
    for kind in ("forward", "backward") if order.kind == "exchange" else (order.kind,):
        if kind not in segment.kinds:
            return f"the bundle has no {kind!r} graph"
        if fault := segment.too_large(kind, order.batch):
            return fault
    for name, value in order.settings.items():
        known = bundle.manifest.settings.get(name)
        if known is not None and not known.minimum <= value <= known.maximum:
            return f"setting {name} = {value} is outside {known.minimum} to {known.maximum}"
    try:
        segment.places(order.state)
    except SegmentError as error:
        return str(error)
    return None


def end_early(work: Work, purse: Purse, mailbox: Mailbox) -> bool:
    """End an order because the joules or CPU seconds of its round are spent; the activations that will not come are withheld.

    False where it cannot be reported as done: weights are wanted of it, and not one step has been done.
    """
    order, work.cut = work.order, purse.lacking
    log.info("%s ends after %d of %d steps: %s is spent", name_of(order), work.done, order.steps, work.cut)
    if order.give and not work.done:
        return False
    # A test sample that is missing is no activation that the hub waits for.
    for step in () if order.kind == "evaluate" else work.unsent:
        purse.withhold()
        mailbox.withhold(Place(order.order, step))
    return True


def brief(value: Any) -> Any:
    """With six digits a number: more are noise, and cost as many bytes as all the rest of a report."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return {name: brief(part) for name, part in value.items()} if isinstance(value, Mapping) else value


def name_of(order: Order) -> str:
    """An order in words: its number begins anywhere, its round at 1."""
    more = f" to {order.round + order.rounds}" if order.rounds > 1 else ""
    return f"the {order.kind} order of round {order.round + 1}{more} (number {order.order})"
