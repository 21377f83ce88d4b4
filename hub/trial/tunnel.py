"""The emulator of links between network namespaces: one for the hub, one for each device, a TUN device in each.

What a device's system sends comes out of its TUN device here as IP packets, passes the channel to the hub, and goes into the
hub's when it is due; the same the other way. The namespaces have no other interface and no route to anywhere else, and
live as long as this process or one inside.

Linux only, and without any program: what `ip` would do is done by ioctl and netlink, for a program started from here has
not the rights that we have.
"""

import contextlib
import ctypes
import fcntl
import os
import resource
import select
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from hub.trial.channel import Channel, seeds
from hub.trial.emulator import HUB, Alarms, Desk, Owner, Watched, heading
from hub.trial.scenario import Scenario

NETWORK = "10.77.0.0/16"
INTERFACE = "radio"
MTU = 1500
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000

_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_IFF_UP = 0x0001
_TUNSETIFF = 0x400454CA
_SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK = 0x8914, 0x8916, 0x891C
_SIOCSIFMTU = 0x8922
_RTM_NEWLINK, _NLM_F_REQUEST, _NLM_F_ACK, _IFLA_TXQLEN = 16, 1, 4, 13
_RTM_NEWROUTE, _NLM_F_REPLACE, _NLM_F_CREATE = 24, 0x100, 0x400
_RT_TABLE_MAIN, _RTPROT_BOOT, _RT_SCOPE_LINK, _RTN_UNICAST = 254, 3, 253, 1
_RTA_DST, _RTA_OIF, _RTA_PREFSRC, _RTA_METRICS, _RTAX_CC_ALGO = 1, 4, 7, 8, 16
_QUEUE_PACKETS = 10_000  # the queue of the link is the channel's; that of the TUN device must never be the shorter one
_BATCH = 64

_SYSCTL = Path("/proc/sys/net")
_CONGESTION = _SYSCTL / "ipv4/tcp_congestion_control"
_AVAILABLE = _SYSCTL / "ipv4/tcp_available_congestion_control"


@dataclass(frozen=True)
class Node:
    """A namespace: the descriptors of its TUN device and of itself."""

    name: str
    address: str
    tun: int
    namespace: int


def address(index: int) -> str:
    """The address of a node: the hub is number 0."""
    return f"10.77.{(index + 1) >> 8}.{(index + 1) & 255}"


def main(descriptor: int) -> None:
    """Make the namespaces, tell the owner, and move packets until it is gone."""
    owner = Owner(descriptor)
    setup = owner.setup
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # two files for each device
    epoll = select.epoll()  # first of all, for select takes no number above 1023
    try:
        if setup["unprivileged"]:
            own_user_namespace()
        nodes, congestion = _nodes([HUB, *setup["devices"]], setup["congestion"])
    except OSError as error:
        owner.answer({"error": f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}"})
        return
    with Path(setup["timeline"]).open("w", encoding="utf-8") as file:
        first_line = {**heading(setup, setup["how"]), "congestion": congestion}
        tunnel = Tunnel(owner, epoll, nodes, setup["scenario"], file, first_line)
        owner.answer({"nodes": {node.name: node.namespace for node in nodes}, "congestion": congestion})
        tunnel.run()


class Tunnel:
    """The loop that moves packets."""

    def __init__(
        self,
        owner: Owner,
        epoll: select.epoll,
        nodes: Sequence[Node],
        scenario: Scenario,
        file: TextIO,
        first_line: Mapping[str, Any],
    ) -> None:
        hub, *devices = nodes
        self._hub = hub.tun
        self._up: dict[int, Channel] = {}
        self._down: dict[bytes, Channel] = {}
        self._exit: dict[Channel, int] = {}
        links: Watched = {}
        for device in devices:
            course = scenario.of(device.name)
            up = Channel(course.up, course.outages, *seeds(scenario.seed, device.name, "up"))
            down = Channel(course.down, course.outages, *seeds(scenario.seed, device.name, "down"))
            self._up[device.tun] = up
            self._down[socket.inet_aton(device.address)] = down
            self._exit |= {up: hub.tun, down: device.tun}
            links[device.name] = ({"up": up, "down": down}, course.outages, seeds(scenario.seed, device.name, "")[1])
        self._hub_address = socket.inet_aton(hub.address)
        self._alarms = Alarms()
        self._desk = Desk(owner, links, file, first_line)
        self._epoll = epoll
        for descriptor in (owner.fileno(), *(node.tun for node in nodes)):
            self._epoll.register(descriptor, select.EPOLLIN)

    def run(self) -> None:
        """Until the owner is gone or says so."""
        desk = self._desk
        while desk.open:
            now = desk.now()
            self._deliver(now)
            desk.tick(now)
            pause = min(self._alarms.next(), desk.next_second) - desk.now()
            # epoll alone counts in whole milliseconds, which is many packets.
            select.select([self._epoll], [], [], max(0.0, pause))
            for descriptor, _ in self._epoll.poll(0):
                if descriptor == desk.owner.fileno():
                    desk.talk({})
                else:
                    self._read(descriptor)

    def _read(self, descriptor: int) -> None:
        for _ in range(_BATCH):
            try:
                packet = os.read(descriptor, 65536)
            except BlockingIOError:
                return
            channel = self._channel(descriptor, packet)
            if channel is not None:
                channel.offer(packet, self._desk.now())
                self._alarms.set(channel, channel.next_due)

    def _channel(self, descriptor: int, packet: bytes) -> Channel | None:
        """Where a packet goes; None for what is not from a device to the hub or back."""
        if packet[0] >> 4 != 4:
            return None
        to = packet[16:20]
        if descriptor == self._hub:
            return self._down.get(to)
        return self._up[descriptor] if to == self._hub_address else None

    def _deliver(self, now: float) -> None:
        for channel in self._alarms.due(now):
            for packet in channel.due(now):
                with contextlib.suppress(OSError):  # the kernel refuses what corruption has made of a header
                    os.write(self._exit[channel], packet)
            self._alarms.set(channel, channel.next_due)


def _nodes(names: Sequence[str], congestion: str | None) -> tuple[list[Node], str]:
    nodes = []
    in_force = set()
    for index, name in enumerate(names):
        unshare(CLONE_NEWNET)
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(tun, _TUNSETIFF, _ifreq(INTERFACE, struct.pack("=H", _IFF_TUN | _IFF_NO_PI)))
        own = address(index)
        _set_up(own)
        in_force.add(control_congestion(congestion, own))
        nodes.append(Node(name, own, tun, os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)))
    return nodes, " or ".join(sorted(in_force))


def without_ipv6() -> None:
    """Have this namespace speak IPv4 alone: nobody asks for the other, and what it sends by itself would be counted."""
    with contextlib.suppress(OSError):
        for name in ("all", "default"):
            (_SYSCTL / f"ipv6/conf/{name}/disable_ipv6").write_text("1")


def _set_up(own: str) -> None:
    without_ipv6()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:

        def order(request: int, value: bytes, interface: str = INTERFACE) -> None:
            fcntl.ioctl(control, request, _ifreq(interface, value))

        order(_SIOCSIFFLAGS, struct.pack("=H", _IFF_UP), "lo")
        order(_SIOCSIFADDR, _sockaddr(own))
        order(_SIOCSIFNETMASK, _sockaddr("255.255.0.0"))
        order(_SIOCSIFMTU, struct.pack("=i", MTU))
        order(_SIOCSIFFLAGS, struct.pack("=H", _IFF_UP))
    _lengthen_queue()


def _lengthen_queue() -> None:
    """By netlink: the kernel wants root outside for the ioctl that does the same."""
    link = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, socket.if_nametoindex(INTERFACE), 0, 0)
    _netlink(_RTM_NEWLINK, 0, link + _attribute(_IFLA_TXQLEN, struct.pack("=I", _QUEUE_PACKETS)))


def _netlink(kind: int, flags: int, content: bytes) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as route:
        route.send(struct.pack("=IHHII", 16 + len(content), kind, _NLM_F_REQUEST | _NLM_F_ACK | flags, 1, 0) + content)
        (error,) = struct.unpack_from("=i", route.recv(4096), 16)
    if error:
        raise OSError(-error, os.strerror(-error), "netlink")


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _ifreq(interface: str, value: bytes) -> bytes:
    return struct.pack("16s24s", interface.encode(), value)


def _sockaddr(text: str) -> bytes:
    return struct.pack("=HH4s", socket.AF_INET, 0, socket.inet_aton(text))


def control_congestion(wish: str | None, own: str, on_ways: Callable[[str], bool] | None = None) -> str:
    """Have this namespace's TCP use an algorithm, where the kernel has it; returns the one in force.

    Args:
        wish: its name; None leaves what is there.
        own: this node's address.
        on_ways: has the routes use it, where they are others than the one to the network; tells whether the kernel took it.
    """
    if wish is not None and wish in _AVAILABLE.read_text().split():
        try:
            _CONGESTION.write_text(wish)
        except OSError:
            # Not every algorithm may be a namespace's default; that of a route may be any.
            if on_ways(wish) if on_ways else _route(wish, own):
                return wish
    return _CONGESTION.read_text().strip()


def _route(congestion: str, own: str) -> bool:
    """Replace the route of the network by one with this congestion control; tell whether the kernel took it."""
    network, bits = NETWORK.split("/")
    route = struct.pack(
        "=8BI", socket.AF_INET, int(bits), 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT, _RT_SCOPE_LINK, _RTN_UNICAST, 0
    )
    attributes = (
        _attribute(_RTA_DST, socket.inet_aton(network)),
        _attribute(_RTA_OIF, struct.pack("=i", socket.if_nametoindex(INTERFACE))),
        _attribute(_RTA_PREFSRC, socket.inet_aton(own)),
        _attribute(_RTA_METRICS, _attribute(_RTAX_CC_ALGO, congestion.encode() + b"\0")),
    )
    try:
        _netlink(_RTM_NEWROUTE, _NLM_F_REPLACE | _NLM_F_CREATE, route + b"".join(attributes))
    except OSError:
        return False
    return True


def own_user_namespace() -> None:
    """Make us the owner of namespaces to come, without being root outside; we keep our number."""
    user, group = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


_libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Be in new namespaces of these kinds."""
    # os.unshare came with Python 3.12
    if _libc.unshare(flags):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), "unshare")
