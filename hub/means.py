"""What the devices' budgets let them upload: fewer activations where all of them cannot be paid, and how much each order may take.

The hub knows what a device reported last: what is left to it, what its activations cost, and what the rest of the traffic
did. What is left after that rest, for the rounds to come, is spread over the activations that the strategy will still ask
for. Where it does not carry them in full, some are not asked for at all: a small message costs nearly as much around it as a
large one. Where a strategy can choose among its devices (`Forecasting`), those rest that cannot pay, and others are asked
instead. Who is asked gets an allowance, within which the device drops samples, or codes more coarsely.
"""

from collections.abc import Callable, Mapping
from statistics import median
from typing import Any, NamedTuple

from edge.wire.budget import APART, NAMES, PERIODS, WAYS
from hub.devices import Device
from hub.strategies.base import Order, Outlook

TARGET = 0.98
"""Share of what is left that is planned with."""
MESSAGE_BYTES = 250
"""On the wire around an activation: its head, frames, MQTT, TCP and IP, acknowledgements."""
ROUND_BYTES = 1500
"""Of a round's orders, reports and acknowledgements, as long as nothing has been measured."""
BITS = {"float32": 32.0, "float16": 16.0}
"""Of an element, as long as nothing has been measured."""
CODED_BITS = 1.0
DARK_BYTES = {"up": 6_000, "down": 14_000}
"""With less left a device may have no connection any more: it must stay below its budget whatever has to be sent again."""
COARSER = 3.0
"""How much shorter a device can make activations that all have to go up."""
WEIGHTS_OVERHEAD = 1.1
"""On the wire, of a byte of weights, gradients or activations."""
TURN_BYTES = 300
"""Each way, at least, of one order and its report, with frames, acknowledgements and headers."""
ORDER_BYTES = 500
"""The same up, with its share of all else, as it was measured."""
CONTROL_SHARE = 0.4
"""Of a budget, for orders and reports at most, where a strategy can do with fewer."""
START_BYTES = {"up": 4_500, "down": 14_500}
"""A connection, what both sides say of themselves, and what is left over at the end."""
REPEATED = 1.2
"""Bytes on the wire of a byte that the hub has seen since a device's report: TCP sends some again."""
END_BYTES = 2_500
"""Left over for the end: with less a device gives its connection up, so that nothing has to be sent beyond its budget."""
LEAST_SHARE = 0.05
"""Of the activations that a strategy asks for; with less, a device's allowance is spent on few samples each."""


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
        weights: at most so many bytes of weights an order of a device takes, (up, down).
    """

    def __init__(
        self,
        default: Mapping[str, float],
        *,
        rounds: int,
        batch: int,
        elements: int,
        codec: str,
        weights: Callable[[str, Order], tuple[float, float]] = lambda _name, _order: (0.0, 0.0),
    ) -> None:
        self._default, self._rounds, self._batch = dict(default), rounds, batch
        self._sample_bytes = elements * BITS.get(codec, CODED_BITS) / 8
        self._weights = weights
        self._control: dict[str, _Control] = {}
        self._owed: dict[str, float] = {}
        """By device: what is left over of a share of an activation that was not asked for."""

    def amounts(self, device: Device) -> dict[str, float]:
        """The limits that hold for a device."""
        facts = device.hello.facts if device.hello else {}
        own = {name: float(facts[key]) for name in NAMES if (key := f"budget.{name}") in facts}
        return {**self._default, **own}

    def too_little(self, device: Device, orders: int) -> str | None:
        """A sentence where what a device may spend in the run carries not even so many orders and reports; else None."""
        amounts = self.amounts(device)
        for way, start in START_BYTES.items():
            name, least = f"{way}_per_run", start + TURN_BYTES * orders
            if amounts.get(name, least) < least:
                return (
                    f'device {device.name!r}: {name} = "{amounts[name] / 1000:g} kB" carries not even the control messages of '
                    f'{orders} orders: the smallest that works is "{-(-least // 1000)} kB"'
                )
        return None

    def spent(self, device: Device) -> bool:
        """Whether a device has so little left that it may not come back."""
        amounts = self.amounts(device)
        lefts = [self._left(device, amounts, way) for way in WAYS]
        return any(rest is not None and rest < least for rest, least in zip(lefts, DARK_BYTES.values(), strict=True))

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
        free = self._free(device, round_number)
        if free is None or not order.send:
            return Paid(order.send)
        asked = len(order.send)
        rested = expected is not None  # who cannot pay has not been asked
        expected = max(asked, expected if expected is not None else asked * self._rounds_left(round_number))
        share = self._share(device, free, expected)
        every = rested or order.kind == "exchange"
        send = order.send if every else tuple(step for step in order.send if self._due(device.name, share))
        return Paid(send, int(free * len(send) / max(expected * share, len(send), 1)))

    def outlook(self, devices: Mapping[str, Device], round_number: int, expected: Mapping[str, float]) -> Outlook:
        """What can be paid, and who rests in a turn: each device as often as it must with what it has left.

        Args:
            devices: that are there, by name.
            round_number: from 0.
            expected: activations that each will be asked for from here on.
        """
        resting, payable, control, orders = [], [], [], []
        for name, device in sorted(devices.items()):
            free = self._free(device, round_number)
            if free is None or expected[name] <= 0:
                continue
            share = self._share(device, free, expected[name])
            payable.append(share)
            rest = TARGET * (self._left(device, self.amounts(device)) or 0.0) - END_BYTES
            control.append(
                min(1.0, self._rounds_left(round_number) * self._round(device, round_number) / max(rest, 1.0))
            )
            orders.append(max(0.0, CONTROL_SHARE * (rest - START_BYTES["up"]) / ORDER_BYTES))
            if not self._due(name, share):
                resting.append(name)
        if not payable:
            return Outlook()
        return Outlook(tuple(resting), round(median(payable), 3), round(median(control), 3), int(median(orders)))

    def _free(self, device: Device, round_number: int) -> float | None:
        """Bytes for all activations to come; None: any number."""
        rest = self._left(device, self.amounts(device))
        if rest is None:
            return None
        return max(0.0, TARGET * rest - END_BYTES - self._rounds_left(round_number) * self._round(device, round_number))

    def _rounds_left(self, round_number: int) -> int:
        return max(1, self._rounds - round_number)

    def _share(self, device: Device, free: float, expected: float) -> float:
        """Of so many activations those that can be paid in full."""
        full = self._samples(device) * self._sample(device) + MESSAGE_BYTES
        return min(1.0, max(LEAST_SHARE, free / (expected * full)))

    def _due(self, name: str, share: float) -> bool:
        """Whether the next of a device's activations is one of that share, spread evenly over all of them."""
        if share >= 1.0:
            return True
        owed = self._owed.get(name, 0.5) + share
        self._owed[name] = owed - (owed >= 1.0)
        return owed >= 1.0

    def _bears(self, device: Device, order: Order) -> bool:
        """Whether weights and gradients of an order find room in what is left both ways."""
        amounts = self.amounts(device)
        exchanged = len(order.send) * (self._samples(device) * self._sample(device) + MESSAGE_BYTES)
        exchanged *= order.kind == "exchange"
        spent = _spending(device)
        if exchanged and spent.get("messages"):  # gradients are denser than activations
            exchanged = max(exchanged, len(order.send) * spent.get("down_spent", 0) / spent["messages"])
        up, down = self._weights(device.name, order)
        up, down = up + exchanged / COARSER, down + exchanged
        return all(
            (rest := self._left(device, amounts, way)) is None or need * WEIGHTS_OVERHEAD + ROUND_BYTES <= rest
            for way, need in (("up", up), ("down", down))
        )

    def _left(self, device: Device, amounts: Mapping[str, float], way: str = "up") -> float | None:
        given = [amounts[name] for period in PERIODS if (name := f"{way}_per_{period}") in amounts]
        if not given:
            return None
        reported = _spending(device).get(f"{way}_left")
        rest = float(min(given) if reported is None else reported)
        return max(0.0, rest - REPEATED * device.since_report[way])

    def _samples(self, device: Device) -> float:
        """Of a batch, on the average: the last of an epoch may be short."""
        every = device.hello.samples if device.hello else 0
        return every / -(-every // self._batch) if every else self._batch

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
