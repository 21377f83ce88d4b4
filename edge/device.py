"""Puts a device together from its configuration, runs it, and takes it down in the right order."""

import logging
import os
import platform
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from edge import board, bundle, effort, installed, memory, sensors
from edge.accounts import Accounts
from edge.agent import IDLE_SECONDS, Agent
from edge.beside import Beside
from edge.config import BrokerConfig, DeviceConfig, RunConfig
from edge.enrolment.certificate import Certificate
from edge.enrolment.enrolling import Enrolment, Place, Renewal
from edge.files import Files
from edge.flight.recorder import Recorder
from edge.link import Link
from edge.mailbox import Mailbox
from edge.meters import Meter
from edge.mqtt_link import MqttLink, read_password
from edge.outbox import Outbox, OutboxError, holder
from edge.profiler import Profiler
from edge.purse import Purse
from edge.refusal import RefusalError
from edge.release.archive import Accepts, open_release
from edge.release.manifest import ClockError, ReleaseError, ReleaseManifest
from edge.release.signatures import read_keys
from edge.remembered import Memory
from edge.segment import Segment
from edge.service import Health, Notifier
from edge.side_link import SideLink
from edge.updates import LaterError, Updater
from edge.wire import messages, topics
from edge.wire.delivery import Limits
from edge.wire.messages import Order
from edge.work import Work

log = logging.getLogger("cutlayer.device")

REFUSED_SECONDS = 300.0
"""How long a board that was refused goes on fetching updates, before it ends and greets the hub anew: the hub may have other graphs
by now, and the release that brings them may be on its way."""


def run(config: DeviceConfig, stopped: Callable[[], bool], profile: Sequence[str] = ()) -> None:
    """Train with the hub until `stopped()`.

    On a board that was installed from a release, no network and a hub's refusal end nothing: the next release comes over the one, and
    may be the answer to the other.

    The order of shutdown is the reverse of the order below, for a reason each: the loop ends after a commit; the
    link goes next, so that the hub sees `offline` and nobody sends into the void; the outbox last, since closing it
    lets another process in.

    Args:
        config: all of it.
        stopped: asked between two turns of the loop.
        profile: a command that profiles this board when the hub asks for that; see `edge.profiler`.

    Raises:
        BundleError, TooLargeError, ConfigError, SensorError, OutboxError, LinkError, RefusalError: what the user can mend, in a sentence.
    """
    loaded = bundle.load(config.bundle.path)
    room = memory.room(Files(Path("/")))
    for line in memory.refuse_hopeless(loaded.manifest, room):
        log.warning("%s", line)
    if elsewhere := bundle.measured_elsewhere(loaded.manifest, platform.machine()):
        log.warning("%s", elsewhere)
    source = open_source(config, loaded)
    room = replace(room, data_bytes=getattr(source, "held_bytes", 0))  # an object of the user's need not say
    instance = secrets.randbits(32)
    fielded = config.update.installed
    with ExitStack() as down:
        notifier = Notifier(os.environ, os.getpid())
        down.callback(notifier.close)
        recorder = Recorder(config.device.state_directory / "recorder", config.run.recorder_bytes)
        outbox = recorder.outbox(Outbox.open(config.device.state_directory))
        down.callback(outbox.close)
        down.callback(recorder.close)
        prepare(outbox, loaded)
        notifier.ready()  # before what waits for a network: systemd would take that for a failed start
        down.callback(notifier.stopping)
        if (enrolment := enrolment_of(config)) is not None:
            if not enrolment.until_enrolled(notifier.between(stopped)):
                return
            down.callback(Renewal(enrolment).close)
        whole = _link(config, instance)
        link = recorder.link(whole)
        meter = down.enter_context(Meter(sample_seconds=config.run.sample_seconds, config=config.energy))
        effort.refuse_unmeasured(config.budget, meter)
        purse = Purse(outbox, link, config.budget.amounts(), gauge=meter)
        down.callback(purse.close)  # after the link's last bytes
        down.callback(link.close)
        purse.apply()
        accounts = Accounts(outbox, link, meter, loaded.manifest)
        segment = Segment(loaded, threads=config.run.threads, room=room)
        profiler = Profiler(profile) if profile else None
        if profiler:
            down.callback(profiler.end)
        agent = assemble(config, loaded, segment, source, outbox, link, accounts, purse, instance, profiler)
        recorder.begin(agent, segment)
        beside = _beside(config, whole, purse, notifier, down)
        # A board that knows its run is in the field: it goes on without a network, which comes back some day. A new one
        # has nothing to do before its first order, and may have a wrong address.
        if fielded or outbox.fact("run") is not None:
            link.start()
        else:
            link.open(config.broker.connect_seconds, stopped)
        log.info("%s: bundle %s, %d samples", config.device.name, loaded.id[:8], source.samples)
        try:
            agent.run(recorder.between(beside.between(stopped, agent)), now=recorder.clock)
        except RefusalError as error:
            beside.refused()
            if not fielded:
                raise
            log.error("the hub refuses: %s; updates are still fetched, for %g s", error, REFUSED_SECONDS)  # noqa: TRY400
            recorder.close()  # the agent has ended, and so has what can be run again
            _linger(whole, outbox, purse, beside.between(stopped))
            raise


def _linger(link: Link, outbox: Outbox, purse: Purse, stopped: Callable[[], bool]) -> None:
    """Turn without an agent: the link is read, what is spent is kept, and so is what is done beside."""
    until = time.monotonic() + REFUSED_SECONDS
    while not stopped() and time.monotonic() < until:
        link.poll(IDLE_SECONDS)
        purse.look()
        try:
            outbox.commit()
        except OutboxError:
            time.sleep(IDLE_SECONDS)
        else:
            purse.apply()


def _beside(config: DeviceConfig, link: SideLink, purse: Purse, notifier: Notifier, down: ExitStack) -> Beside:
    """What is done between two turns of the loop."""
    update, name = config.update, config.device.name
    runs = installed.running(update.current, ReleaseManifest.parse) if update.current and update.installed else None
    health = Health(config.service.healthy, runs.id if runs else "", config.service.healthy_seconds)

    def verify(path: Path) -> None:
        if runs is None or update.keys is None:
            raise ValueError("this board was not installed from a release")
        accepts = Accepts(
            fleet=config.run.fleet,
            architecture=platform.machine(),
            version_above=runs.version,
            agent=runs.cutlayer,
        )
        try:
            keys = read_keys(update.keys)
        except ReleaseError as error:  # the board's fault, which somebody may mend
            raise LaterError(str(error)) from error
        try:
            open_release(path, keys, now=datetime.now(UTC), accepts=accepts).close()
        except ClockError as error:
            raise LaterError(str(error)) from error

    updater = Updater(
        config.run.fleet,
        name,
        link,
        runs=runs,
        incoming=update.incoming if update.installed else None,
        memory=Memory(config.device.state_directory / "updates.json"),
        means=purse,
        verify=verify,
        proven=lambda: health.proven,
        piece_bytes=config.run.chunk_bytes,
        keep=update.keep,
        boot=installed.boot(),
    )
    down.callback(updater.close)
    return Beside(link, notifier, health, updater, time.monotonic)


def enrolment_of(config: DeviceConfig) -> Enrolment | None:
    """How this device comes to its certificate; None where the configuration does not say that it shall."""
    broker, enrolment = config.broker, config.enrolment
    if enrolment.url is None or broker.ca is None or broker.certificate is None or broker.key is None:
        return None
    place = Place(
        config.device.name, enrolment.url, enrolment.claim, broker.ca, certificate=broker.certificate, key=broker.key
    )
    return Enrolment(place)


def assemble(
    config: DeviceConfig,
    loaded: bundle.Bundle,
    segment: Segment,
    source: sensors.Source,
    outbox: Outbox,
    link: Link,
    accounts: Accounts,
    purse: Purse,
    instance: int,
    profiler: Profiler | None = None,
) -> Agent:
    """The agent of a device whose outbox is prepared; the link may be opened afterwards."""
    mailbox = Mailbox(
        config.device.name,
        config.run.fleet,
        link,
        outbox,
        instance=instance,
        limits=limits(config.run),
        outbox_bytes=config.run.outbox_bytes,
    )
    return Agent(
        loaded,
        segment,
        source,
        mailbox,
        outbox,
        accounts,
        purse,
        facts={**facts(outbox), **{f"budget.{name}": amount for name, amount in config.budget.amounts().items()}},
        once=config.run.once,
        checkpoint_steps=config.run.checkpoint_steps,
        known_bytes=config.run.known_bytes,
        profiler=profiler,
    )


def limits(run: RunConfig) -> Limits:
    """Of the device's side of the conversation."""
    # What is urgent overtakes the rest at the link, so a stall may be outlasted.
    return Limits(chunk_bytes=run.chunk_bytes, window_bytes=run.window_bytes, window_trips=16.0)


def open_source(config: DeviceConfig, loaded: bundle.Bundle) -> sensors.Source:
    """The device's source of batches, checked against what the bundle wants."""
    manifest = loaded.manifest
    return sensors.open_source(config, manifest.input.shape, manifest.input.dtype, manifest.classes)


def prepare(outbox: Outbox, loaded: bundle.Bundle) -> None:
    """Give a new outbox its identity, and clear one that belongs to another bundle."""
    if outbox.fact("outbox") is None:
        outbox.put_fact("outbox", secrets.token_hex(8))
        # A random start lets the hub tell this outbox's messages from those of one that was lost.
        outbox.put_fact("stream", {"epoch": secrets.randbelow(1 << 30) + 1, "next": 1})
    if outbox.fact("bundle") != loaded.id:
        outbox.forget_bundle()
        outbox.put_fact("bundle", loaded.id)
    outbox.commit()


def facts(outbox: Outbox) -> dict[str, str | float]:
    """What the hub should know of this board."""
    return {"outbox": str(outbox.fact("outbox")), **board.software()}


def status(config: DeviceConfig) -> Iterator[str]:
    """What the state directory remembers, a line each; the device may run meanwhile."""
    running = holder(config.device.state_directory)
    outbox = Outbox.look(config.device.state_directory)
    try:
        unsent = outbox.unsent()
        yield f"device     {config.device.name}, {f'running as process {running}' if running else 'not running'}"
        if (enrolment := enrolment_of(config)) is not None:
            found = enrolment.certificate()
            yield f"enrolled   {_validity(found, enrolment.clock()) if found else 'not yet'}"
        yield f"bundle     {outbox.fact('bundle') or 'none yet'}"
        yield f"last order {outbox.fact('last_order', 'none yet')}"
        yield f"in hand    {_in_hand(outbox)}"
        yield f"unsent     {len(unsent)} messages, {sum(len(item.message) for item in unsent)} bytes"
        for name, value in sorted(outbox.fact("totals", {}).items()):
            yield f"{name:<20} {value}"
    finally:
        outbox.close()


def _validity(certificate: Certificate, now: datetime) -> str:
    if now >= certificate.until:
        return f"no longer: the certificate expired on {certificate.until:%Y-%m-%d}, a new claim is needed"
    late = "; renewal is due" if now >= certificate.renew_at() else ""
    return f"until {certificate.until:%Y-%m-%d}{late}"


def _in_hand(outbox: Outbox) -> str:
    """What the device is at, as far as it is on the disk."""
    for name, position in (("order", "position"), ("spare", "spare_position")):
        data = outbox.received(name)
        order = messages.unpack(data) if data else None
        if isinstance(order, Order):
            work = Work(order, outbox.fact(position, order.first_step))
            done, end = work.step - order.first_step, work.end - order.first_step
            if name == "spare":
                return f"nothing; without the hub {done - end} of {order.beyond} steps more of round {order.round + 1}"
            return f"{order.kind} of round {order.round + 1}, {done} of {end} steps"
    return "nothing"


def _link(config: DeviceConfig, instance: int) -> SideLink:
    fleet, name = config.run.fleet, config.device.name
    offline = topics.pack_status(online=False, instance=instance)
    of_updates = topics.subscriptions_of_updates(fleet, name)
    link = link_to(
        config.broker,
        # Two processes with one client id would throw each other off the broker for ever; the hub decides instead.
        client_id=f"{name}-{instance:08x}",
        will=(topics.status(fleet, name), offline),
        subscriptions=(*topics.subscriptions_of_device(fleet, name), *of_updates),
    )
    return SideLink(link, frozenset(of_updates), topics.down(fleet, name))


def link_to(
    broker: BrokerConfig, client_id: str, *, subscriptions: Sequence[str], will: tuple[str, bytes] | None = None
) -> MqttLink:
    """A link to the broker of a configuration, not yet opened; arguments as those of `MqttLink`."""
    return MqttLink(
        broker.url,
        client_id,
        will=will,
        subscriptions=subscriptions,
        keepalive=broker.keepalive_seconds,
        username=broker.username,
        password=read_password(broker.password_file),
        ca=broker.ca,
        certificate=broker.certificate,
        key=broker.key,
        congestion=broker.congestion,
    )
