"""A simulation, a round on request: `hub.simulate` as `cutlayer-hub simulate` calls it, halted between its rounds."""

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.answering import told
from hub import demo, simulate
from hub.datasets import split


class Halted:
    """Watches a run and lets it go on only when asked; a round ends when its checkpoint is written."""

    def __init__(self) -> None:
        self._reply = sys.stdout
        sys.stdout = sys.stderr  # what a library prints must not look like an answer
        self._began = (0.0, 0.0)

    def stage(self, text: str) -> None:
        """The devices are there."""
        if text == "training":
            self._wait()

    def device(self, name: str, state: str) -> None:
        """Nothing to do."""

    def note(self, text: str) -> None:
        """Nothing to do."""

    def round(self, record: Mapping[str, Any]) -> None:
        """Say what a round has cost, and wait for the next request."""
        wall, cpu = time.perf_counter() - self._began[0], time.process_time() - self._began[1]
        words = {name: record[name] for name in ("phase", "loss", "accuracy")}
        print(json.dumps({"wall": wall, "cpu": cpu, **words}), file=self._reply, flush=True)
        self._wait()

    def _wait(self) -> None:
        if not sys.stdin.readline():
            raise SystemExit
        self._began = time.perf_counter(), time.process_time()


def main(words: Mapping[str, Any]) -> None:
    """Run a simulation of so many rounds."""
    data, folder = words["data"], Path(words["folder"])
    wish = demo.Wish(
        folder=folder,
        devices=data["devices"],
        rounds=words["rounds"],
        strategy=words["strategy"],
        options=words["options"],
        dataset=data["name"],
        windows=data["windows"],
        environ={**os.environ, "CUTLAYER_HUB_RUN_EVALUATE_EVERY": str(int(words["evaluated"]))},
    )
    folder.mkdir(parents=True)
    federation = split(folder=None, seed=0, **data)
    simulate.train(wish, federation, federation, Path(words["bundles"]), Halted())


if __name__ == "__main__":
    main(told())
