"""A release being fetched: which bytes to ask for next, how long to wait for them, and what came before its turn."""

from dataclasses import dataclass, field

from edge.part import Part
from edge.wire.updates import Piece, Release

WINDOW = 2
"""Pieces under way; more would make training's messages wait behind them on a slow link."""
WINDOW_LIMIT = 16
"""And where the link waits for the device, whose loop does long steps."""
SLOW_TURN_SECONDS = 1.0
TIMEOUT_SECONDS = 5.0
"""Shortest silence after which a piece is asked for again; doubles each time, up to the limit."""
TIMEOUT_LIMIT_SECONDS = 900.0


@dataclass
class Fetch:
    """One of them."""

    release: Release
    part: Part
    again: bool = False
    """Whether it has been begun anew once, because what came was damaged."""
    asked: dict[int, tuple[int, float]] = field(default_factory=dict)
    """By offset: length, and when."""
    held: dict[int, bytes] = field(default_factory=dict)
    """By offset: what came before its turn."""
    timeout: float = TIMEOUT_SECONDS
    window: int = WINDOW
    """Most pieces under way."""

    def gap(self, longest: int) -> tuple[int, int] | None:
        """Offset and length of the next bytes to ask for."""
        position = self.part.length
        covered = [(offset, offset + length) for offset, (length, _) in self.asked.items()]
        covered += [(offset, offset + len(data)) for offset, data in self.held.items()]
        for begin, end in sorted(covered):
            if begin > position:
                return position, min(longest, begin - position)
            position = max(position, end)
        left = self.part.total - position
        return (position, min(longest, left)) if left > 0 else None

    def stir(self) -> None:
        """There is no reason to wait any longer."""
        self.asked.clear()
        self.timeout = TIMEOUT_SECONDS

    def drop_late(self, now: float) -> None:
        """What was asked for too long ago is to be asked for again, and more patiently."""
        late = [offset for offset, (_, when) in self.asked.items() if now - when >= self.timeout]
        for offset in late:
            del self.asked[offset]
        if late:
            self.window = WINDOW
            self.timeout = min(TIMEOUT_LIMIT_SECONDS, 2 * self.timeout)

    def receive(self, piece: Piece, now: float, turned_at: float) -> None:
        """Take what was asked for; what is late, comes twice or is of another release is left.

        Args:
            piece: that came.
            now: the time.
            turned_at: when the device's loop turned before.

        Raises:
            OSError: the disk is full or gone.
        """
        if piece.tag != self.release.tag or piece.offset not in self.asked:
            return
        length, asked_at = self.asked.pop(piece.offset)
        self.timeout = max(TIMEOUT_SECONDS, 4 * (now - asked_at))
        if asked_at >= turned_at and now - turned_at >= SLOW_TURN_SECONDS:
            self.window = min(WINDOW_LIMIT, self.window + 1)
        self.held[piece.offset] = piece.data[:length]
        try:
            while self.part.length in self.held:
                self.part.add(self.held[self.part.length])
                self.held = {offset: data for offset, data in self.held.items() if offset >= self.part.length}
        except OSError:
            self.held.clear()
            raise
