"""The fleet's folder: authority, keys, claims. Made once, whole or not at all; what is lost from it is never made anew in silence."""

import fcntl
import os
import secrets
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import NameOID

from hub.config import HubConfig
from hub.trust import files
from hub.trust.authority import (
    EARLIEST,
    SERVER_DAYS,
    Authority,
    Use,
    new_key,
    pem_of,
    private_pem,
    public_bytes,
)
from hub.trust.errors import TrustError
from hub.trust.register import Register

HUB = "hub"
"""CN of the hub's own certificate. No device can be named so, nor with a colon."""
LASTING = ("ca.key", "ca.pem", "release.key", "release.pub")
"""What cannot be made again: boards trust these."""
NOT_OF_TRUST = {"rollout.json", "rollout.lock", "rollout.new"}
"""What rollouts over a broker without certificates may have put here before there was an authority."""
CRL_EARLY = timedelta(days=20)
"""The list of revoked certificates is made anew when it is good for less, or does not name all; it lasts for 30 days."""
CRL_LATE = timedelta(days=7)
"""With less than this, somebody should know."""


@dataclass(frozen=True)
class Folder:
    """One fleet's folder.

    Attributes:
        root: where it is.
        fleet: first level of the topics.
    """

    root: Path
    fleet: str

    @classmethod
    def open(cls, root: Path, fleet: str) -> "Folder":
        """One that is there.

        Raises:
            TrustError: it is not, or something that cannot be made again is missing.
        """
        folder = cls(root, fleet)
        if not folder.made():
            raise TrustError(
                f"there is no fleet folder {root} yet: cutlayer-hub serve --tls or cutlayer-hub keys makes it"
            )
        folder.authority.certificate  # noqa: B018  read now, so that a broken one is told at once
        return folder

    @classmethod
    def open_or_make(cls, root: Path, fleet: str, now: datetime) -> "tuple[Folder, bool]":
        """The folder, and whether it has just been made.

        Raises:
            TrustError: it cannot be made or used, or this machine's clock is not set.
        """
        folder = cls(root, fleet)
        if folder.made():
            return cls.open(root, fleet), False
        if now < EARLIEST:
            raise TrustError(f"this machine's clock says {now:%Y-%m-%d}: set it before the fleet's keys are made")
        try:
            _make(root, fleet, now)
        except FileExistsError:
            return cls.open(root, fleet), False  # another process was quicker
        except OSError as error:
            raise TrustError(f"the fleet's folder {root} cannot be made: {error.strerror or error}") from error
        return folder, True

    @property
    def register(self) -> Register:
        """Claims and certificates."""
        return Register(self.root / "fleet.db")

    @cached_property
    def authority(self) -> Authority:
        """The fleet's CA."""
        try:
            return Authority.load((self.root / "ca.key").read_bytes(), self.ca.read_bytes())
        except (OSError, ValueError) as error:
            raise TrustError(
                f"the authority in {self.root} cannot be used: {error}: restore it from the backup"
            ) from None

    @property
    def ca(self) -> Path:
        """The authority's certificate, which everybody may have."""
        return self.root / "ca.pem"

    @property
    def crl(self) -> Path:
        """The list of revoked certificates."""
        return self.root / "crl.pem"

    @property
    def broker(self) -> Path:
        """Where the broker's configuration and log are."""
        return self.root / "broker"

    def pair(self, name: str) -> tuple[Path, Path]:
        """Certificate and key of one of the hub's own identities, `broker`, `hub` or `hub-status`."""
        return self.root / f"{name}.pem", self.root / f"{name}.key"

    def release_keys(self) -> list[str]:
        """Public keys that boards are to trust releases of: 64 hex digits each."""
        lines = (self.root / "release.pub").read_text("ascii").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.startswith("#")]

    def made(self) -> bool:
        """Whether it is there, and whole.

        Raises:
            TrustError: only some of what cannot be made again is there.
        """
        missing = [name for name in LASTING if not (self.root / name).is_file()]
        if not missing:
            return True
        if not self.root.exists() or {path.name for path in self.root.iterdir()} <= NOT_OF_TRUST:
            return False
        raise TrustError(
            f"{self.root} lacks {', '.join(missing)}: boards trust what was there, so it is not made anew; restore it "
            "from the backup, or name another folder in [tls]"
        )

    def server(self, names: Sequence[str], now: datetime) -> tuple[Path, Path]:
        """The broker's certificate and key for these names, made or renewed where that is due."""
        return self._pair("broker", "broker", "server", names, now)

    def client(self, role: str, now: datetime) -> tuple[Path, Path]:
        """Certificate and key of a program on the hub's side: empty for the hub itself, or `status`, `rollout`.

        Each has a name of its own (`hub`, `hub:status`), since the broker lets one connection in for a name.
        """
        return self._pair(f"{HUB}-{role}" if role else HUB, f"{HUB}:{role}" if role else HUB, "client", (), now)

    def write_revocations(self, now: datetime) -> None:
        """Make the list of revoked certificates anew."""
        with self._alone():  # or one who has read the register earlier might write later
            files.write(self.crl, self.authority.revocations(self.register.revoked(now), now), files.PUBLIC)

    def renew_revocations(self, now: datetime) -> bool:
        """Make the list anew where it has less than 20 of its 30 days left, or lacks somebody: whoever revoked was cut off."""
        if self.revocations_until() - now > CRL_EARLY and self._all_named(now):
            return False
        self.write_revocations(now)
        return True

    def revocations_until(self) -> datetime:
        """When the list of revoked certificates runs out, and with it everybody; long ago where there is none."""
        try:
            until = x509.load_pem_x509_crl(self.crl.read_bytes()).next_update_utc
        except (OSError, ValueError):
            until = None
        return until or EARLIEST

    def _all_named(self, now: datetime) -> bool:
        named = {entry.serial_number for entry in x509.load_pem_x509_crl(self.crl.read_bytes())}
        return named >= {serial for serial, _ in self.register.revoked(now)}

    def warnings(self, now: datetime) -> list[str]:
        """What will lock devices out soon, a sentence each."""
        found = []
        if (left := self.revocations_until() - now) < CRL_LATE:
            found.append(
                f"the list of revoked certificates in {self.root} is good for {max(0, left.days)} days more, then the "
                "broker lets nobody in: cutlayer-hub serve --tls, or any command on this fleet, renews it"
            )
        if (left := self.authority.certificate.not_valid_after_utc - now) < timedelta(days=365):
            found.append(f"the fleet's authority ends in {left.days} days: every board must be enrolled in a new fleet")
        return found

    def _pair(self, stem: str, common: str, use: Use, names: Sequence[str], now: datetime) -> tuple[Path, Path]:
        certificate, key = self.pair(stem)
        with self._alone():
            if _due(certificate, names, now):
                private = new_key()
                life = timedelta(days=SERVER_DAYS)
                signed = self.authority.sign(common, private.public_key(), use, life, now, names)
                # A power cut between the two leaves a pair that does not match, which is due.
                files.write(key, private_pem(private), files.PRIVATE)
                files.write(certificate, pem_of(signed), files.PUBLIC)
        return certificate, key

    @contextmanager
    def served(self) -> Iterator[None]:
        """While one broker runs on this folder.

        Raises:
            TrustError: there is one.
        """
        with (self.root / "serve.lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise TrustError(
                    f"cutlayer-hub serve --tls runs already on {self.root}: end it, or name another folder in [tls]"
                ) from None
            yield

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While no other process or thread writes certificates or lists here."""
        with (self.root / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _due(path: Path, names: Sequence[str], now: datetime) -> bool:
    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
        private = serialization.load_pem_private_key(path.with_suffix(".key").read_bytes(), None)
    except (OSError, ValueError):
        return True
    if public_bytes(private.public_key()) != public_bytes(found.public_key()):
        return True
    life = found.not_valid_after_utc - found.not_valid_before_utc
    return found.not_valid_after_utc - now < life / 3 or (bool(names) and _names_in(found) != set(names))


def _names_in(certificate: x509.Certificate) -> set[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(name.value) for name in found}


def _make(root: Path, fleet: str, now: datetime) -> None:
    """In a folder beside it, which then gets its name: a power cut leaves all of it or nothing."""
    root.parent.mkdir(parents=True, exist_ok=True)
    fresh = root.with_name(f".{root.name}.{secrets.token_hex(4)}")
    fresh.mkdir(mode=0o700)
    try:
        authority = Authority.make(fleet, now)
        release = ed25519.Ed25519PrivateKey.generate()
        public = release.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        files.write(fresh / "ca.key", authority.key_pem(), files.PRIVATE)
        files.write(fresh / "ca.pem", pem_of(authority.certificate), files.PUBLIC)
        files.write(fresh / "release.key", private_pem(release), files.PRIVATE)
        files.write(fresh / "release.pub", f"{public.hex()}\n".encode(), files.PUBLIC)
        made = Folder(fresh, fleet)
        made.write_revocations(now)
        _bring_along(root, fresh)
        try:
            os.rename(fresh, root)  # noqa: PTH104  takes the place of an empty folder, and of nothing else
        except OSError as error:
            if root.exists():
                raise FileExistsError(root) from error
            raise
        files.sync(root.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _bring_along(root: Path, fresh: Path) -> None:
    """What was in the folder and is not of trust, into the one that takes its place."""
    for name in sorted(NOT_OF_TRUST):
        if (root / name).is_file():
            shutil.copy(root / name, fresh / name)
            (root / name).unlink()


@dataclass(frozen=True)
class Addresses:
    """Where boards reach a hub, and where it reaches itself."""

    names: tuple[str, ...]
    """In the broker's certificate; the first goes into claims."""
    broker: str
    """URL for boards."""
    enrol: str
    """URL for boards."""
    own: str
    """URL of the broker on this machine."""


def addresses(config: HubConfig) -> Addresses:
    """From [tls]; without names, this machine's own."""
    tls = config.tls
    host = socket.gethostname().partition(".")[0]
    names = tls.names or (f"{host}.local", host)
    here = "127.0.0.1" if tls.address == "0.0.0.0" else "::1" if tls.address == "::" else tls.address  # noqa: S104
    return Addresses(
        tuple(dict.fromkeys((*names, "localhost", here))),
        f"mqtts://{_bracketed(names[0])}:{tls.port}",
        f"https://{_bracketed(names[0])}:{tls.enrol_port}",
        f"mqtts://{_bracketed(here)}:{tls.port}",
    )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def name_of(certificate: x509.Certificate) -> str:
    """The CN."""
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""
