"""Bytes of a TCP connection as the kernel counts them: MQTT, TLS and repeats included.

Headers of IP and TCP are estimated from the kernel's count of segments, so that what an interface sees can be compared with a budget.
"""

import socket
import struct
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

KERNEL = "kernel TCP_INFO"
LINK = "counted at the link"

# struct tcp_info of <linux/tcp.h>: bytes_received; bytes_sent and bytes_retrans (Linux 4.19 and later).
_RECEIVED = struct.Struct("<Q")
_RECEIVED_OFFSET = 128
_SEGMENTS = struct.Struct("<III")
_SEGMENTS_OFFSET = 136
"""segs_out, segs_in, notsent_bytes."""
_ACKED = struct.Struct("<Q")
_ACKED_OFFSET = 120
_SENT = struct.Struct("<QQ")
_SENT_OFFSET = 200
_LENGTH = 512
_TCP_CONGESTION = 13
_TCP_USER_TIMEOUT = 18
_TCP_NOTSENT_LOWAT = 25

_WIDE_BYTES = 4 << 20

HEADER_BYTES = 52
"""Of a segment: 20 of IPv4, 20 of TCP, 12 of its time stamps."""
SEGMENT_BYTES = 1500
"""Of a whole segment, at most."""
IPV6_BYTES = 20
"""More of them where the address is of IPv6."""
CONNECTION_BYTES = 256
"""Of a connection beside what it has counted when it is read last, each way: options of the first segments, and its end."""
ATTEMPT_BYTES = 4 * 60
"""Of a connection that nobody answers: its first segment, sent up to four times."""


@dataclass(frozen=True)
class SocketBytes:
    """Bytes since the link was made, over all its connections."""

    sent: int = 0
    """Retransmitted bytes included."""
    received: int = 0
    retransmitted: int = 0
    source: str = KERNEL
    """How they were obtained."""
    headers_sent: int = 0
    """Estimated bytes of IP and TCP headers, not in `sent`."""
    headers_received: int = 0
    """The same the other way, and what came more than once."""
    waiting: int = 0
    """Bytes in the kernel that the other side has not acknowledged: each may still be sent, or sent again."""

    @property
    def wire_sent(self) -> int:
        """With the headers of IP and TCP."""
        return self.sent + self.headers_sent

    @property
    def wire_received(self) -> int:
        """With the headers of IP and TCP."""
        return self.received + self.headers_received

    def plus(self, other: "SocketBytes") -> "SocketBytes":
        """The sum of two connections; counted at the link as soon as one of them was."""
        return SocketBytes(
            self.sent + other.sent,
            self.received + other.received,
            self.retransmitted + other.retransmitted,
            LINK if LINK in (self.source, other.source) else KERNEL,
            self.headers_sent + other.headers_sent,
            self.headers_received + other.headers_received,
            other.waiting,
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
    segments_sent, segments_received, unsent = _SEGMENTS.unpack_from(info, _SEGMENTS_OFFSET)
    (acknowledged,) = _ACKED.unpack_from(info, _ACKED_OFFSET)
    header = HEADER_BYTES + (IPV6_BYTES if connection.family == socket.AF_INET6 else 0)
    return SocketBytes(
        sent,
        received,
        retransmitted,
        headers_sent=header * segments_sent + CONNECTION_BYTES,
        headers_received=header * segments_received + CONNECTION_BYTES,
        waiting=unsent + max(0, sent - retransmitted - acknowledged),
    )


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


def connect_narrow(host: str, port: int, timeout: float, buffer: int) -> socket.socket:
    """A connection on which the other side may have few bytes under way to here; the window is agreed on as it opens.

    Args:
        host: of the other side.
        port: of the other side.
        timeout: seconds for each of its addresses.
        buffer: bytes that the kernel keeps; the window is about as large.

    Raises:
        OSError: nobody answers.
    """
    reason: OSError | None = None
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            connection.settimeout(timeout)
            connection.connect(address)
        except OSError as error:
            connection.close()
            reason = error
        else:
            return connection
    raise reason or OSError(f"{host} has no address")


def widen(connection: socket.socket) -> None:
    """Let the other side have as much under way to here as the system allows, after `connect_narrow`."""
    with suppress(OSError):  # gone already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _WIDE_BYTES)


def repeats_received() -> int:
    """Segments that came although they were here already, on all connections of this network namespace; 0 where nobody counts.

    A connection's own counters leave them out. TCP answers each of them with a duplicate selective acknowledgement, and
    those are counted.
    """
    try:
        names, values = (line.split() for line in Path("/proc/net/netstat").read_text("ascii").splitlines()[:2])
        counted = dict(zip(names, values, strict=True))
        return int(counted.get("TCPDSACKOldSent", 0)) + int(counted.get("TCPDSACKOfoSent", 0))
    except (OSError, ValueError):
        return 0


def discard(connection: socket.socket) -> None:
    """Close a connection without sending another byte of what waits in the kernel."""
    with suppress(OSError):  # gone already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()


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
        self.with_repeats = False
        """Whether to count what comes more than once: that is in a file, which takes as long to read as a frame to send."""
        self._repeats = repeats_received()

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
            self._before = replace(self._before, waiting=0)

    def failed(self) -> None:
        """An attempt to connect has failed."""
        with self._lock:
            self._before = self._before.plus(SocketBytes(headers_sent=ATTEMPT_BYTES))

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
            total = self._before.plus(self._now)
            if not self.with_repeats:
                return total
            repeated = SEGMENT_BYTES * max(0, repeats_received() - self._repeats)
            return replace(total, headers_received=total.headers_received + repeated)

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
