"""Child processes that end with us, however we end."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def start(command: Sequence[str], log: Path, *, environ: Mapping[str, str] | None = None) -> "subprocess.Popen[bytes]":
    """Start a child in a session of its own, its output in `log`.

    A session of its own keeps the terminal's Ctrl-C away from it, so that we decide who ends when; the kernel ends it
    when we die without having done so.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603  commands are our own
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **(environ or {})},
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509  only one system call
        )


def stop(children: Sequence["subprocess.Popen[bytes]"], *, seconds: float = 3.0) -> None:
    """Ask all to end at once, wait together, end by force who does not."""
    for child in children:
        if child.poll() is None:
            child.terminate()
    for child in children:
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            seconds = 0.1  # the others have had the same time


_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
