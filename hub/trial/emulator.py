"""The process that emulates links, seen from both of its ends.

`Net` is its owner's end: it starts the emulator and the processes of the trial, asks for counters, and ends them all.
`Owner` is the emulator's end. Between them is a pair of sockets: first the set-up, then questions and answers, JSON, one a
line. When the owner is gone, however it went, the emulator reads the end of that and goes, too.
"""

import contextlib
import ctypes
import heapq
import json
import math
import os
import pickle
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self, TextIO

from edge.wire.toml_fields import ConfigError
from hub import processes
from hub.trial.channel import Counters
from hub.trial.outages import Outages
from hub.trial.scenario import NAME, Scenario
from hub.trial.timeline import Direction, Timeline

HUB = "hub"
TIMELINE = "links.jsonl"
ANSWER_SECONDS = 20.0

_PR_SET_PDEATHSIG = 1
_ROOT = str(Path(__file__).parents[2])
_LENGTH = struct.Struct("!Q")
# -P: no folder of the one we are called from is taken for the package.
_MAIN = "import sys; sys.path.append(sys.argv[1]); from hub.trial.{} import main; main(int(sys.argv[2]))"

Watched = dict[str, tuple[dict[str, Direction], Outages, str]]
"""Of each device: its directions by name, its outages and what their jitter starts from."""


class NetError(OSError):
    """The links of a trial cannot be had, or are gone; the message says why."""


class Net:
    """Watched of a trial and the processes behind them; a context manager that ends both.

    Args:
        module: of this package; its `main` is the emulator.
        scenario: what the links do.
        devices: their names.
        folder: for logs and the timeline.
        setup: what this emulator needs besides.

    Raises:
        ConfigError: a device's name cannot be used, or the scenario speaks of one that is not there.
        NetError: the emulator did not start.
    """

    means: str
    """`netem`, `emulator` or `relay`."""

    how: str
    """What is emulated and how, in a sentence."""

    congestion: str
    """The congestion control that the processes' TCP uses."""

    def __init__(
        self, module: str, scenario: Scenario, devices: Sequence[str], folder: Path, setup: Mapping[str, Any]
    ) -> None:
        _check(devices)
        scenario.check(devices)
        folder.mkdir(parents=True, exist_ok=True)
        self.devices = tuple(devices)
        self.folder = folder
        self.timeline = folder / TIMELINE
        self.children: list[subprocess.Popen[bytes]] = []
        self._lock = Lock()
        self._last: dict[str, Any] | None = None
        self._log = folder / "_links.log"  # which no device can be called
        ours, theirs = socket.socketpair()
        with theirs, self._log.open("wb") as log:
            self.emulator = subprocess.Popen(  # noqa: S603  our own module
                [sys.executable, "-P", "-c", _MAIN.format(module), _ROOT, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        ours.settimeout(ANSWER_SECONDS)
        self._socket, self._answers = ours, ours.makefile("r", encoding="utf-8")
        content = pickle.dumps({"scenario": scenario, "devices": self.devices, "timeline": self.timeline, **setup})
        try:
            self.ready = self._exchange(_LENGTH.pack(len(content)) + content)
        except BaseException:
            self.close()
            raise

    def popen(
        self, node: str, command: Sequence[str], *, log: Path | None = None, environ: Mapping[str, str] | None = None
    ) -> "subprocess.Popen[bytes]":
        """Start a process behind a node's link, its output in `log` (`folder`/NODE.log).

        It is ended with this net. The kernel kills it when the thread that called this ends, so that nothing is left when
        we are killed: call it from the main thread.

        Args:
            node: `hub` or a device.
            command: program and arguments.
            log: a file, appended to.
            environ: variables to add to ours.
        """
        self._known(node)
        log = log or self.folder / f"{node}.log"
        child = self.start(node, command, log, {**os.environ, **(environ or {})})
        self.children.append(child)
        return child

    def start(
        self, node: str, command: Sequence[str], log: Path, environ: Mapping[str, str]
    ) -> "subprocess.Popen[bytes]":
        """Start a process of a node."""
        raise NotImplementedError

    def address(self, node: str) -> str:
        """The address at which a node's own servers listen."""
        raise NotImplementedError

    def endpoint(self, device: str, port: int) -> tuple[str, int]:
        """Where a device reaches the hub's port: host and port."""
        raise NotImplementedError

    def counters(self) -> dict[str, dict[str, Counters]]:
        """What has happened so far, by device, then `up` and `down`; after `close` how it ended.

        Raises:
            NetError: the emulator is gone.
        """
        answer = self._last if self._last is not None else self.ask({"ask": "counters"})
        return {
            device: {name: Counters(**values) for name, values in directions.items()}
            for device, directions in answer["counters"].items()
        }

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Ask the emulator.

        Raises:
            NetError: it is gone, or has no answer.
        """
        return self._exchange(json.dumps(question).encode() + b"\n")

    def close(self) -> None:
        """End the processes, then the emulator; the timeline is complete afterwards."""
        processes.stop([child for child in self.children if child.poll() is None])
        if self.emulator.poll() is None and self._last is None:
            with contextlib.suppress(NetError):
                self._last = self.ask({"ask": "end"})
        self._answers.close()
        self._socket.close()
        try:
            self.emulator.wait(ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            self.emulator.kill()
            self.emulator.wait()

    def _exchange(self, sent: bytes) -> dict[str, Any]:
        with self._lock:
            try:
                self._socket.sendall(sent)
                line = self._answers.readline()
            except (OSError, ValueError) as error:  # ValueError: closed by us
                raise NetError(f"the emulator of the links does not answer: {error}") from error
        if not line.endswith("\n"):
            raise NetError(f"the emulator of the links has ended: {self._told()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise NetError(answer["error"])
        return answer

    def _told(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.emulator.wait(1)
        tail = self._log.read_text("utf-8", "replace").strip()[-500:]
        return tail or f"code {self.emulator.returncode}"

    def _known(self, node: str) -> None:
        if node != HUB and node not in self.devices:
            raise ConfigError(f"there is no node {node!r}: must be one of {', '.join((HUB, *self.devices))}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def launch(
    command: Sequence[str], log: Path, environ: Mapping[str, str], namespaces: Sequence[tuple[int, int]] = ()
) -> "subprocess.Popen[bytes]":
    """Start a process that the kernel kills when we die, inside namespaces given as kind and descriptor."""
    owner = os.getpid()
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603  what the caller wants
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environ,
            # only system calls
            preexec_fn=(lambda: _enter(namespaces, owner)) if sys.platform == "linux" else None,  # noqa: PLW1509
        )


_libc = ctypes.CDLL(None, use_errno=True)


def _enter(namespaces: Sequence[tuple[int, int]], owner: int) -> None:
    """In the child: move into the namespaces, and die with the owner."""
    for kind, descriptor in namespaces:
        if _libc.setns(descriptor, kind):
            raise OSError(ctypes.get_errno(), "setns")
    # After setns, which clears it. SIGKILL: nobody is left who could wait for a graceful end.
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != owner:
        os._exit(1)


class Owner:
    """The emulator's end of the pair of sockets."""

    def __init__(self, descriptor: int) -> None:
        # Ctrl-C and a stop of the whole group are the owner's to handle; we end when it has.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._socket = socket.socket(fileno=descriptor)
        self._socket.set_inheritable(False)
        self._buffer = b""
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size))
        self.setup: dict[str, Any] = pickle.loads(self._exactly(length))  # noqa: S301  from the process that started us
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """To wait for."""
        return self._socket.fileno()

    def questions(self) -> list[dict[str, Any]] | None:
        """What the owner has asked since; None when it is gone."""
        try:
            read = self._socket.recv(65536)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not read:
            return None
        *lines, self._buffer = (self._buffer + read).split(b"\n")
        return [json.loads(line) for line in lines]

    def answer(self, content: Mapping[str, Any]) -> None:
        """Answer a question."""
        self._socket.setblocking(True)
        with contextlib.suppress(OSError):  # gone meanwhile: the next look at its questions says so
            self._socket.sendall(json.dumps(content).encode() + b"\n")
        self._socket.setblocking(False)

    def _exactly(self, size: int) -> bytes:
        content = b""
        while len(content) < size:
            read = self._socket.recv(size - len(content))
            if not read:
                raise SystemExit(0)
            content += read
        return content


class Alarms:
    """When each of many things wants to be looked at next."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Any]] = []
        self._set: dict[Hashable, float] = {}
        self._number = 0

    def set(self, key: Hashable, at: float | None) -> None:
        """Look at it then, unless something earlier is set already."""
        if at is not None and at < self._set.get(key, math.inf):
            self._set[key] = at
            self._number += 1
            heapq.heappush(self._heap, (at, self._number, key))

    def due(self, now: float) -> list[Any]:
        """What is to be looked at by now; it is set no longer."""
        keys = []
        while self._heap and self._heap[0][0] <= now:
            at, _, key = heapq.heappop(self._heap)
            if self._set.get(key) == at:
                del self._set[key]
                keys.append(key)
        return keys

    def next(self) -> float:
        """When the next one is; infinity without one."""
        return self._heap[0][0] if self._heap else math.inf


class Desk:
    """What every emulator does besides moving bytes: it keeps the time, answers its owner and writes the timeline."""

    def __init__(self, owner: Owner, links: Watched, file: TextIO, heading: Mapping[str, Any]) -> None:
        self.owner, self._links = owner, links
        self._began = time.monotonic()
        self._timeline = Timeline(file, heading, time.time())
        self.next_second = 1.0
        self.open = True

    def now(self) -> float:
        """Seconds since the start of the trial."""
        return time.monotonic() - self._began

    def tick(self, now: float) -> None:
        """Write a second when it is over."""
        if now >= self.next_second:
            self._timeline.second(now, self._links)
            self.next_second = math.floor(now) + 1.0

    def talk(self, others: Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]]) -> None:
        """Answer the owner's questions; `others` are those of this emulator."""
        questions = self.owner.questions()
        if questions is None:
            self.end()
            return
        for question in questions:
            if question["ask"] in others:
                self.owner.answer(others[question["ask"]](question))
                continue
            if question["ask"] == "end":
                self.end()
            self.owner.answer({"counters": _counted(self._links)})

    def end(self) -> None:
        """Write what has happened in the second that has begun, and be closed."""
        self._timeline.second(self.now(), self._links)
        self.open = False


def heading(setup: Mapping[str, Any], how: str) -> dict[str, Any]:
    """The first line of a timeline."""
    scenario: Scenario = setup["scenario"]
    return {"scenario": scenario.name, "source": scenario.source, "seed": scenario.seed, "how": how}


def _counted(links: Watched) -> dict[str, dict[str, dict[str, int]]]:
    return {
        device: {name: asdict(direction.counters) for name, direction in directions.items()}
        for device, (directions, _, _) in links.items()
    }


def _check(devices: Iterable[str]) -> None:
    seen = {HUB}
    for device in devices:
        if not re.fullmatch(NAME, device):
            raise ConfigError(f"device {device!r}: must be a name of letters, digits, points, dashes")
        if device in seen:
            raise ConfigError(f"device {device!r}: must be a name of its own")
        seen.add(device)
