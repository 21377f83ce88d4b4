"""Where a device stands, in its outbox: what a restart goes on from."""

import logging

from edge.accounts import Accounts
from edge.outbox import Outbox
from edge.segment import Segment
from edge.wire import messages
from edge.wire.messages import Order
from edge.work import Work, name_of

log = logging.getLogger("cutlayer.device")


class Checkpoints:
    """Keeps the state, and the position in an order that belongs to it; durable with the next commit.

    Args:
        segment: whose state it is.
        outbox: where it is kept.
        accounts: kept along with it, so that a step that is done again is not counted twice.
        every: steps from one to the next, where nothing else asks for one.
    """

    def __init__(self, segment: Segment, outbox: Outbox, accounts: Accounts, every: int) -> None:
        self._segment = segment
        self._outbox = outbox
        self._accounts = accounts
        self._every = every

    def take_up(self) -> tuple[Work | None, Work | None]:
        """Take up where the last process stopped: the order in hand, and the one that goes on while the hub is away."""
        stored = self._outbox.state()
        if not stored:
            self._outbox.put_state(self._segment.snapshot())
            return None, None
        self._segment.restore(stored)
        work, spare = self._kept("order", "position"), self._kept("spare", "spare_position")
        if work:
            log.info("going on with %s at step %d of %d", name_of(work.order), work.step, work.end)
        if spare:
            spare.spare = True
        return work, spare

    def due(self, work: Work) -> bool:
        """Whether this step is one of every few that are kept."""
        return (work.step - work.order.first_step) % self._every == 0

    def keep(self, work: Work) -> None:
        """Keep the state as it is before the next step of this order."""
        self._outbox.put_fact("spare_position" if work.spare else "position", work.step)
        self._accounts.put(self._outbox)
        if work.order.kind in ("local", "exchange"):
            self._outbox.put_state(self._segment.snapshot())
        work.kept = work.step

    def keep_to_here(self, work: Work) -> None:
        """Keep it, where a step has been done since the last time."""
        if work.step > work.kept:
            self.keep(work)

    def restore(self) -> None:
        """Go back to the last committed state."""
        if stored := self._outbox.state():
            self._segment.restore(stored)
            self._outbox.put_state(stored)  # over weights that may be waiting for the commit

    def _kept(self, name: str, position: str) -> Work | None:
        data = self._outbox.received(name)
        order = messages.unpack(data) if data else None
        if not isinstance(order, Order):
            return None
        step = self._outbox.fact(position, order.first_step)
        return Work(order, step, kept=step)
