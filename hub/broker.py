"""A broker of our own: a child process on this machine's loopback, or in a namespace of ours, bounded in memory, that ends with us.

`embedded` is rumqttd out of the wheel `iotcore`, `mosquitto` the program of that name. Neither is trusted with
anything: what they lose, delivery sends again.
"""

import os
import shutil
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import util
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from hub import processes

if TYPE_CHECKING:
    import subprocess

LOOPBACK = "127.0.0.1"
PACKET_BYTES = 2 << 20
START_SECONDS = 15.0

_RUMQTTD = """\
id = 0

[router]
id = 0
max_connections = 1024
max_outgoing_packet_count = 200
# The log of a topic is held in memory: so many segments of so many bytes, then the oldest is forgotten.
max_segment_size = {segment_bytes}
max_segment_count = {segments}

[v5.1]
name = "cutlayer"
listen = "{address}:{port}"
next_connection_delay_ms = 1

[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = {packet_bytes}
max_inflight_count = 200
"""

_MOSQUITTO = """\
listener {port} {address}
allow_anonymous true
"""

# As root, mosquitto changes its user, and with that the kernel forgets that it shall end when we do.
_MOSQUITTO_AS_ROOT = "user root\n"

SEGMENT_BYTES = 1 << 16
SEGMENTS = 4
QUEUE_BYTES = 64 << 20

MOSQUITTO_LIMITS = f"""\
persistence false
max_packet_size {PACKET_BYTES}
# Frames under way to one client; what is beyond is dropped and sent again by delivery.
max_queued_messages 0
max_queued_bytes {QUEUE_BYTES}
max_inflight_messages 0
set_tcp_nodelay true
log_dest stderr
log_type error
log_type warning
"""
"""Lines of any mosquitto.conf of ours."""


class BrokerError(OSError):
    """The broker does not start; the message says why."""


@dataclass
class Broker:
    """A running broker."""

    name: str
    url: str
    port: int
    process: "subprocess.Popen[bytes]"

    @property
    def pid(self) -> int:
        """Of the child process."""
        return self.process.pid

    def stop(self) -> None:
        """End it and wait until it is gone."""
        processes.stop([self.process])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start_broker(
    kind: str, directory: Path, *, port: int | None = None, address: str = LOOPBACK, enclosed: bool = False
) -> Broker:
    """Start a broker and wait until it accepts connections.

    Whoever reaches it may do everything there, so it listens on the loopback only. A network namespace that no other machine
    reaches is as good: `enclosed` says that we are in one.

    Args:
        kind: `embedded` or `mosquitto`.
        directory: for its configuration and its log.
        port: None takes a free one.
        address: of this machine, or of the namespace we are in, where it listens.
        enclosed: whether nothing but our own processes can reach the address, whatever it is.

    Raises:
        BrokerError: there is no such broker on this machine, the address is not ours or others could reach it, the port is in
            use, or it did not come up.
    """
    if kind not in _KINDS:
        raise BrokerError(f"unknown broker {kind!r}: choose {' or '.join(_KINDS)}")
    if not enclosed and not _is_loopback(address):
        raise BrokerError(
            f"the {kind} broker of one's own asks nobody who he is, so it listens on this machine's loopback only, not at "
            f"{address}: for boards elsewhere there is cutlayer-hub serve --tls"
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BrokerError(f"the broker's folder {directory} cannot be made: {error.strerror}") from error
    chosen = port or _free_port(address)
    refuse_taken(address, chosen)
    command = _KINDS[kind](directory, address, chosen)
    return launch(kind, command, f"mqtt://{address}:{chosen}", (address, chosen), directory / f"{kind}.log")


def refuse_taken(address: str, port: int) -> None:
    """Raise BrokerError where somebody listens already."""
    if not _is_free(address, port):
        raise BrokerError(f"port {port} is in use: stop the program that has it, or choose another port")


def launch(kind: str, command: list[str], url: str, endpoint: tuple[str, int], log: Path) -> Broker:
    """Start a broker's program and wait until it accepts connections at an endpoint.

    Raises:
        BrokerError: it did not come up.
    """
    log.write_bytes(b"")
    broker = Broker(kind, url, endpoint[1], processes.start(command, log))
    try:
        _wait(broker, endpoint, log)
    except BaseException:
        broker.stop()
        raise
    return broker


def find_mosquitto() -> str | None:
    """The path of the program, or None. Debian keeps it where ordinary users do not look."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def _embedded(directory: Path, address: str, port: int) -> list[str]:
    if util.find_spec("iotcore") is None:
        raise BrokerError("the embedded broker is the package iotcore, which is not installed: install cutlayer[hub]")
    path = directory / "rumqttd.toml"
    path.write_text(
        _RUMQTTD.format(
            address=address,
            port=port,
            packet_bytes=PACKET_BYTES,
            segment_bytes=SEGMENT_BYTES,
            segments=SEGMENTS,
        )
    )
    return [sys.executable, "-I", "-c", _SERVE, str(path)]


# Isolated (-I), so that no folder named iotcore beside us is taken for the package.
# rumqttd reports every packet as an error of its own: only its death is worth the disk.
_SERVE = """\
import logging, sys, iotcore
logging.basicConfig(level=logging.WARNING)
logging.getLogger("rumqttd").setLevel(logging.CRITICAL)
iotcore.IotCoreBroker(config_path=sys.argv[1]).run_forever()
"""


def _mosquitto(directory: Path, address: str, port: int) -> list[str]:
    program = find_mosquitto()
    if program is None:
        raise BrokerError("mosquitto is not installed: install the package mosquitto, or choose the embedded broker")
    path = directory / "mosquitto.conf"
    settings = _MOSQUITTO.format(address=address, port=port) + MOSQUITTO_LIMITS
    path.write_text(settings + (_MOSQUITTO_AS_ROOT if os.geteuid() == 0 else ""))
    return [program, "-c", str(path)]


_KINDS: dict[str, Callable[[Path, str, int], list[str]]] = {"embedded": _embedded, "mosquitto": _mosquitto}


def _wait(broker: Broker, endpoint: tuple[str, int], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if broker.process.poll() is not None:
            tail = log.read_text("utf-8", "replace").strip()[-500:]
            raise BrokerError(f"the {broker.name} broker ended with code {broker.process.returncode}: {tail}")
        if _accepts(endpoint):
            return
        time.sleep(0.02)
    raise BrokerError(f"the {broker.name} broker does not accept connections at {broker.url} after {START_SECONDS:g} s")


def _accepts(endpoint: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(endpoint, timeout=1):
            return True
    except OSError:
        return False


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def _is_free(address: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
        return True


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError as error:
            raise BrokerError(f"no broker can listen at {address}: {(error.strerror or str(error)).lower()}") from error
        return int(probe.getsockname()[1])
