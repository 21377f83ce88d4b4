"""Many runs of which one may fail while the rest go on: the loop over tasks and seeds, and what is said at its end."""

import traceback
from collections.abc import Callable, Iterator, Sequence

from benchmarks.options import BenchmarkError, Options
from benchmarks.papers_data import lacking
from benchmarks.papers_rows import Task
from benchmarks.results import Row


class Attempts:
    """Runs what a benchmark wants of each task and seed, and counts what came of it."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._failed: list[str] = []
        self._measured = 0

    def places(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, int]]:
        """Tasks whose data are there, each with its seeds; what is left out is told of."""
        options = self._options
        for task in tasks:
            if reason := lacking(task, options):
                options.say(f"{task.name}: left out: {reason}")
                continue
            for seed in range(1 if options.quick else options.seeds or task.seeds):
                yield task, seed

    def rows(self, title: str, measure: Callable[[], Sequence[Row]]) -> Sequence[Row]:
        """The rows of a run; none of one that failed, which is told of."""
        self._options.say(title)
        try:
            rows = measure()
        except (BenchmarkError, OSError, ValueError) as error:
            self._options.say("".join(traceback.format_exception_only(error)).strip())
            self._failed.append(title)
            return []
        self._measured += len(rows)
        return rows

    def close(self) -> None:
        """Say what went wrong.

        Raises:
            BenchmarkError: runs failed, or nothing could be measured.
        """
        if self._failed:
            raise BenchmarkError(f"{len(self._failed)} runs failed: {'; '.join(self._failed)}")
        if not self._measured and not self._options.measured:
            raise BenchmarkError(
                "nothing was measured: no row's name contains what --only says, or its data are missing"
            )
