"""The device's side of `edge.wire.weights`: the bases it holds, and what coding has left out of the weights it gave.

At most two bases are held: the one that the last order named, which the hub is sure of, and the one it has made of it,
which the hub is sure of once it has heard the report. The next order names one of them. They are in the outbox, put in the
transaction of the order that made them, or of the weights that were given: a power cut neither parts them from the
weights nor codes the same weights twice.

A device that does not hold the base which an order needs says so, and gets everything whole. The bundle's own
weights are a base that every device holds in a run.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.bundle import Bundle
from edge.outbox import Outbox
from edge.wire import messages
from edge.wire.frames import WireError
from edge.wire.messages import Order, State
from edge.wire.weights import EXACT, Base, Difference, codable, difference, joined, parts_of, split

log = logging.getLogger("cutlayer.device")

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Bases:
    """The bases a device holds."""

    now: Base | None = None
    """What weights are given as a difference to."""
    before: Base | None = None
    """The one that the last order named, where that is another."""

    def find(self, name: int) -> Base | None:
        """The base of that name."""
        return next((base for base in (self.now, self.before) if base is not None and base.id == name), None)


_NOTHING = Bases()


class Weights:
    """What weights that come and go are differences to."""

    def __init__(self, bundle: Bundle, outbox: Outbox) -> None:
        self._bundle = bundle
        self._outbox = outbox
        self._parts = parts_of((piece.name, piece.part) for piece in bundle.manifest.slices)
        self._held = Bases(self._read("base"), self._read("base before"))
        self._next: Bases | None = None
        """Of the order that was resolved last, until it begins."""
        self._residual = self._read("residual")

    def resolve(self, order: Order) -> tuple[Order, str | None]:
        """The order with the weights that its difference stands for; or as it is, and why that cannot be said."""
        self._next = None
        told = order.difference
        base = None if told is None else self._held.find(told.base) or self._initial(told.base)
        changed: dict[str, Array] = {}
        if told is not None and base is None and (told.parts or codable(order.state, self._parts)):
            return order, f"the order has weights as a difference to {told.base:08x}, which this device does not hold"
        if told is not None and base is not None and told.parts:
            try:
                changed = base.changed(told, self._parts)
            except WireError as error:
                return order, str(error)
        state = {**order.state, **changed}
        if order.weights != EXACT:
            # After any other order the hub could not know what is held.
            new = codable(state, self._parts)
            now = (base or Base({})).updated(new) if new else base
            self._next = Bases(now, base if now is not base else None)
        return replace(order, state=state, difference=None), None

    def begin(self) -> None:
        """The order that was resolved last is carried out: what it makes of the bases is held from the next commit on."""
        if self._next is not None:
            self._hold(self._next)
            self._next = None

    def give(self, order: Order, given: Mapping[str, Array]) -> State:
        """Weights for the hub, as the order wants them; what coding leaves out goes along with the next ones."""
        if order.weights == EXACT:
            return State(order.bundle, order.order, given)
        base, whole = self._held.now, dict(given)
        change = Difference(base.id) if base else None
        parts = base.whole_parts(codable(given, self._parts), self._parts) if base else ()
        left: dict[str, Array] = {}
        if base and parts:
            names = base.names(parts, self._parts)
            wanted = joined(given, names) + self._left_out(given, names) - base.flat(names)
            try:
                change = difference(base, parts, wanted, order.weights)
            except WireError as error:
                log.warning("weights go whole: %s", error)
            else:
                left = split(wanted - change.values, {name: given[name].shape for name in names})
                whole = {name: array for name, array in given.items() if name not in left}
        self._keep_residual(left)
        if new := codable(whole, self._parts):
            now = (base or Base({})).updated(new)
            self._hold(Bases(now, self._held.before or base))
        return State(order.bundle, order.order, whole, difference=change)

    def start_over(self) -> None:
        """Another run: nothing of the last one is left."""
        self._hold(_NOTHING)
        self._keep_residual({})

    def _initial(self, name: int) -> Base | None:
        """The bundle's own weights, if that is their name."""
        manifest, state = self._bundle.manifest, self._bundle.state
        pieces = [piece for piece in manifest.slices if piece.name in self._parts]
        base = Base({p.name: state[p.state].reshape(-1)[p.offset : p.offset + p.size].reshape(p.shape) for p in pieces})
        return base if base.id == name else None

    def _left_out(self, given: Mapping[str, Array], names: list[str]) -> Array:
        kept = self._residual.state if self._residual else {}
        return joined({name: kept.get(name, np.zeros(given[name].shape, np.float32)) for name in names}, names)

    def _hold(self, held: Bases) -> None:
        if held != self._held:
            self._put("base", held.now, self._held.now)
            self._put("base before", held.before, self._held.before)
            self._held = held

    def _keep_residual(self, state: Mapping[str, Array]) -> None:
        before, self._residual = self._residual, Base(state) if state else None
        self._put("residual", self._residual, before)

    def _put(self, name: str, base: Base | None, before: Base | None) -> None:
        if base is not before:
            self._outbox.put_received(name, None if base is None else messages.pack(State(_TAG, 0, base.state)))

    def _read(self, name: str) -> Base | None:
        data = self._outbox.received(name)
        message = messages.unpack(data) if data else None
        return Base(message.state) if isinstance(message, State) else None


_TAG = bytes(4)
