"""Whose turn it is to be asked: so many devices measure at a time, the others wait until one of them has answered."""

from collections.abc import Iterator

AT_ONCE = 32
"""Devices, where nobody says: their answers of some tens of kB each are within what a broker holds for a slow reader."""


class Window:
    """The devices that are to be asked, in the order in which they came.

    A device takes up a place from when it is asked until it has answered, is offline, or its turn has lasted too long: one that
    hangs does not keep the others from being asked.

    Args:
        at_once: places.
        turn_seconds: after which a device takes up none.
    """

    def __init__(self, at_once: int, turn_seconds: float) -> None:
        self.at_once = at_once
        self._turn_seconds = turn_seconds
        self._waiting: dict[str, None] = {}
        self._asked: dict[str, float] = {}
        """When."""
        self._away: set[str] = set()

    def wants(self, name: str) -> None:
        """A device that is there is to be asked; one that has been asked before is asked again at once, for it may have forgotten."""
        self._away.discard(name)
        self._waiting.setdefault(name)

    def left(self, name: str) -> None:
        """It is offline."""
        self._away.add(name)

    def returned(self, name: str) -> None:
        """It is back, and goes on."""
        self._away.discard(name)

    def done(self, name: str) -> None:
        """It has answered, or is not waited for any more."""
        self._waiting.pop(name, None)
        self._asked.pop(name, None)

    def waits(self, name: str) -> bool:
        """Whether its first turn has not come."""
        return name in self._waiting and name not in self._asked

    def take(self, now: float) -> Iterator[str]:
        """The devices to ask now, in monotonic seconds."""
        free = self.at_once - self._taken(now)
        for name in [name for name in self._waiting if name not in self._away]:
            again = name in self._asked
            if again or free > 0:
                free -= not again
                del self._waiting[name]
                self._asked[name] = now
                yield name

    def _taken(self, now: float) -> int:
        return sum(name not in self._away and now - since < self._turn_seconds for name, since in self._asked.items())
