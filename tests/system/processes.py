"""Child processes for tests: every one is bounded in time, ended by its own pid, and leaves its words in files.

They end with the tests' own process too, however that ends.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from hub.processes import _die_with_parent

POLL_SECONDS = 0.03


def wait_for(condition: Callable[[], Any], what: str, *, seconds: float = 40.0) -> Any:
    """The first true value of `condition`; fails with `what` after so many seconds."""
    until = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < until, f"after {seconds:g} s still not: {what}"
        time.sleep(POLL_SECONDS)
    return value


def within(seconds: float) -> float:
    """So many seconds of a machine that is ours; more of one that is busy with others as well."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


@dataclass
class Child:
    """One started command."""

    process: "subprocess.Popen[bytes]"
    output: Path
    errors: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def stdout(self) -> str:
        return self.output.read_text("utf-8", "replace")

    def stderr(self) -> str:
        return self.errors.read_text("utf-8", "replace")

    def wait(self, seconds: float = 40.0) -> int:
        """The exit code; what it said is in the failure when it does not end."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"pid {self.pid} still runs after {seconds:g} s; it said:\n{self.said()}") from None

    def kill(self) -> None:
        """As a power cut would."""
        self.process.kill()
        self.process.wait(10)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stands still for the length of the block, so that others may catch up however fast this machine is."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def said(self) -> str:
        return f"{self.stdout()}\n--- stderr\n{self.stderr()}"


class Children:
    """Starts commands, and ends those that are left when the test is over."""

    executable = sys.executable

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[Child] = []

    def start(self, *command: str | Path, environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> Child:
        """Start a command in a session of its own."""
        number = len(self._started)
        output, errors = self._folder / f"{number}.out", self._folder / f"{number}.err"
        with output.open("wb") as out, errors.open("wb") as err:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=cwd or self._folder,
                env={**os.environ, **(environ or {})},
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  only one system call
            )
        self._started.append(Child(process, output, errors))
        return self._started[-1]

    def python(
        self, *arguments: str | Path, environ: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> Child:
        """Start this Python, as `python -m …`."""
        return self.start(sys.executable, *arguments, environ=environ, cwd=cwd)

    def end(self) -> None:
        """End what still runs, newest first, so that devices go before their broker."""
        for child in reversed(self._started):
            if child.alive:
                child.process.send_signal(signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                child.process.wait(10)


class Family:
    """The descendants a process has had, so that a test can ask which of them are left."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._seen: set[psutil.Process] = set()

    def look(self) -> int:
        """Note who is there now; returns how many there have been so far."""
        with suppress(psutil.NoSuchProcess):
            self._seen.update(self._root.children(recursive=True))
        return len(self._seen)

    def left(self) -> list[str]:
        """Those that still run."""
        return list(self._living())

    def _living(self) -> Iterator[str]:
        for process in self._seen:
            with suppress(psutil.NoSuchProcess):
                # psutil compares the time of birth too, so a pid that was given again is not taken for ours.
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    yield f"{process.pid} {' '.join(process.cmdline())}"
