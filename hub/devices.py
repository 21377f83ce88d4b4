"""The hub's correspondence with its devices: who is there, what arrives once, what is refused and counted."""

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from edge.link import Connected, Disconnected, Event, Link, LinkError
from edge.link import Message as Published
from edge.wire import messages, topics
from edge.wire.budget import EFFORT
from edge.wire.delivery import Delivery, Ledger
from edge.wire.frames import DEFAULT_LIMITS, Limits, WireError
from edge.wire.messages import Hello, Place, Refusal, Report, Welcome, place_of_activation
from edge.wire.table import parse_table
from edge.wire.tables import Tables

log = logging.getLogger("cutlayer.hub")

AROUND_FRAME = 100
"""Bytes of MQTT, TCP and IP around a frame, about."""
MAXIMUM_DEVICES = 4096
"""More names than this in one fleet are taken for an attack on the hub's memory."""


@dataclass
class Device:
    """One device as the hub knows it."""

    name: str
    delivery: Delivery
    hello: Hello | None = None
    """What the device said of itself; None until it has."""
    online: bool = False
    silent: bool = False
    """Whether a turn went on without it and nothing has come from it since: its link may be gone without a word."""
    instance: int | None = None
    """The process whose hello was accepted."""
    totals: Mapping[str, Any] = field(default_factory=dict)
    """The device's latest report: counters since its run began."""
    steps: int = 0
    """Training steps since `take_steps`."""
    losses: list[tuple[float, int]] = field(default_factory=list)
    """Mean local loss and steps of each report since `take_steps`."""
    refused: Counter[str] = field(default_factory=Counter)
    tables: Tables = field(default_factory=Tables)
    """Of the device's activations: those that it may name."""
    since_report: Counter[str] = field(default_factory=Counter)
    """Bytes of frames, with headers, that went up and down since its latest report, by way: what it says is left does not have them."""
    wakes: float = 0.0
    """When its delivery has something to say next, as far as is known; 0 where something has happened since it was asked."""


@dataclass(frozen=True)
class Joined:
    """A device has said hello and was accepted: for the first time, or again after a restart of either side."""

    device: str


@dataclass(frozen=True)
class Returned:
    """The same process of a device is connected again: it knows what it was told."""

    device: str


@dataclass(frozen=True)
class Left:
    """A device's status or last will says it is gone."""

    device: str


@dataclass(frozen=True)
class Arrived:
    """A message from a device, once; `Devices.done` after its effect."""

    device: str
    number: int
    epoch: int
    """Of the device's stream that the number belongs to."""
    message: messages.Message
    data: bytes
    """The message as it came."""


@dataclass(frozen=True)
class Unreadable:
    """An activation came that cannot be read. Sent again it would be no better: it will not come."""

    device: str
    place: Place
    reason: str


Happening = Joined | Returned | Left | Arrived | Unreadable


class Devices:
    """Every device of the fleet behind one link. No thread: `poll` does what is due."""

    def __init__(
        self,
        link: Link,
        fleet: str,
        bundle: str,
        *,
        generation: int,
        instance: int,
        ledgers: Mapping[str, Any] | None = None,
        limits: Limits = DEFAULT_LIMITS,
        budget: Mapping[str, float] | None = None,
        tables: Mapping[str, Iterable[bytes]] | None = None,
        keep_table: Callable[[str, bytes], None] = lambda _device, _table: None,
        fixed: bool = False,
        reads: Callable[[bytes], bool] = lambda _data: True,
    ) -> None:
        self.known: dict[str, Device] = {}
        self.instance = instance
        self.strangers: Counter[str] = Counter()
        """What was refused before it could be put down to a device."""
        self._link = link
        self._fleet = fleet
        self._bundle = bundle
        self._generation = generation
        self._ledgers = dict(ledgers or {})
        self._limits = limits
        self._budget = dict(budget or {})
        self._tables = dict(tables or {})
        self._keep_table = keep_table
        self._fixed = fixed
        """Whether the run must come out the same however often it is interrupted."""
        self._reads = reads
        """Which messages are for this hub; all others stay unread, and with their device."""
        self._broker = Connected()
        """What is known of the broker since the last connection."""

    def announce(self) -> None:
        """Publish the hub's retained status; devices say hello when they see a new instance."""
        status = topics.pack_status(online=True, instance=self.instance)
        self._link.publish(topics.hub_status(self._fleet), status, qos=1, retain=True)

    def online(self) -> list[str]:
        """Names of the devices that are there and have been accepted, without those that have fallen silent."""
        return sorted(d.name for d in self.known.values() if d.online and d.hello and not d.silent)

    def met(self) -> list[str]:
        """Names of the devices that have been accepted since this process began, also of those that are gone again."""
        return sorted(device.name for device in self.known.values() if device.hello)

    def fell_silent(self, name: str) -> None:
        """A deadline has passed: the device counts as away until a frame comes, for a dead link is noticed late, by the broker's keepalive."""
        self.known[name].silent = True

    def expect(self, name: str) -> Device:
        """The device, also before anything has come from it."""
        return self._device(name)

    def send(self, name: str, message: messages.Message, *, urgent: bool = False) -> None:
        """Queue a message for a device; it leaves with the next `poll`."""
        self._stir(name).delivery.send(messages.pack(message), urgent=urgent)

    def done(self, arrived: Arrived) -> None:
        """The effect of a message is in the hub's state: acknowledge it."""
        self._stir(arrived.device).delivery.confirm(arrived.number, arrived.epoch)

    def ledgers(self) -> dict[str, Any]:
        """What has been received from whom, for the checkpoint."""
        return {**self._ledgers, **{name: device.delivery.received.to_json() for name, device in self.known.items()}}

    def poll(self, timeout: float, now: float) -> list[Happening]:
        """Take in what the link has and let go what is due.

        Args:
            timeout: seconds to wait when nothing is there.
            now: monotonic seconds, for resends.
        """
        self.publish(now)  # what was sent since must not wait for what arrives
        events = self._link.poll(self._patience(timeout, now))
        happenings = [happening for event in events for happening in self._take(event, now)]
        self.publish(now)
        return happenings

    def publish(self, now: float) -> None:
        """Let acknowledgements, resends and new frames go."""
        if not self._link.connected:
            return
        for device in self.known.values():
            if device.wakes > now:
                continue
            for frame in device.delivery.poll(now):
                try:
                    self._link.publish(topics.down(self._fleet, device.name), frame, bulk=frame.bulk)
                except LinkError as error:
                    log.debug("a frame did not leave: %s", error)  # delivery resends it
                    return
                device.since_report["down"] += len(frame) + AROUND_FRAME
            timer = device.delivery.timer()
            device.wakes = math.inf if timer is None else timer

    def refusals(self) -> dict[str, dict[str, int]]:
        """What the hub has refused since it started, by device and reason; under no name what was no device's."""
        found = {"": dict(self.strangers), **{name: dict(device.refused) for name, device in self.known.items()}}
        return {name: counts for name, counts in found.items() if counts}

    def idle(self) -> bool:
        """Whether every device that is there has acknowledged everything."""
        return all(device.delivery.idle for device in self.known.values() if device.online)

    def _patience(self, longest: float, now: float) -> float:
        """How long to wait for the link before delivery has something to say."""
        if not self._link.connected:
            return longest  # nothing can be said into the void
        return max(0.0, min(longest, min((device.wakes for device in self.known.values()), default=math.inf) - now))

    def _stir(self, name: str) -> Device:
        """A device whose delivery is about to change, and has to be asked again what it has to say."""
        device = self.known[name]
        device.wakes = 0.0
        return device

    def _take(self, event: Event, now: float) -> Iterator[Happening]:
        if isinstance(event, Published):
            if event.topic == topics.hub_status(self._fleet):
                return  # our own words: the subscription to all devices' status covers it
            yield from self._published(event, now)
        elif isinstance(event, Connected):
            with suppress(LinkError):  # gone again already; the next connection will do
                self.announce()
            self._broker = event
            for name in self.known:
                self._fit(self._stir(name))
                self.known[name].delivery.reconnected(now)
        elif isinstance(event, Disconnected):
            log.warning("the hub is offline: %s", event.reason)

    def _published(self, event: Published, now: float) -> Iterator[Happening]:
        try:
            name, leaf = topics.parse(self._fleet, event.topic)
            device = self._device(name)
        except WireError as error:
            self.strangers[error.reason] += 1
            return
        if leaf == "status":
            yield from self._status(device, event.payload)
        elif leaf == "up":
            yield from self._frame(device, event.payload, now)

    def _device(self, name: str) -> Device:
        if name not in self.known:
            if len(self.known) >= MAXIMUM_DEVICES:
                raise WireError(f"more than {MAXIMUM_DEVICES} devices in fleet {self._fleet}", "devices")
            ledger = self._ledgers.get(name)
            self.known[name] = Device(
                name,
                Delivery(
                    epoch=self._generation,
                    instance=self.instance,
                    limits=self._limits,
                    received=Ledger.from_json(ledger) if ledger else None,
                ),
            )
            self._fit(self.known[name])
            for table in self._tables.get(name, ()):
                self.known[name].tables.put(parse_table(table))
            self.known[name].tables.take_fresh()
        return self.known[name]

    def _fit(self, device: Device) -> None:
        if not device.delivery.fit(self._broker.room(topics.down(self._fleet, device.name))):
            log.error("the broker takes %d bytes a packet: no message can be cut so small", self._broker.packet_bytes)

    def _status(self, device: Device, payload: bytes) -> Iterator[Happening]:
        try:
            online, instance = topics.read_status(payload)
        except WireError as error:
            device.refused[error.reason] += 1
            return
        if device.instance is not None and instance != device.instance:
            return  # another process under this name; its hello decides
        if device.online and not online:
            device.online = False
            yield Left(device.name)
        elif online and not device.online and device.hello and instance == device.instance:
            device.online = True
            yield Returned(device.name)

    def _frame(self, device: Device, frame: bytes, now: float) -> Iterator[Happening]:
        self._stir(device.name).silent = False
        device.since_report["up"] += len(frame) + AROUND_FRAME
        try:
            delivered = device.delivery.receive(frame, now)
        except WireError as error:
            device.refused[error.reason] += 1
            log.warning("refused from %s: %s", device.name, error)
            return
        device.delivery.acknowledged()  # nothing of ours is stored that could be forgotten now
        if (
            device.delivery.renumbered
        ):  # it remembers a later hub than this one; nothing of ours is stored that would change
            device.delivery.take_renumbered()
        for item in delivered:
            if not self._reads(item.payload):
                continue
            try:
                message = messages.unpack(item.payload, tables=device.tables)
            except WireError as error:
                device.refused[error.reason] += 1
                log.warning("refused from %s: %s", device.name, error)
                device.delivery.confirm(item.number, item.epoch)  # resending would not mend it
                yield from self._unreadable(device, item.payload, error)
                continue
            finally:
                for table in device.tables.take_fresh():
                    self._keep_table(
                        device.name, table.data
                    )  # before the acknowledgement: then the device only names it
            arrived = Arrived(device.name, item.number, item.epoch, message, item.payload)
            if isinstance(message, Hello):
                yield from self._hello(device, message)
                self.done(arrived)
            else:
                yield arrived

    def _unreadable(self, device: Device, data: bytes, error: WireError) -> Iterator[Happening]:
        """A turn must not wait for what will not come again; and a device whose table is not here has to send it."""
        if error.reason == "table" and device.instance is not None:
            self.send(device.name, Refusal(f"{error}", fatal=False, instance=device.instance), urgent=True)
        place = place_of_activation(data)
        if place:
            yield Unreadable(device.name, place, str(error))

    def _hello(self, device: Device, hello: Hello) -> Iterator[Happening]:
        reason = self._objection(device, hello)
        if reason:
            log.warning("refused %s: %s", device.name, reason)
            device.refused[reason[:80]] += 1
            device.delivery.send(messages.pack(Refusal(reason, fatal=True, instance=hello.instance)), urgent=True)
            return
        device.hello, device.instance, device.online = hello, hello.instance, True
        device.delivery.send(messages.pack(Welcome(self._generation, "welcome", self._budget)), urgent=True)
        yield Joined(device.name)

    def _objection(self, device: Device, hello: Hello) -> str | None:
        if hello.name != device.name:
            return f"the hello on the topic of {device.name!r} says it is {hello.name!r}"
        if hello.bundle != self._bundle:
            return (
                f"device {device.name!r} has bundle {hello.bundle[:8]}, this run uses {self._bundle[:8]}: "
                "install the bundle of this run"
            )
        measured = [name for name in EFFORT.values() if f"budget.{name}" in hello.facts]
        if measured and self._fixed:
            return (
                f'device {device.name!r} has a budget of {" and ".join(measured)}: with [run] order = "fixed" of the hub '
                "a run must not hang on what is never measured the same twice; leave it out of [budget]"
            )
        known = device.hello
        if known and device.online and known.instance != hello.instance:
            same_board = known.facts.get("outbox") == hello.facts.get("outbox")
            if not same_board:
                return f"another device named {device.name!r} is online; give this one a name of its own"
        return None


_COUNTERS = (
    "sent", "received", "retransmitted", "evaluation_sent", "evaluation_received", "paper_bytes", "elements",
    "flops", "paper_flops", "peak_rss_bytes", "cpu_seconds", "restarts",
)  # fmt: skip


_MAY_LACK = ("retransmitted", "peak_rss_bytes", "cpu_seconds")
"""What a device may not know of itself; its report says why, under `missing`."""


def keep_report(device: Device, report: Report) -> None:
    """Remember a device's totals; a report of a failure has none, and one that makes no sense is counted and ignored."""
    metrics = report.metrics
    if "failed" in metrics or "refused_order" in metrics:
        return
    if not _makes_sense(metrics):
        device.refused["report"] += 1
        return
    device.totals = {**device.totals, **metrics}
    device.since_report.clear()
    device.steps += metrics.get("steps", 0)
    if "loss" in metrics and "steps" in metrics:
        device.losses.append((metrics["loss"], metrics["steps"]))


def _makes_sense(metrics: Mapping[str, Any]) -> bool:
    missing = metrics.get("missing", {})
    if not isinstance(missing, Mapping):
        return False
    counters = [metrics.get(name) for name in _COUNTERS if name not in _MAY_LACK or name not in missing]
    numbers = [*counters, metrics.get("loss", 0), metrics.get("step_seconds") or 0]
    return (
        all(type(reason) is str for reason in missing.values())
        and all(type(number) in (int, float) for number in numbers)
        and type(metrics.get("steps", 0)) is int
        and isinstance(metrics.get("source"), str)
        and isinstance(metrics.get("energy"), Mapping)
        and isinstance(metrics.get("refused"), Mapping)
        and all(type(metrics.get(name, 0)) is int for name in ("beyond_steps", "expired", "expired_bytes"))
        and isinstance(metrics.get("delivery", {}), Mapping)
        and isinstance(coded := metrics.get("coded", {}), Mapping)
        and all(type(number) in (int, float) for number in (*coded.values(), metrics.get("nonzero_share", 0)))
        and isinstance(budget := metrics.get("budget", {}), Mapping)
        and all(type(number) in (int, float, type(None)) for number in budget.values())
        and isinstance(known := metrics.get("known", {}), Mapping)
        and all(type(count) is int and count >= 0 for count in known.values())
        and type(metrics["energy"].get("joules")) in (int, float, type(None))
    )


def take_steps(device: Device) -> tuple[int, float | None]:
    """Training steps since the last call, and their mean local loss where the device has one."""
    weights = sum(steps for _, steps in device.losses)
    loss = sum(loss * steps for loss, steps in device.losses) / weights if weights else None
    steps, device.steps, device.losses = device.steps, 0, []
    return steps, loss
