"""Whether this processor can run the installed wheels: some die of an illegal instruction on older ones, and take the process along.

So a child process tries, before anything here imports them: this file imports neither numpy nor onnxruntime. A board in the
field then says in its log why it cannot run, instead of dying without a word each time its service is started again.
"""

import contextlib
import hashlib
import platform
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from edge.files import Files

PROBE = (
    "import os; os.environ['ORT_DISABLE_TELEMETRY'] = '1'; "
    "import numpy, onnxruntime; numpy.ones((9, 9), 'f4') @ numpy.ones((9, 9), 'f4')"
)
PYTHON = (sys.executable, "-c", PROBE)
SECONDS = 120.0
"""Longest wait for the child; the import takes some seconds from a slow card."""

PASSED = "processor"
"""The file in the state directory that remembers what has passed."""

CHANGING = ("bogomips", "cpu mhz", "processor", "apicid", "initial apicid", "core id")
"""Lines of /proc/cpuinfo that differ from core to core or from time to time."""


class ProcessorError(ValueError):
    """The installed wheels cannot be run here; the message says which, what became of them, and what would help."""


def probe(command: Sequence[str] = PYTHON, seconds: float = SECONDS) -> str:
    """Import numpy and onnxruntime in a child process; returns the release of onnxruntime.

    Raises:
        ProcessorError: the child died, or could not import them.
    """
    version = metadata.version("onnxruntime")
    named = f"onnxruntime {version} (numpy {metadata.version('numpy')})"
    try:
        child = subprocess.run(command, check=False, capture_output=True, timeout=seconds)  # noqa: S603  our own words
    except subprocess.TimeoutExpired:
        raise ProcessorError(
            f"{named} could not be imported within {seconds:g} s: is the board out of memory?"
        ) from None
    if child.returncode == -signal.SIGILL:
        raise ProcessorError(
            f"{named} dies of an illegal instruction on this processor ({platform.machine()}): "
            "its wheel is made for a newer one; install another release"
        )
    if child.returncode == -signal.SIGKILL:
        raise ProcessorError(
            f"{named} was killed while it was imported: the memory of the board or its service is too small"
        )
    if child.returncode < 0:
        raise ProcessorError(f"{named} dies of signal {-child.returncode} on this processor: install another release")
    if child.returncode:
        words = child.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["without a word"]
        raise ProcessorError(f"{named} cannot be imported: {words[0]}")
    return version


def probe_once(state_directory: Path, files: Files, command: Sequence[str] = PYTHON) -> None:
    """The same, but once for these wheels on this processor: the state directory remembers what has passed.

    Raises:
        ProcessorError: see `probe`.
    """
    passed, here = state_directory / PASSED, _signature(files)
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if passed.read_text("utf-8").strip() == here:
            return
    probe(command)
    with contextlib.suppress(OSError):  # a directory that cannot be used is for the outbox to tell; a full disk forgets
        state_directory.mkdir(parents=True, exist_ok=True)
        passed.write_text(f"{here}\n", "utf-8")


def _signature(files: Files) -> str:
    lines = (line.partition(":") for line in (files.text_or_none("proc/cpuinfo") or "").splitlines())
    kinds = sorted(
        {f"{name.strip()}={value.strip()}" for name, _, value in lines if name.strip().lower() not in CHANGING}
    )
    cpu = hashlib.sha256("\n".join(kinds).encode()).hexdigest()[:16]
    wheels = (f"{name} {metadata.version(name)}" for name in ("onnxruntime", "numpy"))
    return f"{', '.join(wheels)}, python {platform.python_version()}, {platform.machine()} {cpu}"
