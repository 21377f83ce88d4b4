"""Claims and certificates, in one database in the fleet's folder.

A claim lets one board in, once: its token is kept as a hash only, runs out, and belongs to a name. What a claim does happens in
one transaction, so of two boards with one token one wins. A board whose answer was lost asks again with the same key and
hears the same answer; the token with any other key is refused.
"""

import hashlib
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hmac import compare_digest
from pathlib import Path

from cryptography import x509

from hub.trust.authority import pem_of
from hub.trust.errors import ClaimError, TrustError

WAIT_SECONDS = 10.0
"""For another process that writes."""

_TABLES = """
CREATE TABLE IF NOT EXISTS claims (
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,  -- SHA-256 of the token
    name TEXT NOT NULL,
    board TEXT NOT NULL,
    made INTEGER NOT NULL,        -- seconds since 1970, as all times here
    expires INTEGER NOT NULL,
    withdrawn INTEGER,
    used INTEGER,
    public BLOB,                  -- the key it was used with, DER
    serial TEXT                   -- of the certificate it was used for
) STRICT;
CREATE TABLE IF NOT EXISTS certificates (
    serial TEXT PRIMARY KEY,      -- decimal: they have 160 bits
    name TEXT NOT NULL,
    board TEXT NOT NULL,
    public BLOB NOT NULL,
    pem TEXT NOT NULL,
    issued INTEGER NOT NULL,
    until INTEGER NOT NULL,
    revoked INTEGER,
    reason TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS certificates_of ON certificates (name);
"""

Sign = Callable[[str], x509.Certificate]
"""Makes the certificate of a name."""


@dataclass(frozen=True)
class Issued:
    """What a board gets."""

    name: str
    pem: str
    replaced: bool = False
    """Whether certificates of the name with another key have been revoked for it."""
    again: bool = False
    """Whether the board had it already."""


@dataclass(frozen=True)
class Member:
    """A name of the fleet: its claim or its certificates, whichever is newer."""

    name: str
    board: str
    enrolled: datetime | None
    """The last use of a claim or renewal; None: not yet."""
    until: datetime | None
    """The end of its last certificate."""
    revoked: datetime | None
    claim_until: datetime | None
    """The end of a claim that is open."""

    def state(self, now: datetime) -> str:
        """In one word or two."""
        if self.claim_until is not None and (self.enrolled is None or self.revoked is not None):
            return "claim open" if now < self.claim_until else "claim expired"
        if self.revoked is not None:
            return "revoked"
        if self.until is None:
            return "claim withdrawn"
        return "enrolled" if now < self.until else "expired"


@dataclass(frozen=True)
class Revoked:
    """What a name had that counts no more."""

    certificates: int
    claims: int
    """That were open."""


class Register:
    """Of one fleet; may be used by several processes and threads at once.

    Args:
        path: of the database; made where there is none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def claim(self, name: str, board: str, life: timedelta, now: datetime) -> str:
        """Make a claim; an open one of the same name is withdrawn. Returns the token, which nobody can find out later."""
        token = secrets.token_urlsafe(32)
        with self._transaction() as database:
            database.execute(
                "UPDATE claims SET withdrawn = ? WHERE name = ? AND used IS NULL AND withdrawn IS NULL",
                (_stamp(now), name),
            )
            database.execute(
                "INSERT INTO claims (digest, name, board, made, expires) VALUES (?, ?, ?, ?, ?)",
                (_digest(token), name, board, _stamp(now), _stamp(now + life)),
            )
        return token

    def redeem(self, token: str, name: str, public: bytes, sign: Sign, now: datetime) -> Issued:
        """Use a claim.

        Args:
            token: the board's.
            name: that the board gives itself; empty where it gives none.
            public: the board's key, DER.
            sign: called at most once, for the claim's name.
            now: an aware time.

        Raises:
            ClaimError: the token is unknown, withdrawn, expired, used with another key, or for another name.
        """
        digest = _digest(token)
        with self._transaction() as database:
            row = database.execute("SELECT * FROM claims WHERE digest = ?", (digest,)).fetchone()
            if row is None or not compare_digest(row["digest"], digest):
                raise ClaimError("the claim's token is not known here: make a new claim with cutlayer-hub enrol")
            if row["withdrawn"] is not None:
                raise ClaimError(f"the claim of {row['name']} has been withdrawn: use the newest one")
            if _stamp(now) >= row["expires"]:
                raise ClaimError(f"the claim of {row['name']} expired at {_time(row['expires']):%Y-%m-%d %H:%M} UTC")
            if name and name != row["name"]:
                raise ClaimError(f"the claim is for {row['name']}, not for {name:.80}")
            if row["used"] is not None:
                return self._again(database, row, public)
            certificate = sign(row["name"])
            replaced = database.execute(
                "UPDATE certificates SET revoked = ?, reason = 'replaced' "
                "WHERE name = ? AND public != ? AND revoked IS NULL",
                (_stamp(now), row["name"], public),
            ).rowcount
            _insert(database, certificate, row["name"], row["board"], public, now)
            database.execute(
                "UPDATE claims SET used = ?, public = ?, serial = ? WHERE id = ?",
                (_stamp(now), public, str(certificate.serial_number), row["id"]),
            )
        return Issued(row["name"], pem_of(certificate).decode(), replaced=replaced > 0)

    def renew(self, serial: int, public: bytes, sign: Sign, now: datetime) -> Issued:
        """A new certificate for the bearer of one of ours, with the same key.

        Raises:
            ClaimError: we did not sign it for a device, it is revoked or expired, or the key is another.
        """
        with self._transaction() as database:
            row = database.execute("SELECT * FROM certificates WHERE serial = ?", (str(serial),)).fetchone()
            if row is None:
                raise ClaimError("this certificate is of no device")
            if row["revoked"] is not None:
                raise ClaimError(f"the certificate of {row['name']} is revoked")
            if _stamp(now) >= row["until"]:
                raise ClaimError(f"the certificate of {row['name']} has expired: make a new claim")
            if not compare_digest(row["public"], public):
                raise ClaimError(f"the request of {row['name']} is for another key than its certificate's")
            certificate = sign(row["name"])
            _insert(database, certificate, row["name"], row["board"], public, now)
        return Issued(row["name"], pem_of(certificate).decode())

    def revoke(self, name: str, now: datetime) -> Revoked:
        """Revoke all certificates of a name and withdraw its open claims; returns how many.

        Raises:
            TrustError: there is no such name.
        """
        with self._transaction() as database:
            known = [
                row["name"] for row in database.execute("SELECT name FROM claims UNION SELECT name FROM certificates")
            ]
            if name not in known:
                raise TrustError(
                    f"there is no device {name!r} in this fleet; there are {', '.join(known) or 'none yet'}"
                )
            claims = database.execute(
                "SELECT COUNT(*) FROM claims WHERE name = ? AND withdrawn IS NULL AND used IS NULL AND expires > ?",
                (name, _stamp(now)),
            ).fetchone()[0]
            database.execute(
                "UPDATE claims SET withdrawn = ? WHERE name = ? AND withdrawn IS NULL", (_stamp(now), name)
            )
            certificates = database.execute(
                "UPDATE certificates SET revoked = ?, reason = 'revoked' WHERE name = ? AND revoked IS NULL",
                (_stamp(now), name),
            ).rowcount
            return Revoked(certificates, claims)

    def revoked(self, now: datetime) -> list[tuple[int, datetime]]:
        """Serial numbers and times of revoked certificates that would be good otherwise."""
        with self._transaction() as database:
            rows = database.execute(
                # A day longer than they live: clocks differ.
                "SELECT serial, revoked FROM certificates WHERE revoked IS NOT NULL AND until > ? ORDER BY revoked, serial",
                (_stamp(now - timedelta(days=1)),),
            ).fetchall()
        return [(int(row["serial"]), _time(row["revoked"])) for row in rows]

    def members(self) -> list[Member]:
        """Everybody, sorted by name."""
        with self._transaction() as database:
            claims = database.execute("SELECT * FROM claims ORDER BY made, id").fetchall()
            certificates = database.execute("SELECT * FROM certificates ORDER BY issued, rowid").fetchall()
        names = sorted({row["name"] for row in (*claims, *certificates)})
        return [
            _member(
                name,
                [row for row in claims if row["name"] == name],
                [row for row in certificates if row["name"] == name],
            )
            for name in names
        ]

    def _again(self, database: sqlite3.Connection, claim: sqlite3.Row, public: bytes) -> Issued:
        """The answer to a board that has not heard it."""
        if not compare_digest(claim["public"], public):
            raise ClaimError(
                f"the claim of {claim['name']} has been used already, by another board: if that was not yours, "
                f"cutlayer-hub revoke {claim['name']}; else make a new claim"
            )
        row = database.execute("SELECT * FROM certificates WHERE serial = ?", (claim["serial"],)).fetchone()
        if row["revoked"] is not None:
            raise ClaimError(f"the certificate of {claim['name']} is revoked")
        return Issued(claim["name"], row["pem"], again=True)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A connection that nobody else writes beside; committed at the end, undone by any exception."""
        try:
            database = sqlite3.connect(self._path, timeout=WAIT_SECONDS, isolation_level=None)
        except sqlite3.Error as error:
            raise TrustError(f"{self._path} cannot be opened: {error}") from error
        try:
            database.row_factory = sqlite3.Row
            database.execute("PRAGMA synchronous = FULL")
            database.execute("BEGIN IMMEDIATE")
            for statement in _TABLES.split(";"):
                database.execute(statement)
            yield database
            database.execute("COMMIT")
        except sqlite3.Error as error:
            raise TrustError(f"{self._path} cannot be used: {error}") from error
        finally:
            database.close()  # what is not committed is undone by this


def _insert(
    database: sqlite3.Connection, certificate: x509.Certificate, name: str, board: str, public: bytes, now: datetime
) -> None:
    database.execute(
        "INSERT INTO certificates (serial, name, board, public, pem, issued, until) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            str(certificate.serial_number),
            name,
            board,
            public,
            pem_of(certificate).decode(),
            _stamp(now),
            _stamp(certificate.not_valid_after_utc),
        ),
    )


def _member(name: str, claims: list[sqlite3.Row], certificates: list[sqlite3.Row]) -> Member:
    claim = claims[-1] if claims else None
    last = certificates[-1] if certificates else None
    still_open = claim is not None and claim["used"] is None and claim["withdrawn"] is None
    valid = [row for row in certificates if row["revoked"] is None]
    return Member(
        name,
        claim["board"] if claim is not None else certificates[-1]["board"],
        enrolled=_time(last["issued"]) if last is not None else None,
        until=_time(max(row["until"] for row in valid or certificates)) if certificates else None,
        revoked=None if valid or last is None else _time(last["revoked"]),
        claim_until=_time(claim["expires"]) if claim is not None and still_open else None,
    )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _stamp(when: datetime) -> int:
    return int(when.timestamp())


def _time(stamp: int) -> datetime:
    return datetime.fromtimestamp(stamp, UTC)
