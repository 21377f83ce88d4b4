"""Starts the measured process and reads what it found."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import export
from edge.wire.profile import Operator
from export.cuts.calibration import Array
from export.errors import ExportError
from export.graphs import Graph
from export.in_place import unsafe_states
from export.step import StepMaker

LIMIT_SECONDS = 600.0
"""A child that takes longer is ended."""


@dataclass(frozen=True)
class Pace:
    """How long to measure each graph: so many steps, or seconds if they are over before."""

    repeats: int = 60
    seconds: float = 3.0


@dataclass(frozen=True)
class Timing:
    """Times of one kind of graph, and its operators."""

    seconds: Sequence[float]
    operators: tuple[Operator, ...]

    @property
    def median(self) -> float:
        """Seconds of a step."""
        return statistics.median(self.seconds)

    @property
    def p95(self) -> float:
        """Seconds that 95 of 100 steps stay below."""
        return float(np.percentile(self.seconds, 95))

    @property
    def quiet(self) -> float:
        """Seconds of a step while nothing else ran: the tenth percentile."""
        return float(np.percentile(self.seconds, 10))


@dataclass(frozen=True)
class Measured:
    """What a process that ran some graphs took."""

    timings: Mapping[str, Timing]
    peak_bytes: int
    """Its peak resident memory, interpreter and libraries included."""
    own_bytes: int
    """What of that came with the graphs, their inputs and state."""
    onnxruntime: str


def measure(
    steps: StepMaker, graphs: Mapping[str, Graph], x: Array, y: Array, *, threads: int = 1, pace: Pace | None = None
) -> Measured:
    """Run graphs of several kinds, one after the other, on one batch in a process without torch.

    Args:
        steps: what the graphs were made of.
        graphs: by kind.
        x: one batch of samples (batch, *input).
        y: their labels.
        threads: of onnxruntime.
        pace: how long.

    Raises:
        ExportError: the process died or took longer than ten minutes; the message has its last words.
    """
    pace = pace or Pace()
    with tempfile.TemporaryDirectory(prefix="cuts-") as name:
        folder = Path(name)
        for kind, graph in graphs.items():
            (folder / f"{kind}.onnx").write_bytes(graph.model.SerializeToString())
            np.savez(folder / f"{kind}.npz", **inputs(steps, graph, x, y))  # type: ignore[arg-type]  # names are routed
        told = {
            "folder": name,
            "kinds": list(graphs),
            "in_place": {kind: not unsafe_states(graph.model) for kind, graph in graphs.items()},
            "threads": threads,
            "repeats": pace.repeats,
            "seconds": pace.seconds,
        }
        return _read(_run(told))


def inputs(steps: StepMaker, graph: Graph, x: Array, y: Array) -> dict[str, Array]:
    """Every input of a graph: the batch, the initial state, default settings, and noise."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Array] = {name: value.numpy() for name, value in steps.inputs(graph.kind, len(x)).items()}
    arrays |= {"batch.x": x, "batch.y": y}
    if "down.gradient" in arrays:
        arrays["down.gradient"] = rng.standard_normal(arrays["down.gradient"].shape, np.float32) / len(x)
    arrays |= {name: rng.random((len(x), *noise.shape), np.float32) for name, noise in graph.noise.items()}
    return {name: arrays[name] for name in graph.inputs}


def _run(told: Mapping[str, Any]) -> dict[str, Any]:
    root = str(Path(export.__path__[0]).parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environ = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-P", "-m", "export.cuts.child", json.dumps(told)]
    try:
        done = subprocess.run(  # noqa: S603  our own words
            command, check=False, capture_output=True, text=True, env=environ, timeout=LIMIT_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise ExportError(f"the measured process took longer than {LIMIT_SECONDS:g} s and was ended") from error
    if done.returncode:
        words = done.stderr.strip().splitlines()[-1:] or ["without a word"]
        raise ExportError(f"the measured process ended with code {done.returncode}: {words[0][:200]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _read(found: Mapping[str, Any]) -> Measured:
    timings = {
        kind: Timing(row["seconds"], tuple(Operator(*operator) for operator in row["operators"]))
        for kind, row in found["kinds"].items()
    }
    return Measured(timings, found["peak_bytes"], found["peak_bytes"] - found["base_bytes"], found["onnxruntime"])
