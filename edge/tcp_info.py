"""Bytes of a TCP connection as the kernel counts them: MQTT, TLS and repeats included, IP headers not."""

import socket
import struct
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass

KERNEL = "kernel TCP_INFO"
LINK = "counted at the link"

# struct tcp_info of <linux/tcp.h>: bytes_received; bytes_sent and bytes_retrans (Linux 4.19 and later).
_RECEIVED = struct.Struct("<Q")
_RECEIVED_OFFSET = 128
_SENT = struct.Struct("<QQ")
_SENT_OFFSET = 200
_LENGTH = 512
_TCP_CONGESTION = 13
_TCP_USER_TIMEOUT = 18
_TCP_NOTSENT_LOWAT = 25


@dataclass(frozen=True)
class SocketBytes:
    """Bytes since the link was made, over all its connections."""

    sent: int = 0
    """Retransmitted bytes included."""
    received: int = 0
    retransmitted: int = 0
    source: str = KERNEL
    """How they were obtained."""

    def plus(self, other: "SocketBytes") -> "SocketBytes":
        """The sum of two connections; counted at the link as soon as one of them was."""
        return SocketBytes(
            self.sent + other.sent,
            self.received + other.received,
            self.retransmitted + other.retransmitted,
            LINK if LINK in (self.source, other.source) else KERNEL,
        )


def read_socket(connection: socket.socket) -> SocketBytes | None:
    """What the kernel has counted on this connection; None where it does not count, or the socket is closed."""
    if sys.platform != "linux":
        return None
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LENGTH)
    except OSError:
        return None
    if len(info) < _SENT_OFFSET + _SENT.size:
        return None
    (received,) = _RECEIVED.unpack_from(info, _RECEIVED_OFFSET)
    sent, retransmitted = _SENT.unpack_from(info, _SENT_OFFSET)
    return SocketBytes(sent, received, retransmitted)


def set_congestion(connection: socket.socket, name: str) -> bool:
    """Choose the congestion control of this connection; False where the kernel has none of that name."""
    try:
        connection.setsockopt(socket.IPPROTO_TCP, _TCP_CONGESTION, name.encode())
    except OSError:
        return False
    return True


def set_patience(connection: socket.socket, seconds: float) -> bool:
    """Give the connection up once something sent has not been acknowledged for so long; False where the system cannot."""
    try:
        connection.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, round(1e3 * seconds))
    except OSError:
        return False
    return True


def set_unsent(connection: socket.socket, size: int) -> bool:
    """Let the kernel take no more while so many bytes wait there to be sent first; False where the system cannot."""
    try:
        connection.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, size)
    except OSError:
        return False
    return True


class Counters:
    """Sums the kernel's counters over connections; counts payloads beside, for kernels that do not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._before = SocketBytes()
        self._now = SocketBytes()
        self._payload_sent = 0
        self._payload_received = 0
        self._kernel = True

    def opened(self, connection: socket.socket) -> None:
        """A connection begins."""
        _no_delay(connection)
        with self._lock:
            self._socket, self._now = connection, SocketBytes()

    def closed(self) -> None:
        """The connection ends: what it counted is about to be gone."""
        with self._lock:
            self._look()
            self._before, self._now, self._socket = self._before.plus(self._now), SocketBytes(), None

    def published(self, size: int) -> None:
        """A payload goes out."""
        with self._lock:
            self._payload_sent += size

    def arrived(self, size: int) -> None:
        """A payload came in."""
        with self._lock:
            self._payload_received += size

    def read(self) -> SocketBytes:
        """The sum up to now."""
        with self._lock:
            self._look()
            if not self._kernel:
                return SocketBytes(self._payload_sent, self._payload_received, 0, LINK)
            return self._before.plus(self._now)

    def _look(self) -> None:
        if self._socket is None:
            return
        counted = read_socket(self._socket)
        if counted is not None:
            self._now = counted
        elif self._now == SocketBytes():
            self._kernel = False


def _no_delay(connection: socket.socket) -> None:
    # Frames are whole: waiting for more to fill a segment only adds 40 ms to each.
    with suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
