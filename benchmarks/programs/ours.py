"""The device's own code path, on request: `edge.bundle.load`, then `Segment.run` as the agent calls it."""

import importlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.answering import memory, serve, timed, told
from edge import bundle
from edge.segment import Segment


class Device:
    """A segment, and batches that come round and round."""

    def __init__(self, words: dict[str, Any]) -> None:
        for name in words.get("imports", []):
            importlib.import_module(name)
        self.segment = Segment(bundle.load(Path(words["bundle"])), threads=words["threads"])
        with np.load(words["batches"]) as file:
            x, y = file["x"], file["y"]
        self.batches = itertools.cycle([{"batch.x": a, "batch.y": b} for a, b in zip(x, y, strict=True)])
        self.places = itertools.count()
        self.loss = 0.0

    def step(self) -> None:
        """A local step that sends nothing."""
        self.loss = self._run("local", up=False).metrics["loss"]

    def forward(self) -> None:
        """A forward step in training mode whose smashed data are handed out."""
        self._run("forward", up=True)

    def _run(self, kind: str, *, up: bool) -> Any:
        # One generator a step, as the agent has it: the noise of a step must not depend on what ran before.
        rng = np.random.default_rng([0, 0, next(self.places)])
        return self.segment.run(kind, next(self.batches), {}, rng, up=up)


if __name__ == "__main__":
    device = Device(told())
    serve(
        {
            "step": lambda count: timed(device.step, count) | {"loss": device.loss},
            "forward": lambda count: timed(device.forward, count),
            "memory": memory,
        }
    )
