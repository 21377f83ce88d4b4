"""The measured side of `child`: imports next to nothing, since all it imports is measured too."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any


def told() -> dict[str, Any]:
    """What the parent said at the start."""
    words: dict[str, Any] = json.loads(sys.argv[1])
    return words


def serve(answers: Mapping[str, Callable[..., dict[str, Any]]]) -> None:
    """Answer requests `{"what": NAME, ...}` until the parent closes the pipe."""
    reply = sys.stdout
    sys.stdout = sys.stderr  # what a library prints must not look like an answer
    for line in sys.stdin:
        request = json.loads(line)
        answer = answers[request.pop("what")](**request)
        reply.write(json.dumps(answer) + "\n")
        reply.flush()


def timed(step: Callable[[], object], count: int) -> dict[str, Any]:
    """Run a step `count` + 1 times; the first, with the caches another process left, is not counted.

    Returns:
        `wall` and `cpu`: milliseconds of each step by the clock and of the processor, all threads together.
    """
    wall, cpu = [], []
    step()
    for _ in range(count):
        clock, used = time.perf_counter(), time.process_time()
        step()
        cpu.append(1e3 * (time.process_time() - used))
        wall.append(1e3 * (time.perf_counter() - clock))
    return {"wall": wall, "cpu": cpu}


def memory() -> dict[str, float]:
    """Resident memory of this process in bytes, `rss` now and `peak` since its start; processor seconds until now."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:  # noqa: PTH123  pathlib would be measured too
        found = dict(line.split(":", 1) for line in status)
    kib = {name: int(found[line].split()[0]) for name, line in (("rss", "VmRSS"), ("peak", "VmHWM"))}
    return {**{name: 1024 * size for name, size in kib.items()}, "cpu_seconds": time.process_time()}
