"""Profiles a board over the user's own ssh: their keys, their agent, their configuration; of passwords this knows nothing.

On the board runs `cutlayer profile … --json -`, whose JSON comes back on standard output; its progress and its table are on
standard error, which is the user's terminal, as are ssh's own words. The board's standard input is the bundle, and after that
a byte every few seconds: when it ends, because this was stopped, ssh died or the connection was closed, or falls silent, because
the network is gone, the profile there ends as well (`edge.profile.attended`).
"""

import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

from edge.wire.profile import Profile, ProfileError
from export.ssh import MISTAKE, NOT_EXECUTABLE, NOT_FOUND, OWN_FAULT, PATIENCE, SshError, argv, end, start
from hub.profile import page, read

BUNDLE = "device.bundle"
NO_STAGES = 1
"""Exit code of `cutlayer profile` if nothing was measured."""
MEMORY = ": is the board's memory full?"
LIFE_SECONDS = 10.0
"""Between two bytes that tell the board that somebody waits; it gives up after six of them."""
_PIECE = 1 << 16


@dataclass(frozen=True)
class Visit:
    """What to run on which board."""

    target: str
    """As ssh takes it: `user@host`, a name of the user's configuration, `ssh://…`."""
    command: str = "cutlayer"
    """Path of it on the board; `~/` is the board's user's home."""
    bundle: Path | None = None
    """A bundle of this machine, sent along; without one, the board's configuration names it."""
    config: str | None = None
    """Path on the board."""
    arguments: tuple[str, ...] = ()
    """For `cutlayer profile`."""
    ssh_options: tuple[str, ...] = ()
    """For ssh: what begins with a dash as it is, anything else behind `-o`."""

    def remote(self, sent: int = 0) -> str:
        """The line for the board's shell.

        Args:
            sent: bytes of the bundle that is sent along.

        Raises:
            SshError: the command is an option in disguise.
        """
        if not self.command or self.command.startswith("-"):
            raise SshError(f"--command {self.command!r} is no command")
        parts = [_path(self.command), "profile"]
        parts += ["--config", _path(self.config)] if self.config is not None else []
        parts += ["--bundle", "-"] if self.bundle is not None else []
        parts += ["--attended", str(sent), "--json", "-"]
        return " ".join([*parts, *map(shlex.quote, self.arguments)])

    def argv(self, ssh: str = "ssh", sent: int = 0) -> list[str]:
        """The program and its arguments.

        Args:
            ssh: program.
            sent: bytes of the bundle that is sent along.

        Raises:
            SshError: target or command is an option in disguise.
        """
        return argv(self.target, self.remote(sent), self.ssh_options, ssh=ssh)


def profile(visit: Visit, out: Path, ssh: str = "ssh") -> Profile:
    """Profile a board; writes profile.json and page.html into a folder, none of them half, and returns the profile.

    It has no stages where none could be measured: its reasons are worth a page, too.

    Args:
        visit: the board, and what to run there.
        out: the folder; made if it is not there. A profile of before in it is replaced.
        ssh: program.

    Raises:
        SshError: it did not come about; the message says why, or that ssh or the board has said so on the terminal.
        PageError: the folder cannot be written.
    """
    with _folder(out):
        data = _run(visit, ssh)
        try:
            found = read.decode(data)
        except ProfileError as error:
            raise SshError(
                f"what came from {visit.target} is no profile: {error}; it begins with "
                f"{data[:60].decode(errors='replace')!r} (nothing else may write to standard output there, such as an echo "
                "in .bashrc)"
            ) from error
        page.save(out / "profile.json", data.decode())  # before the page: it took minutes
        page.save(out / "page.html", page.render(read.named([(visit.target, found)])))
        return found


@contextmanager
def _folder(out: Path) -> Iterator[None]:
    """The folder, made before anything takes minutes, and taken away again where nothing came of it."""
    made = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise page.PageError(f"{out} cannot be made: {error.strerror}") from error
    try:
        yield
    except BaseException:
        if made:
            with suppress(OSError):  # it holds something
                out.rmdir()
        raise


def folder_for(target: str, now: datetime) -> Path:
    """Where a profile goes if nobody says."""
    name = re.sub(r"[^A-Za-z0-9._@-]+", "_", target).strip("._") or "board"
    return Path("profiles") / f"{name}-{now:%Y%m%d-%H%M%S}"


def _path(path: str) -> str:
    """A path for the board's shell; a leading `~/` stays what it is there."""
    return f"~/{shlex.quote(path[2:])}" if path.startswith("~/") and len(path) > 2 else shlex.quote(path)


def _bundle(path: Path) -> Path:
    return path / BUNDLE if path.is_dir() else path


def _run(visit: Visit, ssh: str) -> bytes:
    visit.argv(ssh)  # what is wrong with the target is said first
    sys.stderr.flush()
    with ExitStack() as stack:
        bundle, size = None, 0
        if visit.bundle is not None:
            path = _bundle(visit.bundle)
            try:
                bundle = stack.enter_context(path.open("rb"))
                size = os.fstat(bundle.fileno()).st_size
            except OSError as error:
                raise SshError(f"the bundle {path} cannot be read: {error.strerror}") from error
        process = start(visit.argv(ssh, size), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        data = _answer(process, bundle, size)
    if len(data) <= read.MOST_BYTES:  # else ssh was stopped, and what came says enough
        _judge(visit, process.returncode, data)
    return data


def _answer(process: "subprocess.Popen[bytes]", bundle: IO[bytes] | None, size: int) -> bytes:
    assert process.stdout is not None  # noqa: S101  it is a pipe
    over = threading.Event()
    feeder = threading.Thread(target=_feed, args=(process, bundle, size, over), daemon=True)
    feeder.start()
    try:
        with process.stdout:
            data = _all(process.stdout)
        if len(data) <= read.MOST_BYTES:
            process.wait()
    finally:
        over.set()
        end(process)
        feeder.join(PATIENCE)  # ssh is gone: it writes to nobody
    return data


def _all(stream: IO[bytes]) -> bytes:
    """What comes, up to the most that is read and a little more."""
    data = bytearray()
    while len(data) <= read.MOST_BYTES and (piece := stream.read(_PIECE)):
        data += piece
    return bytes(data)


def _feed(process: "subprocess.Popen[bytes]", bundle: IO[bytes] | None, size: int, over: threading.Event) -> None:
    """Send the bundle, then a byte every few seconds until it is over; the end of it all tells the board that nobody waits."""
    assert process.stdin is not None  # noqa: S101  it is a pipe
    with suppress(OSError), process.stdin as stdin:  # ssh is gone, and its exit code says why
        while size and bundle is not None:
            piece = bundle.read(min(size, _PIECE))
            if not piece:
                return  # the file was cut short meanwhile: the board says so
            _write(stdin, piece)
            size -= len(piece)
        while not over.wait(LIFE_SECONDS):
            _write(stdin, b"\n")


def _write(stream: IO[bytes], data: bytes) -> None:
    """All of it: a pipe without a buffer may take a part."""
    while data:
        data = data[stream.write(data) :]


def _judge(visit: Visit, code: int, data: bytes) -> None:
    """Raises SshError for any end but a good one."""
    target = visit.target
    if code == OWN_FAULT and data:
        raise SshError(f"the connection to {target} was lost in the middle ({len(data)} bytes had come)")
    if code == OWN_FAULT:
        raise SshError(
            f"ssh did not reach {target}, or lost it; its own words stand above "
            f"(if there are none, {visit.command} was killed there{MEMORY})"
        )
    if code == NOT_FOUND:
        raise SshError(f"there is no {visit.command} on {target}: say where it is with --command PATH")
    if code == NOT_EXECUTABLE:
        raise SshError(f"{visit.command} on {target} cannot be executed (exit code 126)")
    if code == MISTAKE:
        raise SshError(f"{target} refused; what is wrong stands above")
    if 128 < code < OWN_FAULT:
        raise SshError(f"{visit.command} on {target} was ended by signal {code - 128}{MEMORY if code == 137 else ''}")
    if code < 0:
        raise SshError(f"ssh was ended by signal {-code}")
    if code == NO_STAGES and data.lstrip().startswith(b"{"):
        return
    if code:
        raise SshError(f"the profile on {target} failed (exit code {code}); what happened stands above")
    if not data.strip():
        raise SshError(f"{visit.command} on {target} ended well, but no profile came")
