"""A hub of a fleet with certificates, on this machine's loopback, and what its boards are given."""

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge.release.manifest import ReleaseManifest
from export.bundle import Built
from export.flash import agent
from export.flash.bundle import ReleaseSpec, build_release
from export.flash.history import Wish
from hub.demo import as_toml
from tests.boards import root
from tests.system.processes import Child, Children, wait_for
from tests.system.trial import read_records

BOARD = "pi4"
STATE = "var/lib/cutlayer/state"
"""Of a device, below its root."""
LOOPBACK = "127.0.0.1"


class Fleet:
    """One fleet: its folder, its hub, its releases.

    Args:
        folder: of everything.
        host: the name or address by which boards reach this machine.
    """

    def __init__(self, folder: Path, children: Children, host: str) -> None:
        self.folder = folder
        self._children = children
        self._host = host
        self._ports = _free_port(), _free_port()
        self.hub: Child | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def key(self) -> Path:
        """What releases are signed with."""
        return self.folder / "fleet/release.key"

    @property
    def public(self) -> Path:
        return self.folder / "fleet/release.pub"

    @property
    def run(self) -> Path:
        """Folder of the hub's run."""
        return self.folder / "run"

    def serve(self, **sections: dict[str, Any]) -> None:
        """Start the hub, and wait until boards can enrol."""
        port, enrol = self._ports
        usual: dict[str, dict[str, Any]] = {
            "tls": {"names": [self._host], "address": LOOPBACK, "port": port, "enrol_port": enrol},
            "run": {"folder": "run"},
        }
        merged = {name: {**usual.get(name, {}), **sections.get(name, {})} for name in {**usual, **sections}}
        (self.folder / "hub.toml").write_text(as_toml(merged))
        self.hub = self._children.python("-m", "hub", "serve", "--tls", "--config", self.folder / "hub.toml")
        wait_for(lambda: self._listens(enrol), f"the hub listens; it said:\n{self.hub.said()}", seconds=60)

    def said(self) -> str:
        """All that the hub has said."""
        return self.hub.said() if self.hub else ""

    def command(self, *arguments: str | Path) -> str:
        """What `cutlayer-hub` prints."""
        done = subprocess.run(
            [sys.executable, "-m", "hub", *map(str, arguments), "--config", self.folder / "hub.toml"],
            capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, f"cutlayer-hub {arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self, *arguments: str | Path) -> Child:
        """Start a `cutlayer-hub` command beside the hub."""
        return self._children.python("-m", "hub", *arguments, "--config", self.folder / "hub.toml")

    def start_here(self, name: str, bundle: Built, config: Mapping[str, Mapping[str, Any]]) -> Child:
        """A device of this machine's own kind, enrolled like the others, in a folder of its name."""
        claim = self.claim(name, "generic-x86-64")
        given, folder = json.loads(claim.read_text()), self.folder / name
        (folder / "identity").mkdir(parents=True)
        own = {
            **config,
            "run": {"fleet": "fleet", **config.get("run", {})},
            "device": {"name": name, "state_directory": STATE},
            "bundle": {"path": bundle.device},
            "broker": {
                "url": given["broker"].replace(self._host, LOOPBACK),
                **{name: f"identity/{name}.pem" for name in ("ca", "certificate", "key")},
            },
            "enrolment": {"url": given["enrol"].replace(self._host, LOOPBACK), "claim": claim},
        }
        (folder / "device.toml").write_text(as_toml(own))
        return self._children.python("-m", "edge", "run", "--config", folder / "device.toml")

    def claim(self, name: str, board: str = BOARD) -> Path:
        """What lets one board in."""
        path = self.folder / f"{name}.claim"
        self.command("enrol", "--name", name, "--board", board, "--out", path)
        return path

    def release(
        self, bundle: Path, name: str, version: int, *, edge: Path | None = None, since: Path | None = None
    ) -> "Made":
        """A signed release; the wheels come from the cache of these tests.

        Args:
            bundle: what the board computes.
            name: of the file.
            version: counter.
            edge: folder of another agent than ours.
            since: a release that the board has, so that only what differs is in the file.
        """
        spec = ReleaseSpec(
            bundle, BOARD, (self.key,), self.folder / f"{name}.release", python=root.PYTHON, wheels=root.cache() / "wheels",
            since=since, wish=Wish(version, None, None),
        )  # fmt: skip
        (root.cache() / "wheels").mkdir(parents=True, exist_ok=True)
        written = build_release(spec, datetime.now(UTC), edge=edge)
        return Made(written.path, written.manifest)

    def install(self, tree: Path, made: "Made", claim: Path, config: Mapping[str, Mapping[str, Any]]) -> None:
        """Install a release and a claim into the tree of a board, as an image builder would."""
        own = self.folder / f"{claim.stem}.toml"
        own.write_text(as_toml({name: dict(section) for name, section in config.items()}))
        done = subprocess.run(
            [sys.executable, "-m", "export", "flash", "rootfs", tree, "--release", made.path, "--claim", claim, "--config", own],
            capture_output=True, text=True, timeout=300, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    def records(self, kind: str) -> list[dict[str, Any]]:
        """Of the hub's run so far."""
        return read_records(self.run, kind)

    def _listens(self, port: int) -> bool:
        assert self.hub is not None
        assert self.hub.alive, self.hub.said()
        with socket.socket() as line:
            line.settimeout(1)
            return line.connect_ex((LOOPBACK, port)) == 0


class Made:
    """A release file and what it states."""

    def __init__(self, path: Path, manifest: ReleaseManifest) -> None:
        self.path = path
        self.manifest = manifest

    @property
    def id(self) -> str:
        return self.manifest.id


def changed_agent(to: Path, change: Callable[[str], str]) -> Path:
    """A copy of the agent whose start is another: `change` gets the source of edge/__main__.py."""
    shutil.copytree(agent.package(), to, ignore=shutil.ignore_patterns("__pycache__"))
    main = to / "__main__.py"
    main.write_text(change(main.read_text()))
    return to


def _free_port() -> int:
    with socket.socket() as line:
        line.bind((LOOPBACK, 0))
        return int(line.getsockname()[1])
