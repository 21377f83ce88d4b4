"""Which numbers of a stream are done: a small value that is stored with the effects it stands for."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Ledger:
    """Numbers whose effect is durable: all up to `floor`, and the runs (first, last) of `done` above it.

    Runs are sorted, and never touch each other or the floor.
    """

    epoch: int = 0
    floor: int = 0
    done: tuple[tuple[int, int], ...] = ()

    def __contains__(self, number: int) -> bool:
        return number <= self.floor or self.run_of(number) is not None

    def run_of(self, number: int) -> tuple[int, int] | None:
        """The run above the floor that contains the number."""
        place = bisect_right(self.done, number, key=lambda run: run[0]) - 1
        return self.done[place] if place >= 0 and number <= self.done[place][1] else None

    def with_done(self, number: int) -> Self:
        """The ledger once this number's effect is durable too."""
        if number in self:
            return self
        place = bisect_right(self.done, number, key=lambda run: run[0])
        first = last = number
        low, high = place, place
        if place and self.done[place - 1][1] == number - 1:
            low, first = place - 1, self.done[place - 1][0]
        if place < len(self.done) and self.done[place][0] == number + 1:
            high, last = place + 1, self.done[place][1]
        return self._settled(self.floor, (*self.done[:low], (first, last), *self.done[high:]))

    def with_floor(self, floor: int) -> Self:
        """The ledger once nothing up to `floor` can come any more."""
        if floor <= self.floor:
            return self
        above = ((max(first, floor + 1), last) for first, last in self.done if last > floor)
        return self._settled(floor, above)

    def to_json(self) -> dict[str, Any]:
        """As plain values for `json.dumps`."""
        return {"epoch": self.epoch, "floor": self.floor, "done": [list(run) for run in self.done]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The ledger that `to_json` gave.

        Raises:
            ValueError: the value is not a ledger.
        """
        try:
            ledger = cls(int(value["epoch"]), int(value["floor"]), tuple((int(a), int(b)) for a, b in value["done"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a ledger: {value!r:.80}") from error
        above = ledger.floor + 1
        for first, last in ledger.done:
            if not above < first <= last:
                raise ValueError(f"not a ledger: the run {first} to {last} does not follow {above - 1}")
            above = last + 1
        return ledger

    def _settled(self, floor: int, done: Iterable[tuple[int, int]]) -> Self:
        runs = list(done)
        while runs and runs[0][0] <= floor + 1:
            floor = max(floor, runs.pop(0)[1])
        return type(self)(self.epoch, floor, tuple(runs))
