"""What a figure was measured on: enough to judge it, nothing that names a person, a host or a folder."""

import datetime as dt
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "onnxruntime", "numpy")


def facts() -> dict[str, Any]:
    """Processor, cores, memory, kernel, versions, commit, and how busy the machine was when the run began."""
    return {
        "cpu": _cpu(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20,
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "commit": _commit(),
        "load": round(os.getloadavg()[0], 2),
    }


def today() -> str:
    """Date and time in UTC, to the second."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _cpu() -> str:
    """Name of the processor; boards without one in /proc/cpuinfo give their model."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return found.get("model name") or found.get("Model") or "unknown"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit, with a + where the tree differs from it; None outside of git."""
    try:
        commit = _git("rev-parse", "--short=10", "HEAD")
        # Results are written while a run is on; they do not change what is measured.
        changed = _git("status", "--porcelain", "--", ".", ":!benchmarks/results")
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changed else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()
