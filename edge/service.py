"""What a process manager is told, and the mark that a release is well.

systemd hears of us over a datagram socket that `$NOTIFY_SOCKET` names: READY=1 once the loop begins, WATCHDOG=1 while it turns,
STATUS= what it is at, STOPPING=1. The mark is a file with the id of the release that runs: by it the guard on the board knows
that an update has not broken the device. A network is no part of that: the mark is written once the loop has turned for a while,
or at once when a step has been done for a hub that answers. An answer alone proves nothing: the first step may be what is broken.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

log = logging.getLogger("cutlayer.device")

RETRY_SECONDS = 10.0
"""Before a mark that could not be written is tried again."""


class Notifier:
    """One end of `sd_notify`; without a socket it does nothing.

    Args:
        environ: with `NOTIFY_SOCKET`, a path or `@name`, and `WATCHDOG_USEC`, where there is a manager.
        process: this one; a watchdog of another (`WATCHDOG_PID`) is not ours.
    """

    def __init__(self, environ: Mapping[str, str], process: int) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        self._every = _watchdog_seconds(environ, process) / 4
        self._told_at: float | None = None
        self._status = ""
        self._owes_ready = False

    @property
    def present(self) -> bool:
        """Whether there is a manager."""
        return bool(self._address)

    def ready(self) -> None:
        """The device has started; said again with `alive` where it could not be heard, or it would count as a failed start."""
        self._owes_ready = not self._send("READY=1")

    def stopping(self) -> None:
        """It ends."""
        self._send("STOPPING=1")

    def alive(self, now: float) -> None:
        """The loop turns; said four times in the time after which the manager would end us."""
        if self._owes_ready:
            self.ready()
        if self._every and (self._told_at is None or now - self._told_at >= self._every):
            self._told_at = now
            self._send("WATCHDOG=1")

    def between(self, stopped: Callable[[], bool], now: Callable[[], float] = time.monotonic) -> Callable[[], bool]:
        """`stopped`, asked by what waits: whoever waits for a network lives."""

        def asked() -> bool:
            self.alive(now())
            return stopped()

        return asked

    def status(self, text: str) -> None:
        """What the device is at, in one line; said where it has changed."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={' '.join(text.split())}")

    def close(self) -> None:
        """Give the socket back."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, text: str) -> bool:
        """Say it; whether it has been heard, as far as one can know."""
        if not self._address:
            return True
        with suppress(OSError):  # a manager that is gone, or does not read, stops no device
            if self._socket is None:
                self._socket = socket.socket(
                    socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
                )
            self._socket.sendto(text.encode(), self._address)
            return True
        return False


class Health:
    """The mark that a release is well.

    Args:
        path: of the mark; None: there is none to make.
        release: id of the release that this process runs.
        after_seconds: how long the loop must have turned.
    """

    def __init__(self, path: Path | None, release: str, after_seconds: float) -> None:
        self._path, self._release, self._after = path, release, after_seconds
        self._began: float | None = None
        self._retry_at = 0.0
        self.proven = path is None or not release or _read(path) == release
        """Whether the mark is there, or none is wanted."""

    def turned(self, now: float, *, worked: bool) -> None:
        """The loop has turned once more; `worked`: this process has heard the hub and done a step."""
        self._began = now if self._began is None else self._began
        if not self.proven and now >= self._retry_at and (worked or now - self._began >= self._after):
            self._prove(now)

    def answered(self) -> None:
        """The hub has answered, if only to refuse this device: its release runs well enough for that."""
        if not self.proven:
            self._prove(0.0)

    def _prove(self, now: float) -> None:
        if self._path is None:
            return
        try:
            write_whole(self._path, f"{self._release}\n".encode())
        except OSError as error:
            self._retry_at = now + RETRY_SECONDS
            log.warning("%s cannot be written: %s; the release stays on trial", self._path, error.strerror)
            return
        self.proven = True
        log.info("release %s is well", self._release[:8])


def write_whole(path: Path, data: bytes, replace: Callable[[Path, Path], object] = os.replace) -> None:
    """Write a file so that after a power cut there is the old one or the new one.

    Raises:
        OSError: it cannot be written; the old one stays.
    """
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    replace(fresh, path)
    keep_names(path.parent)


def keep_names(folder: Path) -> None:
    """Make the names in a folder durable, where its disk can.

    Raises:
        OSError: the folder is gone.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _watchdog_seconds(environ: Mapping[str, str], process: int) -> float:
    try:
        meant = int(environ.get("WATCHDOG_PID", process)) == process
        return int(environ.get("WATCHDOG_USEC", 0)) / 1e6 if meant else 0.0
    except ValueError:
        return 0.0
