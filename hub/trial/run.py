"""A trial: broker, hub and devices as for the demo, each device behind an emulated link.

The links open first and their time begins; then broker and hub start behind them, as one process group, and the devices
as soon as the hub listens. The folder holds what a demo leaves, and

    scenario.toml   a copy, with the traces it names
    links.jsonl     each second of each link
    events.jsonl    what the hub said, and when
    trial.json      how the links were emulated, the deadlines, what the links came to
    hub.log         what the hub's process said
"""

import dataclasses
import json
import shutil
import sys
import textwrap
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.bundle import load_hub_bundle
from hub import demo
from hub.datasets import DeviceData, Federation
from hub.demo import Wish
from hub.progress import Progress
from hub.trial.at_hub import EVENTS
from hub.trial.channel import seeds
from hub.trial.net import HUB, Means, Net, NetError, open_net
from hub.trial.plan import Deadlines, Terms, deadlines, outages_until, terms
from hub.trial.scenario import Scenario, library, load

if TYPE_CHECKING:
    from subprocess import Popen

FACTS = "trial.json"
SCENARIO = "scenario.toml"
PERFECT = "perfect"
"""The scenario of a link without faults, and the folder of the run on it within that of the other."""

BROKER_PORT = 1883
"""Of the broker inside its namespace, where it is alone."""

LOOK_SECONDS = 0.1
GOODBYE_SECONDS = 5.0
_LABEL_BYTES = 8


class TrialError(RuntimeError):
    """The trial cannot go on; the message says why and where to read more."""


@dataclass(frozen=True)
class Trial:
    """What the command line asks for beyond the demo's wish."""

    scenario: str
    """A name of the library, or a file."""
    means: Means = "auto"
    congestion: str | None = None
    seed: int | None = None
    """What the links' chance starts from; None: what the scenario says."""
    turn_seconds: float | None = None
    """None: chosen from the scenario."""
    grace_seconds: float | None = None
    codec: str | None = None
    """How smashed data travel in training; None: chosen from the scenario, as are the two below."""
    evaluation_codec: str | None = None
    evaluate_every: int | None = None
    """Rounds between evaluations, which move more bytes than training does; 0: after the last round only."""


def run(trial: Trial, wish: Wish) -> None:
    """Train behind the scenario's links; everything is left in the wish's folder.

    Raises:
        ConfigError: the scenario, or that it speaks of a device that is not in the trial.
        TrialError, DemoError, DatasetError, ExportError, NetError: as their messages say.
    """
    if wish.broker not in ("embedded", "mosquitto"):
        raise TrialError(f"a trial starts its own broker behind the links: embedded or mosquitto, not {wish.broker!r}")
    scenario = load(trial.scenario)
    if trial.seed is not None:
        scenario = dataclasses.replace(scenario, seed=trial.seed)
    demo.run(wish, _Train(trial, scenario))


def run_perfect(trial: Trial, wish: Wish) -> Path:
    """The same on a link without faults, with the bundle of the run in the wish's folder; returns its folder inside that one."""
    folder = wish.folder / PERFECT
    bundle = wish.bundle or wish.folder / "bundle"
    facts = wish.folder / FACTS
    # On the same terms, which a perfect link alone would not ask for.
    same = json.loads(facts.read_text("utf-8"))["terms"] if facts.exists() else {}
    run(dataclasses.replace(trial, scenario=PERFECT, **same), dataclasses.replace(wish, folder=folder, bundle=bundle))
    return folder


@dataclass(frozen=True)
class _Train:
    """Carries the trial out, for `demo.run`."""

    trial: Trial
    scenario: Scenario

    def __call__(
        self,
        wish: Wish,
        federation: Federation,
        everybody: Mapping[str, DeviceData],
        bundles: Path,
        shown: Progress,
    ) -> None:
        names = list(everybody)
        self.scenario.check(names)
        keep_scenario(self.trial.scenario, wish.folder)
        size = most_bytes(bundles, list(everybody.values()), wish.batch)
        waits, on = self._deadlines(names, size), self._terms(names, size)
        wish = dataclasses.replace(wish, codec=on.codec)
        shown.stage("opening the links")
        with ExitStack() as down:
            net = open_net(self.scenario, names, wish.folder, prefer=self.trial.means, congestion=self.trial.congestion)
            facts = {"started": time.time(), **self._facts(wish, net, waits, on)}
            began = time.monotonic()  # the wall clock may be set in the meantime
            down.callback(lambda: self._finish(wish.folder, net, facts, time.monotonic() - began))
            down.callback(net.close)
            _write(wish.folder, facts)
            for line in textwrap.wrap(net.how, 78):
                shown.note(line)
            if on != Terms():
                shown.note(f"smashed data travel as {on.codec}, for evaluation {on.evaluation_codec}")
                shown.note(f"evaluated {_every(on.evaluate_every)}")
            hub = self._start_hub(wish, federation, len(names), bundles, net, waits, on)
            follower = Follower(wish.folder, hub, shown)
            port = follower.listening()
            shown.stage("starting the devices")
            follower.devices = {
                name: _start_device(wish, name, data, bundles, net, port, waits) for name, data in everybody.items()
            }
            follower.to_the_end()
            demo.wait(list(follower.devices.values()), GOODBYE_SECONDS)

    def _deadlines(self, names: Sequence[str], size: float) -> Deadlines:
        waits = deadlines(self.scenario, names, size)
        wished = {"turn_seconds": self.trial.turn_seconds, "grace_seconds": self.trial.grace_seconds}
        return dataclasses.replace(waits, **{name: value for name, value in wished.items() if value is not None})

    def _terms(self, names: Sequence[str], size: float) -> Terms:
        chosen = asdict(terms(self.scenario, names, size))
        wished = {name: getattr(self.trial, name) for name in chosen}
        return Terms(**{**chosen, **{name: value for name, value in wished.items() if value is not None}})

    def _facts(self, wish: Wish, net: Net, waits: Deadlines, on: Terms) -> dict[str, Any]:
        return {
            "scenario": self.scenario.name,
            "source": self.scenario.source,
            "seed": self.scenario.seed,
            "how": net.how,
            "congestion": net.congestion,
            "means": net.means,
            "broker": wish.broker,
            "training_seed": wish.seed,
            "devices": list(net.devices),
            "deadlines": asdict(waits),
            "terms": asdict(on),
        }

    def _start_hub(
        self,
        wish: Wish,
        federation: Federation,
        devices: int,
        bundles: Path,
        net: Net,
        waits: Deadlines,
        on: Terms,
    ) -> "Popen[bytes]":
        more: dict[str, dict[str, Any]] = {
            "run": {
                "turn_seconds": waits.turn_seconds,
                "grace_seconds": waits.grace_seconds,
                "evaluation_codec": on.evaluation_codec,
                "evaluate_every": on.evaluate_every,
            },
            "fleet": {"gather_seconds": waits.gather_seconds},
        }
        demo.write_config(wish, wish.broker, devices, bundles.resolve(), more)
        told = {
            "config": str(wish.folder / "hub.toml"),
            "broker": wish.broker,
            "address": net.address(HUB),
            "enclosed": net.means != "relay",  # which has no namespace
            # On the loopback others may have it, and any free one will do.
            "port": BROKER_PORT if net.address(HUB) != "127.0.0.1" else None,
            "facts": {
                "dataset": wish.dataset,
                "windows": wish.windows,
                "provenance": federation.provenance,
                "broker": wish.broker,
                "trial": self.scenario.name,
                "links": net.how,
            },
        }
        command = [sys.executable, "-m", "hub.trial.at_hub", json.dumps(told)]
        return net.popen(HUB, command, log=wish.folder / "hub.log", environ={"ORT_DISABLE_TELEMETRY": "1"})

    def _finish(self, folder: Path, net: Net, facts: dict[str, Any], seconds: float) -> None:
        outages = {
            name: outages_until(self.scenario.of(name).outages, seconds, seeds(self.scenario.seed, name, "")[1])
            for name in net.devices
        }
        counters: dict[str, Any] = {}
        with suppress(NetError):  # the emulator has died: that is told by who asked it for something
            counters = {name: {way: asdict(found) for way, found in of.items()} for name, of in net.counters().items()}
        _write(folder, {**facts, "seconds": round(seconds, 3), "outages": outages, "counters": counters})


def _every(rounds: int) -> str:
    if rounds < 2:
        return "every round" if rounds else "after the last round"
    return f"every {rounds} rounds"


class Follower:
    """Watches the hub's process and the devices', and shows what the hub says.

    Args:
        folder: of the trial.
        hub: the process.
        shown: where to show it.
        sleep: waits so many seconds.
    """

    def __init__(
        self, folder: Path, hub: "Popen[bytes]", shown: Progress, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.devices: Mapping[str, Popen[bytes]] = {}
        self._folder = folder
        self._hub = hub
        self._shown = shown
        self._sleep = sleep
        self._read = 0
        self._training = False
        self._ended: set[str] = set()

    def listening(self) -> int:
        """The broker's port, once it is open and the hub connected.

        Raises:
            TrialError: the hub has ended.
        """
        while True:
            running = self._hub.poll() is None
            for event in self._events():
                if event["event"] == "listening":
                    return int(event["port"])
            if not running:
                raise TrialError(self._last_words("the hub", self._hub, self._folder / "hub.log"))
            self._sleep(LOOK_SECONDS)

    def to_the_end(self) -> None:
        """Show what happens until the hub has ended.

        Raises:
            TrialError: it ended otherwise than with its last round, or a device did before the training began.
        """
        running = True
        while running:
            running = self._hub.poll() is None
            for event in self._events():
                self._show(event)
            if running:
                self._watch()
                self._sleep(LOOK_SECONDS)
        if self._hub.returncode:
            raise TrialError(self._last_words("the hub", self._hub, self._folder / "hub.log"))

    def _events(self) -> Iterator[dict[str, Any]]:
        path = self._folder / EVENTS
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # not yet written to its end
                self._read += len(line)
                yield json.loads(line)

    def _show(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "stage":
            self._training |= event["text"] == "training"
            self._shown.stage(event["text"])
        elif event["event"] == "device":
            self._shown.device(event["name"], event["state"])
        elif event["event"] == "round":
            self._shown.round(event["record"])
        elif event["event"] == "note":
            self._shown.note(event["text"])

    def _watch(self) -> None:
        for name, process in self.devices.items():
            if process.poll() and name not in self._ended:
                self._ended.add(name)
                words = self._last_words(name, process, self._folder / "devices" / name / "log.txt")
                if not self._training:
                    raise TrialError(words)
                self._shown.note(words)  # the others go on

    def _last_words(self, name: str, process: "Popen[bytes]", log: Path) -> str:
        lines = log.read_text("utf-8", "replace").strip().splitlines() if log.exists() else []
        return f"{name} ended with code {process.returncode}: {lines[-1] if lines else 'without a word'} ({log})"


def most_bytes(bundles: Path, shares: Sequence[DeviceData], batch: int) -> float:
    """The most that a turn moves in one direction of a device's link: smashed data of all its batches, and a whole model."""
    smashed = 1
    for side in load_hub_bundle(bundles / "hub.bundle").smashed.shape or ():
        smashed *= side
    samples = max(max(len(share.y_train), len(share.y_test)) for share in shares)
    padded = -(-samples // batch) * batch
    return padded * (4 * smashed + _LABEL_BYTES) + (bundles / "device.bundle").stat().st_size


def keep_scenario(name: str, folder: Path) -> None:
    """Copy a scenario and the traces it names, so that the folder says what was emulated."""
    path = library().get(name) or Path(name)
    shutil.copyfile(path, folder / SCENARIO)
    tables = tomllib.loads(path.read_text("utf-8"))
    for table in (tables, *tables.get("devices", {}).values()):
        for trace in table.get("trace", {}).values():
            to = folder / trace
            if to.resolve().is_relative_to(folder.resolve()):
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path.parent / trace, to)


def _start_device(
    wish: Wish, name: str, data: DeviceData, bundles: Path, net: Net, port: int, waits: Deadlines
) -> "Popen[bytes]":
    host, at = net.endpoint(name, port)
    broker = {"connect_seconds": waits.connect_seconds}
    config = demo.write_device(wish, name, data, f"mqtt://{host}:{at}", bundles, broker)
    environ = {**demo.DEVICE_ENVIRON, "ORT_DISABLE_TELEMETRY": "1"}
    return net.popen(name, demo.device_command(config), log=config.parent / "log.txt", environ=environ)


def _write(folder: Path, facts: Mapping[str, Any]) -> None:
    part = folder / f"{FACTS}.part"
    part.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    part.replace(folder / FACTS)
