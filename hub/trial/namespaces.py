"""Links between network namespaces, as their owner sees them; `tunnel.py` is the emulator, `shaper.py` drives `tc netem`.

Every node has a kernel's whole TCP of its own: what is lost is sent again, congestion control slows down, a connection
dies of its time-outs, as on a real link. Nothing needs root where user namespaces are allowed.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from hub.trial.emulator import HUB, Net, NetError, launch
from hub.trial.netem import inexact
from hub.trial.scenario import Scenario
from hub.trial.tunnel import CLONE_NEWNET, CLONE_NEWUSER, address

UNPRIVILEGED = "{} in network namespaces (unprivileged)"
AS_ROOT = "{} in network namespaces (as root)"


class NamespaceNet(Net):
    """Links between namespaces.

    Args:
        scenario: what the links do.
        devices: their names.
        folder: for logs and the timeline.
        congestion: `bbr` or another congestion control of the kernel, for all nodes; None leaves its default.

    Raises:
        ConfigError: a device's name cannot be used, or the scenario speaks of one that is not there.
        NetError: this system does not allow it.
    """

    means = "emulator"
    module, what = "tunnel", "emulator"

    def __init__(
        self, scenario: Scenario, devices: Sequence[str], folder: Path, *, congestion: str | None = None
    ) -> None:
        self._unprivileged, how = True, UNPRIVILEGED.format(self.what)
        try:
            self._begin(scenario, devices, folder, congestion, how)
        except NetError as error:
            if os.geteuid() != 0:
                raise
            self._unprivileged, how = False, f"{AS_ROOT.format(self.what)}, for user namespaces do not do here: {error}"
            self._begin(scenario, devices, folder, congestion, how)
        self.congestion = self.ready["congestion"]
        self.how = f"{how}; TCP uses {self.congestion}"
        if congestion not in {None, self.congestion}:
            self.how += f", for the kernel does not give {congestion} to them"

    def _begin(
        self, scenario: Scenario, devices: Sequence[str], folder: Path, congestion: str | None, how: str
    ) -> None:
        setup = {"unprivileged": self._unprivileged, "congestion": congestion, "how": how}
        super().__init__(self.module, scenario, devices, folder, setup)

    def start(
        self, node: str, command: Sequence[str], log: Path, environ: Mapping[str, str]
    ) -> "subprocess.Popen[bytes]":
        """Start a process inside a node's namespace.

        Raises:
            NetError: the emulator is gone, and the namespace with it.
        """
        proc = Path(f"/proc/{self.emulator.pid}")
        paths = {CLONE_NEWUSER: proc / "ns/user"} if self._unprivileged else {}
        paths[CLONE_NEWNET] = proc / f"fd/{self.ready['nodes'][node]}"
        descriptors: list[tuple[int, int]] = []
        try:
            self._open(paths, descriptors)
            return launch(command, log, environ, descriptors)
        except subprocess.SubprocessError as error:
            raise NetError(f"the namespace of {node} cannot be entered") from error
        finally:
            for _, descriptor in descriptors:
                os.close(descriptor)

    def _open(self, paths: Mapping[int, Path], descriptors: list[tuple[int, int]]) -> None:
        """Append the namespaces' kinds and descriptors."""
        try:
            for kind, path in paths.items():
                descriptors.append((kind, os.open(path, os.O_RDONLY | os.O_CLOEXEC)))
        except OSError as error:
            raise NetError(f"the emulator of the links has ended: {self._told()}") from error

    def address(self, node: str) -> str:
        """The address of a node, inside the namespaces."""
        self._known(node)
        return address((HUB, *self.devices).index(node))

    def endpoint(self, device: str, port: int) -> tuple[str, int]:
        """Where a device reaches the hub's port."""
        self._known(device)
        return self.address(HUB), port


class NetemNet(NamespaceNet):
    """Links between namespaces that the kernel's `tc` holds back; arguments and errors as for `NamespaceNet`."""

    means = "netem"
    module, what = "shaper", "tc netem"

    def __init__(
        self, scenario: Scenario, devices: Sequence[str], folder: Path, *, congestion: str | None = None
    ) -> None:
        if not netem_available():
            raise NetError("this kernel has none, or there is no program tc")
        super().__init__(scenario, devices, folder, congestion=congestion)
        self.how = "; ".join((self.how, "chance is the kernel's, not the seed's", *inexact(scenario, devices)))


def netem_available() -> bool:
    """Whether this kernel has `tc netem`, tried on the loopback of a namespace that ends with the try."""
    program = shutil.which("tc") or shutil.which("tc", path="/usr/sbin:/sbin")
    unshare = shutil.which("unshare")
    if program is None or unshare is None:
        return False
    command = [unshare, "-Urn", program, "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
    return subprocess.run(command, check=False, capture_output=True, timeout=10).returncode == 0  # noqa: S603
