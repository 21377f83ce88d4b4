"""The hub's side of `edge.wire.weights`: which base each device is known to hold, and what is coded against it.

    told      orders of a turn get their weights as differences to their devices' bases
    take      what a device gives is put together again
    settle    the turn is over: who reported holds what its order made of its base
    whole     a device says that it does not hold its base: the same order again, with everything in it

A base moves only with what the journal has, so a hub that was killed codes the same bytes once more. Orders of an
evaluation move none: they bring the weights as they are (or coded, where a device's budget pays for them too), and their
bytes are counted apart; a base they moved would shift the bytes of training there.

Each base is held once, however many devices have it: all that took part in every turn so far have the same.
"""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from edge.wire import messages
from edge.wire.frames import WireError
from edge.wire.manifest import PARTS
from edge.wire.weights import EXACT, Array, Base, Difference, codable, difference, joined, parts_of
from hub.strategies.base import Lower, Order
from hub.terms import Shapes

FAR = 2.0
"""How much larger than the others' a difference may be without a finer step."""
_FINEST = 1e-3
_KEPT_BITS = 19.0
"""Of a value that `topk` keeps, and its place, beside what its rarity takes."""


@dataclass
class _Open:
    """An order whose end is awaited."""

    number: int
    now: Base | None
    """What its device makes of its base."""
    give: tuple[str, ...]


class Weights:
    """The bases of a run's devices.

    Args:
        codec: of weights, both ways; `float32` codes nothing and holds nothing.
        shapes: which weights there are, and with which ones devices begin.
    """

    def __init__(self, codec: str, shapes: Shapes) -> None:
        self._codec = codec
        self._given = {part: shapes.given.get(part, {}) for part in (*PARTS, "end")}
        self._parts = parts_of((name, part) for part in PARTS for name in self._given[part])
        start = codable(shapes.start, self._parts)
        self._start = Base(start) if start else None
        self._bases: dict[str, Base] = {}
        self._open: dict[str, _Open] = {}
        self._whole: dict[str, tuple[int, Lower]] = {}
        """By device the number of its last order with a difference, and what it would have brought whole."""

    def told(self, orders: Mapping[str, messages.Order]) -> dict[str, messages.Order]:
        """The orders of a turn as they go out."""
        self._open = {}
        moved = {name: order for name, order in orders.items() if order.state or order.give}
        if self._codec == EXACT or not moved:
            return dict(orders)
        wanted = {name: self._wanted(name, order) for name, order in moved.items()}
        sizes = {name: _size(values) for name, (_, values) in wanted.items()}
        usual = statistics.median([size for size in sizes.values() if size] or [0.0])
        coded: dict[tuple[int, str, bytes], tuple[Difference, Base]] = {}
        told = dict(orders)
        for name, order in moved.items():
            parts, values = wanted[name]
            codec = finer(self._codec, sizes[name] / usual if usual else 1.0)
            sent = self._coded(self._base(name), parts, values, codec, coded)
            told[name] = self._sent(name, order, *sent)
        return told

    def evaluated(self, name: str, order: messages.Order) -> messages.Order:
        """An order of an evaluation with its weights coded; no base moves."""
        parts, values = self._wanted(name, order)
        if self._codec == EXACT or not parts:
            return order
        change, now = self._coded(self._base(name), parts, values, self._codec, {})
        if change is None or now is None:
            return order
        self._whole[name] = order.order, order.state
        return replace(order, state=_without(order.state, now.names(parts, self._parts)), difference=change)

    def whole(self, name: str, order: messages.Order) -> messages.Order | None:
        """The order with everything in it, for a device that does not hold its base; None where it was whole already."""
        number, state = self._whole.get(name, (None, {}))
        if order.difference is None or number != order.order:
            return None
        if order.weights != EXACT:
            new = codable(state, self._parts)
            self._open[name] = _Open(order.order, Base(new) if new else None, order.give)
        return replace(order, state=dict(state), difference=None)

    def take(self, name: str, message: messages.State) -> Mapping[str, Array]:
        """The weights that a device gave.

        Raises:
            WireError: they are a difference to another base than the device was told, or of another length.
        """
        open_, change = self._open.get(name), message.difference
        if open_ is None or open_.number != message.order:
            if change is not None:
                raise WireError(f"weights as a difference to {change.base:08x}; they were wanted whole", "base")
            return message.state
        now = open_.now if change is not None else None
        if change is not None and (now is None or now.id != change.base):
            held = f"{now.id:08x}" if now else "none"
            raise WireError(f"weights as a difference to {change.base:08x}, the base of this order is {held}", "base")
        changed = now.changed(change, self._parts) if now and change else {}
        if twice := changed.keys() & message.state.keys():
            raise WireError(f"weights {', '.join(sorted(twice))} come twice", "fields")
        if new := codable(message.state, self._parts):
            open_.now = (now or Base({})).updated(new)
        return {**message.state, **changed}

    def settle(self, reported: Mapping[str, object], gave: Mapping[str, object]) -> None:
        """The turn is over: who reported, and gave what it was asked for, holds what its order made of its base."""
        for name, open_ in self._open.items():
            if open_.now is not None and name in reported and (name in gave or not open_.give):
                self._bases[name] = open_.now
        self._open = {}

    def bytes_of(self, name: str, order: Order) -> tuple[float, float]:
        """At most so many bytes of weights an order takes, (up, down): of what is coded an estimate that is rather too high."""
        wanted = [
            key
            for part in (*order.give, *(["end"] if order.kind == "local" and order.give else []))
            for key in self._given.get(part, {})
        ]
        shapes = {key: shape for part in self._given.values() for key, shape in part.items()}
        base = self._base(name) if self._codec != EXACT else None
        known = base.state if base else {}
        up = sum(math.prod(shapes[key]) * (bits_of(self._codec) if key in known else 32) for key in wanted)
        down = sum(
            array.size * (bits_of(self._codec) if key in known else 8 * array.itemsize)
            for key, array in (order.state or {}).items()
        )
        return up / 8, down / 8

    def save(self) -> dict[str, Any]:
        """The bases between two turns, for the checkpoint."""
        held = {base.id: base for base in self._bases.values()}
        return {
            "of": {name: base.id for name, base in self._bases.items()},
            "bases": {
                name: {key: torch.from_numpy(array) for key, array in base.state.items()} for name, base in held.items()
            },
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        """Take what `save` gave."""
        held = {
            name: Base({key: tensor.numpy() for key, tensor in state.items()})
            for name, state in saved.get("bases", {}).items()
        }
        self._bases = {name: held[base] for name, base in saved.get("of", {}).items()}

    def _base(self, name: str) -> Base | None:
        return self._bases.get(name, self._start)

    def _wanted(self, name: str, order: messages.Order) -> tuple[tuple[str, ...], Array]:
        """The parts that can be coded, and their difference to the device's base."""
        base, new = self._base(name), codable(order.state, self._parts)
        parts = base.whole_parts(new, self._parts) if base else ()
        if base is None or not parts:
            return (), np.empty(0, np.float32)
        names = base.names(parts, self._parts)
        return parts, joined(new, names) - base.flat(names)

    def _coded(
        self,
        base: Base | None,
        parts: tuple[str, ...],
        values: Array,
        codec: str,
        done: dict[tuple[int, str, bytes], tuple[Difference, Base]],
    ) -> tuple[Difference | None, Base | None]:
        """The difference as it is sent, and the base that a device makes of it; the same for devices that hold the same."""
        if base is None:
            return None, None
        if not parts:
            return Difference(base.id), base
        key = (base.id, codec, values.tobytes())
        if key not in done:
            try:
                change = difference(base, parts, values, codec)
            except WireError:
                return Difference(base.id), base  # what the codec cannot carry goes whole
            done[key] = change, base.updated(base.changed(change, self._parts))
        return done[key]

    def _sent(self, name: str, order: messages.Order, change: Difference | None, now: Base | None) -> messages.Order:
        coded = now.names(change.parts, self._parts) if change and now else []
        state = _without(order.state, coded)
        if new := codable(state, self._parts):
            now = (now or Base({})).updated(new)
        self._open[name] = _Open(order.order, now, order.give)
        self._whole[name] = order.order, order.state
        return replace(order, state=state, weights=self._codec, difference=change)


def finer(codec: str, ratio: float) -> str:
    """The codec for a difference that is so much larger than the others': with a step as fine as theirs.

    A device that was away has more to catch up with, and what coding leaves out of it enters the mean with its weights.
    """
    name, _, step = codec.partition(":")
    if ratio <= FAR or name not in ("entropy", "quantised"):
        return codec
    return f"{name}:{max(_FINEST, float(step) / ratio):.6f}"


def bits_of(codec: str) -> float:
    """Bits of an element, at most or about: for steps of K deviations the entropy that no distribution exceeds."""
    name, _, parameter = codec.partition(":")
    if name in ("float32", "float16"):
        return float(name.removeprefix("float"))
    amount = float(parameter)
    if name == "uniform":
        return amount
    if name in ("topk", "randtopk"):
        return min(32.0, amount * (_KEPT_BITS - math.log2(amount)))
    # Rounding adds half a step at most, and 1/12 is that of a uniform density.
    return 0.5 * math.log2(2 * math.pi * math.e * ((1 / amount + 0.5) ** 2 + 1 / 12))


def _size(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64)))) if values.size else 0.0


def _without(state: Lower, names: list[str]) -> dict[str, Array]:
    return {name: array for name, array in state.items() if name not in names}
