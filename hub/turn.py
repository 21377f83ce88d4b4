"""One turn of a round: who was told what, what has come, what is still owed, and whether it can be used."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from edge.wire import messages
from edge.wire.messages import Report
from hub.devices import Arrived


@dataclass
class Turn:
    """One turn being carried out."""

    round: int
    orders: dict[str, messages.Order]
    deadline: float
    expected: list[tuple[int, str]] = field(default_factory=list)
    """Step and device of every activation to come, in the order in which the hub learns from them."""
    activations: dict[tuple[int, str], Arrived] = field(default_factory=dict)
    seen: set[tuple[int, str]] = field(default_factory=set)
    """Step and device of every activation that was taken, so that none is taken twice."""
    expired: set[tuple[int, str]] = field(default_factory=set)
    """Step and device of every activation that its device has given up: it will not come, and is not taken any more."""
    reports: dict[str, Report] = field(default_factory=dict)
    states: dict[str, Mapping[str, npt.NDArray[Any]]] = field(default_factory=dict)
    gone: dict[str, float] = field(default_factory=dict)
    """Since when a device of this turn has been away."""
    given_up: dict[str, str] = field(default_factory=dict)
    """Devices not waited for any more, and why."""
    owed: dict[str, messages.Gradient] = field(default_factory=dict)
    """Gradients that a hub which was killed may not have sent: for each device, when it is back."""
    kept: bool = True
    """Whether what happens in it is noted in the journal; an evaluation is simply done again."""

    def open(self) -> list[str]:
        """Devices that still owe a report, a state or an activation."""
        owing = {name for step, name in self.expected if (step, name) not in self.activations}
        return [
            name
            for name, order in self.orders.items()
            if name not in self.given_up
            and (name not in self.reports or (order.give and name not in self.states) or name in owing)
        ]

    def ready(self, *, together: bool) -> list[Arrived]:
        """The activations to learn from next, if they are here: one, or all of a step; those that will not come are skipped."""
        self.expected = [
            (step, name)
            for step, name in self.expected
            if name not in self.given_up or (step, name) in self.activations
        ]
        count = sum(step == self.expected[0][0] for step, _ in self.expected) if together and self.expected else 1
        found = [self.activations.get(place) for place in self.expected[:count]]
        return [] if None in found else [arrived for arrived in found if arrived is not None]

    def take(self, count: int) -> None:
        """So many of the expected activations have been learned from."""
        del self.expected[:count]

    def redo(self, learned: Iterable[Arrived]) -> None:
        """These activations have been learned from before the hub was killed."""
        for arrived in learned:
            message = cast("messages.Activation", arrived.message)
            place = (message.step, arrived.device)
            self.activations[place] = arrived
            self.seen.add(place)
            self.expired.discard(place)  # it had come before the report that gives it up
            if place in self.expected:
                self.expected.remove(place)

    def expire(self, name: str, expired: object) -> int:
        """Wait no longer for what a device says it has given up, see `expired_steps` of a report; returns how many were owed."""
        if not isinstance(expired, Mapping):
            return 0
        first, last = expired.get("first"), expired.get("last")
        if type(first) is not int or type(last) is not int:
            return 0
        gone = {
            place
            for place in self.expected
            if place[1] == name and first <= place[0] <= last and place not in self.activations
        }
        self.expired |= gone
        self.expected = [place for place in self.expected if place not in gone]
        return len(gone)

    def give_up(self, name: str, reason: str) -> None:
        """Wait for this device no longer; what it has sent already counts."""
        self.given_up[name] = reason


def fault_of_state(state: Mapping[str, npt.NDArray[Any]], wanted: Mapping[str, tuple[int, ...]]) -> str | None:
    """Why weights that came up cannot be used, or None: other names or shapes than were asked for, or no numbers."""
    if state.keys() != wanted.keys():
        return f"weights named {', '.join(sorted(state.keys() ^ wanted.keys()))}: not what was asked for"
    for name, array in state.items():
        if array.shape != wanted[name]:
            return f"weights {name!r} of shape {array.shape}, wanted {wanted[name]}"
        if not np.isfinite(array).all():
            return f"weights {name!r} have values that are not finite"
    return None
