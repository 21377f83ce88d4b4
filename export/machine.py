"""The machine that runs this, for the records of what was measured on it."""

import os
import platform
from pathlib import Path
from typing import Any


def this_machine(version: str | None) -> dict[str, Any]:
    """Record of the machine that runs this: nothing that names a person or a host."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return {
        "model": facts.get("Model") or facts.get("model name") or platform.machine(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "kernel": f"{platform.system()} {platform.release()}",
        "onnxruntime": version,
    }
