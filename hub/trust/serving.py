"""Broker and enrolment beside a run: started before it, kept alive and in date meanwhile, ended with it."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from hub.broker import Broker, BrokerError
from hub.config import BrokerConfig, HubConfig
from hub.trust import mosquitto, revocation
from hub.trust.errors import TrustError
from hub.trust.folder import Addresses, Folder, addresses
from hub.trust.listener import Desk, Listener

log = logging.getLogger("cutlayer.hub")

LOOK_SECONDS = 1.0
"""Between two looks whether the broker is alive."""
KEEP_SECONDS = 3600.0
"""Between two looks at what runs out."""
AGAIN_SECONDS = 60.0
"""Most seconds between two tries to start a broker that has died."""


@contextmanager
def beside(config: HubConfig, say: Callable[[str], None]) -> Iterator[HubConfig]:
    """Broker and enrolment as long as the context lasts; yields the configuration of a hub that uses them.

    Args:
        config: with [tls].
        say: told what is made and where boards come to, a line each.

    Raises:
        TrustError: the fleet's folder cannot be made or used, or another process serves it.
        BrokerError: mosquitto is missing, or a port is in use.
    """
    if config.broker.url not in ("embedded", "mosquitto"):
        raise TrustError(
            f'--tls starts the fleet\'s own broker, and [broker] url = "{config.broker.url}" names another: leave one of them out'
        )
    now = datetime.now(UTC)
    folder, made = Folder.open_or_make(config.tls.folder, config.fleet.name, now)
    if made:
        say(f"the fleet's authority and keys are made in {folder.root}: back this folder up, it cannot be made again")
    where = addresses(config)
    with ExitStack() as down:
        down.enter_context(folder.served())
        keep(folder, where, now)
        certificate, key = folder.client("", now)
        broker = mosquitto.start(folder, config.tls.address, config.tls.port)
        keeper = Keeper(folder, config, where, broker)
        down.callback(keeper.close)
        desk = Desk(folder, config.tls.certificate_days, replaced=lambda name: _replaced(folder, name, where))
        listener = Listener(desk, config.tls.address, config.tls.enrol_port, *folder.pair("broker"), folder.ca)
        down.callback(listener.close)
        keeper.start(listener)
        say(f"boards meet at {where.broker} and enrol at {where.enrol}")
        say("a claim for one: cutlayer-hub enrol --name NAME --board BOARD")
        link = BrokerConfig(
            url=where.own, ca=folder.ca, certificate=certificate, key=key, chunk_bytes=config.broker.chunk_bytes
        )
        yield replace(config, broker=link)


def keep(folder: Folder, where: Addresses, now: datetime) -> list[str]:
    """Renew what runs out: the broker's and the hub's certificate, the list of revoked ones. Returns warnings that remain.

    Raises:
        OSError, TrustError: the folder cannot be written.
    """
    before = folder.pair("broker")[0].read_bytes() if folder.pair("broker")[0].is_file() else b""
    folder.server(where.names, now)
    folder.client("", now)
    changed = folder.pair("broker")[0].read_bytes() != before
    if folder.renew_revocations(now) or changed:
        mosquitto.reload(folder)
    return folder.warnings(now)


class Keeper:
    """Looks after broker and certificates in a thread of its own.

    Args:
        folder: of the fleet.
        config: where the broker listens.
        where: names in its certificate.
        broker: that runs; `close` ends it, or the one that has taken its place.
        clock: the time, aware.
    """

    def __init__(
        self,
        folder: Folder,
        config: HubConfig,
        where: Addresses,
        broker: Broker,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._folder, self._config, self._where = folder, config, where
        self._broker = broker
        self._clock = clock
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._told: set[str] = set()

    def start(self, listener: Listener) -> None:
        """Begin to look."""
        self._thread = threading.Thread(target=self._run, args=(listener,), name="keeper", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Leave off, and end the broker."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(20.0)
        self._broker.stop()
        (self._folder.broker / "mosquitto.pid").unlink(missing_ok=True)

    def _run(self, listener: Listener) -> None:
        kept, pause = time.monotonic(), LOOK_SECONDS
        while not self._closed.wait(pause):
            pause = LOOK_SECONDS if self._alive() else min(AGAIN_SECONDS, 2 * pause)
            if time.monotonic() - kept > KEEP_SECONDS:
                kept = time.monotonic()
                self.look(listener)

    def look(self, listener: Listener) -> None:
        """Renew what runs out, and say what could not be."""
        try:
            mosquitto.trim_log(self._folder)
            warnings = keep(self._folder, self._where, self._clock())
            listener.reload()
        except (OSError, TrustError) as error:
            warnings = [
                f"the fleet's folder {self._folder.root} cannot be kept: {error}",
                *self._folder.warnings(self._clock()),
            ]
        for sentence in warnings:
            log.warning("%s", sentence)

    def _alive(self) -> bool:
        if self._broker.process.poll() is None:
            return True
        log.error("the broker has ended with code %s: it is started again", self._broker.process.returncode)
        try:
            self._broker = mosquitto.start(self._folder, self._config.tls.address, self._config.tls.port)
        except (BrokerError, OSError) as error:
            log.error("%s", error)  # noqa: TRY400  the sentence says it all
            return False
        return True


def _replaced(folder: Folder, name: str, where: Addresses) -> None:
    """A board has been enrolled anew: what it, or a thief, had before is worth nothing. Not in the board's own time."""

    def act() -> None:
        try:
            log.warning(
                "former certificates of %s are revoked: %s",
                name,
                revocation.put_out(folder, name, where.own, datetime.now(UTC)),
            )
        except (OSError, TrustError):
            log.exception("former certificates of %s are revoked, but the broker may not know", name)

    threading.Thread(target=act, name=f"replaced {name}", daemon=True).start()
