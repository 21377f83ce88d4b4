"""How many bytes may be under way: enough to keep the link busy, few enough that what is urgent does not wait behind them.

As BBR has it: the most that the link has lately brought in the time of a flight, for the length of a few of the shortest
round trips. A stall, which is no queue, shrinks nothing as long as what comes between stalls is quick. No clock.
"""

from collections import deque

SLICE = 2.0
"""Seconds of which the best rate is remembered, ..."""
SLICES = 5
"""... so many of them."""


class Window:
    """The window of one side of a conversation.

    Args:
        most: bytes at most.
        least: bytes at least.
        trips: how many of the shortest round trips: one is under way, one is on its way back, the others keep the link busy
            during a stall.
    """

    def __init__(self, most: int, least: int, trips: float) -> None:
        self._most, self._least, self._trips = most, min(least, most), trips
        self.restart()

    @property
    def bytes(self) -> int:
        """As large as it is now."""
        if not self._rates:
            return self._most
        rate = max(rate for _, rate in self._rates)
        return int(min(self._most, max(self._least, self._trips * rate * self._shortest)))

    def restart(self) -> None:
        """The path is new: what is known of it does not hold."""
        self._rates: deque[tuple[int, float]] = deque(maxlen=SLICES)
        self._shortest = 60.0

    def landed(self, seconds: float, rate: float, now: float) -> None:
        """A frame has arrived after so many seconds, while so many bytes a second were arriving."""
        self._shortest = min(self._shortest, seconds)
        place = int(now // SLICE)
        if self._rates and self._rates[-1][0] == place:
            self._rates[-1] = (place, max(rate, self._rates[-1][1]))
        else:
            self._rates.append((place, rate))
