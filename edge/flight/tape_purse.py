"""A device's purse in a replay: what was spent was measured then, and what it decided stands in the recording."""

import json
from collections.abc import Mapping
from typing import Any

from edge.effort import FACT, Verdict
from edge.flight import trace
from edge.flight.tape import Tape, TapeOutbox
from edge.purse import MEANS, SPENT


class TapePurse:
    """A purse as it was: what it put into the outbox is put again, and what it decided is known from that."""

    limited = True
    """So that a report has its account, or none, as the recorded one had."""

    def __init__(self, tape: Tape, outbox: TapeOutbox) -> None:
        self._tape, self._outbox = tape, outbox
        self.lacking = ""

    def hear(self, given: Mapping[str, float]) -> None:  # noqa: ARG002  on the tape
        """Amounts of the hub came."""
        self._again()

    def begin(self, period: str, rounds: int = 1) -> None:  # noqa: ARG002  on the tape
        """A period began."""
        self._again()

    def open(self, allowance: int | None, *, evaluation: bool = False) -> None:  # noqa: ARG002  on the tape
        """An order began."""
        self._again()

    def bears(self, kind: str) -> Verdict:  # noqa: ARG002  measured then
        """Whether another step was begun."""
        value = self._again(FACT)
        self.lacking = (value or {}).get("spent", "")
        return Verdict.FITS if value is None else Verdict.SPENT if self.lacking else Verdict.LATER

    def pause(self) -> None:
        """No order is in hand."""

    def look(self, unsent: int = 0) -> None:  # noqa: ARG002  on the tape
        """It looked at what had been spent."""
        self._again()

    def room(self, unsent: int) -> int | None:  # noqa: ARG002  measured then
        """What it had for an activation."""
        value = self._again(MEANS)
        return value if isinstance(value, int) else None

    def sent(self, size: int, samples: int) -> None:  # noqa: ARG002  on the tape
        """An activation is on its way."""
        self._again()

    def withhold(self) -> None:
        """An activation was not sent."""
        self._again()

    def apply(self) -> None:
        """Nothing leaves."""

    def account(self) -> dict[str, Any]:
        """The report has what was measured."""
        return {}

    def _again(self, *names: str) -> Any:
        """Put the facts that are next on the tape, as far as they have these names; the last one's value."""
        value = None
        while self._tape.place < self._tape.length:
            entry = self._tape.next
            if not isinstance(entry, trace.Fact) or entry.name not in (names or SPENT):
                break
            value = json.loads(entry.value)
            self._outbox.put_fact(entry.name, value)
        return value
