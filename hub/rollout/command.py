"""`cutlayer-hub rollout`: serves a release to a fleet, a process of its own beside `serve`.

Everything that has been decided is on the disk before anybody is told: a command that was killed goes on when it is run again.
"""

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from edge.link import PACKET_BYTES, Connected, Link, LinkError, Message
from edge.mqtt_link import MqttLink, read_password
from edge.wire import topics
from edge.wire.frames import WireError
from edge.wire.updates import PIECE_OVERHEAD, Release, State, Want
from hub import config
from hub.broker import LOOPBACK
from hub.config import HubConfig
from hub.rollout import plan
from hub.rollout.book import DONE, STOPPED, Book, Shelf
from hub.rollout.gate import Margins
from hub.rollout.plan import RolloutError
from hub.rollout.progress import Shown, progress, summary
from hub.rollout.rollout import Rollout, Times
from hub.rollout.serving import ReleaseFile
from hub.trust.folder import Folder, addresses

log = logging.getLogger("cutlayer.hub")

POLL_SECONDS = 0.25
KEEP_SECONDS = 30.0
"""Between two times that figures alone are worth a write."""
INTERRUPTED = 130
"""Exit code after Ctrl-C."""
MOST_DEVICES = 4096
RETRY_SECONDS = 1.0
"""After something could not be published."""
CONNECT_SECONDS = 15.0
WITHDRAW_SECONDS = 3.0
"""For the retained offers to reach the broker at the end."""


def command(options: argparse.Namespace) -> int:
    """Send a release to the fleet in stages; returns the exit code."""
    logging.basicConfig(level="WARNING", format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    settings = config.load(options.config, os.environ)
    folder = folder_of(settings, options)
    shelf = Shelf(folder)
    if options.status:
        return _status(shelf)
    if options.stop:
        return _stop(settings, options, shelf)
    if options.release is None:
        raise RolloutError("name a FILE.release, or ask for --status or --stop")
    key = _key(options, folder)
    with ExitStack() as down:
        file = ReleaseFile(options.release, key, fleet=settings.fleet.name, now=datetime.now(UTC))
        down.callback(file.close)
        down.enter_context(shelf.held())
        book = _book(shelf, file.release, options)
        if book.outcome == STOPPED:
            raise RolloutError(
                f"the rollout of version {book.release.version} was stopped: {book.reason}; what is rolled out next needs a later "
                "version (the same contents get one by cutlayer-export flash bundle --version N)"
            )
        rollout = Rollout(
            book,
            settings.fleet.name,
            Margins(options.slower, options.worse),
            Times(options.gather, options.hold, options.trial, options.state),
        )
        shelf.save(book)
        link = connect(settings, options, folder)
        down.callback(link.close)
        shown = down.enter_context(progress(rollout))
        rollout.say = shown.note
        link.open(CONNECT_SECONDS)
        began = book.stage
        try:
            Desk(rollout, file, link, shelf, shown).run(options.wait, pause=options.pause)
        except KeyboardInterrupt:
            shelf.save(book)
            shown.note("interrupted, not stopped: the same command goes on; --stop ends the rollout for good")
            return INTERRUPTED
    return _end(book, options, began)


@dataclass
class Desk:
    """Ties a rollout, its file and the link together."""

    rollout: Rollout
    file: ReleaseFile | None
    link: Link
    shelf: Shelf
    shown: Shown
    now: Callable[[], float] = time.monotonic
    _told: dict[str, bytes] = field(default_factory=dict)
    """What lies on each device's topic, as far as this process has put it there."""
    _room: int = PACKET_BYTES
    _kept_at: float = 0.0
    _retry_at: float = 0.0

    def run(self, wait_seconds: float, *, pause: bool = False) -> None:
        """Until it is done, stopped, or nothing has happened for so long; with `pause` until a stage is over."""
        rollout, stage = self.rollout, self.rollout.book.stage
        while True:
            now = self.now()
            self.turn(now)
            if not rollout.running:
                self.withdraw()
                return
            if pause and rollout.book.stage > stage:
                return
            if rollout.news_at is not None and now - rollout.news_at >= wait_seconds:
                return

    def turn(self, now: float) -> None:
        """Hear, decide, keep, tell: in this order."""
        for event in self.link.poll(POLL_SECONDS):
            if isinstance(event, Connected):
                self._room = event.packet_bytes
                self._told.clear()
            elif isinstance(event, Message):
                self._hear(event, now)
        self.rollout.turn(now)
        if self.rollout.urgent or now - self._kept_at >= KEEP_SECONDS:
            self.shelf.save(self.rollout.book)
            self.rollout.urgent, self._kept_at = False, now
        self._offer(now)
        self.shown.look(now)

    def withdraw(self) -> None:
        """The end: what has been decided reaches the broker, if it is there."""
        until = self.now() + WITHDRAW_SECONDS
        while self.now() < until and any(self._told.get(name) != data for name, data in self.rollout.offers().items()):
            self._offer(self.now())
            self.link.poll(POLL_SECONDS)

    def _hear(self, message: Message, now: float) -> None:
        fleet = self.rollout.fleet
        with suppress(WireError):  # of somebody who is no device, or of a later version
            if message.topic.endswith("/status"):
                name, _ = topics.parse(fleet, message.topic)
                if message.payload and self._known(name):
                    self.rollout.hear_status(name, now, online=topics.read_status(message.payload)[0])
                return
            name, leaf = topics.parse_update(fleet, message.topic)
            if leaf == "want":
                self._serve(name, Want.parse(message.payload))
            elif leaf == "state" and message.payload and self._known(name):
                self.rollout.hear_state(name, State.parse(message.payload), now)

    def _known(self, name: str) -> bool:
        return name in self.rollout.live or len(self.rollout.live) < MOST_DEVICES

    def _serve(self, name: str, want: Want) -> None:
        if self.file is None or not self.rollout.serves(name):
            return
        topic = topics.update(self.rollout.fleet, name, "piece")
        longest = Connected(self._room).room(topic) - PIECE_OVERHEAD
        piece = self.file.answer(want, longest)
        if piece is not None:
            with suppress(LinkError):  # it is asked for again
                self.link.publish(topic, piece.pack())

    def _offer(self, now: float) -> None:
        if not self.link.connected or now < self._retry_at:
            return
        for name, data in self.rollout.offers().items():
            if self._told.get(name) == data:
                continue
            try:
                self.link.publish(topics.update(self.rollout.fleet, name, "offer"), data, qos=1, retain=True)
            except LinkError:
                self._retry_at = now + RETRY_SECONDS
                return
            self._told[name] = data


def folder_of(settings: HubConfig, options: argparse.Namespace) -> Path:
    """The fleet's folder."""
    given: Path | None = options.folder
    return given or settings.tls.folder


def connect(settings: HubConfig, options: argparse.Namespace, folder: Path) -> MqttLink:
    """The rollout's own link to the hub's broker, not open yet.

    Raises:
        RolloutError: the configuration does not tell where the broker is.
        TrustError: the fleet's folder cannot be used.
    """
    broker, fleet = settings.broker, settings.fleet.name
    ca, certificate, key = broker.ca, broker.certificate, broker.key
    url: str | None = options.broker or (broker.url if broker.url.startswith("mqtt") else None)
    if (url is None or url.startswith("mqtts")) and certificate is None and (folder / "ca.key").is_file():
        # Of its own: under the hub's name the broker would end the hub's connection for ours, and ours for the hub's.
        trusted = Folder.open(folder, fleet)
        certificate, key = trusted.client("rollout", datetime.now(UTC))
        url, ca = url or addresses(settings).own, trusted.ca
    return MqttLink(
        url or _own(settings),
        client_id=f"{fleet}-rollout",
        subscriptions=topics.subscriptions_of_rollout(fleet),
        username=broker.username,
        password=read_password(broker.password_file),
        ca=ca,
        certificate=certificate,
        key=key,
    )


def _key(options: argparse.Namespace, folder: Path) -> Path:
    """File of the key that the release must be signed with."""
    key: Path = options.key or folder / "release.pub"
    if not key.is_file():
        raise RolloutError(
            f"there is no {key}, the public key of the fleet's releases: cutlayer-hub keys makes it, or give --key FILE"
        )
    return key


def _own(settings: HubConfig) -> str:
    """URL of the broker that `serve` starts on this machine."""
    broker = settings.broker
    if broker.port:
        return f"mqtt://{LOOPBACK}:{broker.port}"
    raise RolloutError(
        f'[broker] url = "{broker.url}" takes any free port: set [broker] port, which serve takes then, or name it with --broker'
    )


def _book(shelf: Shelf, release: Release, options: argparse.Namespace) -> Book:
    """The rollout to go on with, or a new one."""
    plan.parse(options.to)
    fresh = Book(release, options.to, tuple(sorted(set(options.only))), tuple(sorted(set(options.canary))))
    if strange := sorted(set(fresh.canaries) - set(fresh.only or fresh.canaries)):
        raise RolloutError(f"--canary {strange[0]} is not among --only")
    last = shelf.load()
    if last is None or (last.release.id != release.id and last.release.version < release.version):
        return fresh
    if last.release.id != release.id:
        raise RolloutError(
            f"version {release.version} is not newer than version {last.release.version}, which was rolled out last: devices refuse it"
        )
    if last.outcome == STOPPED:
        return last
    # The same release: other devices, or stages, than before, and what has been reached stays.
    last.only, last.canaries, last.release = fresh.only, fresh.canaries, release
    if last.stages != fresh.stages or last.outcome == DONE:
        last.stages, last.stage, last.outcome = fresh.stages, 0, fresh.outcome
    return last


def _end(book: Book, options: argparse.Namespace, began: int) -> int:
    """What the command ends with; `began` is the stage it began in."""
    print()
    for line in summary(book):
        print(line)
    if book.outcome == STOPPED:
        return 1
    if book.outcome == DONE:
        return 0
    if options.pause and book.stage > began:
        print("paused: the same command goes on with the next stage")
        return 0
    left = sorted(name for name in {*book.devices, *book.only} if not _has(book, name))
    names = f"{', '.join(left[:3])}{' and others' if len(left) > 3 else ''}"
    print(
        f"not done, and no news for {options.wait:g} s; {'without it: ' + names if left else 'no device was heard of'}"
    )
    print("the same command goes on; --stop ends it for good")
    return 1


def _has(book: Book, name: str) -> bool:
    """Whether a device need not be waited for."""
    return bool(book.only and name not in book.only) or (name in book.devices and book.devices[name].on_it)


def _status(shelf: Shelf) -> int:
    book = shelf.load()
    if book is None:
        print(f"no rollout in {shelf.folder}")
        return 0
    for line in summary(book):
        print(line)
    return 1 if book.outcome == STOPPED else 0


def _stop(settings: HubConfig, options: argparse.Namespace, shelf: Shelf) -> int:
    """End a rollout that no command is at."""
    if not shelf.path.is_file():
        raise RolloutError(f"no rollout in {shelf.folder}")
    with ExitStack() as down:
        down.enter_context(shelf.held())
        book = shelf.load()
        if book is None:
            raise RolloutError(f"no rollout in {shelf.folder}")
        rollout = Rollout(book, settings.fleet.name)
        if rollout.running:
            rollout.stop("by --stop")
        shelf.save(book)
        link = connect(settings, options, shelf.folder)
        down.callback(link.close)
        link.open(CONNECT_SECONDS)
        with progress(rollout, plain=True) as shown:
            Desk(rollout, None, link, shelf, shown).withdraw()
    for line in summary(book):
        print(line)
    return 0
