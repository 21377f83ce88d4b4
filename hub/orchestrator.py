"""Who does what next, when a round ends, and what happens to the late.

    round ─┬─ turn: orders out ─▶ activations in, learned in a fixed order ─▶ reports in ─┐
           │         ▲                                                                   │
           │         └──────────── the strategy settles and gives the next turn ◀────────┘
           └─ evaluation ─▶ metrics ─▶ checkpoint

The strategy decides; this file carries out, and `intake.py` takes in what comes. A turn ends when every device that was told something has reported, or
at the deadline without the late; a device that is gone is waited for no longer than a grace period, and one that
comes back is told the current order again. With `order = "fixed"` every turn waits for everybody instead.

What a turn comes to is noted in the journal before it is acknowledged; a hub that was killed does the entries again
(`_redo`), and goes on with the open turn where it was.
"""

import logging
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch

from edge.wire import messages
from edge.wire.coder import Coder, stream_codec
from edge.wire.messages import Activation, Gradient
from hub import journal
from hub.devices import Arrived, Devices, Left, Unreadable
from hub.intake import Intake
from hub.journal import Journal, NoJournal, Opened, Recorded
from hub.known import MISSED, KnownSamples
from hub.means import Means, Paid
from hub.store import StoreError, patiently
from hub.strategies.base import Batch, Fleet, Forecasting, Lower, Member, Order, Outlook, Quiet, Strategy
from hub.strategies.base import Learned as Lesson
from hub.terms import Shapes, Terms
from hub.turn import Turn
from hub.weights import Weights

log = logging.getLogger("cutlayer.hub")

POLL_SECONDS = 0.2


class FleetError(RuntimeError):
    """The run cannot go on with the devices that are there; the message says how many and how many are wanted."""


@dataclass
class Learned:
    """What the hub learned in one round."""

    losses: list[float] = field(default_factory=list)
    selected: dict[str, int] = field(default_factory=dict)
    late: set[str] = field(default_factory=set)
    samples: int = 0
    states: int = 0
    """Weights that devices gave."""
    served: int = 0
    """Of the samples, those that were not sent again."""
    seconds: float = 0.0
    """What the round took without its evaluation."""


class Orchestrator:
    """Carries a strategy out on a fleet."""

    def __init__(
        self,
        devices: Devices,
        strategy: Strategy,
        terms: Terms,
        shapes: Shapes,
        next_order: Callable[[], int],
        *,
        kept: Journal | NoJournal | None = None,
        recorded: Recorded | None = None,
        known: KnownSamples | None = None,
        now: Callable[[], float] = time.monotonic,
        say: Callable[[str, str], None] = lambda _name, _state: None,
    ) -> None:
        self._kept = kept or NoJournal()
        self._recorded = recorded or Recorded()
        self._known = known or KnownSamples()
        self._fixed = terms.order == "fixed"
        self._devices = devices
        self._strategy = strategy
        self._terms = terms
        self._shapes = shapes
        self._bundle = bytes.fromhex(shapes.bundle[:8])
        self._next_order = next_order
        self._now = now
        self._say = say
        self.weights = Weights(terms.weights_codec, shapes)
        """What the devices hold of weights; a checkpoint needs it."""
        self._means = Means(
            terms.budget,
            rounds=terms.rounds,
            batch=terms.batch,
            elements=math.prod(shapes.smashed),
            codec=terms.codec,
            weights=self.weights.bytes_of,
        )
        self._coders: dict[str, Coder] = {}
        """Of the gradients, one a device."""
        self._intake = Intake(devices, terms, shapes, self._kept, self.weights, now=now, say=say)

    @property
    def in_turn(self) -> bool:
        """Whether there is something of a turn to be done again."""
        return bool(self._recorded)

    # The fleet --------------------------------------------------------------------------------------------------

    def gather(self, watch: Callable[[], None] = lambda: None) -> None:
        """Wait for the devices; go on without those who do not come, if the others are enough.

        Args:
            watch: called while waiting; may raise when it knows that nobody will come.

        Raises:
            FleetError: too few came in time.
        """
        terms, until = self._terms, self._now() + self._terms.gather_seconds
        while (there := len(self._devices.online())) < terms.devices and (
            self._now() < until or (terms.patient and there < terms.minimum_devices)
        ):
            watch()
            self._pump()
        present = self._devices.online()
        if len(present) < terms.minimum_devices:
            raise FleetError(
                f"{len(present)} of {terms.devices} devices came within {terms.gather_seconds:g} s; "
                f"at least {terms.minimum_devices} are needed"
            )

    def facts(self) -> list[dict[str, Any]]:
        """What the checkpoint keeps of the devices that are there, sorted by name."""
        hellos = [self._devices.known[name].hello for name in self._devices.online()]
        return [
            {"name": hello.name, "samples": hello.samples, "test_samples": hello.test_samples}
            for hello in hellos
            if hello is not None
        ]

    def fleet(self, facts: list[dict[str, Any]]) -> Fleet:
        """The fleet as a strategy sees it; devices without training samples are only evaluated."""
        batch = self._terms.batch
        return Fleet(
            tuple(
                Member(device["name"], device["samples"], -(-device["samples"] // batch))
                for device in facts
                if device["samples"]
            )
        )

    def check_budgets(self, state: Any, fleet: Fleet) -> None:
        """Refuse, before the run begins, what cannot even be ordered and reported.

        Raises:
            FleetError: naming each device, what it may spend, and what would do.
        """
        if isinstance(self._strategy, Forecasting):
            state = self._strategy.foresee(state, self._outlook(state, fleet.names, 0))
        quiet = self._quiet(state)
        others = self._terms.rounds - quiet
        if isinstance(self._strategy, Forecasting):
            others = math.ceil(self._strategy.orders_to_come(state))
        orders = -(-quiet // self._terms.rounds_per_order) + others
        found = [self._means.too_little(self._devices.expect(name), orders) for name in fleet.names]
        if problems := [sentence for sentence in found if sentence]:
            raise FleetError("\n".join(problems))

    def present(self, fleet: Fleet) -> list[str]:
        """The devices of the fleet that are there; waits while they are too few, and with a fixed order for all to have come."""
        warned = False
        self._pump(0.0)
        wanted = len(fleet) if self._fixed else min(self._terms.minimum_devices, len(fleet))
        while True:
            names = [
                name for name in (self._devices.met() if self._fixed else self._devices.online()) if name in fleet.names
            ]
            if len(names) >= wanted:
                return names
            if all(self._means.spent(self._devices.known[name]) for name in fleet.names if name in self._devices.known):
                raise FleetError(
                    f"the budgets of all {len(fleet)} devices are spent: the run can go on with --resume when they have more"
                )
            if not warned:
                log.warning("%d devices are there, %d are needed: waiting", len(names), wanted)
                warned = True
            self._pump()

    # A round ----------------------------------------------------------------------------------------------------

    def train(self, state: Any, fleet: Fleet, round_number: int) -> tuple[Any, Learned]:
        """One round of the strategy: turn after turn until it says the round is over."""
        learned = Learned()
        number = 0
        while True:
            before = self._recorded.opened()
            present = list(before.present) if before else self.present(fleet)
            outlook = before.outlook if before else self._outlook(state, present, round_number)
            if isinstance(self._strategy, Forecasting):
                state = self._strategy.foresee(state, outlook)
            state, orders = self._strategy.turn(state, round_number, number, present)
            if orders is None:
                return self._strategy.end_round(state, round_number), learned
            covered = self._covered(state, round_number)
            if not covered:
                orders = {}
            paid = self._paid(state, orders, round_number)
            if before is None:
                before = self._note_turn(round_number, number, present, outlook, orders, paid)
                turn = self._open(orders, before, paid, fleet, covered)
                self._tell(turn)
            else:
                turn = self._open(orders, before, paid, fleet, covered)
                state = self._redo(state, turn, learned)
            state = self._carry_out(state, turn, learned)
            state = self._strategy.settle(
                state,
                round_number,
                number,
                {name: report.metrics for name, report in turn.reports.items()},
                turn.states,
            )
            self.weights.settle(turn.reports, turn.states)
            learned.late.update(turn.given_up)
            learned.states += len(turn.states)
            number += 1

    def evaluate(self, state: Any, fleet: Fleet, round_number: int) -> dict[str, float]:
        """Accuracy of each device that is there on its own test samples, through the hub's predictions for it."""
        last = round_number + 1 == self._terms.rounds
        # With a fixed order nobody is left out here either: weights to be evaluated with stay on the device.
        there = sorted({*self.present(fleet), *self._devices.met()}) if self._fixed else self._devices.online()
        present = [name for name in there if self._means.evaluates(self._devices.known[name], last=last)]
        stands = {name: self._strategy.stand(state, name, present) for name in present}
        given = self._fetch({stand.donor for stand in stands.values() if stand.donor}, round_number)
        orders = {
            name: self._order(
                self._evaluation(name, given.get(stand.donor or "", stand.lower)), round_number, self._next_order()
            )
            for name, stand in stands.items()
        }
        orders |= {
            name: self.weights.evaluated(name, replace(order, codec=self._terms.codec))
            for name, order in orders.items()
            if self._means.counts_evaluation(self._devices.known[name])
        }
        orders = {name: order for name, order in orders.items() if order.steps}
        turn = self._begin(orders, round_number, kept=False)
        self._tell(turn)
        right = dict.fromkeys(orders, 0)
        total = dict.fromkeys(orders, 0)
        while turn.open():
            for arrived in self._receive(turn):
                message = cast("Activation", arrived.message)
                served = stands[arrived.device].donor or arrived.device
                predicted = self._strategy.predict(state, served, torch.from_numpy(message.smashed)).argmax(1)
                right[arrived.device] += int((predicted.numpy() == message.labels).sum())
                total[arrived.device] += len(message.labels)
                self._devices.done(arrived)
        # Of some of its test samples only, where its round had no means for more: that is no accuracy.
        cut = {name for name, report in turn.reports.items() if report.metrics.get("cut")}
        return {
            name: right[name] / total[name] for name in orders if total[name] and name not in {*turn.given_up, *cut}
        }

    def _evaluation(self, name: str, lower: Lower | None) -> Order:
        hello = self._devices.known[name].hello
        steps = -(-hello.test_samples // self._terms.batch) if hello else 0
        return Order(kind="evaluate", first_step=0, steps=steps, send=tuple(range(steps)), state=lower)

    def _fetch(self, names: set[str], round_number: int) -> dict[str, Lower]:
        """The lower segments of these devices, of those that come in time."""
        order = Order(kind="forward", first_step=0, steps=0, give=("lower",))
        orders = {name: self._order(order, round_number, self._next_order()) for name in sorted(names)}
        turn = self._begin(orders, round_number, kept=False)
        self._tell(turn)
        while turn.open():
            self._receive(turn)
        return dict(turn.states)

    def farewell(self, reason: str, awaited: int = 0, seconds: float = 5.0) -> None:
        """Tell every device that the run is over, and give the words time to arrive.

        Args:
            reason: why.
            awaited: so many are to hear it, also those that are still coming back; they have the same time.
            seconds: the longest it may take.
        """
        told: set[str] = set()
        until = self._now() + seconds
        while self._now() < until:
            for name in set(self._devices.online()) - told:
                self._devices.send(name, messages.Goodbye(reason), urgent=True)
                told.add(name)
            if len(told) >= awaited and self._devices.idle():
                return
            self._pump()

    # A turn -----------------------------------------------------------------------------------------------------

    def _paid(self, state: Any, orders: Mapping[str, Order], round_number: int) -> dict[str, Paid]:
        """What of the orders' uploads the devices can pay."""
        paid = {}
        for name, order in orders.items():
            device = self._devices.expect(name)
            left = self._strategy.uploads_left(state, name) if isinstance(self._strategy, Forecasting) else None
            paid[name] = self._means.pay(device, order, round_number, left)
        return paid

    def _outlook(self, state: Any, present: Collection[str], round_number: int) -> Outlook:
        """What the devices can pay, and who shall not be asked because others can better pay."""
        if not isinstance(self._strategy, Forecasting):
            return Outlook()
        devices = {name: self._devices.expect(name) for name in present}
        expected = {name: self._strategy.uploads_left(state, name) for name in present}
        return self._means.outlook(devices, round_number, expected)

    def _note_turn(
        self,
        round_number: int,
        number: int,
        present: list[str],
        outlook: Outlook,
        orders: Mapping[str, Order],
        paid: Mapping[str, Paid],
    ) -> Opened:
        """Write down what is about to be said: a hub that is killed must say the same again, under the same numbers."""
        numbers = {name: self._next_order() for name in orders if paid[name].whole}
        sends = {name: paid[name].send for name in numbers if paid[name].send != orders[name].send}
        opened = Opened(round_number, number, tuple(present), numbers, sends, outlook)
        self._kept.append(opened)
        patiently(self._kept.commit)
        return opened

    def _quiet(self, state: Any) -> int:
        return self._strategy.quiet_rounds(state) if isinstance(self._strategy, Quiet) else 0

    def _covered(self, state: Any, round_number: int) -> int:
        """How many rounds the orders of this one cover; 0 where a later one's will: all of them are given in the last."""
        quiet = self._quiet(state)
        if round_number >= quiet:
            return 1
        most = self._terms.rounds_per_order
        return round_number % most + 1 if (round_number + 1) % most == 0 or round_number + 1 == quiet else 0

    def _open(
        self, orders: Mapping[str, Order], opened: Opened, paid: Mapping[str, Paid], fleet: Fleet, covered: int
    ) -> Turn:
        if not opened.orders.keys() <= orders.keys():
            raise StoreError(
                f"the journal does not fit the checkpoint: in turn {opened.turn} of round {opened.round} it has orders for "
                f"{', '.join(opened.orders)}, and the strategy gives some to {', '.join(orders)}"
            )
        orders = {name: replace(orders[name], send=opened.sends.get(name, orders[name].send)) for name in opened.orders}
        messages_out = {
            name: replace(
                self._order(order, opened.round + 1 - covered, opened.orders[name]),
                allowance=paid[name].allowance,
                rounds=covered,
                forget=self._known.owed(name),
                **self._skipping(order),
            )
            for name, order in orders.items()
        }
        seconds = max(1, covered) * self._terms.turn_seconds
        turn = self._begin(self.weights.told(messages_out), opened.round, seconds=seconds)
        turn.expected = sorted(
            ((step, name) for name, order in orders.items() for step in order.send),
            key=lambda item: (item[0], fleet.index(item[1])),
        )
        return turn

    def _order(self, order: Order, round_number: int, number: int) -> messages.Order:
        evaluating = order.kind == "evaluate"
        return messages.Order(
            bundle=self._bundle,
            order=number,
            round=round_number,
            kind=order.kind,
            first_step=order.first_step,
            steps=order.steps,
            send=order.send,
            settings=dict(order.settings),
            codec=self._terms.evaluation_codec if evaluating else self._terms.codec,
            batch=self._terms.batch,
            seed=self._terms.seed,
            run=self._terms.run,
            state=dict(order.state or {}),
            give=order.give,
            beyond=order.beyond,
            complete=self._fixed,
        )

    def _skipping(self, order: Order) -> dict[str, Any]:
        """Not where a gradient is to come back for each sample."""
        if not self._terms.skip_below or not order.send or order.kind not in ("local", "forward"):
            return {}
        return {"skip_below": self._terms.skip_below, "refresh_rounds": self._terms.refresh_rounds}

    def _begin(
        self,
        orders: dict[str, messages.Order],
        round_number: int,
        *,
        kept: bool = True,
        seconds: float | None = None,
    ) -> Turn:
        return Turn(round_number, orders, self._now() + (seconds or self._terms.turn_seconds), kept=kept)

    def _tell(self, turn: Turn) -> None:
        for name, order in turn.orders.items():
            self._devices.send(name, order, urgent=True)
            self._say(name, order.kind)

    def _carry_out(self, state: Any, turn: Turn, learned: Learned) -> Any:
        together = self._strategy.together
        while turn.open() or turn.ready(together=together):
            for arrived in self._receive(turn):
                message = cast("Activation", arrived.message)
                turn.activations[message.step, arrived.device] = arrived
            ready = turn.ready(together=together)
            if ready:
                turn.take(len(ready))
                self._kept.append(journal.Learned(tuple(ready)))
                state, answers = self._learn(state, ready, learned)
                patiently(self._kept.commit)
                for arrived in ready:
                    if arrived.device in answers:
                        self._devices.send(arrived.device, answers[arrived.device])
                    self._devices.done(arrived)
        return state

    def _redo(self, state: Any, turn: Turn, learned: Learned) -> Any:
        """Do what the journal has of this turn again; what the hub owes its devices, they get when they are back."""
        while (entry := self._recorded.in_turn()) is not None:
            if isinstance(entry, journal.GaveUp):
                turn.give_up(entry.device, entry.reason)
            elif isinstance(entry, journal.Put):
                self._devices.expect(entry.arrived.device)
                self._intake.put(turn, entry.arrived)
            else:
                turn.redo(entry.arrived)
                state, answers = self._learn(state, entry.arrived, learned)
                turn.owed.update(answers)
        return state

    def _learn(self, state: Any, ready: Sequence[Arrived], learned: Learned) -> tuple[Any, dict[str, Gradient]]:
        """One step of the strategy, and the gradients it gives to the devices."""
        served = self._known.served
        whole = {a.device: self._known.complete(a.device, cast("Activation", a.message)) for a in ready}
        came = {name: message for name, message in whole.items() if len(message.labels)}
        learned.served += self._known.served - served
        for name, count in self._known.take_missed().items():
            self._devices.expect(name).refused[MISSED] += count
        if not came:
            return state, {}  # the hub had none of the samples that it was said to know
        first = next(iter(came.values()))
        batches = {
            name: Batch(torch.from_numpy(message.smashed), torch.from_numpy(message.labels))
            for name, message in came.items()
        }
        state, lessons = self._strategy.learn(state, first.round, first.step, batches)
        answers = {}
        for name, message in came.items():
            lesson = lessons[name]
            learned.losses.append(lesson.loss)
            learned.selected[name] = learned.selected.get(name, 0) + 1
            learned.samples += len(message.labels)
            if lesson.gradient is not None:
                answers[name] = self._answer(name, message, lesson)
        return state, answers

    def _answer(self, name: str, message: Activation, lesson: Lesson) -> Gradient:
        gradient = cast("torch.Tensor", lesson.gradient).numpy()
        order, round_number, step = message.order, message.round, message.step
        # Nothing left out of one is added to the next, unlike weights: it is of other samples, and its error grew by half.
        codec = stream_codec(self._terms.codec, self._coders.setdefault(name, Coder()))
        return Gradient(self._bundle, order, round_number, step, gradient, lesson.loss, codec)

    def _receive(self, turn: Turn) -> list[Arrived]:
        ready = turn.ready(together=self._strategy.together)
        return self._intake.receive(turn, 0.0 if ready else POLL_SECONDS)

    def _pump(self, seconds: float = POLL_SECONDS) -> None:
        """Let the network go on while no turn is open."""
        for happening in self._devices.poll(seconds, self._now()):
            if isinstance(happening, Arrived):
                self._devices.known[happening.device].refused["late " + type(happening.message).__name__.lower()] += 1
                self._devices.done(happening)
            elif not isinstance(happening, Unreadable):
                self._say(happening.device, "offline" if isinstance(happening, Left) else "here")
