"""Two boards with one certificate: mosquitto lets one connection in for it, and ends the former without a word."""

import random

BRIEF_SECONDS = 60.0
"""A connection that is ended within so many seconds was hardly made."""
EVICTIONS = 3
"""So many in a row are no accident."""
YIELD_SECONDS, MOST_YIELD_SECONDS = 15.0, 3600.0
"""How long to leave the broker to a namesake: doubled each time from the one to the other."""


class Namesakes:
    """Whether to leave the broker to another, and for how long, so that the two do not throw each other off for ever.

    Attributes:
        evictions: connections in a row that the broker has ended soon after they were made.
        pause: seconds that we have yielded last.
    """

    def __init__(self) -> None:
        self.evictions = 0
        self.pause = 0.0
        self._up_since = 0.0

    def up(self, now: float) -> None:
        """There is a connection."""
        self._up_since = now

    def down(self, now: float, *, was_up: bool, by_peer: bool) -> float | None:
        """A connection has ended; seconds to yield, or None where there is no reason to.

        Args:
            now: seconds of the clock of `up`.
            was_up: whether the broker had let us in.
            by_peer: whether the broker has ended it.
        """
        if was_up:
            brief = now - self._up_since < max(BRIEF_SECONDS, 4 * self.pause)
            self.evictions = self.evictions + 1 if brief and by_peer else 0
        if self.evictions < EVICTIONS:
            return None
        ceiling = min(MOST_YIELD_SECONDS, YIELD_SECONDS * 2.0 ** min(self.evictions - EVICTIONS, 16))
        self.pause = random.uniform(0.75 * ceiling, ceiling)
        return self.pause
