"""A run whose processes are killed again and again, and what it comes to in the end.

Everything is real: a broker, a hub, devices, each a process of its own with files on a disk. A kill is SIGKILL at a
moment that chance picks, to one of them or to several at once; a while later it is started again with the same command. A killed broker loses all it had.
Where the processes were when they died is read from what they left on the disk.
"""

import hashlib
import random
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from edge.outbox import Outbox, OutboxError
from edge.wire import messages
from edge.wire.messages import Order
from export.bundle import BuildSpec, build
from hub import processes
from hub.broker import Broker, start_broker
from hub.datasets import DeviceData, split, write_device_file
from hub.demo import as_toml
from hub.journal import Journal
from hub.runlog import read_run
from hub.store import Store, StoreError
from hub.strategies import STRATEGIES

SAMPLES, TESTED = 192, 32
MOST_RESTARTS = 50
"""Processes that may end with an error by themselves in one run and are started again."""
END_SECONDS = 180.0
"""Longest wait for a run to end by itself after the last kill."""


class CampaignError(RuntimeError):
    """A run that did not end, or ended otherwise than well; the message has the last words of who failed."""


@dataclass(frozen=True)
class Plan:
    """One run: what is trained, and how much it has to bear."""

    strategy: str
    options: Mapping[str, Any] = field(default_factory=dict)
    rounds: int = 60
    devices: int = 3
    batch: int = 32
    broker: str = "embedded"
    known: Mapping[str, float] = field(default_factory=dict)
    """Which samples are not sent again."""
    kills: int = 0
    """Kills until it is left alone; it may end before."""
    pace: float = 0.8
    """Mean seconds from one kill to the next."""
    seed: int = 0
    """Of the kills; the run's own is 0."""
    weights_codec: str = "float32"


@dataclass(frozen=True)
class Kill:
    """Who was killed, and what it was doing."""

    process: str
    phase: str
    second: float


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    learned: str
    """A hash of everything the hub has learned: weights, masks, moments, averages; and of every round's loss and accuracy."""
    devices: Mapping[str, str]
    """A hash of every state tensor of each device."""
    rounds: tuple[int, ...]
    """As the metrics have them."""
    kills: tuple[Kill, ...]
    restarts: int
    """Processes that ended with an error by themselves and were started again."""
    seconds: float


class Campaign:
    """The processes of one run in one folder."""

    def __init__(self, plan: Plan, folder: Path, bundles: Path) -> None:
        self._plan = plan
        self._folder = folder
        self._bundles = bundles.resolve()
        self._chance = random.Random(plan.seed)
        self._names = [f"device-{number:02d}" for number in range(1, plan.devices + 1)]
        self._running: dict[str, Any] = {}
        self._broker: Broker | None = None
        self._port: int | None = None
        self._kills: list[Kill] = []
        self._restarts = 0

    def run(self) -> Outcome:
        """From the start to the end of the run, kills included.

        Raises:
            CampaignError: it does not end, or a process ends by itself as it should not.
        """
        began = time.monotonic()
        with ExitStack() as down:
            down.callback(self._end)
            self._write()
            self._start("broker")
            for name in ("hub", *self._names):
                self._start(name)
            self._torment(began)
            self._finish()
        return self._outcome(time.monotonic() - began)

    # Kills ------------------------------------------------------------------------------------------------------

    def _torment(self, began: float) -> None:
        while len(self._kills) < self._plan.kills and self._hub_runs():
            time.sleep(self._chance.expovariate(1 / self._plan.pace))
            self._supervise()
            for victim in self._victims():
                if not self._hub_runs():
                    return
                self._kill(victim, began)

    def _victims(self) -> list[str]:
        """Mostly a device; now and then the hub, the broker, or all at once as in a house without power."""
        dice = self._chance.random()
        if dice < 0.03:
            return ["broker", "hub", *self._names]
        if dice < 0.12:
            return ["broker"]
        if dice < 0.32:
            return ["hub"]
        return [self._chance.choice(self._names)]

    def _supervise(self) -> None:
        """Start again what has ended with an error, as systemd would: a new device that finds no broker says so and ends."""
        for name, process in self._running.items():
            if process.poll() not in (None, 0):
                self._restarts += 1
                if self._restarts > MOST_RESTARTS:
                    raise CampaignError(f"{name} ended with code {process.returncode}: {self._words(name)}")
                time.sleep(0.5)
                self._start(name)

    def _kill(self, victim: str, began: float) -> None:
        process = self._process(victim)
        if process.poll() is not None:
            return  # ended by itself just now
        process.kill()
        process.wait(10)
        self._kills.append(Kill(victim, self._phase(victim), round(time.monotonic() - began, 3)))
        if self._chance.random() < 0.2:
            time.sleep(self._chance.random())
        self._start(victim)

    def _process(self, name: str) -> Any:
        return self._broker.process if name == "broker" and self._broker else self._running[name]

    def _hub_runs(self) -> bool:
        return self._running["hub"].poll() is None

    def _phase(self, victim: str) -> str:
        if victim == "broker":
            return "any"
        return hub_phase(self._folder / "run") if victim == "hub" else device_phase(self._folder / victim / "state")

    # Processes --------------------------------------------------------------------------------------------------

    def _start(self, name: str) -> None:
        if name == "broker":
            self._broker = start_broker(self._plan.broker, self._folder / "broker", port=self._port)
            self._port = int(self._broker.url.rpartition(":")[2])
            if not (self._folder / "hub.toml").exists():
                self._write_processes(self._broker.url)
            return
        if name == "hub":
            command = ["-m", "hub", "serve", "--config", str(self._folder / "hub.toml")]
            command += ["--resume"] * Store.known(self._folder / "run")
        else:
            command = ["-m", "edge", "run", "--config", str(self._folder / name / "device.toml")]
        environ = {"OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
        self._running[name] = processes.start([sys.executable, *command], self._log(name), environ=environ)

    def _end(self) -> None:
        processes.stop(list(self._running.values()))
        if self._broker:
            self._broker.stop()

    def _finish(self) -> None:
        hub = self._running["hub"]
        until = time.monotonic() + END_SECONDS
        while hub.poll() != 0:
            if time.monotonic() > until:
                raise CampaignError(
                    f"the run has not ended {END_SECONDS:g} s after the last kill: {self._words('hub')}"
                )
            time.sleep(0.05)
            self._supervise()
            hub = self._running["hub"]

    def _log(self, name: str) -> Path:
        return self._folder / name / "log.txt"

    def _words(self, name: str) -> str:
        return "\n".join(self._log(name).read_text("utf-8", "replace").splitlines()[-12:])

    # Files ------------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        federation = split("digits", self._plan.devices, "all", 0, None)
        for name, data in zip(self._names, federation.values(), strict=True):
            some = DeviceData(
                data.x_train[:SAMPLES], data.y_train[:SAMPLES], data.x_test[:TESTED], data.y_test[:TESTED]
            )
            (self._folder / name).mkdir(parents=True)
            write_device_file(self._folder / name / "data.npz", some)

    def _write_processes(self, url: str) -> None:
        plan = self._plan
        hub: dict[str, dict[str, Any]] = {
            "broker": {"url": url},
            "fleet": {"name": "campaign", "devices": plan.devices},
            "bundle": {"path": self._bundles / "hub.bundle"},
            "run": {
                "folder": "run",
                "strategy": plan.strategy,
                "rounds": plan.rounds,
                "batch": plan.batch,
                "order": "fixed",
                "evaluate_every": 4,
                "weights_codec": plan.weights_codec,
            },
            "known": dict(plan.known),
            "strategy": dict(plan.options),
        }
        (self._folder / "hub.toml").write_text(as_toml(hub), "utf-8")
        for name in self._names:
            device: dict[str, dict[str, Any]] = {
                "device": {"name": name, "state_directory": "state"},
                "broker": {"url": url},
                "bundle": {"path": self._bundles / "device.bundle"},
                "data": {"source": "data.npz"},
                "run": {"fleet": "campaign", "threads": 1, "once": True},
            }
            (self._folder / name / "device.toml").write_text(as_toml(device), "utf-8")

    # The end ----------------------------------------------------------------------------------------------------

    def _outcome(self, seconds: float) -> Outcome:
        log = read_run(self._folder / "run")
        told = [
            (r["round"], r["loss"], sorted(r["selected"].items()), r["late"], sorted(r["accuracies"].items()))
            for r in log.rounds
        ]
        saved = torch.load(self._folder / "run" / "checkpoint.pt", weights_only=True)
        return Outcome(
            learned=_hash([("rounds", repr(told).encode()), *_tensors(saved["strategy"])]),
            devices={name: _hash(self._state(name)) for name in self._names},
            rounds=tuple(r["round"] for r in log.rounds),
            kills=tuple(self._kills),
            restarts=self._restarts,
            seconds=seconds,
        )

    def _state(self, name: str) -> list[tuple[str, bytes]]:
        outbox = Outbox.look(self._folder / name / "state")
        try:
            return sorted((key, array.tobytes()) for key, array in outbox.state().items())
        finally:
            outbox.close()


def bundles(strategy: str, options: Mapping[str, Any], folder: Path) -> Path:
    """Build what the devices of a strategy need, unless it is there."""
    made = STRATEGIES[strategy](STRATEGIES[strategy].options(**options))
    where = folder / f"bundle-{made.objective}-{made.optimizer}"
    if not where.exists():
        spec = BuildSpec("export.models:Digits", "pool1", made.objective, made.optimizer, {"classes": 10})
        build(spec, where, checked=False)
    return where


def device_phase(state: Path) -> str:
    """What a device that is dead was doing, by its outbox."""
    try:
        outbox = Outbox.look(state)
    except OutboxError:
        return "before its first commit"
    try:
        data = outbox.received("order")
        if data is None:
            return "unsent messages, no order" if outbox.unsent() else "no order"
        order = messages.unpack(data)
        done = outbox.fact("position", 0) - (order.first_step if isinstance(order, Order) else 0)
        kind = order.kind if isinstance(order, Order) else "?"
        return f"{kind} order, {'begun' if done == 0 else 'in it'}, {'unsent' if outbox.unsent() else 'nothing unsent'}"
    except OutboxError:
        return "before its first commit"
    finally:
        outbox.close()


def hub_phase(run: Path) -> str:
    """What a hub that is dead was doing, by its folder."""
    if not (run / "checkpoint.pt").exists():
        return "before its first checkpoint"
    if (run / "checkpoint.pt.new").exists():
        return "writing a checkpoint"
    try:
        checkpoint = Store.peek(run)
        journal = Journal(run / "journal.db")
    except StoreError:
        return "?"
    try:
        last = None
        for entry in journal.entries(checkpoint):
            last = entry
    finally:
        journal.close()
    return {
        "NoneType": "round begun or evaluating",
        "Opened": "turn opened",
        "Learned": "learning",
        "Put": "taking reports",
        "GaveUp": "gave somebody up",
    }[type(last).__name__]


def _tensors(saved: Any, name: str = "") -> Iterator[tuple[str, bytes]]:
    if isinstance(saved, torch.Tensor):
        yield name, saved.numpy().tobytes()
    elif isinstance(saved, dict):
        for key in sorted(saved, key=str):
            yield from _tensors(saved[key], f"{name}.{key}")
    elif isinstance(saved, list | tuple):
        for place, part in enumerate(saved):
            yield from _tensors(part, f"{name}.{place}")
    else:
        yield name, repr(saved).encode()


def _hash(parts: Any) -> str:
    digest = hashlib.sha256()
    for name, data in parts:
        digest.update(f"{name}:{len(data)}:".encode() + data)
    return digest.hexdigest()[:16]
