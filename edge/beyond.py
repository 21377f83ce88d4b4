"""Steps beyond an order: what a device learns alone while its hub is away.

A local order that is done is set by, and goes on for as many steps as the hub has allowed (`Order.beyond`), with its settings
and its batches, from its last step. Nothing of it leaves; the hub's next order that changes the device ends it.
"""

import logging
from collections.abc import Callable
from dataclasses import replace

from edge.accounts import Accounts
from edge.checkpoints import Checkpoints
from edge.effort import Verdict
from edge.mailbox import Mailbox
from edge.outbox import Outbox
from edge.purse import Purse
from edge.segment import SegmentError
from edge.sensors import SensorError
from edge.wire import messages
from edge.wire.messages import Order
from edge.work import Work, name_of

log = logging.getLogger("cutlayer.device")


class Beyond:
    """A local order that is done, and may go on while the hub is away."""

    def __init__(
        self,
        mailbox: Mailbox,
        outbox: Outbox,
        purse: Purse,
        accounts: Accounts,
        checkpoints: Checkpoints,
        spare: Work | None,
    ) -> None:
        self._mailbox = mailbox
        self._outbox = outbox
        self._purse = purse
        self._accounts = accounts
        self._checkpoints = checkpoints
        self._spare = spare

    @property
    def due(self) -> bool:
        """Whether there is a step to be done now."""
        return self._spare is not None and self._mailbox.away

    def set_by(self, done: Work) -> None:
        """Keep an order that is done: without the hub it goes on."""
        self._spare = Work(replace(done.order, state={}, difference=None), done.end, spare=True, kept=done.end)
        self._outbox.put_received("spare", messages.pack(self._spare.order))
        self._outbox.put_fact("spare_position", done.end)

    def go_on(self, train: Callable[[Work], None]) -> None:
        """One more step, if the hub is away; `train` does it.

        Where it fails, the device goes back to what it had committed, and that was all.
        """
        spare = self._spare
        if spare is None:
            return
        if not self._mailbox.away:
            self._checkpoints.keep_to_here(
                spare
            )  # now, so that the next order finds it on the disk whatever becomes of it
            return
        if spare.step == spare.end:
            log.info("the hub is away: up to %d steps more of %s", spare.order.beyond, name_of(spare.order))
        verdict = self._purse.bears("local")
        if verdict is Verdict.SPENT:
            self.end()
        if verdict is not Verdict.FITS:
            return
        try:
            train(spare)
        except (SegmentError, SensorError) as error:
            log.warning("%s, step %d beyond its end: %s", name_of(spare.order), spare.step, error)
            self._checkpoints.restore()
            self._forget()
            return
        self._advance(spare)

    def make_way(self, order: Order) -> None:
        """Another order has come; it goes on after one that changes nothing on this device."""
        spare = self._spare
        if spare and not (order.run == spare.order.run and order.kind in ("evaluate", "forward") and not order.state):
            self.end()

    def end(self) -> None:
        """The hub has something else to do; what was done without it stays."""
        if self._spare is not None:
            self._checkpoints.keep_to_here(self._spare)
            self._forget()

    def _advance(self, spare: Work) -> None:
        spare.step += 1
        self._purse.pause()
        self._accounts.went_beyond()
        last = spare.step >= spare.end + spare.order.beyond
        if last or self._checkpoints.due(spare):
            self._checkpoints.keep_to_here(spare)
        if last:
            self._forget()

    def _forget(self) -> None:
        self._outbox.put_received("spare", None)
        self._spare = None
