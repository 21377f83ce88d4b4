"""From a claim to a certificate, and from that to the next.

Nothing here gives up. Without a network, without a time, with a claim that is used up, the board says so once, and tries
again: a new claim file may come, the clock may be set. Who waits asks `stopped` several times a second.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, TypeVar

from edge.enrolment import claim, client, csr, key
from edge.enrolment.certificate import Certificate
from edge.enrolment.errors import EnrolmentError, RefusedError, UnreachableError
from edge.enrolment.files import remove, write
from edge.release import ed25519

log = logging.getLogger("cutlayer.enrolment")

FIRST_SECONDS, MOST_SECONDS = 2.0, 300.0
"""Pauses while nobody answers: doubled from the one to the other."""
REFUSED_SECONDS = 600.0
"""Between two tries with a claim that was refused; a new file is tried at once."""
CLOCK_SECONDS = 5.0
RENEW_SECONDS = 3600.0
"""Between two looks whether the certificate is to be renewed."""
CLAIM_SECONDS = 2.0
"""Between two looks whether somebody has brought a claim."""
LOOK_SECONDS = 0.2
USED = "claimed"
"""File beside the certificate: SHA-256 of the token that brought it."""

T = TypeVar("T")
Post = Callable[[str, str, dict[str, str], client.Trust], dict[str, Any]]


@dataclass(frozen=True)
class Place:
    """Where a board keeps what proves who it is."""

    name: str
    url: str
    """Of the hub's enrolment."""
    claim: Path | None
    ca: Path
    """The fleet's authority; written from the claim where it is not there yet."""
    certificate: Path
    key: Path


@dataclass
class Enrolment:
    """One board's.

    Args:
        place: its files.
        clock: the time, aware.
        pause: waits so many seconds.
        post: asks the hub.
    """

    place: Place
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    pause: Callable[[float], None] = time.sleep
    post: Post = client.post
    _told: set[str] = field(default_factory=set)

    def certificate(self) -> Certificate | None:
        """The board's certificate; None where there is none that fits its key."""
        try:
            found = Certificate.parse(self.place.certificate.read_text("ascii"))
            seed = key.read_or_make(self.place.key) if self.place.key.is_file() else None
        except (OSError, ValueError):
            return None
        fits = seed is None or found.key == csr.public_info(ed25519.public_key(seed))
        return found if fits and self.place.key.is_file() else None

    def until_enrolled(self, stopped: Callable[[], bool]) -> bool:
        """Wait for a certificate, for as long as it takes; whether there is one now, or `stopped()` was first."""
        seconds = FIRST_SECONDS
        while not stopped():
            if self.certificate() is not None:
                return True
            try:
                wait = self.use_claim(stopped)
            except UnreachableError as error:
                self._say(f"{error}; tried again until it does")
                wait, seconds = seconds, min(MOST_SECONDS, 2 * seconds)
            except EnrolmentError as error:
                self._say(f"not enrolled: {error}; a new claim is tried as soon as it is there")
                wait = REFUSED_SECONDS
            self._wait(wait, stopped)
        return False

    def renew(self) -> bool:
        """Renew the certificate if a third of its life or less is left; whether there is a new one.

        Raises:
            EnrolmentError: it is due, and cannot be had now; the message says why.
        """
        found, now = self.certificate(), self.clock()
        if found is None or now < found.renew_at():
            return False
        if now >= found.until:
            raise RefusedError(
                f"the certificate of {self.place.name} expired on {found.until:%Y-%m-%d}: a new claim is needed, "
                f"{self.place.claim or 'named in [enrolment]'}"
            )
        seed = key.read_or_make(self.place.key)
        ca = self.place.ca.read_bytes().decode("ascii", "ignore")  # a remark in it may have any letters
        trust = client.Trust(ca, self.place.certificate, self.place.key)
        answer = self.post(self.place.url, "/renew", {"csr": csr.request(seed, self.place.name)}, trust)
        log.info("the certificate is renewed until %s", self._keep(answer, seed).date())
        return True

    def look_after(self, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Use a claim that somebody has brought; without one, or where it is good for nothing, renew what is due; whether anything is new.

        Raises:
            EnrolmentError: it is due, and cannot be had now; the message says why.
        """
        if _state(self.place.claim) is not None:
            try:
                return self.use_claim(stopped) == 0
            except (
                EnrolmentError
            ) as error:  # an old claim that cannot be removed must not keep the certificate from renewal
                self._say(f"the claim is not used: {error}")
        return self.renew()

    def use_claim(self, stopped: Callable[[], bool] = lambda: False) -> float:
        """One try with the claim; returns how long to wait for the next, 0 when it is done.

        Raises:
            UnreachableError: the hub may answer later.
            EnrolmentError: it cannot be used as it is; the message says why.
        """
        if self.place.claim is None:
            raise RefusedError("there is no certificate, and [enrolment] names no claim")
        given = claim.read(self.place.claim)
        if given.name != self.place.name:
            raise RefusedError(f"the claim {self.place.claim} is for {given.name}, and this is {self.place.name}")
        since, now = Certificate.parse(given.ca).since, self.clock()
        if now < since:
            self._say(
                f"the clock says {now:%Y-%m-%d}, before the fleet was made ({since:%Y-%m-%d}): waiting for the time"
            )
            return CLOCK_SECONDS
        seed = key.read_or_make(self.place.key)
        body = {"token": given.token, "csr": csr.request(seed, self.place.name)}
        answer = _apart(lambda: self.post(self.place.url, "/enrol", body, client.Trust(given.ca)), stopped)
        if answer is None:
            return 0.0
        if not self.place.ca.is_file():
            _written(self.place.ca, given.ca.encode(), 0o644)
        until = self._keep(answer, seed)
        with suppress(EnrolmentError):  # for the installer, which would bring it again with each flash
            _written(self.place.certificate.with_name(USED), given.mark.encode(), 0o644)
        if not remove(self.place.claim):
            log.warning("the claim %s is used up, but cannot be removed: remove it", self.place.claim)
        log.info("%s is enrolled, until %s", self.place.name, until.date())
        return 0.0

    def _keep(self, answer: dict[str, Any], seed: bytes) -> datetime:
        text = answer.get("certificate")
        try:
            found = Certificate.parse(text if isinstance(text, str) else "")
        except EnrolmentError as error:
            raise UnreachableError(f"{self.place.url} gives no certificate: {error}") from None
        if found.name != self.place.name or found.key != csr.public_info(ed25519.public_key(seed)):
            raise UnreachableError(f"{self.place.url} gives a certificate of {found.name!r:.80} that is not ours")
        _written(self.place.certificate, str(text).encode("ascii", "ignore"), 0o644)
        return found.until

    def _say(self, sentence: str) -> None:
        level = logging.DEBUG if sentence in self._told else logging.WARNING
        self._told.add(sentence)
        log.log(level, "%s", sentence)

    def _wait(self, seconds: float, stopped: Callable[[], bool]) -> None:
        """So long, or until told to stop, or until there is another claim file."""
        before = _state(self.place.claim)
        waited = 0.0
        while waited < seconds and not stopped() and _state(self.place.claim) == before:
            self.pause(LOOK_SECONDS)
            waited += LOOK_SECONDS


class Renewal:
    """Renews in a thread of its own, so that nobody waits for a hub that is away. The link takes the new certificate by itself.

    What goes wrong is said once a day: the board is locked out when the certificate has run out.
    """

    def __init__(self, enrolment: Enrolment, seconds: float = RENEW_SECONDS) -> None:
        self._enrolment = enrolment
        self._seconds = seconds
        self._closed = threading.Event()
        self._told: dict[str, date] = {}
        self._thread = threading.Thread(target=self._run, name="renewal", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Leave off; a request under way is left behind."""
        self._closed.set()
        self._thread.join(0.5)

    def _run(self) -> None:
        while not self._closed.is_set():
            self._look()
            claimed = _state(self._enrolment.place.claim)
            until = time.monotonic() + self._seconds
            while not self._closed.wait(CLAIM_SECONDS) and time.monotonic() < until:
                if _state(self._enrolment.place.claim) not in (claimed, None):
                    break

    def _look(self) -> None:
        try:
            if self._enrolment.look_after(self._closed.is_set):
                self._told.clear()
        except (OSError, ValueError) as error:
            sentence, today = str(error), self._enrolment.clock().date()
            level = logging.DEBUG if self._told.get(sentence) == today else logging.WARNING
            self._told[sentence] = today
            found = self._enrolment.certificate()
            until = f" good until {found.until:%Y-%m-%d}," if found else ""
            log.log(level, "the certificate,%s is not renewed: %s", until, sentence)


def _state(path: Path | None) -> tuple[int, int] | None:
    """What changes when a file does; None: there is none, or nothing in it."""
    try:
        found = path.stat() if path is not None else None
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size) if found is not None and found.st_size else None


def _written(path: Path, data: bytes, mode: int) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write(path, data, mode)
    except OSError as error:
        raise EnrolmentError(f"{path} cannot be written: {(error.strerror or str(error)).lower()}") from None


def _apart(ask: Callable[[], T], stopped: Callable[[], bool]) -> T | None:
    """Ask in a thread: a name server or a hub may take long to say nothing. None: stopped before the answer."""
    answers: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(ask())
        except BaseException as error:  # noqa: BLE001  raised in the thread that asked
            errors.append(error)

    asking = threading.Thread(target=run, name="enrolment", daemon=True)
    asking.start()
    while asking.is_alive() and not stopped():
        asking.join(LOOK_SECONDS)
    if errors:
        raise errors[0]
    return answers[0] if answers else None
