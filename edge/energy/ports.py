"""Where an external meter is heard: a pipe or file, a TCP address or a serial port. Reads never wait.

pipe:/run/power              a FIFO, or a file that grows
tcp://192.168.1.20:5025      something that listens, and talks to whoever connects
serial:/dev/ttyUSB0@115200   a serial port, raw, 8N1; without @ at 115200 baud
"""

import os
import re
import socket
import stat
import termios
import tty
from collections.abc import Callable
from typing import Protocol

from edge.files import UnreadableError

CONNECT_SECONDS = 1.0
READ_BYTES = 65536
MOST_READS = 256
"""In one go: what a meter piled up while nobody listened."""
PATTERN = r"pipe:/\S+|tcp://([^\s/:\[\]]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}|serial:/[^\s@]+(@\d+)?"
MEANING = "pipe:/PATH, tcp://HOST:PORT or serial:/PATH@BAUD"


class Port(Protocol):
    """An open port."""

    def read(self) -> bytes:
        """What has come; empty where nothing has. Raises UnreadableError where nothing more will come."""

    def close(self) -> None:
        """Gives it back."""


class Descriptor:
    """A port that is a file descriptor in non-blocking mode."""

    def __init__(self, descriptor: int, name: str, *, ends: bool) -> None:
        self._descriptor = descriptor
        self._name = name
        self._ends = ends  # whether an empty read says that the other side has gone

    def read(self) -> bytes:
        """Whatever is there, up to 16 MiB."""
        found: list[bytes] = []
        for _ in range(MOST_READS):
            try:
                data = os.read(self._descriptor, READ_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                raise UnreadableError(f"{self._name} cannot be read: {error.strerror}") from None
            if not data:
                if self._ends and not found:
                    raise UnreadableError(f"{self._name} has hung up")
                break
            found.append(data)
        return b"".join(found)

    def close(self) -> None:
        """Closes it."""
        os.close(self._descriptor)


def open_port(address: str) -> Port:
    """Opens an address of the forms above; raises UnreadableError with the permission it wants."""
    kind, rest = address.split(":", 1)
    try:
        return _PORTS[kind](rest, address)
    except PermissionError:
        raise UnreadableError(
            f"{address} wants read permission (serial ports: membership of the group dialout)"
        ) from None
    except (OSError, termios.error) as error:
        why = getattr(error, "strerror", None) or error.args[-1]
        raise UnreadableError(f"{address} cannot be opened: {why}") from None


def _open_pipe(path: str, address: str) -> Port:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.lseek(descriptor, 0, os.SEEK_END)  # what was written before is over
    return Descriptor(descriptor, address, ends=False)


def _open_tcp(rest: str, address: str) -> Port:
    host, port = rest.removeprefix("//").rsplit(":", 1)
    link = socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS)
    link.setblocking(False)
    return Descriptor(link.detach(), address, ends=True)


def _open_serial(rest: str, address: str) -> Port:
    path, _, baud = rest.partition("@")
    speed = getattr(termios, f"B{baud or 115200}", None)
    if speed is None or not re.fullmatch(r"\d*", baud):
        raise UnreadableError(f"{address}: this system's serial ports know no {baud} baud")
    descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        tty.setraw(descriptor)
        settings = termios.tcgetattr(descriptor)
        settings[2] = (settings[2] | termios.CLOCAL | termios.CREAD) & ~termios.CRTSCTS
        settings[4] = settings[5] = speed
        termios.tcsetattr(descriptor, termios.TCSANOW, settings)
    except termios.error:
        os.close(descriptor)
        raise
    return Descriptor(descriptor, address, ends=True)


_PORTS: dict[str, Callable[[str, str], Port]] = {"pipe": _open_pipe, "tcp": _open_tcp, "serial": _open_serial}
