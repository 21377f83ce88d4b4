"""What the devices' budgets let them upload: fewer activations where all of them cannot be paid, and how much each order may take.

The hub knows what a device reported last: what is left to it, what its activations cost, and what the rest of the traffic
did. What is left after that rest, for the rounds to come, is spread over the activations that the strategy will still ask
for. Where it does not carry them in full, some are not asked for at all: a small message costs nearly as much around it as a
large one. The others get an allowance, within which the device drops samples, or codes more coarsely.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from edge.wire.budget import APART, NAMES, PERIODS, WAYS
from hub.devices import Device
from hub.strategies.base import Order

TARGET = 0.98
"""Share of what is left that is planned with."""
MESSAGE_BYTES = 250
"""On the wire around an activation: its head, frames, MQTT, TCP and IP, acknowledgements."""
ROUND_BYTES = 1500
"""Of a round's orders, reports and acknowledgements, as long as nothing has been measured."""
BITS = {"float32": 32.0, "float16": 16.0}
"""Of an element, as long as nothing has been measured."""
CODED_BITS = 1.0
DARK_BYTES = 6_000
"""With less left a device may have no connection any more: it must stay below its budget whatever has to be sent again."""
COARSER = 3.0
"""How much shorter a device can make activations that all have to go up."""
WEIGHTS_OVERHEAD = 1.1
"""On the wire, of a byte of weights, gradients or activations."""
END_BYTES = 2_500
"""Left over for the end: with less a device gives its connection up, so that nothing has to be sent beyond its budget."""
LEAST_SHARE = 0.05
"""Of the activations that a strategy asks for; with less, a device's allowance is spent on few samples each."""


@runtime_checkable
class Forecasting(Protocol):
    """A strategy that knows how many activations it will still ask for."""

    def uploads_left(self, state: Any, device: str) -> float:
        """Expected number, from the present turn on."""


class Paid(NamedTuple):
    """What of an order's uploads a device can pay."""

    send: tuple[int, ...]
    allowance: int | None = None
    """Bytes that they may take; None: any number."""
    whole: bool = True
    """Whether the order can be carried out; else the device is not told of it."""


class Means:
    """Of a fleet in one run.

    Args:
        default: amounts of the hub's configuration, for devices that have none of their own.
        rounds: of the run.
        batch: samples of a batch.
        elements: of one sample's smashed data.
        codec: of the activations.
        given: bytes of the weights that a device is asked for, by part.
    """

    def __init__(
        self,
        default: Mapping[str, float],
        *,
        rounds: int,
        batch: int,
        elements: int,
        codec: str,
        given: Mapping[str, int] | None = None,
    ) -> None:
        self._default, self._rounds, self._batch = dict(default), rounds, batch
        self._sample_bytes = elements * BITS.get(codec, CODED_BITS) / 8
        self._given = dict(given or {})
        self._control: dict[str, _Control] = {}
        self._owed: dict[str, float] = {}
        """By device: what is left over of a share of an activation that was not asked for."""

    def amounts(self, device: Device) -> dict[str, float]:
        """The limits that hold for a device."""
        facts = device.hello.facts if device.hello else {}
        own = {name: float(facts[key]) for name in NAMES if (key := f"budget.{name}") in facts}
        return {**self._default, **own}

    def spent(self, device: Device) -> bool:
        """Whether a device has so little left that it may not come back."""
        amounts = self.amounts(device)
        lefts = [self._left(device, amounts, way) for way in WAYS]
        return any(rest is not None and rest < DARK_BYTES for rest in lefts)

    def counts_evaluation(self, device: Device) -> bool:
        """Whether test samples that go up are taken off what a device may upload."""
        amounts = self.amounts(device)
        return APART not in amounts and any(name.startswith("up_") for name in amounts)

    def evaluates(self, device: Device, *, last: bool) -> bool:
        """Whether a device may be asked for its test samples, coded as in training."""
        if not self.counts_evaluation(device):
            return True
        amounts = self.amounts(device)
        rest, samples = self._left(device, amounts), device.hello.test_samples if device.hello else 0
        return last and rest is not None and samples * self._sample(device) + MESSAGE_BYTES < rest

    def pay(self, device: Device, order: Order, round_number: int, expected: float | None) -> Paid:
        """What of an order's uploads a device can pay.

        Args:
            device: that is told.
            order: as the strategy has it.
            round_number: from 0.
            expected: activations that the strategy will ask for from here on; None: those of this order in every round to come.
        """
        if not self._bears(device, order):
            return Paid(order.send, whole=False)
        rest = self._left(device, self.amounts(device))
        if rest is None or not order.send:
            return Paid(order.send)
        rounds = max(1, self._rounds - round_number)
        free = max(0.0, TARGET * rest - END_BYTES - rounds * self._round(device, round_number))
        asked = len(order.send)
        expected = max(asked, expected if expected is not None else asked * rounds)
        full = self._batch * self._sample(device) + MESSAGE_BYTES
        share = min(1.0, max(LEAST_SHARE, free / (expected * full)))
        send = self._some(device.name, order, share)
        return Paid(send, int(free * len(send) / max(expected * share, len(send), 1)))

    def _some(self, name: str, order: Order, share: float) -> tuple[int, ...]:
        """That share of the steps that upload, spread evenly over all of them; all where each waits for a gradient."""
        if share >= 1.0 or order.kind == "exchange":
            return order.send
        chosen = []
        owed = self._owed.get(name, 0.5)
        for step in order.send:
            owed += share
            if owed >= 1.0:
                owed -= 1.0
                chosen.append(step)
        self._owed[name] = owed
        return tuple(chosen)

    def _bears(self, device: Device, order: Order) -> bool:
        """Whether weights and gradients of an order find room in what is left both ways."""
        amounts = self.amounts(device)
        exchanged = len(order.send) * (self._batch * self._sample(device) + MESSAGE_BYTES)
        exchanged *= order.kind == "exchange"
        spent = _spending(device)
        if exchanged and spent.get("messages"):  # gradients are denser than activations
            exchanged = max(exchanged, len(order.send) * spent.get("down_spent", 0) / spent["messages"])
        up = sum(self._given.get(part, 0) for part in order.give) + exchanged / COARSER
        down = sum(array.nbytes for array in (order.state or {}).values()) + exchanged
        return all(
            (rest := self._left(device, amounts, way)) is None or need * WEIGHTS_OVERHEAD + ROUND_BYTES <= rest
            for way, need in (("up", up), ("down", down))
        )

    def _left(self, device: Device, amounts: Mapping[str, float], way: str = "up") -> float | None:
        given = [amounts[name] for period in PERIODS if (name := f"{way}_per_{period}") in amounts]
        if not given:
            return None
        reported = _spending(device).get(f"{way}_left")
        return float(min(given) if reported is None else reported)

    def _sample(self, device: Device) -> float:
        spent = _spending(device)
        samples = spent.get("samples") or 0
        # What was not sent again cost nothing, and is as likely not to be next time.
        samples += samples and device.totals.get("known", {}).get("skipped", 0)
        return spent["bytes"] / samples if samples else self._sample_bytes

    def _round(self, device: Device, round_number: int) -> float:
        """What a round costs beside its activations: the latest that is known, where it is dearer than the mean so far."""
        spent = _spending(device)
        if not spent or not round_number:
            return ROUND_BYTES
        activations = WEIGHTS_OVERHEAD * spent.get("bytes", 0) + MESSAGE_BYTES * spent.get("messages", 0)
        control = max(0.0, spent.get("up_spent", 0) - activations)
        before = self._control.setdefault(device.name, _Control(round_number, control, 0.0))
        if round_number > before.round:
            lately = (control - before.bytes) / (round_number - before.round)
            before = self._control[device.name] = _Control(round_number, control, lately)
        return max(control / round_number, before.lately)


class _Control(NamedTuple):
    round: int
    bytes: float
    """All that was not activations until then."""
    lately: float
    """Of the last round."""


def _spending(device: Device) -> Mapping[str, Any]:
    found = device.totals.get("budget", {})
    return found if isinstance(found, Mapping) else {}
