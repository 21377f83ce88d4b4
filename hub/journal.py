"""What happened since the last checkpoint, durable before anybody is told of it: with both, a killed hub goes on where it was.

A checkpoint holds the run between two rounds. From there on, what the strategy comes to depends on nothing but

    Opened    a turn: who was there, and under which numbers the orders went out; before they do
    Learned   activations that the strategy learns from at once; before the gradient and the acknowledgement
    Put       a report, or weights, that a device gave; before the acknowledgement
    GaveUp    who was not waited for any longer

and doing these entries again, in their order, gives the same state to the last bit. So nothing that was acknowledged
is lost, and nothing is learned twice: numbers of the entries are done in the ledgers.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.wire import messages
from edge.wire.ledger import Ledger
from edge.wire.table import parse_table
from edge.wire.tables import TABLES, Tables
from hub.devices import Arrived
from hub.store import StoreError
from hub.strategies.base import Outlook

_FORGET_TABLES = """
    DELETE FROM tables WHERE rowid NOT IN (
        SELECT rowid FROM (SELECT rowid, ROW_NUMBER() OVER (PARTITION BY device ORDER BY rowid DESC) AS age FROM tables)
        WHERE age <= ?)
"""


@dataclass(frozen=True)
class Opened:
    """A turn was opened."""

    round: int
    turn: int
    present: tuple[str, ...]
    orders: Mapping[str, int]
    """Number of the order of each device that was told something."""
    sends: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Which steps upload, for devices whose budget did not carry all that the strategy asked for."""
    outlook: Outlook = field(default=Outlook())
    """What the devices' budgets let the strategy ask for."""


@dataclass(frozen=True)
class Learned:
    """Activations the strategy learned from in one step."""

    arrived: tuple[Arrived, ...]


@dataclass(frozen=True)
class Put:
    """A report or a state of the turn."""

    arrived: Arrived


@dataclass(frozen=True)
class GaveUp:
    """A device that the turn went on without."""

    device: str
    reason: str


Entry = Opened | Learned | Put | GaveUp


class Journal:
    """The entries on the disk."""

    durable = True
    """Whether a killed hub can go on from it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._database = sqlite3.connect(path, isolation_level=None)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.execute("CREATE TABLE IF NOT EXISTS entries (id INTEGER PRIMARY KEY, kind TEXT, head TEXT)")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS messages (entry INTEGER, device TEXT, number INTEGER, epoch INTEGER, data BLOB)"
            )
            self._database.execute("CREATE TABLE IF NOT EXISTS tables (device TEXT, data BLOB, UNIQUE (device, data))")
        except sqlite3.Error as error:
            raise StoreError(f"{path} cannot be used: {error}") from error
        self._next = 1 + (self._row("SELECT MAX(id) FROM entries") or 0)
        self._pending: list[Entry] = []
        self._fresh: list[tuple[str, bytes]] = []

    def keep_table(self, device: str, table: bytes) -> None:
        """Note a table of a device's codec; it is on the disk after the next `commit`."""
        self._fresh.append((device, table))

    def tables(self) -> dict[str, list[bytes]]:
        """The tables of each device, oldest first.

        Raises:
            StoreError: the journal cannot be read.
        """
        try:
            rows = self._database.execute("SELECT device, data FROM tables ORDER BY rowid").fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"{self._path} cannot be read: {error}") from error
        found: dict[str, list[bytes]] = {}
        for device, data in rows:
            found.setdefault(device, []).append(data)
        return found

    def append(self, entry: Entry) -> None:
        """Note an entry; it is on the disk after the next `commit`."""
        self._pending.append(entry)

    def commit(self) -> None:
        """Make all entries durable.

        Raises:
            StoreError: the disk is full or gone; the entries wait for the next call.
        """
        if not self._pending and not self._fresh:
            return
        try:
            self._database.execute("BEGIN")
            # A table that comes again is the newest: the oldest are forgotten.
            self._database.executemany("INSERT OR REPLACE INTO tables VALUES (?, ?)", self._fresh)
            for place, entry in enumerate(self._pending, self._next):
                self._write(place, entry)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise StoreError(f"{self._path} cannot be written: {error}") from error
        self._next += len(self._pending)
        self._pending, self._fresh = [], []

    def entries(self, after: int) -> Iterator[Entry]:
        """What has been noted since the checkpoint that says it covers all up to `after`.

        Raises:
            StoreError: the journal cannot be read.
        """
        try:
            rows = self._database.execute("SELECT id, kind, head FROM entries WHERE id > ? ORDER BY id", (after,))
            tables = {device: self._parsed(found) for device, found in self.tables().items()}
            for number, kind, head in rows.fetchall():
                yield self._read(number, kind, json.loads(head), tables)
        except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{self._path} cannot be read: {error}") from error

    @property
    def last(self) -> int:
        """Number of the last entry that is on the disk: what a checkpoint made now covers."""
        return self._next - 1

    def forget(self, until: int) -> None:
        """Delete what a checkpoint covers; numbers go on."""
        try:
            # The last one stays, so that a number is never given twice.
            self._database.execute("DELETE FROM messages WHERE entry <= ?", (until,))
            self._database.execute("DELETE FROM entries WHERE id < ?", (until,))
            self._database.execute(_FORGET_TABLES, (TABLES,))
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            raise StoreError(f"{self._path} cannot be written: {error}") from error

    def close(self) -> None:
        """Let the file go."""
        self._database.close()

    def _write(self, place: int, entry: Entry) -> None:
        arrived: tuple[Arrived, ...] = ()
        head: dict[str, Any] = {}
        if isinstance(entry, Learned):
            arrived = entry.arrived
        elif isinstance(entry, Put):
            arrived = (entry.arrived,)
        else:
            head = dict(vars(entry))
        self._database.execute(
            "INSERT INTO entries VALUES (?, ?, ?)", (place, type(entry).__name__, json.dumps(head, default=list))
        )
        self._database.executemany(
            "INSERT INTO messages VALUES (?, ?, ?, ?, ?)",
            [(place, one.device, one.number, one.epoch, one.data) for one in arrived],
        )

    @staticmethod
    def _parsed(found: list[bytes]) -> Tables:
        tables = Tables(len(found))  # all of them: each was needed by an entry once
        for data in found:
            tables.put(parse_table(data))
        return tables

    def _read(self, number: int, kind: str, head: dict[str, Any], tables: Mapping[str, Tables]) -> Entry:
        if kind == "Opened":
            sends = {name: tuple(steps) for name, steps in head.get("sends", {}).items()}
            resting, *others = head.get("outlook", Outlook())
            outlook = Outlook(tuple(resting), *others)
            return Opened(head["round"], head["turn"], tuple(head["present"]), head["orders"], sends, outlook)
        if kind == "GaveUp":
            return GaveUp(**head)
        found = self._database.execute(
            "SELECT device, number, epoch, data FROM messages WHERE entry = ? ORDER BY rowid", (number,)
        )
        arrived = tuple(
            Arrived(device, count, epoch, messages.unpack(data, tables=tables.get(device)), data)
            for device, count, epoch, data in found.fetchall()
        )
        return Learned(arrived) if kind == "Learned" else Put(*arrived)

    def _row(self, query: str) -> Any:
        return self._database.execute(query).fetchone()[0]


class NoJournal:
    """For runs that survive nothing: a simulation keeps its devices in memory."""

    durable = False
    last = 0
    """Nothing is on the disk."""

    def append(self, entry: Entry) -> None:
        """Forget it."""

    def commit(self) -> None:
        """Nothing is kept."""

    def entries(self, after: int) -> Iterator[Entry]:  # noqa: ARG002  there are none
        """Nothing."""
        return iter(())

    def forget(self, until: int) -> None:
        """Nothing was kept."""

    def keep_table(self, device: str, table: bytes) -> None:
        """Forget it."""

    def tables(self) -> dict[str, list[bytes]]:
        """None."""
        return {}

    def close(self) -> None:
        """Nothing is open."""


class Recorded:
    """Entries that are being done again, one after the other."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries = iter(entries)
        self._head = next(self._entries, None)

    def __bool__(self) -> bool:
        return self._head is not None

    def opened(self) -> Opened | None:
        """The next entry, if it opens a turn."""
        return self._take() if isinstance(self._head, Opened) else None  # type: ignore[return-value]

    def in_turn(self) -> Learned | Put | GaveUp | None:
        """The next entry of the turn that was opened last; None at its end."""
        return None if isinstance(self._head, Opened) else self._take()  # type: ignore[return-value]

    def _take(self) -> Entry | None:
        taken, self._head = self._head, next(self._entries, None)
        return taken


def done_in(entries: Iterable[Entry], ledgers: Mapping[str, Any]) -> dict[str, Any]:
    """The ledgers of a checkpoint once the entries since are done too."""
    found = {name: Ledger.from_json(value) for name, value in ledgers.items()}
    for entry in entries:
        for one in _messages(entry):
            ledger = found.get(one.device, Ledger())
            if one.epoch > ledger.epoch:
                ledger = Ledger(one.epoch)
            if one.epoch == ledger.epoch:
                found[one.device] = ledger.with_done(one.number)
    return {name: ledger.to_json() for name, ledger in found.items()}


def _messages(entry: Entry) -> tuple[Arrived, ...]:
    if isinstance(entry, Learned):
        return entry.arrived
    return (entry.arrived,) if isinstance(entry, Put) else ()
