"""An order being carried out, and how it is spoken of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from edge.mailbox import Arrived
from edge.sensors import Batch
from edge.wire.messages import Order


@dataclass
class Work:
    """One order being carried out."""

    order: Order
    step: int
    """The step to do next; the order is done when it reaches `end`."""
    kept: int = 0
    """The step that was next when the state was put into the outbox last."""
    waiting: Batch | None = None
    """An exchange step between its upload and the gradient for it."""
    gradient: tuple[Arrived, npt.NDArray[Any]] | None = None
    """The message it came in, and the gradient: `(batch, *smashed)`."""
    spent: bool = False
    """Whether the means of this order are spent."""
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
    def due(self) -> bool:
        """Whether a step can be done now, without waiting for the hub."""
        return self.waiting is None or self.gradient is not None


def brief(value: Any) -> Any:
    """With six digits a number: more are noise, and cost as many bytes as all the rest of a report."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return {name: brief(part) for name, part in value.items()} if isinstance(value, Mapping) else value


def name_of(order: Order) -> str:
    """An order in words: its number begins anywhere, its round at 1."""
    more = f" to {order.round + order.rounds}" if order.rounds > 1 else ""
    return f"the {order.kind} order of round {order.round + 1}{more} (number {order.order})"
