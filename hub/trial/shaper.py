"""The process behind links by `tc netem`: namespaces for the hub and each device, one between them, and the time.

The one in the middle forwards each device's packets over a pair of interfaces of their own, on whose ways out `tc` holds
them back; which way a packet goes, a rule says by where it came in. All interfaces have the same hardware address and
ask for none, so that no question of that kind can be lost.

Linux only, with `ip` and `tc`. Where we own the namespaces without being root, they are given that right.
"""

import ctypes
import fcntl
import os
import resource
import select
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from hub.trial import netem, tunnel
from hub.trial.channel import seeds
from hub.trial.emulator import HUB, Desk, Owner, Watched, heading
from hub.trial.netem import Air, Programs, interfaces
from hub.trial.scenario import Scenario
from hub.trial.tunnel import CLONE_NEWNET, INTERFACE, MTU, NETWORK, address

ALL_ALIKE = "02:00:00:00:00:01"
TABLE = 1000
"""The first of four routing tables of each device."""

_SIOCETHTOOL, _ETHTOOL_STSO, _ETHTOOL_SGSO = 0x8946, 0x1F, 0x24
_CAPABILITY_VERSION, _CAP_NET_ADMIN, _CAP_SYS_ADMIN = 0x20080522, 12, 21
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 47, 2
_FORWARD = ("ip_forward", "conf/all/rp_filter", "conf/default/rp_filter")


@dataclass(frozen=True)
class Node:
    """A namespace: its name, its address and its descriptor."""

    name: str
    address: str
    namespace: int


def main(descriptor: int) -> None:
    """Make the namespaces and what joins them, tell the owner, and change the links as time goes by until it is gone."""
    owner = Owner(descriptor)
    setup = owner.setup
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        if setup["unprivileged"]:
            tunnel.own_user_namespace()
            keep_rights()
        nodes = [_node(index, name) for index, name in enumerate((HUB, *setup["devices"]))]
        tunnel.unshare(CLONE_NEWNET)
        tools = Programs([node.namespace for node in nodes])
        _join(nodes, tools)
        congestion = _control_congestion(nodes, setup["congestion"], tools)
        links = Air(setup["scenario"], setup["devices"], tools)
        links.begin()
    except OSError as error:
        owner.answer({"error": f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}"})
        return
    with Path(setup["timeline"]).open("w", encoding="utf-8") as file:
        shaper = Shaper(
            owner, links, setup["scenario"], file, {**heading(setup, setup["how"]), "congestion": congestion}
        )
        owner.answer({"nodes": {node.name: node.namespace for node in nodes}, "congestion": congestion})
        shaper.run()


class Shaper:
    """The loop that changes the links and reads their counters."""

    def __init__(self, owner: Owner, air: Air, scenario: Scenario, file: TextIO, first_line: dict[str, Any]) -> None:
        self._air = air
        links: Watched = {
            device: ({**both}, scenario.of(device).outages, seeds(scenario.seed, device, "")[1])
            for device, both in air.links.items()
        }
        self._desk = Desk(owner, links, file, first_line)

    def run(self) -> None:
        """Until the owner is gone or says so."""
        desk = self._desk
        while desk.open:
            self._air.adjust(desk.now())
            if desk.now() >= desk.next_second:
                self._air.read()
                desk.tick(desk.now())
            pause = min(self._air.next, desk.next_second) - desk.now()
            asked, _, _ = select.select([desk.owner], [], [], max(0.0, pause))
            if asked:
                self._air.read()
                desk.talk({})


def _node(index: int, name: str) -> Node:
    tunnel.unshare(CLONE_NEWNET)
    tunnel.without_ipv6()
    return Node(name, address(index), os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC))


def _join(nodes: Sequence[Node], tools: Programs) -> None:
    """Make the interfaces, from the namespace in the middle, and give them addresses and ways."""
    tunnel.without_ipv6()
    for name in _FORWARD:
        (Path("/proc/sys/net/ipv4") / name).write_text("1" if name == "ip_forward" else "0")
    hub, *devices = nodes
    tools.batch("ip", [line for number, device in enumerate(devices, 1) for line in _middle(number, hub, device)])
    ends = [f"{INTERFACE}{number}" for number in range(1, len(nodes))]
    with _inside(hub):
        up = [line for end, device in zip(ends, devices, strict=True) for line in _hub_end(end, hub, device)]
        tools.batch("ip", ["link set dev lo up", f"addr add {hub.address}/32 dev lo", *up])
        _whole_packets(ends)
    for device in devices:
        with _inside(device):
            own = f"{device.address}/{NETWORK.split('/')[1]}"
            tools.batch("ip", ["link set dev lo up", f"addr add {own} dev {INTERFACE}", _up(INTERFACE)])
            _whole_packets([INTERFACE])


def _middle(number: int, hub: Node, device: Node) -> Iterator[str]:
    near, left, right, far = interfaces(number)
    peers = (
        (near, f"{INTERFACE} address {ALL_ALIKE} netns /proc/self/fd/{device.namespace}"),
        (left, f"{right} address {ALL_ALIKE}"),
        (far, f"{INTERFACE}{number} address {ALL_ALIKE} netns /proc/self/fd/{hub.namespace}"),
    )
    for one, other in peers:
        yield f"link add {one} address {ALL_ALIKE} type veth peer name {other}"
    for one in (near, left, right, far):
        yield _up(one)
    ways = ((near, left), (right, far), (far, right), (left, near))
    for table, (come, go) in enumerate(ways, TABLE + 4 * number):
        yield f"route add default dev {go} table {table}"
        yield f"rule add iif {come} lookup {table}"


def _hub_end(interface: str, hub: Node, device: Node) -> Iterator[str]:
    yield _up(interface)
    yield _way(interface, hub, device, "add")


def _up(interface: str) -> str:
    return f"link set dev {interface} mtu {MTU} arp off up"


def _way(interface: str, hub: Node, device: Node, verb: str) -> str:
    return f"route {verb} {device.address}/32 dev {interface} src {hub.address}"


def _control_congestion(nodes: Sequence[Node], wish: str | None, tools: Programs) -> str:
    """Have every node's TCP use an algorithm, where the kernel has it; returns what is in force."""
    hub, *devices = nodes

    def on_ways(congestion: str) -> bool:
        ends = enumerate(devices, 1)
        try:
            lines = [f"{_way(f'{INTERFACE}{number}', hub, one, 'change')} congctl {congestion}" for number, one in ends]
            tools.batch("ip", lines)
        except netem.ToolError:
            return False
        return True

    in_force = set()
    for node in nodes:
        with _inside(node):
            in_force.add(tunnel.control_congestion(wish, node.address, on_ways if node is hub else None))
    return " or ".join(sorted(in_force))


def _whole_packets(names: Sequence[str]) -> None:
    """Have no interface take more than one packet at once: `tc` would lose or delay them as one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for name in names:
            for order in (_ETHTOOL_STSO, _ETHTOOL_SGSO):
                value = ctypes.create_string_buffer(struct.pack("=II", order, 0))
                request = struct.pack("16sP16x", name.encode(), ctypes.addressof(value))
                fcntl.ioctl(control, _SIOCETHTOOL, request)


@contextmanager
def _inside(node: Node) -> Iterator[None]:
    """Be in a node's namespace."""
    here = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(node.namespace)
        yield
    finally:
        _enter(here)
        os.close(here)


_libc = ctypes.CDLL(None, use_errno=True)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, CLONE_NEWNET):
        raise _failed("setns")


def keep_rights() -> None:
    """Let programs that we start keep our rights over our namespaces, though we are not root in them.

    Raises:
        OSError: the kernel does not allow it.
    """
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    sets = ctypes.create_string_buffer(24)
    if _libc.capget(header, sets):
        raise _failed("capget")
    effective, permitted, inheritable, *more = struct.unpack("=6I", sets.raw)
    wanted = (_CAP_NET_ADMIN, _CAP_SYS_ADMIN)
    for number in wanted:
        inheritable |= 1 << number
    if _libc.capset(header, struct.pack("=6I", effective, permitted, inheritable, *more)):
        raise _failed("capset")
    for number in wanted:
        if _libc.prctl(_PR_CAP_AMBIENT, *map(ctypes.c_ulong, (_PR_CAP_AMBIENT_RAISE, number, 0, 0))):
            raise _failed("prctl")


def _failed(call: str) -> OSError:
    error = ctypes.get_errno()
    return OSError(error, os.strerror(error), call)
