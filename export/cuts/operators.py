"""What a step takes that was not timed: the sum over its operators, learnt from steps that were.

onnxruntime's profiler says what each operator of a timed step took at its shapes. A step of another cut has most of its operators
in common with those; the others are estimated from their like: seconds = a + b · work, work being the multiply-adds of products
and convolutions and the elements read and written of all else, both fitted over all known operators of that name (of any name,
where there is none). The profiler's own cost lies in the time of each operator, the smallest too: it is fitted to whole steps,
which are quicker than the sums of their operators, and taken off again. What is left, such as a busier minute, is a factor.
"""

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge.wire.profile import Operator

PRODUCTS = ("MatMul", "Gemm", "FusedMatMul", "FusedGemm")


@dataclass(frozen=True)
class Line:
    """seconds = a + b · work."""

    a: float
    b: float

    def at(self, work: float) -> float:
        """Seconds of so much work."""
        return self.a + self.b * work


@dataclass(frozen=True)
class Prediction:
    """Seconds of a step, and how they came about."""

    seconds: float
    known: float
    """Share of them that comes from operators seen at the same shapes."""


@dataclass(frozen=True)
class Model:
    """Times of operators on one machine."""

    seen: Mapping[tuple[str, str, str], float]
    lines: Mapping[str, Line]
    factor: float
    overhead: float = 0.0
    """Seconds that the profiler adds to each operator."""

    def predict(self, operators: Iterable[Operator]) -> Prediction:
        """Seconds of a step of these operators; their own `seconds` are not looked at."""
        known = guessed = 0.0
        for operator in operators:
            found = self.seen.get(operator.signature)
            if found is not None:
                known += found - self.overhead
            else:
                line = self.lines.get(operator.op) or self.lines[""]
                guessed += line.at(work(operator)) - self.overhead
        total = known + guessed
        return Prediction(self.factor * total, known / total if total else 1.0)


def learn(steps: Sequence[tuple[float, Sequence[Operator]]]) -> Model:
    """A model of timed steps: for each its seconds and its operators.

    Raises:
        ValueError: there is no step, or none has operators.
    """
    times: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for _, operators in steps:
        for operator in operators:
            times[operator.signature].append(operator.seconds)
    if not times:
        raise ValueError("there is no operator to learn from")
    seen = {signature: statistics.median(found) for signature, found in times.items()}
    samples: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for (op, inputs, outputs), seconds in seen.items():
        point = (work(Operator(op, inputs, outputs, 0.0)), seconds)
        samples[op].append(point)
        samples[""].append(point)
    sums = [
        (seconds, sum(seen[operator.signature] for operator in operators), len(operators))
        for seconds, operators in steps
        if seconds > 0 and operators
    ]
    overhead = _overhead(sums, sorted(seen.values()))
    left = [(seconds, total - overhead * count) for seconds, total, count in sums]
    # The median: one of three steps may have been timed in a busy minute.
    factor = statistics.median([seconds / total for seconds, total in left if total > 0] or [1.0])
    return Model(seen, {op: _fit(points) for op, points in samples.items()}, factor, overhead)


def choose(steps: Mapping[str, Sequence[Operator]], count: int) -> tuple[str, ...]:
    """Which steps to time so that the others are predicted best: one after the other, that whose operators cover most of what is uncovered.

    Args:
        steps: operators with their seconds, on any machine, by name.
        count: how many to choose.
    """
    totals = {name: sum(operator.seconds for operator in operators) or 1.0 for name, operators in steps.items()}
    seen: set[tuple[str, str, str]] = set()

    def covered(name: str) -> float:
        """Sum of the shares of all steps that are covered with this one, too."""
        known = seen | {operator.signature for operator in steps[name]}
        return sum(
            sum(operator.seconds for operator in operators if operator.signature in known) / totals[each]
            for each, operators in steps.items()
        )

    chosen: list[str] = []
    while len(chosen) < min(count, len(steps)):
        chosen.append(max((name for name in steps if name not in chosen), key=covered))
        seen |= {operator.signature for operator in steps[chosen[-1]]}
    return tuple(chosen)


def _overhead(sums: Sequence[tuple[float, float, int]], times: Sequence[float]) -> float:
    """Seconds that each operator is to be shorter by, from seconds of steps, sums and numbers of their operators: least relative error.

    No more than the quickest operators take, of which many do next to nothing.
    """
    above = sum((total - seconds) * count / seconds**2 for seconds, total, count in sums)
    below = sum((count / seconds) ** 2 for seconds, _, count in sums)
    return min(max(0.0, above / below), times[len(times) // 10]) if below else 0.0


def _fit(points: Sequence[tuple[float, float]]) -> Line:
    """The line with the least relative error; through nothing where there is one point."""
    if len({x for x, _ in points}) == 1:
        x, y = points[0][0], statistics.median(y for _, y in points)
        return Line(0.0, y / x) if x > 0 else Line(y, 0.0)
    weights = [1 / max(y, 1e-7) ** 2 for _, y in points]
    whole = sum(weights)
    mx = sum(w * x for w, (x, _) in zip(weights, points, strict=True)) / whole
    my = sum(w * y for w, (_, y) in zip(weights, points, strict=True)) / whole
    above = sum(w * (x - mx) * (y - my) for w, (x, y) in zip(weights, points, strict=True))
    below = sum(w * (x - mx) ** 2 for w, (x, _) in zip(weights, points, strict=True))
    slope = max(0.0, above / below)
    start = my - slope * mx
    if start < 0:  # no operator takes less than nothing
        return Line(0.0, sum(w * x * y for w, (x, y) in zip(weights, points, strict=True)) / sum(w * x * x for w, (x, _) in zip(weights, points, strict=True)))  # fmt: skip
    return Line(start, slope)


def work(operator: Operator) -> float:
    """Multiply-adds of a product or convolution, elements read and written of all else."""
    inputs, outputs = _shapes(operator.inputs), _shapes(operator.outputs)
    written = sum(_product(shape) for shape in outputs)
    if operator.op.endswith("Conv") and len(inputs) > 1:
        return float(written * _product(inputs[1][1:]))
    if operator.op in PRODUCTS and len(inputs) > 1 and outputs and _product(outputs[0]):
        # rows · inner · columns: the square root of the product of all three sizes, for any transposition.
        batches = _product(outputs[0][:-2])
        sides = [_product(shape[-2:]) for shape in (inputs[0], inputs[1], outputs[0])]
        return float(batches * math.sqrt(_product(sides)))
    return float(written + sum(_product(shape) for shape in inputs))


def _shapes(text: str) -> list[list[int]]:
    """Of `[{"float": [32, 6]}, …]`, as the profiler writes it."""
    try:
        rows: list[Any] = json.loads(text)
    except ValueError:
        return []
    return [[int(side) for side in shape] for row in rows if isinstance(row, dict) for shape in row.values()]


def _product(sides: Sequence[int]) -> int:
    return math.prod(sides)
