"""The links of a trial, by the best means that this machine has.

    netem      `tc netem` of the kernel, between network namespaces
    emulator   a process of ours that moves the packets between them
    relay      a TCP relay for each device on the loopback, without namespaces

with open_net(load("lte-drive"), ["pi-1", "pi-2"], folder) as net:
    net.popen("hub", [...])                   # listens on net.address("hub"), port 1883
    host, port = net.endpoint("pi-1", 1883)   # where pi-1 reaches it
    net.popen("pi-1", [...])
    net.counters()["pi-1"]["up"].delivered_bytes
    net.how, net.timeline
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from hub.trial.emulator import HUB, Net, NetError
from hub.trial.netem import inexact
from hub.trial.relay import BREAK_SECONDS, RelayNet
from hub.trial.scenario import Scenario

__all__ = ["HUB", "Means", "Net", "NetError", "open_net"]

Means = Literal["auto", "netem", "emulator", "relay"]


def open_net(
    scenario: Scenario,
    devices: Sequence[str],
    folder: Path,
    *,
    prefer: Means = "auto",
    congestion: str | None = None,
    break_seconds: float = BREAK_SECONDS,
) -> Net:
    """Open the links of a trial; their time begins now. Close them, or use them in a `with`.

    Args:
        scenario: what the links do.
        devices: their names, each another.
        folder: for logs and the timeline `links.jsonl`.
        prefer: the first means to try; where it is not to be had, the one after it is taken, and `how` says why.
            `auto` is netem where the kernel has it and does all that the scenario says as it is written, so that no
            process of ours is between the packets; the emulator where not. `netem` takes it in any case, and `how`
            says what is only near.
        congestion: congestion control of the TCP of all nodes; the relay has none to choose.
        break_seconds: the relay ends connections after an outage of this length.

    Raises:
        ConfigError: a device's name cannot be used, or the scenario speaks of one that is not there.
        NetError: the emulator did not start.
    """
    why = ""
    if prefer in {"auto", "netem"}:
        try:
            return _netem(scenario, devices, folder, congestion, exactly=prefer == "auto")
        except NetError as error:
            why = f"; not tc netem: {error}"
    if prefer != "relay":
        try:
            net = _namespaces(scenario, devices, folder, congestion)
        except NetError as error:
            why += f"; no namespaces: {error}"
        else:
            net.how += why
            return net
    net = RelayNet(scenario, devices, folder, break_seconds=break_seconds)
    net.how += why
    return net


def _netem(scenario: Scenario, devices: Sequence[str], folder: Path, congestion: str | None, *, exactly: bool) -> Net:
    scenario.check(devices)
    if exactly and (clauses := inexact(scenario, devices)):
        raise NetError(f"with it {', and '.join(clauses)}")
    if sys.platform != "linux":
        raise NetError("it is Linux's")
    from hub.trial.namespaces import NetemNet  # noqa: PLC0415  Linux only, down to its imports

    return NetemNet(scenario, devices, folder, congestion=congestion)


def _namespaces(scenario: Scenario, devices: Sequence[str], folder: Path, congestion: str | None) -> Net:
    if sys.platform != "linux":
        raise NetError("they are Linux's")
    from hub.trial.namespaces import NamespaceNet  # noqa: PLC0415  Linux only, down to its imports

    return NamespaceNet(scenario, devices, folder, congestion=congestion)
