"""The links of a trial, by the best means that this machine has.

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
from hub.trial.relay import BREAK_SECONDS, RelayNet
from hub.trial.scenario import Scenario

__all__ = ["HUB", "Means", "Net", "NetError", "open_net"]

Means = Literal["namespaces", "relay"]


def open_net(
    scenario: Scenario,
    devices: Sequence[str],
    folder: Path,
    *,
    prefer: Means = "namespaces",
    congestion: str | None = None,
    break_seconds: float = BREAK_SECONDS,
) -> Net:
    """Open the links of a trial; their time begins now. Close them, or use them in a `with`.

    Args:
        scenario: what the links do.
        devices: their names, each another.
        folder: for logs and the timeline `links.jsonl`.
        prefer: where namespaces are not to be had, the relay is used, and `how` says why.
        congestion: congestion control of the TCP of all nodes; the relay has none to choose.
        break_seconds: the relay ends connections after an outage of this length.

    Raises:
        ConfigError: a device's name cannot be used, or the scenario speaks of one that is not there.
        NetError: the emulator did not start.
    """
    why = ""
    if prefer == "namespaces":
        try:
            return _namespaces(scenario, devices, folder, congestion)
        except NetError as error:
            why = f"; no namespaces: {error}"
    net = RelayNet(scenario, devices, folder, break_seconds=break_seconds)
    net.how += why
    return net


def _namespaces(scenario: Scenario, devices: Sequence[str], folder: Path, congestion: str | None) -> Net:
    if sys.platform != "linux":
        raise NetError("they are Linux's")
    from hub.trial.namespaces import NamespaceNet  # noqa: PLC0415  Linux only, down to its imports

    return NamespaceNet(scenario, devices, folder, congestion=congestion)
