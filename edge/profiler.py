"""Starts `cutlayer profile` as a process of its own, and fetches what it prints; it ends when we do, however we end."""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from edge.wire.inquiry import TEXT_LIMIT, Inquiry

_PR_SET_PDEATHSIG = 1
END_SECONDS = 2.0
"""How long it may take to clean up behind itself."""
WORDS_LIMIT = 400
"""Most characters of its last line."""
_TAIL_BYTES = 4096


@dataclass(frozen=True)
class Found:
    """How it ended: with a profile, or without one and why."""

    text: str = ""
    """Of `profile.json`."""
    reason: str = ""


class Profiler:
    """Makes one profile at a time.

    Args:
        command: prints `profile.json` on stdout when options of `cutlayer profile` are added; it leaves the device's state
            directory alone.
        now: clock for the limit, in seconds.
    """

    def __init__(self, command: Sequence[str], *, now: Callable[[], float] = time.monotonic) -> None:
        self._command = tuple(command)
        self._now = now
        self._process: subprocess.Popen[bytes] | None = None
        self._files: tuple[IO[bytes], IO[bytes]] | None = None
        self._limit = self._began = 0.0

    def start(self, inquiry: Inquiry) -> None:
        """Begin, at nice 0 where the system allows that.

        Raises:
            OSError: it cannot be started.
        """
        self.end()
        self._limit, self._began = inquiry.limit_seconds, self._now()
        # Without names: nothing is left of them after a power cut.
        self._files = out, errors = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115  closed by `end`
        try:
            self._process = _start([*self._command, *options_of(inquiry)], out, errors)
        except OSError:
            self.end()
            raise
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, 0)

    def look(self) -> Found | None:
        """What it came to; None while it goes on."""
        if self._process is None or self._files is None:
            return Found(reason="the profiler was not started")
        code = self._process.poll()
        printed, said = (os.fstat(file.fileno()).st_size for file in self._files)
        if printed > TEXT_LIMIT or said > TEXT_LIMIT:
            return Found(reason=f"the profiler printed more than {TEXT_LIMIT} bytes")
        if code is None:
            over = self._now() - self._began >= self._limit
            return Found(reason=f"the profiler was ended after {self._limit:.3g} s") if over else None
        return self._found(code, *self._files)

    def end(self) -> None:
        """End it, with all that it started, and forget what it printed."""
        if self._process is not None:
            # First as Ctrl-C does, so that it clears its folders away.
            for number, seconds in ((signal.SIGINT, END_SECONDS), (signal.SIGKILL, None)):
                if self._process.poll() is not None:
                    break
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, number)
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(seconds)
        for file in self._files or ():
            file.close()
        self._process = self._files = None

    def _found(self, code: int, out: IO[bytes], errors: IO[bytes]) -> Found:
        out.seek(0)
        text = out.read(TEXT_LIMIT)
        errors.seek(max(0, os.fstat(errors.fileno()).st_size - _TAIL_BYTES))
        lines = errors.read().decode("utf-8", "replace").strip().splitlines()
        last = f": {lines[-1].strip()[:WORDS_LIMIT]}" if lines else ""
        if code != 0:
            return Found(reason=f"the profiler {_ended(code)}{last}")
        try:
            return Found(text=text.decode()) if text.strip() else Found(reason=f"the profiler printed no profile{last}")
        except UnicodeDecodeError:
            return Found(reason="the profiler printed what is not UTF-8")


def _start(command: list[str], out: IO[bytes], errors: IO[bytes]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # noqa: S603  the command is our own, the options are checked
        command,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=errors,
        start_new_session=True,
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509  only one system call
    )


def options_of(inquiry: Inquiry) -> list[str]:
    """What is asked, as options of `cutlayer profile`; what is left open it decides by itself."""
    lists = {"batch": inquiry.batches, "threads": inquiry.threads, "codec": inquiry.codecs}
    options = ["--json", "-", "--seconds", f"{inquiry.seconds:g}"]
    for name, values in lists.items():
        options += [f"--{name}", ",".join(map(str, values))] if values else []
    return options


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
