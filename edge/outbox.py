"""What must survive a power cut: the state, the position in the current order, what was received, what is unsent.

One sqlite file, one transaction a step. The rule that makes a step happen once: *commit, then publish*. A frame
leaves only after the transaction that caused it; a message is acknowledged only after the transaction that used it.
"""

import copy
import fcntl
import io
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TextIO

import numpy as np
import numpy.typing as npt

from edge.wire.messages import Place, place_of_activation

_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, array BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS received (name TEXT PRIMARY KEY, message BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS unsent (number INTEGER PRIMARY KEY, message BLOB NOT NULL, urgent INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS known (number INTEGER PRIMARY KEY, head TEXT NOT NULL, array BLOB NOT NULL);
"""


# `holder` has the lock for an instant itself: a device that starts just then tries again.
_LOOKS, _LOOK_SECONDS = 5, 0.02


PAGE_BYTES = 16 << 10
"""Of a new file. A message fills dozens of them, and each is a write and a checksum."""

OUTBOX_BYTES = 64 << 20
"""Most bytes of messages that lie unsent, where nothing else is said."""


class OutboxError(OSError):
    """The state directory cannot be used; the message names it and says why."""


@dataclass(frozen=True)
class Unsent:
    """A message the hub has not acknowledged yet."""

    number: int
    message: bytes
    urgent: bool


class Room:
    """How many bytes of messages lie unsent, and which may go when there is no room for another activation.

    The oldest activations go first, also those that are partly on their way. Nothing else ever goes: a hello, weights
    or a report are few, and the hub waits for them. `limit` is in bytes of messages, as they were packed.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        """Of all messages that lie unsent."""
        self._sizes: dict[int, int] = {}
        self._activations: dict[int, Place] = {}
        """Those that may go, by number, oldest first."""
        self._largest = 0

    @property
    def crowded(self) -> bool:
        """Whether the next activation may find no room, which will be otherwise when the hub has taken some."""
        # Coded activations differ in length, hence twice.
        return bool(self._activations) and self.bytes + 2 * self._largest > self.limit

    @property
    def activations(self) -> list[int]:
        """Numbers of the activations, oldest first."""
        return list(self._activations)

    def fits(self, size: int) -> bool:
        """Whether there is room for a message of so many bytes."""
        return self.bytes + size <= self.limit

    def oldest(self) -> int | None:
        """Number of the activation that goes first; None where there is none."""
        return next(iter(self._activations), None)

    def add(self, number: int, message: bytes) -> None:
        """A message lies unsent."""
        self._sizes[number] = len(message)
        self.bytes += len(message)
        place = place_of_activation(message)
        if place:
            self._activations[number] = place
            self._largest = max(self._largest, len(message))

    def remove(self, number: int) -> tuple[int, Place | None]:
        """A message is gone; returns its bytes, and where it belongs if it is an activation."""
        size = self._sizes.pop(number, 0)
        self.bytes -= size
        return size, self._activations.pop(number, None)

    def clear(self) -> None:
        """All messages are gone."""
        self._sizes.clear()
        self._activations.clear()
        self.bytes = 0


class Outbox:
    """The device's durable memory, in `outbox.sqlite` of its state directory.

    Changes are gathered in memory by the `put_…` methods and become durable together in `commit`; what is read is
    what was committed.
    """

    def __init__(self, database: sqlite3.Connection, lock: TextIO | None, path: Path) -> None:
        self._database = database
        self._lock = lock
        self._path = path
        self._pending: list[tuple[str, tuple[Any, ...]]] = []

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open or create the outbox; one process at a time.

        Raises:
            OutboxError: the directory cannot be written, another process holds it, or the file is damaged.
        """
        try:
            directory.mkdir(parents=True, exist_ok=True)
            lock = _lock(directory / "lock")
        except OSError as error:
            if isinstance(error, OutboxError):
                raise
            raise OutboxError(f"the state directory {directory} cannot be used: {error.strerror}") from error
        path = directory / "outbox.sqlite"
        try:
            # Statements are written out below; python's own transaction handling would commit behind our back.
            database = sqlite3.connect(path, isolation_level=None)
            database.execute(f"PRAGMA page_size={PAGE_BYTES}")
            database.execute("PRAGMA journal_mode=WAL")
            # Debian's sqlite writes zeros over what is deleted, as much again as the message was.
            database.execute("PRAGMA secure_delete=OFF")
            database.execute("PRAGMA synchronous=FULL")
            database.executescript(_TABLES)
        except sqlite3.Error as error:
            lock.close()
            raise OutboxError(f"{path} cannot be used: {error}") from error
        return cls(database, lock, path)

    @classmethod
    def look(cls, directory: Path) -> Self:
        """Open an outbox to read it, beside the process that may be using it; `commit` would fail.

        Raises:
            OutboxError: there is none yet, or it cannot be read.
        """
        path = directory / "outbox.sqlite"
        if not path.exists():
            raise OutboxError(f"the state directory {directory} holds no outbox yet: no device has run with it")
        try:
            database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        except sqlite3.Error as error:
            raise OutboxError(f"{path} cannot be read: {error}") from error
        return cls(database, None, path)

    def put_fact(self, name: str, value: Any) -> None:
        """Set one small value (anything JSON can carry)."""
        self._put(
            "INSERT INTO facts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (name, json.dumps(value)),
        )

    def fact(self, name: str, default: Any = None) -> Any:
        """A small value as it was put."""
        rows = self._rows("SELECT value FROM facts WHERE name = ?", (name,))
        return json.loads(rows[0][0]) if rows else default

    def put_state(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Set every state tensor."""
        for name, array in state.items():
            # What is updated is written over in place; what is replaced is freed and finds new pages.
            self._put(
                "INSERT INTO state VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET array = excluded.array",
                (name, _pack(array)),
            )

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Every state tensor as it was put; empty on a new outbox."""
        return {name: np.load(io.BytesIO(blob), allow_pickle=False) for name, blob in self._rows("SELECT * FROM state")}

    def put_received(self, name: str, message: bytes | None) -> None:
        """Keep a message from the hub until it is worked off; None forgets it."""
        if message is None:
            self._put("DELETE FROM received WHERE name = ?", (name,))
        else:
            self._put(
                "INSERT INTO received VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET message = excluded.message",
                (name, message),
            )

    def received(self, name: str) -> bytes | None:
        """A kept message from the hub."""
        rows = self._rows("SELECT message FROM received WHERE name = ?", (name,))
        return bytes(rows[0][0]) if rows else None

    def put_unsent(self, unsent: Unsent) -> None:
        """Keep a message for the hub until it is acknowledged."""
        self._put("INSERT OR REPLACE INTO unsent VALUES (?, ?, ?)", (unsent.number, unsent.message, unsent.urgent))

    def drop_unsent(self, numbers: list[int]) -> None:
        """Forget messages the hub has acknowledged, or that are given up."""
        for number in numbers:
            self._put("DELETE FROM unsent WHERE number = ?", (number,))

    def clear_unsent(self) -> None:
        """Forget every message for the hub."""
        self._put("DELETE FROM unsent")

    def unsent(self) -> list[Unsent]:
        """What the hub has not acknowledged, oldest first."""
        rows = self._rows("SELECT number, message, urgent FROM unsent ORDER BY number")
        return [Unsent(number, bytes(message), bool(urgent)) for number, message, urgent in rows]

    def put_known(self, number: int, head: Any, array: bytes) -> None:
        """Keep what the hub has of a sample: its place (anything JSON can carry) and its activation."""
        self._put("INSERT OR REPLACE INTO known VALUES (?, ?, ?)", (number, json.dumps(head), array))

    def drop_known(self, numbers: Iterable[int]) -> None:
        """Forget that the hub has these samples."""
        for number in numbers:
            self._put("DELETE FROM known WHERE number = ?", (number,))

    def known(self) -> list[tuple[int, Any, bytes]]:
        """What was put of samples that the hub has, in no order."""
        rows = self._rows("SELECT number, head, array FROM known")
        return [(number, json.loads(head), bytes(array)) for number, head, array in rows]

    def forget_bundle(self) -> None:
        """Forget what belongs to the bundle so far; who this device is and the numbers of its messages stay."""
        for table in ("state", "received", "unsent", "known"):
            self._put(f"DELETE FROM {table}")  # noqa: S608  the names are the four above
        self._put("DELETE FROM facts WHERE name NOT IN ('outbox', 'stream', 'ledger')")

    def commit(self) -> None:
        """Make what was put since the last commit durable, all of it or nothing.

        Raises:
            OutboxError: the disk is full or gone. What was put stays pending, so a later commit may succeed.
        """
        if not self._pending:
            return
        try:
            self._database.execute("BEGIN IMMEDIATE")
            for statement, values in self._pending:
                self._database.execute(statement, values)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            # On a full disk sqlite may or may not have rolled back by itself.
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise OutboxError(f"{self._path} cannot be written: {error}") from error
        self._pending.clear()

    def close(self) -> None:
        """Forget what was not committed and let another process in."""
        self._database.close()
        if self._lock:
            self._lock.close()

    def _put(self, statement: str, values: tuple[Any, ...] = ()) -> None:
        self._pending.append((statement, values))

    def _rows(self, statement: str, values: tuple[Any, ...] = ()) -> list[Any]:
        try:
            with closing(self._database.execute(statement, values)) as cursor:
                return cursor.fetchall()
        except sqlite3.Error as error:
            raise OutboxError(f"{self._path} cannot be read: {error}") from error


class MemoryOutbox(Outbox):
    """An outbox that survives nothing, for the many devices of one process, which would wait for the disk by turns.

    There is no later process: messages, which only that would read, are not kept. What is put is not copied.
    """

    def __init__(self) -> None:
        self._facts: dict[str, Any] = {}
        self._state: dict[str, npt.NDArray[Any]] = {}
        self._changes: list[tuple[dict[str, Any], Mapping[str, Any]]] = []

    def put_fact(self, name: str, value: Any) -> None:
        """Set one small value."""
        self._changes.append((self._facts, {name: copy.copy(value)}))

    def fact(self, name: str, default: Any = None) -> Any:
        """A small value as it was put."""
        return self._facts.get(name, default)

    def put_state(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Set every state tensor."""
        self._changes.append((self._state, state))

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Every state tensor as it was put; empty on a new outbox."""
        return dict(self._state)

    def put_received(self, name: str, message: bytes | None) -> None:
        """Nothing is kept."""

    def received(self, name: str) -> bytes | None:  # noqa: ARG002  nothing is kept
        """None."""
        return None

    def put_unsent(self, unsent: Unsent) -> None:
        """Nothing is kept."""

    def drop_unsent(self, numbers: list[int]) -> None:
        """Nothing was kept."""

    def clear_unsent(self) -> None:
        """Nothing was kept."""

    def unsent(self) -> list[Unsent]:
        """None."""
        return []

    def put_known(self, number: int, head: Any, array: bytes) -> None:
        """Nothing is kept."""

    def drop_known(self, numbers: Iterable[int]) -> None:
        """Nothing was kept."""

    def known(self) -> list[tuple[int, Any, bytes]]:
        """None."""
        return []

    def forget_bundle(self) -> None:
        """Nothing of a bundle is there yet when a device starts, and it starts once."""

    def commit(self) -> None:
        """Make what was put since the last commit readable."""
        for kept, change in self._changes:
            kept.update(change)
        self._changes.clear()

    def close(self) -> None:
        """Nothing to give back."""


def holder(directory: Path) -> str | None:
    """The process that uses the outbox of a state directory at this moment, as text; None if nobody does."""
    try:
        with (directory / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return (directory / "lock").read_text().strip()
    return None


def _lock(path: Path) -> TextIO:
    lock = path.open("a+")
    for _ in range(_LOOKS):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOOK_SECONDS)
            continue
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        return lock
    lock.close()
    raise OutboxError(f"the state directory {path.parent} is in use by process {path.read_text().strip()}")


def _pack(array: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
