"""The demo: data, bundle, broker, hub and every device on one machine, from nothing to a table and a report.

Nothing here is a simulation (that is `hub.simulate`): devices are processes of their own that read their own file and speak
MQTT, and they are started with the same command a board would run.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from export.bundle import BuildSpec, build
from hub import config as hub_config
from hub import processes
from hub.broker import start_broker
from hub.datasets import DeviceData, Federation, split, write_device_file
from hub.outcome import record_references
from hub.progress import Progress, progress
from hub.server import serve

log = logging.getLogger("cutlayer.hub")


class DemoError(RuntimeError):
    """The demo cannot go on; the message says why and what would help."""


@dataclass(frozen=True)
class Task:
    """What a data set is trained with unless told otherwise."""

    model: str
    cut: str
    pictures: bool = False
    """Whether the model is told how many channels the pictures have and how wide they are."""
    rounds: Mapping[str, int] = field(default_factory=lambda: {"scarce": 40, "spread": 40, "all": 20})


ROUNDS = 20
"""Rounds on a data set of the user's own."""

TASKS: dict[str, Task] = {
    "wearables": Task("export.models:Wearable", "pool1"),
    "digits": Task("export.models:Digits", "pool1"),
    "idx": Task("export.models:LeNet", "pool1", pictures=True),
    "cifar": Task("export.models:LeNet", "pool1", pictures=True),
}

MODES: dict[str, dict[str, Any]] = {
    # Measured on the wearers, three seeds each: benchmarks/README.md has the table these were chosen from.
    "ours": {"eta": 0.2, "masks": False, "replay": 32, "schedule": "constant"},
    # The paper's exact setting.
    "paper": {},
}


@dataclass(frozen=True)
class Wish:
    """What the command line asks for."""

    folder: Path
    devices: int = 10
    rounds: int | None = None
    strategy: str = "adasplit"
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the strategy by name."""
    dataset: str = "wearables"
    windows: Literal["scarce", "spread", "all"] = "scarce"
    new_wearers: int = 0
    classes_per_device: int | None = None
    data: Path | None = None
    """Folder with the files of data sets that are not installed."""
    model: str | None = None
    cut: str | None = None
    bundle: Path | None = None
    """Folder of a bundle that is already built."""
    references: bool = True
    """Whether to train each device alone too, for the reference row."""
    broker: str = "embedded"
    codec: str = "float32"
    weights_codec: str = "float32"
    evaluation_codec: str = "float32"
    batch: int = 32
    seed: int = 0
    threads: int = 1
    budget: Mapping[str, str] = field(default_factory=dict)
    """What each device may spend, as [budget] of a configuration has it."""
    known: Mapping[str, float] = field(default_factory=dict)
    """Which samples are not sent again, as [known] of a configuration has it."""
    c3_megabytes: float | None = None
    c3_gflops: float | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


Train = Callable[[Wish, Federation, Mapping[str, DeviceData], Path, Progress], None]
"""Carries out the run: of a wish, the shares of those that train and of everybody, and the folder of the bundles."""


def run(wish: Wish, train: Train | None = None) -> None:
    """Train a fleet on this machine; metrics, configuration and logs are left in the wish's folder.

    Args:
        wish: what is wanted.
        train: carries it out; unset, with a broker and a process a device.

    Raises:
        DatasetError, ExportError, ConfigError, DemoError, and what `serve` raises.
    """
    if wish.folder.exists():
        raise DemoError(f"{wish.folder} exists already: name another folder")
    federation = split(
        wish.dataset,
        wish.devices,
        wish.windows,
        wish.seed,
        wish.data,
        wish.new_wearers,
        wish.classes_per_device,
    )
    everybody = {**federation, **federation.unseen}
    try:
        wish.folder.mkdir(parents=True)
    except OSError as error:
        raise DemoError(f"the run's folder {wish.folder} cannot be made: {error.strerror}") from error
    with progress(_rounds(wish), list(everybody)) as shown:
        if wish.bundle is None:
            shown.stage("building the bundle")
        bundles = wish.bundle or _build(wish, federation)
        (train or _train)(wish, federation, everybody, bundles, shown)
        if wish.references:
            shown.stage("training the reference rows")
            record_references(wish.folder, federation, bundles / "hub.bundle", _rounds(wish), wish.batch, wish.seed)


def _train(
    wish: Wish, federation: Federation, everybody: Mapping[str, DeviceData], bundles: Path, shown: Progress
) -> None:
    with ExitStack() as down:
        broker = down.enter_context(start_broker(wish.broker, wish.folder / "broker")) if _own(wish.broker) else None
        url = broker.url if broker else wish.broker
        settings = write_config(wish, url, len(everybody), bundles.resolve())
        devices: list[Any] = []
        down.callback(lambda: processes.stop(devices))
        serve(
            settings,
            url,
            shown,
            started=lambda: devices.extend(_start(wish, name, data, url, bundles) for name, data in everybody.items()),
            watch=lambda: _watch(wish, dict(zip(everybody, devices, strict=True))),
            run_facts={
                "dataset": wish.dataset,
                "windows": wish.windows,
                "provenance": federation.provenance,
                "broker": broker.name if broker else wish.broker,
            },
        )
        wait(devices)


def _rounds(wish: Wish) -> int:
    task = TASKS.get(wish.dataset)
    return wish.rounds or (task.rounds[wish.windows] if task else ROUNDS)


def _own(broker: str) -> bool:
    return broker in ("embedded", "mosquitto")


def _build(wish: Wish, federation: Federation) -> Path:
    task = TASKS.get(wish.dataset)
    if task is None and (wish.model is None or wish.cut is None):
        raise DemoError(f"the data set {wish.dataset!r} is your own: name its --model and --cut too")
    strategy = hub_config.make_strategy(wish.strategy, wish.options)
    arguments = {"classes": federation.classes}
    if task and task.pictures:
        arguments |= {"channels": federation.shape[0], "size": federation.shape[-1]}
    spec = BuildSpec(
        model=wish.model or (task.model if task else ""),
        cut=wish.cut or (task.cut if task else ""),
        objective=strategy.objective,
        optimizer=strategy.optimizer,
        arguments=arguments if wish.model is None else {},
        input_shape=federation.shape,
        classes=federation.classes,
        name=wish.dataset.replace(":", "-"),
        seed=wish.seed,
    )
    build(spec, wish.folder / "bundle")
    return wish.folder / "bundle"


def write_config(
    wish: Wish, url: str, devices: int, bundles: Path, more: Mapping[str, Mapping[str, Any]] | None = None
) -> hub_config.HubConfig:
    """Leave the hub's configuration in the run's folder, and read it; `more` adds to its sections."""
    sections: dict[str, dict[str, Any]] = {
        "broker": {"url": url},
        "fleet": {"name": "demo", "devices": devices, "minimum_devices": 1, "gather_seconds": 60.0},
        "bundle": {"path": str(bundles / "hub.bundle")},
        "run": {
            "folder": ".",
            "strategy": wish.strategy,
            "rounds": _rounds(wish),
            "batch": wish.batch,
            "seed": wish.seed,
            "threads": wish.threads,
            "codec": wish.codec,
            "weights_codec": wish.weights_codec,
            "evaluation_codec": wish.evaluation_codec,
        },
        "budget": dict(wish.budget),
        "known": dict(wish.known),
        "c3": {"megabytes": wish.c3_megabytes, "gflops": wish.c3_gflops},
        "strategy": dict(wish.options),
    }
    for section, values in (more or {}).items():
        sections[section] |= values
    path = wish.folder / "hub.toml"
    path.write_text(as_toml(sections), encoding="utf-8")
    return hub_config.load(path, wish.environ)


def as_toml(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Sections of plain values as TOML; None is left out."""
    lines = []
    for section, values in sections.items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {_toml(value)}" for key, value in values.items() if value is not None]
        lines.append("")
    return "\n".join(lines)


def _toml(value: Any) -> str:
    # JSON's texts, numbers, switches and lists are TOML's too.
    return json.dumps(str(value) if isinstance(value, Path) else value)


def _start(wish: Wish, name: str, data: DeviceData, url: str, bundles: Path) -> Any:
    config = write_device(wish, name, data, url, bundles)
    return processes.start(device_command(config), config.parent / "log.txt", environ=DEVICE_ENVIRON)


def write_device(
    wish: Wish, name: str, data: DeviceData, url: str, bundles: Path, broker: Mapping[str, Any] | None = None
) -> Path:
    """Leave a device's data and its configuration in a folder of its own; `broker` adds to that section. Returns the configuration."""
    folder = wish.folder / "devices" / name
    folder.mkdir(parents=True)
    write_device_file(folder / "data.npz", data)
    sections: dict[str, dict[str, Any]] = {
        "device": {"name": name, "state_directory": "state"},
        "broker": {"url": url, **(broker or {})},
        "bundle": {"path": str((bundles / "device.bundle").resolve())},
        "data": {"source": "data.npz", "only_tested": not len(data.x_train)},
        "run": {"fleet": "demo", "threads": 1, "once": True},
    }
    path = folder / "device.toml"
    path.write_text(as_toml(sections), encoding="utf-8")
    return path


def device_command(config: Path) -> list[str]:
    """What starts a device: the same as on a board."""
    return [sys.executable, "-m", "edge", "run", "--config", str(config)]


DEVICE_ENVIRON = {"OMP_NUM_THREADS": "1"}
"""For a device's process: there are many on this machine."""


def _watch(wish: Wish, devices: Mapping[str, Any]) -> None:
    """Do not wait for a device whose process has ended."""
    for name, process in devices.items():
        if process.poll() is not None:
            words = (wish.folder / "devices" / name / "log.txt").read_text(encoding="utf-8").strip().splitlines()
            raise DemoError(f"{name} ended with code {process.returncode}: {words[-1] if words else 'without a word'}")


def wait(devices: Sequence[Any], seconds: float = 5.0) -> None:
    """Let devices that were told goodbye end by themselves."""
    until = time.monotonic() + seconds
    while any(device.poll() is None for device in devices) and time.monotonic() < until:
        time.sleep(0.05)
