"""What the command line asks of a case."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.results import Run

FASHION = Path("/usr/share/datasets/fashion-mnist")
"""Where the Debian package dataset-fashion-mnist puts its files."""


class BenchmarkError(RuntimeError):
    """A case cannot be measured here; the message says why and what would help."""


@dataclass(frozen=True)
class Options:
    """How much to measure, and where to put what is needed on the way."""

    folder: Path
    """An empty folder for bundles, wheels and the like; gone after the run."""
    quick: bool = False
    """Few repeats: enough to see that the case works, not to quote it."""
    only: str = ""
    """Measure only rows whose name contains this."""
    measured: frozenset[tuple[str, str, int, int]] = frozenset()
    """Task, method, seed and rounds of rows that are there and not asked for again."""
    recorded: Sequence[Run] = ()
    """Runs of the case that are in its results."""
    seeds: int | None = None
    """So many seeds of each task, also more than it usually has; None takes those."""
    kills: int = 1000
    """How many kills the results of `power_cuts` are to have in all."""
    killed: int = 0
    """How many they have."""
    data: Path | None = None
    """Folder of data sets that nothing installs."""
    fashion: Path = FASHION
    """Folder of Fashion-MNIST's files."""

    @property
    def partial(self) -> str:
        """Why the run's figures are not to be quoted; empty for a full run."""
        return ", ".join(["quick"] * self.quick + [f"only {self.only!r}"] * bool(self.only))

    def say(self, text: str) -> None:
        """Progress for whoever waits."""
        print(text, file=sys.stderr, flush=True)
