"""The measured process: time, memory and operators of graphs, in a process without torch. `measured` starts it.

It is told in one line of JSON which graphs to run, and prints one line of JSON.
"""

import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from edge.profile.operators import profiled
from export.runtime import make_session, shared, version


def main(told: dict[str, Any]) -> dict[str, Any]:
    """Measure the graphs in `folder`, each `KIND.onnx` with its inputs in `KIND.npz`."""
    base = memory("VmRSS")
    found: dict[str, Any] = {}
    steps = {kind: Bound(Path(told["folder"]), kind, told) for kind in told["kinds"]}
    for kind, step in steps.items():
        found[kind] = {"seconds": timed(step, told["repeats"], told["seconds"])}
    peak = memory("VmHWM")
    for kind in told["kinds"]:
        found[kind]["operators"] = operators_of(Path(told["folder"]), kind, told)
    return {"kinds": found, "peak_bytes": peak, "base_bytes": base, "onnxruntime": version()}


class Bound:
    """A graph with its inputs, state in place where that is proved safe, as a device has it."""

    def __init__(self, folder: Path, kind: str, told: dict[str, Any], prefix: str | None = None) -> None:
        graph = (folder / f"{kind}.onnx").read_bytes()
        self.session = make_session(graph, told["threads"], prefix)
        with np.load(folder / f"{kind}.npz") as arrays:
            self._held = {name: np.ascontiguousarray(arrays[name]) for name in arrays.files}
        values = {name: shared(array) for name, array in self._held.items()}
        self._binding = self.session.io_binding()
        for value in self.session.get_inputs():
            self._binding.bind_ortvalue_input(value.name, values[value.name])
        for value in self.session.get_outputs():
            old = value.name.removesuffix(".next")
            if old == value.name:
                self._binding.bind_output(value.name, "cpu")
            elif told["in_place"][kind]:
                self._binding.bind_ortvalue_output(value.name, values[old])
            else:
                spare = self._held[value.name] = np.empty_like(self._held[old])
                self._binding.bind_ortvalue_output(value.name, shared(spare))

    def __call__(self) -> None:
        """One step."""
        self.session.run_with_iobinding(self._binding)


def timed(step: Bound, repeats: int, seconds: float) -> list[float]:
    """Seconds of each of `repeats` steps, fewer (at least 5) where they take longer than `seconds` together."""
    found: list[float] = []
    for _ in range(2):
        step()
    until = time.perf_counter() + seconds
    for number in itertools.count():
        if number >= repeats or (number >= 5 and time.perf_counter() > until):
            return found
        began = time.perf_counter()
        step()
        found.append(time.perf_counter() - began)
    raise AssertionError


def operators_of(folder: Path, kind: str, told: dict[str, Any]) -> list[list[Any]]:
    """Operator, shapes of its inputs, shapes of its outputs, seconds: a row for each node."""
    step = Bound(folder, kind, told, str(folder / f"profile-{kind}"))
    return [[*operator.signature, operator.seconds] for operator in profiled(step.session, step)]


def memory(line: str) -> int:
    """Resident memory of this process in bytes: `VmRSS` now, `VmHWM` the most so far."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:  # noqa: PTH123  as in `benchmarks.answering`
        return next(1024 * int(text.split()[1]) for text in status if text.startswith(line))


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
