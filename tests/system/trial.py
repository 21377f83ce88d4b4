"""A small trial with real processes: configuration files, a hub, devices, and what the metrics say of them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hub.demo import as_toml
from tests.system.processes import Child, Children, wait_for

Sections = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Material:
    """What a trial is made of: both halves of a bundle, and one file of data a device."""

    bundle: str
    """Its id."""
    device_bundle: Path
    hub_bundle: Path
    data: Mapping[str, Path]


@dataclass
class Trial:
    """One hub and its devices in one folder."""

    root: Path
    children: Children
    material: Material
    fleet: str
    url: str
    """Of the broker the devices use."""
    hubs: list[Child] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """Of the run."""
        return self.root / "run"

    @property
    def names(self) -> list[str]:
        return sorted(self.material.data)

    def write_hub(self, **changes: dict[str, Any]) -> Path:
        """Write hub.toml; `changes` add to its sections or replace keys in them."""
        sections: Sections = {
            "broker": {"url": self.url},
            "fleet": {"name": self.fleet, "devices": len(self.names)},
            "bundle": {"path": self.material.hub_bundle},
            "run": {"folder": "run", "rounds": 6, "turn_seconds": 20.0, "grace_seconds": 0.5},
            "strategy": {"kappa": 0.0, "masks": False},
        }
        return _write(self.root / "hub.toml", sections, changes)

    def write_device(self, name: str, **changes: dict[str, Any]) -> Path:
        """Write a device's device.toml into a folder of its own."""
        sections: Sections = {
            "device": {"name": name, "state_directory": "state"},
            "broker": {"url": self.url},
            "bundle": {"path": self.material.device_bundle},
            "data": {"source": self.material.data[name]},
            "run": {"fleet": self.fleet, "once": True},
        }
        return _write(self.root / name / "device.toml", sections, changes)

    def start_hub(self, *options: str) -> Child:
        hub = self.children.python("-m", "hub", "serve", "--config", self.root / "hub.toml", *options)
        self.hubs.append(hub)
        return hub

    def start_device(self, name: str, environ: Mapping[str, str] | None = None) -> Child:
        config = self.root / name / "device.toml"
        return self.children.python("-m", "edge", "run", "--config", config, environ=environ)

    def start_devices(self) -> dict[str, Child]:
        for name in self.names:
            self.write_device(name)
        return {name: self.start_device(name) for name in self.names}

    def records(self, kind: str) -> list[dict[str, Any]]:
        """The records of one kind in the run's metrics so far."""
        return read_records(self.folder, kind)

    def rounds(self) -> list[int]:
        return [record["round"] for record in self.records("round")]

    def wait_round(self, number: int, seconds: float = 40.0) -> None:
        """Wait until so many rounds are over."""

        def there() -> bool:
            hub = self.hubs[-1]
            assert hub.alive, f"the hub has ended:\n{hub.said()}"
            return len(self.rounds()) >= number

        wait_for(there, f"round {number} is over; the hub said:\n{self.hubs[-1].said()}", seconds=seconds)

    def finish(self, seconds: float = 60.0) -> None:
        """The hub ends by itself and well, after the last round."""
        hub = self.hubs[-1]
        code = hub.wait(seconds)
        assert code == 0, hub.said()
        assert "Traceback" not in hub.stderr(), hub.said()


def read_records(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Records of one kind in a run's metrics; a line that is still being written does not count."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    lines = path.read_text("utf-8").splitlines(keepends=True)
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    return [record for record in records if record["record"] == kind]


def _write(path: Path, sections: Sections, changes: Mapping[str, Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    merged = {name: {**sections.get(name, {}), **changes.get(name, {})} for name in {**sections, **changes}}
    path.write_text(as_toml(merged), encoding="utf-8")
    return path
