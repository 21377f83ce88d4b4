"""A hub asks what a step costs here: the board is profiled by a process of its own, and the answer goes up once.

The question lies in the outbox until it is answered, so a device that is killed meanwhile begins the profile again. No
step is done while it is made, for training would disturb its figures.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from edge.mailbox import Mailbox
from edge.outbox import Outbox
from edge.profiler import Found, Profiler
from edge.purse import Purse
from edge.wire import messages
from edge.wire.frames import WireError
from edge.wire.inquiry import Answer, Inquiry

log = logging.getLogger("cutlayer.device")

FACT = "inquiry"
"""`number` of the last question; while it has no answer `asked`, and `running` once the profile has begun."""


class Inquiries:
    """The hub's question, of which there is one at a time.

    Args:
        mailbox: for the answer.
        outbox: keeps the question.
        purse: what there are means for.
        profiler: makes the profile; None: there is none to be had of this device.
    """

    def __init__(self, mailbox: Mailbox, outbox: Outbox, purse: Purse, profiler: Profiler | None) -> None:
        self._mailbox = mailbox
        self._outbox = outbox
        self._purse = purse
        self._profiler = profiler
        self._kept: Mapping[str, Any] = outbox.fact(FACT, {})
        self.running = False
        """Whether a profile is being made now."""

    def hear(self, inquiry: Inquiry) -> None:
        """The hub asks. Told again it is one question; another one takes the place of the last."""
        if inquiry.number == self._kept.get("number"):
            return
        self._end()
        self._keep({"number": inquiry.number, "asked": asdict(inquiry)})
        if self._profiler is None:
            self._answer(Found(reason="this device has no profiler"))

    def forget(self) -> None:
        """The hub says goodbye: nobody waits for an answer."""
        self._end()
        if "asked" in self._kept:
            self._keep({"number": self._kept["number"]})

    def turn(self, *, free: bool) -> bool:
        """Begin, go on or answer; whether a profile is being made, so that no step may be done.

        Args:
            free: whether the device has nothing else to do.
        """
        if self._profiler is None or "asked" not in self._kept:
            return False
        if self.running:
            found = self._profiler.look()
        elif free:
            found = self._begin(self._profiler)
        else:
            return False
        if found is not None:
            self._end()
            self._answer(found)
        return self.running

    def _begin(self, profiler: Profiler) -> Found | None:
        asked = self._kept["asked"]
        try:
            profiler.start(Inquiry(**asked))
        except OSError as error:
            return Found(reason=f"the profiler does not start: {error}")
        log.info("the hub asks what a step costs here: no step is done while that is measured")
        self.running = True
        self._keep({**self._kept, "running": True})
        return None

    def _end(self) -> None:
        if self.running and self._profiler is not None:
            self._profiler.end()
        self.running = False

    def _answer(self, found: Found) -> None:
        number = self._kept["number"]
        try:
            answer = Answer(number, text=found.text, reason=found.reason)
            data = messages.pack(answer)
        except WireError as error:
            answer = Answer(number, reason=f"the profile cannot be sent: {error}")
            data = messages.pack(answer)
        if found.text and (lacks := self._purse.lacks(len(data), self._mailbox.unsent_bytes)):
            answer = Answer(number, reason=f"the profile of {len(data)} bytes is not sent: {lacks}")
            data = messages.pack(answer)
        log.info(
            "what a step costs here is told" if answer.text else "no profile for the hub: %s",
            *filter(None, [answer.reason]),
        )
        self._keep({"number": number})
        self._mailbox.send(answer, data=data)

    def _keep(self, kept: Mapping[str, Any]) -> None:
        self._kept = kept
        self._outbox.put_fact(FACT, dict(kept))
