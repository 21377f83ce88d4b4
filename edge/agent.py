"""How a batch becomes an update: the one loop of a device.

    poll    what arrived becomes a message; an `Order` becomes the device's `Work`
    step    at most one training step: the batch of that step, one graph, new state
    put     what came of it (state, position in the order, messages for the hub) goes into the outbox
    commit  one transaction. Only then …
    publish … do frames and acknowledgements leave

A power cut anywhere repeats a step or a frame, never an effect: batches and noise are pure functions of the order's
seed, the round and the step, so a step that is done again is the same step.

Beside the loop: `uploads.py` how an activation leaves, `checkpoints.py` what a restart goes on from, `beyond.py` what a
device does alone while its hub is away, `work.py` an order in hand, `inquiry.py` what a hub asks of the board.
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.accounts import Accounts
from edge.beyond import Beyond
from edge.bundle import Bundle
from edge.checkpoints import Checkpoints
from edge.effort import Verdict
from edge.inquiry import Inquiries
from edge.known import KNOWN_BYTES, Known
from edge.mailbox import Arrived, Mailbox
from edge.outbox import Outbox, OutboxError
from edge.profiler import Profiler
from edge.purse import Purse
from edge.refusal import RefusalError
from edge.segment import Result, Segment, SegmentError
from edge.sensors import Batch, SensorError, Source
from edge.uploads import Uploads
from edge.weights import Weights
from edge.wire.inquiry import Inquiry
from edge.wire.messages import Goodbye, Gradient, Hello, Order, Refusal, Report, Welcome
from edge.work import Work, brief, end_early, fault_of, name_of

log = logging.getLogger("cutlayer.device")

IDLE_SECONDS = 0.5
"""Longest wait for the network while nothing is due."""

_NO_NOISE = np.random.default_rng(0)
"""For the graphs that draw none."""

RETRY_SECONDS = 5.0
"""How long to wait before a full disk is tried again."""


class Agent:
    """A device: a lower segment, a source of batches, and a mailbox to its hub."""

    def __init__(
        self,
        bundle: Bundle,
        segment: Segment,
        source: Source,
        mailbox: Mailbox,
        outbox: Outbox,
        accounts: Accounts,
        purse: Purse,
        *,
        facts: Mapping[str, str | float],
        once: bool = False,
        checkpoint_steps: int = 8,
        known_bytes: int = KNOWN_BYTES,
        profiler: Profiler | None = None,
    ) -> None:
        self.finished = False
        self._bundle = bundle
        self._segment = segment
        self._source = source
        self._mailbox = mailbox
        self._outbox = outbox
        self._accounts = accounts
        self._purse = purse
        self._weights = Weights(bundle, outbox)
        self._uploads = Uploads(mailbox, purse, accounts, source, Known(source, outbox, known_bytes))
        self._checkpoints = Checkpoints(segment, outbox, accounts, checkpoint_steps)
        self._inquiries = Inquiries(mailbox, outbox, purse, profiler)
        self._facts = facts
        self._once = once
        self._greeted: int | None = None
        self._work, spare = self._checkpoints.take_up()
        self._beyond = Beyond(mailbox, outbox, purse, accounts, self._checkpoints, spare)

    @property
    def work(self) -> Work | None:
        """The order in hand, for those who look on."""
        return self._work

    def run(self, stopped: Callable[[], bool], *, now: Callable[[], float] = time.monotonic) -> None:
        """Work until told to stop, or until the hub says goodbye and the configuration says once.

        Raises:
            RefusalError: another device has this name, or the bundles differ.
        """
        while not (stopped() or (self.finished and self._mailbox.idle)):
            self.turn(now)

    def turn(self, now: Callable[[], float] = time.monotonic) -> None:
        """One turn of the loop: poll, step, commit, publish."""
        for arrived in self._mailbox.poll(self._patience(now()), now()):
            self._take(arrived)
        self._greet()
        if self._inquiries.turn(free=not self._busy):
            pass  # a profile is being made: a step would disturb its figures
        elif self._work:
            self._step(self._work)
        else:
            self._beyond.go_on(self._train_alone)
        self._purse.look(self._mailbox.unsent_bytes)
        if self._commit():
            self._purse.apply()
            self._mailbox.publish(now())

    # What the hub says ------------------------------------------------------------------------------------------

    def _take(self, arrived: Arrived) -> None:
        message = arrived.message
        if isinstance(message, Gradient):
            self._take_gradient(arrived, message)
            return
        if isinstance(message, Order):
            self._take_order(message, arrived.data)
        elif isinstance(message, Refusal):
            self._refusal(message)
        elif isinstance(message, Goodbye):
            log.info("the hub says goodbye: %s", message.reason)
            self._drop_work()
            self._beyond.end()
            self._inquiries.forget()
            self.finished = self._once
        elif isinstance(message, Welcome):
            self._purse.hear(message.budget)
        elif isinstance(message, Inquiry):
            self._inquiries.hear(message)
        else:
            self._mailbox.refused[f"{type(message).__name__} is not for a device"] += 1
        self._mailbox.done(arrived)

    def _take_order(self, order: Order, data: bytes) -> None:
        if self._known(order):
            return  # told again because the hub was not sure we had heard
        order, lacking = self._weights.resolve(order)
        fault = lacking or fault_of(order, self._bundle, self._segment)
        if fault:
            self._mailbox.refused[fault] += 1
            log.warning("refused %s: %s", name_of(order), fault)
            refused = {"refused_order": fault, **({"lacks_base": True} if lacking else {})}
            self._mailbox.send(Report(order.order, order.round, refused), urgent=True)
            return
        self._beyond.make_way(order)
        self._work = Work(order, order.first_step)
        self._accounts.open()
        self._outbox.put_received("order", data)
        self._outbox.put_fact("position", order.first_step)
        fresh = order.run != self._outbox.fact("run")
        if fresh:
            self._start_over(order.run)
            self._purse.begin("run")
        self._uploads.hear(order)
        if fresh or order.round != self._outbox.fact("round"):
            self._outbox.put_fact("round", order.round)
            self._purse.begin("round", order.rounds)
        self._purse.open(order.allowance, evaluation=order.kind == "evaluate")
        try:
            self._begin(order)
        except SegmentError as error:
            self._fail(self._work, str(error))

    def _known(self, order: Order) -> bool:
        work = self._work
        if work and work.order.run == order.run:
            return order.order <= work.order.order
        last: int = self._outbox.fact("last_order", 0)
        return order.run == self._outbox.fact("run") and order.order <= last

    def _start_over(self, run: int) -> None:
        """Another run than before: numbers count anew, and nothing that was learned stays."""
        self._mailbox.start_over()
        self._weights.start_over()
        self._uploads.start_over()
        self._segment.reset()
        self._outbox.put_state(self._segment.snapshot())
        self._outbox.put_fact("run", run)
        self._outbox.put_fact("fresh_run", run)
        self._outbox.put_fact("last_order", 0)

    def _begin(self, order: Order) -> None:
        """Load what came with the order; in the same transaction as the order itself, so that it happens once."""
        self._segment.load(order.state)
        self._weights.begin()
        begins = order.kind == "local" and "begin" in self._segment.kinds
        if begins:
            self._segment.run("begin", {}, order.settings, _NO_NOISE)
        if order.state or begins:
            self._outbox.put_state(self._segment.snapshot())

    def _take_gradient(self, arrived: Arrived, message: Gradient) -> None:
        work = self._work
        if work and (message.order, message.step) == (work.order.order, work.step):
            wanted = (len((work.waiting or self._batch(work)).x), *self._bundle.manifest.smashed.shape)
            if message.gradient.shape == wanted:
                work.gradient = (arrived, message.gradient)  # acknowledged with the update it causes
                return
            self._mailbox.refused[f"gradient of shape {message.gradient.shape}, wanted {wanted}"] += 1
        else:
            self._mailbox.refused["gradient for a step that is over"] += 1
        self._mailbox.done(arrived)

    def _refusal(self, message: Refusal) -> None:
        if message.instance != self._mailbox.instance:
            return  # for another process that uses this device's name
        if message.fatal:
            raise RefusalError(message.reason)
        log.warning("the hub refuses: %s", message.reason)
        self._mailbox.forget_tables()

    def _greet(self) -> None:
        hub = self._mailbox.hub_instance
        if hub is None or hub == self._greeted:
            return
        self._greeted = hub
        work = self._work
        hello = Hello(
            name=self._mailbox.device,
            instance=self._mailbox.instance,
            bundle=self._bundle.id,
            samples=self._source.samples,
            test_samples=self._source.test_samples,
            position={"order": work.order.order, "step": work.step} if work else None,
            facts=dict(self._facts),
        )
        self._mailbox.send(hello, urgent=True)

    # What the device does ---------------------------------------------------------------------------------------

    def _step(self, work: Work) -> None:
        if not work.due or self._must_wait(work):
            return
        if work.over:
            self._report(work)
            return
        if not (work.waiting or work.gradient or self._bears(work)):
            return
        started = time.perf_counter()
        try:
            _STEPS[work.order.kind](self, work)
        except (SegmentError, SensorError) as error:
            self._fail(work, str(error))
            return
        work.seconds.append(time.perf_counter() - started)

    def _bears(self, work: Work) -> bool:
        """Whether another step can be begun; where the means of the round carry none any more, the order ends here."""
        verdict = self._purse.bears(work.kind)
        if verdict is Verdict.SPENT and end_early(work, self._purse, self._mailbox):
            self._checkpoints.keep_to_here(work)
            self._report(work)
        elif verdict is Verdict.SPENT:
            self._fail(work, f"the round's means ({work.cut}) are spent before the first step")
        return verdict is Verdict.FITS

    def _must_wait(self, work: Work) -> bool:
        """Whether the next step has to wait for room in the outbox: while the hub is there it makes room.

        Without the hub the oldest activations make way, but not those of an evaluation, which is only of use with it, nor
        those of an order that wants them all.
        """
        kind = work.order.kind
        needed = work.order.complete or kind == "evaluate"
        if work.over or not self._mailbox.crowded or (self._mailbox.away and not needed):
            return False
        return work.gradient is None if kind == "exchange" else kind == "evaluate" or work.step in work.order.send

    def _local(self, work: Work) -> None:
        batch = self._batch(work)
        sends = work.step in work.order.send
        result = self._run("local", batch, work, up=sends)
        if sends:
            self._uploads.send(work, batch, result)
        self._advance(work, result, durable=sends)

    def _forward(self, work: Work) -> None:
        batch = self._batch(work)
        if work.step in work.order.send:
            self._uploads.send(work, batch, self._run("forward", batch, work))
        self._advance(work, Result(), durable=True)

    def _exchange(self, work: Work) -> None:
        batch = work.waiting or self._batch(work)
        if work.gradient is None:
            if self._uploads.send(work, batch, self._run("forward", batch, work)):
                work.waiting = batch
            else:
                lacks = "the budget is spent" if work.spent else "the outbox has no room: set outbox_bytes higher"
                self._fail(work, f"{lacks}; the activation cannot be sent")
            return
        arrived, gradient = work.gradient
        result = self._run("backward", batch, work, gradient=gradient)
        work.waiting = work.gradient = None
        self._mailbox.done(arrived)
        self._advance(work, result, durable=True)

    def _evaluate(self, work: Work) -> None:
        batch = self._source.test_batch(work.step, work.order.batch)
        result = self._run("evaluate", batch, work)
        self._uploads.send(work, batch, result, "evaluate")
        self._advance(work, Result(), durable=True)

    def _train_alone(self, spare: Work) -> None:
        self._run("local", self._batch(spare), spare, up=False)

    def _batch(self, work: Work) -> Batch:
        return self._source.batch(*work.place, work.order.batch, work.order.seed)

    def _run(
        self, kind: str, batch: Batch, work: Work, *, gradient: npt.NDArray[Any] | None = None, up: bool = True
    ) -> Result:
        inputs = {"batch.x": batch.x, "batch.y": batch.y}
        if gradient is not None:
            inputs["down.gradient"] = gradient
        noisy = self._bundle.manifest.graphs[kind].random
        rng = np.random.default_rng([work.order.seed, *work.place]) if noisy else _NO_NOISE
        result = self._segment.run(kind, inputs, work.order.settings, rng, up=up)
        self._accounts.ran(kind, len(batch.x))
        return result

    def _advance(self, work: Work, result: Result, *, durable: bool) -> None:
        """One step further; `durable` when something leaves for the hub that depends on the state as it is now.

        Other steps are kept every few steps only: a power cut repeats them, and an SD card is spared.
        """
        work.step += 1
        for name, value in result.metrics.items():
            work.metrics.setdefault(name, []).append(value)
        if durable or self._checkpoints.due(work) or work.step == work.end:
            self._checkpoints.keep(work)

    def _report(self, work: Work) -> None:
        order = work.order
        if order.kind == "evaluate" and not self._mailbox.idle:
            return  # so that the bytes of an evaluation end where its report begins
        try:
            given = self._end(work)
        except SegmentError as error:
            self._fail(work, str(error))
            return
        if order.give:
            self._mailbox.send(self._weights.give(order, given))
        metrics = work.figures()
        if order.kind != "evaluate":
            # The first order of a run, or of a board that lost its memory: what the hub believes of it may be wrong.
            metrics["started_over"] = self._outbox.fact("fresh_run") == order.run
            self._outbox.put_fact("fresh_run", None)
        metrics.update(self._accounts.close(order.kind))
        self._accounts.put(self._outbox)  # what the hub is told must not be less after a restart
        metrics["refused"] = dict(self._mailbox.refused)
        metrics.update(self._mailbox.account(order.order))
        metrics.update(self._uploads.account())
        self._mailbox.send(Report(order.order, order.round, brief(metrics)))
        self._drop_work()
        if order.beyond and not work.cut:
            self._beyond.set_by(work)

    def _end(self, work: Work) -> dict[str, npt.NDArray[Any]]:
        """What goes up at the end of an order; in the same transaction as the report, so that it happens once."""
        order = work.order
        handed: Mapping[str, npt.NDArray[Any]] = {}
        if order.kind == "local" and "end" in self._segment.kinds:
            handed = self._segment.run("end", {}, work.settings, _NO_NOISE).up
            self._outbox.put_state(self._segment.snapshot())
        return {**self._segment.tensors(order.give), **handed}

    def _fail(self, work: Work, reason: str) -> None:
        """Give an order up, go back to the last committed state, and say why."""
        log.error("%s, step %d: %s", name_of(work.order), work.step, reason)
        if work.order.run != self._outbox.fact("run"):
            self._start_over(work.order.run)  # what was committed last is of another run
        else:
            self._checkpoints.restore()
        self._mailbox.send(Report(work.order.order, work.order.round, {"failed": reason}), urgent=True)
        self._drop_work()

    def _drop_work(self) -> None:
        if self._work is not None:
            self._outbox.put_fact("last_order", self._work.order.order)
            self._outbox.put_received("order", None)
            self._purse.pause()
            self._work = None

    def _commit(self) -> bool:
        try:
            self._mailbox.commit()
        except OutboxError as error:
            log.error("%s; nothing leaves until it can be, next try in %g s", error, RETRY_SECONDS)  # noqa: TRY400
            time.sleep(RETRY_SECONDS)
            return False
        return True

    @property
    def _busy(self) -> bool:
        """Whether there is something to do without waiting for the hub."""
        work = self._work
        if work is None:
            return self._beyond.due
        ending = work.over and work.order.kind == "evaluate"
        return work.due and not ending and not self._must_wait(work)

    def _patience(self, now: float) -> float:
        if self._busy and not self._inquiries.running:
            return 0.0
        return self._mailbox.wait_seconds(now, IDLE_SECONDS)


_STEPS: dict[str, Callable[[Agent, Work], None]] = {
    "local": Agent._local,  # noqa: SLF001  the table belongs to the class
    "forward": Agent._forward,  # noqa: SLF001
    "exchange": Agent._exchange,  # noqa: SLF001
    "evaluate": Agent._evaluate,  # noqa: SLF001
}
