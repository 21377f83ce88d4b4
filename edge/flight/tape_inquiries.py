"""A device's inquiries in a replay: what the profiler found was measured then, and stands in the recording."""

import json

from edge.flight import trace
from edge.flight.recording import Recording
from edge.flight.tape import Tape, TapeOutbox
from edge.inquiry import FACT
from edge.mailbox import Mailbox
from edge.wire.inquiry import Answer, Inquiry


class TapeInquiries:
    """Inquiries as they were: what was put into the outbox is put again, answers included.

    Args:
        recording: tells whether a process begins here, which has no profile under way.
        tape: what happened.
        outbox: where it is put.
    """

    def __init__(self, recording: Recording, tape: Tape, outbox: TapeOutbox) -> None:
        self._tape, self._outbox = tape, outbox
        self.mailbox: Mailbox | None = None
        """Where answers are put; of the agent that is made of the recording."""
        self._kept = outbox.fact(FACT, {})
        self.running = bool(self._kept.get("running")) and not recording.restarted

    def hear(self, inquiry: Inquiry) -> None:
        """The hub asked."""
        if inquiry.number != self._kept.get("number"):
            self._again()

    def forget(self) -> None:
        """The hub said goodbye."""
        if "asked" in self._kept:
            self._again()

    def turn(self, *, free: bool) -> bool:  # noqa: ARG002  on the tape
        """Whether a profile was being made."""
        if "asked" in self._kept:
            self._again()
        return self.running

    def _again(self) -> None:
        """Put the facts that are next on the tape, and the answer where one followed."""
        while self._tape.place < self._tape.length:
            entry = self._tape.next
            if isinstance(entry, trace.Fact) and entry.name == FACT:
                self._kept = json.loads(entry.value)
                self.running = bool(self._kept.get("running"))
                self._outbox.put_fact(FACT, self._kept)
            elif isinstance(entry, trace.Put) and "asked" not in self._kept and self.mailbox is not None:
                self._put(entry.message, self.mailbox)
                return
            else:
                return

    def _put(self, message: trace.Sketch, mailbox: Mailbox) -> None:
        if not message.whole:
            self._tape.zeros = True  # in the place of its contents
        data = message.head if message.whole else bytes(message.length)
        mailbox.send(Answer(self._kept["number"], reason="as it was"), data=data)
