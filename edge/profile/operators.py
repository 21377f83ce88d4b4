"""What each operator of a graph takes, as onnxruntime's profiler writes it into a file."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from edge.wire.profile import Operator, Share

RUNS = 7
"""Under the profiler, of which the first is left out: it finds nothing in the caches."""


def profiled(session: Any, once: Callable[[], object], runs: int = RUNS) -> list[Operator]:
    """One `Operator` for each node of the graph, with the quickest of its runs.

    Args:
        session: made with `enable_profiling`; it is of no use afterwards.
        once: runs it once.
        runs: how often.
    """
    for _ in range(runs):
        once()
    path = Path(session.end_profiling())
    try:
        events = json.loads(path.read_text("utf-8"))
    finally:
        path.unlink(missing_ok=True)
    return read(events, runs)


def read(events: Sequence[Mapping[str, Any]], runs: int) -> list[Operator]:
    """Of the profiler's events, those of the first run left out."""
    nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    by_node: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for event in nodes[len(nodes) // runs :]:
        by_node[event["name"]].append(event)
    return [
        Operator(
            args["op_name"],
            json.dumps(args.get("input_type_shape", [])),
            json.dumps(args.get("output_type_shape", [])),
            1e-6 * min(event["dur"] for event in same),
        )
        for same in by_node.values()
        if (args := same[0]["args"])
    ]


def shares(operators: Sequence[Operator], stage: str, batch: int, threads: int) -> list[Share]:
    """What the operators of each name take together, the most first."""
    total = sum(operator.seconds for operator in operators)
    by_name: dict[str, list[float]] = defaultdict(list)
    for operator in operators:
        by_name[operator.op].append(operator.seconds)
    rows = [
        Share(stage, batch, threads, op, len(times), sum(times), sum(times) / total if total else 0.0)
        for op, times in by_name.items()
    ]
    return sorted(rows, key=lambda row: -row.seconds)


def merged(operators: Sequence[Operator]) -> list[Operator]:
    """One for each signature, with the median of its times: what `cutlayer-export cuts` predicts other cuts from."""
    times: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for operator in operators:
        times[operator.signature].append(operator.seconds)
    return [Operator(*signature, median(found)) for signature, found in times.items()]
