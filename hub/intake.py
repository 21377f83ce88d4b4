"""What comes to the hub in a turn: taken, put down, or refused and counted; and who is waited for no longer.

What changes the turn is noted in the journal before it is acknowledged.
"""

import logging
from collections.abc import Callable

from edge.wire import messages
from edge.wire.frames import WireError
from edge.wire.messages import Activation, Report, State
from hub import journal
from hub.devices import Arrived, Devices, Joined, Left, Returned, Unreadable, keep_report
from hub.journal import Journal, NoJournal
from hub.store import patiently
from hub.terms import Shapes, Terms
from hub.turn import Turn, fault_of_state
from hub.weights import Weights

log = logging.getLogger("cutlayer.hub")


class Intake:
    """The receiving side of a turn."""

    def __init__(
        self,
        devices: Devices,
        terms: Terms,
        shapes: Shapes,
        kept: Journal | NoJournal,
        weights: Weights,
        *,
        now: Callable[[], float],
        say: Callable[[str, str], None],
    ) -> None:
        self._devices = devices
        self._terms = terms
        self._fixed = terms.order == "fixed"
        self._shapes = shapes
        self._bundle = bytes.fromhex(shapes.bundle[:8])
        self._kept = kept
        self._weights = weights
        self._now = now
        self._say = say

    def receive(self, turn: Turn, patience: float) -> list[Arrived]:
        """The activations of this turn that have come since; everything else is seen to here.

        Args:
            turn: that is open.
            patience: seconds to wait when nothing has come.
        """
        found: list[Arrived] = []
        finished: list[Arrived] = []
        for happening in self._devices.poll(patience, self._now()):
            if isinstance(happening, Joined):
                self._welcome(turn, happening.device)
            elif isinstance(happening, Returned):
                self._back(turn, happening.device)
            elif isinstance(happening, Left):
                turn.gone[happening.device] = self._now()
                self._say(happening.device, "offline")
            elif isinstance(happening, Unreadable):
                self._miss(turn, happening)
            else:
                (found if self._belongs(turn, happening) else finished).append(happening)
        self._give_up(turn)
        patiently(self._kept.commit)
        for arrived in finished:
            self._devices.done(arrived)
        return found

    def _welcome(self, turn: Turn, name: str) -> None:
        """Tell a device that has come what it is to do, unless it has done it."""
        self._back(turn, name)
        if name in turn.open():
            self._devices.send(name, turn.orders[name], urgent=True)
            if name in turn.owed:
                self._devices.send(name, turn.owed[name])
        turn.owed.pop(name, None)

    def _back(self, turn: Turn, name: str) -> None:
        turn.gone.pop(name, None)
        self._say(name, turn.orders[name].kind if name in turn.open() else "here")

    def _belongs(self, turn: Turn, arrived: Arrived) -> bool:
        """Whether this is an activation to learn from; reports and states are put down, strangers counted."""
        message, name = arrived.message, arrived.device
        device = self._devices.known[name]
        order = turn.orders.get(name)
        if not isinstance(message, (Activation, Report, State)):
            device.refused[f"{type(message).__name__} is not for a hub"] += 1
        elif order is None or message.order != order.order or name in turn.given_up:
            device.refused[f"late {type(message).__name__.lower()}"] += 1
        elif isinstance(message, Activation):
            fault = self._fault(message)
            place = (message.step, name)
            if fault is None and (place in turn.seen or place in turn.expired or message.step not in order.send):
                device.refused["activation that was not asked for"] += 1
                return False
            if fault is None:
                turn.seen.add(place)
                return True
            self._refuse(turn, name, fault)
        else:
            self.put(turn, arrived)
            if turn.orders[name] is not order:  # it was not there in a form that the device could read
                self._devices.send(name, turn.orders[name], urgent=True)
            if turn.kept:
                self._kept.append(journal.Put(arrived))
            return False
        if isinstance(message, Report):
            keep_report(device, message)
        return False

    def put(self, turn: Turn, arrived: Arrived) -> None:
        """Put a report or a state of this turn down."""
        name, message = arrived.device, arrived.message
        if isinstance(message, State):
            self._put_by(turn, name, turn.orders[name], message)
        elif isinstance(message, Report):
            keep_report(self._devices.known[name], message)
            self._put_down(turn, name, message)

    def _refuse(self, turn: Turn, name: str, fault: str) -> None:
        """Count what a device sent and cannot be used, and go on without it."""
        self._devices.known[name].refused[fault] += 1
        log.warning("refused from %s: %s", name, fault)
        self._without(turn, name, fault)

    def _miss(self, turn: Turn, lost: Unreadable) -> None:
        order = turn.orders.get(lost.device)
        if order is not None and order.order == lost.place.order and lost.device not in turn.given_up:
            self._without(turn, lost.device, f"step {lost.place.step} cannot be read: {lost.reason}")

    def _without(self, turn: Turn, name: str, reason: str) -> None:
        turn.give_up(name, reason)
        if turn.kept:
            self._kept.append(journal.GaveUp(name, reason))

    def _put_by(self, turn: Turn, name: str, order: messages.Order, message: State) -> None:
        parts = (*order.give, *(["end"] if order.kind == "local" else []))
        wanted = {key: shape for part in parts for key, shape in self._shapes.given.get(part, {}).items()}
        try:
            state = self._weights.take(name, message)
            fault = fault_of_state(state, wanted)
        except WireError as error:
            state, fault = {}, str(error)
        if fault:
            self._devices.known[name].refused[fault] += 1
            log.warning("refused from %s: %s", name, fault)
            turn.give_up(name, fault)  # follows from the entry itself
        else:
            turn.states[name] = state

    def _put_down(self, turn: Turn, name: str, report: Report) -> None:
        reason = report.metrics.get("failed") or report.metrics.get("refused_order")
        whole = self._weights.whole(name, turn.orders[name]) if report.metrics.get("lacks_base") else None
        if whole is not None:
            log.warning("%s: %s; it gets everything whole", name, reason)
            turn.orders[name] = whole
        elif reason:
            log.warning("%s gives up: %s", name, reason)
            turn.give_up(name, str(reason))
        else:
            turn.reports[name] = report
            expired = turn.expire(name, report.metrics.get("expired_steps"))
            if expired:
                log.warning(
                    "%s has given up %d activations of this turn: its outbox was full, or its budget spent",
                    name,
                    expired,
                )
            if cut := report.metrics.get("cut"):
                log.info("%s ended its order after %s steps: %s", name, report.metrics.get("steps"), cut)
            self._say(name, "done")

    def _fault(self, message: Activation) -> str | None:
        """Why an activation cannot be learned from, or None."""
        wanted = (len(message.labels), *self._shapes.smashed)
        if message.bundle != self._bundle:
            return f"activation of bundle {message.bundle.hex()}, this run uses {self._bundle.hex()}"
        if message.smashed.shape != wanted:
            return f"activation of shape {message.smashed.shape}, wanted {wanted}"
        known = len(message.repeats.known) if message.repeats else 0
        if known and known + len(message.labels) > self._terms.batch:
            return f"batch of {len(message.labels)} samples and {known} known ones, wanted {self._terms.batch} at most"
        if message.labels.ndim != 1 or not len(message.labels) + known:
            return f"labels of shape {message.labels.shape}, wanted one for each of one or more samples"
        if len(message.labels) and not 0 <= message.labels.min() <= message.labels.max() < self._shapes.classes:
            return f"label outside 0 to {self._shapes.classes - 1}"
        return None

    def _give_up(self, turn: Turn) -> None:
        """Stop waiting for those who are gone too long, and for everybody at the deadline."""
        if self._fixed:
            return
        now = self._now()
        for name in turn.open():
            if now >= turn.deadline:
                self._devices.fell_silent(name)
                self._without(turn, name, f"no report within {self._terms.turn_seconds:g} s")
                self._say(name, "late")
            elif now - turn.gone.get(name, now) > self._terms.grace_seconds:
                self._without(turn, name, f"offline for more than {self._terms.grace_seconds:g} s")
