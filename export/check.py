"""The graphs against PyTorch, number by number.

Truth is the plain model in float64; PyTorch in float32 is the control, whose own distance from the truth says how much
rounding costs here. What is compared: the gradient of every parameter after one step (not the parameters after many:
Adam turns a rounding error in a vanishing gradient into a whole step), the optimizer's states from one and the same
gradient, the smashed data, loss and metrics; then twenty steps, and the same twenty with states in place.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from export.graphs import Graph
from export.in_place import unsafe_states
from export.reference import Reference
from export.runtime import Runner
from export.step import StepMaker

Arrays = dict[str, np.ndarray]

GRADIENT_LIMIT = 2e-5
"""Largest relative distance of one parameter's gradient from float64."""

VALUE_LIMIT = 1e-5
"""The same for smashed data, loss, metrics and optimizer states."""

STEPS = 20
SHARE_OF_CONTROL = 3.0

FLOOR = 1e-3
"""A gradient is measured against its own norm, but at least this share of the whole gradient's: some are zero but for rounding."""

BATCHES = {0: 7, 1: 32, 2: 64, 3: 1}
"""Batch size for each seed: odd, usual, large, and a single sample (whose contrastive gradient is zero)."""

BESIDE_CONTROL = f"within {SHARE_OF_CONTROL:.0f}x of float32's own"
"""The excuse for a number above its limit that rounding alone explains."""

MOVES = 4
"""How often an error is looked at again with the input moved, before it is called an error and not a kink."""


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        graph: Kind of graph.
        what: The quantity, with seed and batch size.
        ours: Relative distance of the graph from float64.
        control: Relative distance of PyTorch float32 from float64; None where there is none.
        limit: What `ours` may be.
        passed: Whether it is, or has an excuse.
        note: The excuse: a kink, or float32 being hardly better.
    """

    graph: str
    what: str
    ours: float
    control: float | None
    limit: float
    passed: bool
    note: str = ""


@dataclass
class Report:
    """All comparisons of a bundle."""

    rows: list[Row] = field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        """A sentence for each failed row."""
        return [
            f"{row.graph}: {row.what} is off by {row.ours:.1e} (limit {row.limit:.1e})"
            for row in self.rows
            if not row.passed
        ]

    @property
    def passed(self) -> bool:
        """Whether every row passed."""
        return not self.failures

    def summary(self) -> dict[str, Any]:
        """Return the worst numbers of each kind, rounded so that they repeat; gradients with an excuse are counted apart."""
        gradients = [row for row in self.rows if row.what.startswith("gradient")]
        excused = [row for row in gradients if row.note]
        gradients = [row for row in gradients if not row.note]
        steps = [row for row in self.rows if row.what.startswith(f"{STEPS} steps,")]
        return {
            "gradient": _rounded(max((row.ours for row in gradients), default=0.0)),
            "gradient_float32": _rounded(max((row.control or 0.0 for row in gradients), default=0.0)),
            "gradient_limit": GRADIENT_LIMIT,
            "excused": len(excused),
            "excused_gradient": _rounded(max((row.ours for row in excused), default=0.0)),
            "steps": _rounded(max((row.ours for row in steps), default=0.0)),
            "steps_float32": _rounded(max((row.control or 0.0 for row in steps), default=0.0)),
            "kinks": sum(row.note.startswith("kink") for row in self.rows),
            "comparisons": len(self.rows),
        }


def check_graphs(steps: StepMaker, graphs: Mapping[str, Graph]) -> Report:
    """Compare every graph with PyTorch."""
    report = Report()
    with _one_thread():
        for kind, graph in graphs.items():
            checker = _Checker(steps, graph)
            rows: dict[str, Callable[[], list[Row]]] = {"begin": checker.between, "end": checker.between}
            rows |= {"local": checker.training, "backward": checker.training}
            report.rows += rows.get(kind, checker.forward)()
    return report


class _Checker:
    """One graph, its session and its references."""

    def __init__(self, steps: StepMaker, graph: Graph) -> None:
        self.steps = steps
        self.graph = graph
        self.runner = Runner(graph.checked)
        self.truth = Reference(steps, torch.float64)
        self.control = Reference(steps, torch.float32)

    def forward(self) -> list[Row]:
        rows = []
        for seed, batch in BATCHES.items():
            arrays = make_inputs(self.steps, self.graph, seed, batch)
            try:
                truth = self.truth.smash(self.graph.kind, arrays, self.graph.noise)
            except ValueError as error:
                rows.append(_refused(self.graph.kind, batch, error))
                continue
            ours = distance(self.runner.run(arrays)["up.smashed"], truth)
            control = distance(self.control.smash(self.graph.kind, arrays, self.graph.noise), truth)
            rows.append(self._row(f"smashed, seed {seed}, batch {batch}", ours, control, VALUE_LIMIT))
        return rows

    def between(self) -> list[Row]:
        """Compare a graph that sees no batch."""
        rows = []
        for seed in BATCHES:
            arrays = make_inputs(self.steps, self.graph, seed, 1)
            ours, control = self.runner.run(arrays), self.control.between(self.graph.kind, arrays)
            for name, right in self.truth.between(self.graph.kind, arrays).items():
                given, shared = distance(ours[name], right), distance(control[name], right)
                rows.append(self._row(f"{name}, seed {seed}", given, shared, VALUE_LIMIT))
        return rows

    def training(self) -> list[Row]:
        rows = []
        for seed, batch in BATCHES.items():
            arrays = make_inputs(self.steps, self.graph, seed, batch)
            try:
                truth = self.truth.learn(arrays, self.graph.noise)
            except ValueError as error:
                rows.append(_refused(self.graph.kind, batch, error))
                continue
            ours, control = self.runner.run(arrays), self.control.learn(arrays, self.graph.noise)
            rows.append(self._gradients(f"seed {seed}, batch {batch}", arrays, ours, control, truth))
            rows += self._values(f"seed {seed}, batch {batch}", _cancelling(arrays, truth), ours, control, truth)
            rows += self._states(f"seed {seed}, batch {batch}", arrays, ours)
        return [*rows, *self._many_steps()]

    def _gradients(self, where: str, arrays: Arrays, ours: Arrays, control: Arrays, truth: Arrays) -> Row:
        """Compare all gradients; the row shows the worst parameter."""
        name, error, shared = self._worst(ours, control, truth)
        if error <= GRADIENT_LIMIT or not np.isfinite(error):
            return self._row(f"gradient, {where} ({name})", error, shared, GRADIENT_LIMIT)
        if error <= SHARE_OF_CONTROL * shared:
            return self._row(f"gradient, {where} ({name})", error, shared, GRADIENT_LIMIT, BESIDE_CONTROL)
        for move in range(MOVES):
            moved = moved_inputs(arrays, move)
            truth = self.truth.learn(moved, self.graph.noise)
            control = self.control.learn(moved, self.graph.noise)
            _, after, shared_after = self._worst(self.runner.run(moved), control, truth)
            if after <= max(GRADIENT_LIMIT, SHARE_OF_CONTROL * shared_after):
                return self._row(
                    f"gradient, {where} ({name})",
                    error,
                    shared,
                    GRADIENT_LIMIT,
                    f"kink: {after:.0e} once moved by 1e-3",
                )
        return self._row(f"gradient, {where} ({name})", error, shared, GRADIENT_LIMIT)

    def _worst(self, ours: Arrays, control: Arrays, truth: Arrays) -> tuple[str, float, float]:
        floor = FLOOR * float(np.linalg.norm(truth["check.gradient"]))
        worst = ("", -1.0, 0.0)
        for piece in self.steps.slices:
            if piece.state == "weights":
                part = slice(piece.offset, piece.offset + piece.size)
                right = truth["check.gradient"][part]
                errors = [distance(results["check.gradient"][part], right, floor) for results in (ours, control)]
                if not errors[0] <= worst[1]:
                    worst = (piece.name.removeprefix("lower."), errors[0], errors[1])
        return worst

    def _values(self, where: str, loss_scale: float, ours: Arrays, control: Arrays, truth: Arrays) -> list[Row]:
        names = [name for name in truth if name in ours and name != "check.gradient"]
        rows = []
        for name in names:
            scale = loss_scale if name == "metric.loss" else 1.0 if name.startswith("metric.") else 0.0
            errors = [distance(results[name], truth[name], scale) for results in (ours, control)]
            rows.append(self._row(f"{name}, {where}", errors[0], errors[1], VALUE_LIMIT))
        return rows

    def _states(self, where: str, arrays: Arrays, ours: Arrays) -> list[Row]:
        """Compare the optimizer's states, both sides starting from the gradient of the graph."""
        truth = self.truth.update(arrays, ours["check.gradient"])
        control = self.control.update(arrays, ours["check.gradient"])
        rows = []
        for name, right in truth.items():
            old = arrays[name.removesuffix(".next")].astype(np.float64)
            # The change is what the optimizer is answerable for, down to what float32 can hold beside the old value.
            scale = max(float(np.linalg.norm(right - old)), 1e-2 * float(np.linalg.norm(old)))
            errors = [float(np.linalg.norm(results[name] - right)) / (scale or 1.0) for results in (ours, control)]
            rows.append(self._row(f"{name}, {where}", errors[0], errors[1], VALUE_LIMIT))
        return rows

    def _many_steps(self) -> list[Row]:
        """Twenty steps on batches of their own, beside PyTorch's from the same start."""
        start = {f"state.{name}": value.numpy() for name, value in self.steps.initial_state().items()}
        batches = [make_inputs(self.steps, self.graph, 100 + step, 16) for step in range(STEPS)]
        row = self._course(start, batches)
        return [row, *self._in_place(start, batches[0])] if not unsafe_states(self.graph.model) else [row]

    def _course(self, start: Arrays, batches: list[Arrays]) -> Row:
        nudged = [{**batch, "batch.x": _nudged(batch["batch.x"])} for batch in batches]
        truth = _path(lambda arrays: self.truth.step(arrays, self.graph.noise), start, batches)
        controls = [
            _path(lambda arrays: self.control.step(arrays, self.graph.noise), start, given)
            for given in (batches, nudged)
        ]
        ours = _path(self.runner.run, start, batches)
        apart = [_weights_apart(ours, truth, start), *(_weights_apart(control, truth, start) for control in controls)]
        limits = [SHARE_OF_CONTROL * max(VALUE_LIMIT, *errors) for errors in zip(*apart[1:], strict=True)]
        error, shared, limit = apart[0][-1], max(errors[-1] for errors in apart[1:]), limits[-1]
        note = "" if error <= limit else self._excuse([start, *ours], batches, apart[0], limits)
        return self._row(f"{STEPS} steps, weights", error, shared, limit, note)

    def _excuse(self, ours: list[Arrays], batches: list[Arrays], apart: list[float], limits: list[float]) -> str:
        """Return why a course may end far from PyTorch's, or nothing.

        Two paths on different sides of a kink part for good, in float32 and float64 alike. Then each of our steps must
        still be right seen from where it starts.
        """
        for state, batch in zip(ours, batches, strict=False):
            arrays = {**batch, **state}
            step = self.runner.run(arrays)
            control, truth = (side.learn(arrays, self.graph.noise) for side in (self.control, self.truth))
            rows = [
                self._gradients("on the way", arrays, step, control, truth),
                *self._states("on the way", arrays, step),
            ]
            if not all(row.passed for row in rows):
                return ""
        parted = next(place for place, (error, limit) in enumerate(zip(apart, limits, strict=True), 1) if error > limit)
        return f"kink: the paths part at step {parted}, each step is right by itself"

    def _in_place(self, start: Arrays, batch: Arrays) -> list[Row]:
        runner = Runner(self.graph.model)
        shared = runner.run_in_place({**batch, **start}, STEPS)
        apart = _path(runner.run, start, [batch] * STEPS)[-1]
        equal = all(np.array_equal(shared[name], apart[name]) for name in apart)
        return [Row(self.graph.kind, f"{STEPS} steps in place, bit by bit", 0.0 if equal else 1.0, None, 0.0, equal)]

    def _row(self, what: str, ours: float, control: float | None, limit: float, note: str = "") -> Row:
        if not note and ours > limit and control is not None and ours <= SHARE_OF_CONTROL * control:
            note = BESIDE_CONTROL
        return Row(self.graph.kind, what, ours, control, limit, bool(note) or ours <= limit, note)


def make_inputs(steps: StepMaker, graph: Graph, seed: int, batch: int) -> Arrays:
    """Return inputs for one graph: data, labels, noise, and a state that is not the initial one (for seeds other than 0)."""
    chance = np.random.default_rng(seed)
    arrays = {
        name: value.numpy().copy()
        for name, value in steps.inputs(graph.kind, batch).items()
        if not name.startswith("constant.")
    }
    if "batch.x" in arrays:
        shape, tokens = arrays["batch.x"].shape, arrays["batch.x"].dtype == np.int64
        x = chance.integers(0, token_limit(steps), shape) if tokens else chance.standard_normal(shape, np.float32)
        arrays["batch.x"] = x
    if "batch.y" in arrays:
        arrays["batch.y"] = chance.integers(0, 4, batch)
    if "down.gradient" in arrays:
        arrays["down.gradient"] = chance.standard_normal(arrays["down.gradient"].shape, np.float32) / batch
    arrays |= {name: chance.random((batch, *noise.shape), np.float32) for name, noise in graph.noise.items()}
    return arrays | (_lived_in(arrays, chance) if seed else {})


def token_limit(steps: StepMaker) -> int:
    """Return the number of different tokens all embeddings of the lower segment know."""
    embeddings = [module for module in steps.learner.lower.modules() if isinstance(module, torch.nn.Embedding)]
    return min((module.num_embeddings for module in embeddings), default=2)


def moved_inputs(arrays: Arrays, move: int) -> Arrays:
    """Return the inputs moved by 1e-3 of their spread; token ids stay, and the weights move instead."""
    chance = np.random.default_rng(1000 + move)
    name = "batch.x" if arrays["batch.x"].dtype == np.float32 else "state.weights"
    step = chance.standard_normal(arrays[name].shape, np.float32) * (1e-3 * np.std(arrays[name]))
    return {**arrays, name: (arrays[name] + step).astype(np.float32)}


def distance(given: np.ndarray, right: np.ndarray, floor: float = 0.0) -> float:
    """Return |given - right| / max(|right|, floor) in Euclidean norms; infinite if ``given`` is not finite."""
    if not np.isfinite(given).all():
        return float("inf")
    error = float(np.linalg.norm((np.asarray(given, np.float64) - right).ravel()))
    scale = max(float(np.linalg.norm(np.ravel(right))), floor)
    return error / scale if scale else error


def _lived_in(arrays: Arrays, chance: np.random.Generator) -> Arrays:
    """Return a state as after some training: weights moved, moments filled, variances positive."""
    state: Arrays = {}
    for name, value in arrays.items():
        noise = chance.standard_normal(value.shape).astype(np.float32)
        if name == "state.weights":
            state[name] = (value + 0.1 * np.std(value) * noise).astype(np.float32)
        elif name == "state.moment2":
            state[name] = 1e-4 * noise * noise
        elif name == "state.steps":
            state[name] = np.array(5.0, np.float32)
        elif name == "state.buffers":
            state[name] = (value * (1.0 + 0.1 * np.tanh(noise))).astype(np.float32)
        elif name.startswith("state."):
            state[name] = 1e-2 * noise
    return state


def _path(step: Callable[[Arrays], Arrays], start: Arrays, batches: list[Arrays]) -> list[Arrays]:
    """Return the state after each step."""
    states = [start]
    for batch in batches:
        results = step({**batch, **states[-1]})
        states.append({name: results.get(f"{name}.next", value) for name, value in states[-1].items()})
    return states[1:]


def _weights_apart(path: list[Arrays], truth: list[Arrays], start: Arrays) -> list[float]:
    """Return the distance of the weights after each step, as a share of how far the truth has come."""
    name = "state.weights"
    moved = [float(np.linalg.norm(right[name] - start[name])) or 1.0 for right in truth]
    return [
        float(np.linalg.norm(given[name] - right[name])) / far
        for given, right, far in zip(path, truth, moved, strict=True)
    ]


def _cancelling(arrays: Arrays, truth: Arrays) -> float:
    """Return what a loss is measured against: with a gradient from above it is a sum whose terms cancel."""
    if "down.gradient" not in arrays:
        return 1.0
    return max(1.0, float(np.linalg.norm(arrays["down.gradient"]) * np.linalg.norm(truth["up.smashed"])))


def _nudged(x: np.ndarray) -> np.ndarray:
    """Return the neighbouring floats: what another order of summation might have made of the input."""
    return np.nextafter(x, np.float32(np.inf)) if x.dtype == np.float32 else x


def _refused(kind: str, batch: int, error: Exception) -> Row:
    return Row(
        kind,
        f"batch {batch}",
        0.0,
        None,
        0.0,
        passed=True,
        note=f"PyTorch refuses it too: {str(error).splitlines()[0]}",
    )


def _rounded(number: float) -> float:
    return float(f"{number:.1e}") if np.isfinite(number) else -1.0


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
