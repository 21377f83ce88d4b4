"""The hub's cache of what devices have sent: a sample that a device does not send again is served from here.

    complete   the samples that an activation leaves to the cache are put in, those that it brings are kept
    owed       what a device is told with its next order: samples that are not here any more, and that it may believe are
    save       everything is on the disk, and what the checkpoint has to say of it
    settle     the checkpoint is on the disk too: what it does not need is deleted

A sample is found under its device, its number and the upload it came with, or it is missing: nothing else is ever put in its
place. What is missing is counted, the hub learns from the rest of the batch, and the device sends it again.

At most `limit` bytes are kept, the newest. What came since the last checkpoint is in memory, up to `MEMORY_BYTES`, all
else in a file beside the journal. Every row of it says when it came and when it was given up, in counts of samples that came,
and what the last checkpoint knew stays until the next one: so a hub that was killed, and does its journal again,
finds every sample as it was then. Hence the file may hold more than `limit`, by what one round brings.
"""

import logging
import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edge.wire.messages import FORGET_LIMIT, Activation
from hub.store import StoreError, patiently

log = logging.getLogger("cutlayer.hub")

MEMORY_BYTES = 32 << 20
"""Of samples that are not in the file yet."""
PAGES_KIB = 16 << 10
"""Of the file, in memory."""
MISSED = "known sample that the hub has no longer"
"""Under which it is counted."""
BESIDE_BYTES = 64
"""Of each sample, beside its smashed data."""

_TABLE = """
CREATE TABLE IF NOT EXISTS samples (
    device TEXT, number INTEGER, upload INTEGER, born INTEGER, died INTEGER, round INTEGER, label INTEGER, size INTEGER,
    smashed BLOB, PRIMARY KEY (device, number, upload)
);
"""


class Place(NamedTuple):
    """A sample as its device names it."""

    device: str
    number: int


@dataclass(frozen=True)
class Kept:
    """One sample in the cache."""

    upload: int
    born: int
    """How many samples had come then, this one included."""
    round: int
    label: int
    bytes: int


class KnownSamples:
    """The cache of one run.

    Args:
        path: its file; None: a temporary one, for a run that survives nothing.
        limit: bytes of smashed data, as float32, with `BESIDE_BYTES` a sample.
        refresh_rounds: devices send a sample again after so many rounds, and do not name it from then on.
    """

    def __init__(self, path: Path | None = None, limit: int = 0, refresh_rounds: int = 0) -> None:
        self.served = 0
        """Samples that were not sent again and were found here, since this process began."""
        self.missed: Counter[str] = Counter()
        """By device, samples that were named and are not here, until somebody takes the counts."""
        self._path, self._limit, self._refresh_rounds = path, limit, refresh_rounds
        self._database: sqlite3.Connection | None = None
        self._index: dict[Place, Kept] = {}
        """The oldest first."""
        self._bytes = 0
        self._tick = 0
        self._fresh: dict[tuple[Place, int], tuple[Kept, npt.NDArray[Any]]] = {}
        """What is not in the file yet, by place and upload."""
        self._fresh_bytes = 0
        self._died: list[tuple[int, str, int, int]] = []
        """What was given up and is in the file: when, and device, number, upload."""
        self._owed: dict[str, set[int]] = {}
        self._told: set[str] | None = None
        """After the cache was lost: the devices that have been told; None: it was not."""

    # A batch ----------------------------------------------------------------------------------------------------

    def complete(self, device: str, message: Activation) -> Activation:
        """All samples of a batch: those that were sent, then those that the cache has of the others; perhaps none."""
        repeats = message.repeats
        if repeats is None:
            return message
        smashed, labels = list(message.smashed), message.labels.tolist()
        for number, upload in zip(repeats.known.tolist(), repeats.uploads.tolist(), strict=True):
            found = self._find(Place(device, number), upload, message.smashed.shape[1:])
            if found is None:
                self.missed[device] += 1
                self._owed.setdefault(device, set()).add(number)
            else:
                self.served += 1
                smashed.append(found[0])
                labels.append(found[1])
        for number, row, label in zip(repeats.numbers.tolist(), message.smashed, message.labels.tolist(), strict=True):
            self._keep(Place(device, number), repeats.upload, message.round, row, label)
        rows = np.stack(smashed) if smashed else message.smashed
        return replace(message, smashed=rows, labels=np.array(labels, np.int64), repeats=None)

    def take_missed(self) -> Counter[str]:
        """How many samples of each device were named and are not here, since the last call."""
        missed, self.missed = self.missed, Counter()
        return missed

    def owed(self, device: str) -> tuple[int, ...] | None:
        """What a device has to forget, for its next order; None: everything. It counts as told."""
        numbers = self._owed.pop(device, set())
        if self._told is not None and device not in self._told:
            self._told.add(device)
            return None
        return tuple(sorted(numbers)) if len(numbers) <= FORGET_LIMIT else None

    def _find(self, place: Place, upload: int, shape: tuple[int, ...]) -> tuple[npt.NDArray[Any], int] | None:
        kept = self._index.get(place)
        if kept is None or kept.upload != upload or kept.bytes != 4 * int(np.prod(shape)) + BESIDE_BYTES:
            return None
        fresh = self._fresh.get((place, upload))
        if fresh is not None:
            return fresh[1], kept.label
        try:
            row = self._file().execute(
                "SELECT smashed FROM samples WHERE device = ? AND number = ? AND upload = ?", (*place, upload)
            )
            (smashed,) = row.fetchone()
            return np.frombuffer(smashed, np.float32).reshape(shape), kept.label
        except (sqlite3.Error, TypeError, ValueError) as error:
            log.warning("sample %d of %s cannot be read from %s: %s", place.number, place.device, self._path, error)
            self._forget(place)
            return None

    def _keep(self, place: Place, upload: int, round_number: int, row: npt.NDArray[Any], label: int) -> None:
        self._tick += 1
        self._forget(place)
        self._owed.get(place.device, set()).discard(place.number)
        kept = Kept(upload, self._tick, round_number, label, 4 * row.size + BESIDE_BYTES)
        self._index[place] = kept
        self._bytes += kept.bytes
        self._fresh[place, upload] = kept, np.array(row, np.float32)
        self._fresh_bytes += kept.bytes
        while self._bytes > self._limit:
            oldest = next(iter(self._index))
            if self._index[oldest].round + self._refresh_rounds > round_number:  # its device may still count on it
                self._owed.setdefault(oldest.device, set()).add(oldest.number)
            self._forget(oldest)
        if self._fresh_bytes > MEMORY_BYTES:
            patiently(self._write)

    def _forget(self, place: Place) -> None:
        kept = self._index.pop(place, None)
        if kept is None:
            return
        self._bytes -= kept.bytes
        if self._fresh.pop((place, kept.upload), None):
            self._fresh_bytes -= kept.bytes
        else:
            self._died.append((self._tick, *place, kept.upload))

    # What survives ----------------------------------------------------------------------------------------------

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go back to where the cache was when a checkpoint was made; nothing saved: begin with an empty one.

        A file that is gone or damaged is a cache that was lost: all that devices know is forgotten.
        """
        self._tick = saved.get("tick", 0)
        self._owed = {name: set(numbers) for name, numbers in saved.get("owed", {}).items()}
        self._told = None if saved.get("told") is None else set(saved["told"])
        if self._path is None or not (saved.get("count") or self._path.exists()):
            return
        if not self._read() or len(self._index) != saved.get("count", 0):
            log.warning("%s is gone or damaged: devices send again what was in it", self._path)
            self._begin_anew()

    def save(self) -> dict[str, Any]:
        """Make everything durable; what a checkpoint made now has to say.

        Raises:
            StoreError: the disk is full or gone; nothing is lost, and it may be tried again.
        """
        if self._fresh or self._died:
            self._write()
        return {
            "tick": self._tick,
            "count": len(self._index),
            "owed": {name: sorted(numbers) for name, numbers in self._owed.items() if numbers},
            "told": None if self._told is None else sorted(self._told),
        }

    def settle(self) -> None:
        """The last `save` is in a checkpoint on the disk: delete what was given up before it.

        Raises:
            StoreError: the disk is full or gone.
        """
        if self._database is not None:
            self._change([("DELETE FROM samples WHERE died <= ?", [(self._tick,)])])

    def close(self) -> None:
        """Let the file go."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _write(self) -> None:
        rows = [
            (*place, upload, kept.born, None, kept.round, kept.label, kept.bytes, smashed.tobytes())
            for (place, upload), (kept, smashed) in self._fresh.items()
        ]
        gone = "UPDATE samples SET died = ? WHERE device = ? AND number = ? AND upload = ?"
        if self._path is None:  # nobody goes back
            gone = "DELETE FROM samples WHERE ? AND device = ? AND number = ? AND upload = ?"
        self._change([(gone, self._died), ("INSERT OR REPLACE INTO samples VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)])
        self._fresh, self._fresh_bytes, self._died = {}, 0, []

    def _change(self, statements: list[tuple[str, list[tuple[Any, ...]]]]) -> None:
        try:
            database = self._file()
            database.execute("BEGIN IMMEDIATE")
            for statement, rows in statements:
                database.executemany(statement, rows)
            database.execute("COMMIT")
        except sqlite3.Error as error:
            if self._database is not None and self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise StoreError(f"{self._path} cannot be written: {error}") from error

    def _read(self) -> bool:
        """Roll the file back and take in what it has; tells whether it could be read."""
        try:
            database = self._file()
            database.execute("DELETE FROM samples WHERE born > ?", (self._tick,))
            database.execute("UPDATE samples SET died = NULL WHERE died > ?", (self._tick,))
            database.execute("DELETE FROM samples WHERE died IS NOT NULL")
            found = database.execute(
                "SELECT device, number, upload, born, round, label, size FROM samples ORDER BY born"
            ).fetchall()
        except (sqlite3.Error, StoreError) as error:
            log.warning("%s: %s", self._path, error)
            return False
        self._index = {Place(device, number): Kept(*rest) for device, number, *rest in found}
        self._bytes = sum(kept.bytes for kept in self._index.values())
        return True

    def _begin_anew(self) -> None:
        self.close()
        if self._path is not None:
            for suffix in ("", "-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        self._index, self._bytes, self._owed, self._told = {}, 0, {}, set()

    def _file(self) -> sqlite3.Connection:
        if self._database is None:
            self._database = sqlite3.connect(self._path or "", isolation_level=None)
            try:
                self._database.execute("PRAGMA journal_mode = WAL")
                self._database.execute("PRAGMA synchronous = FULL")
                self._database.execute(f"PRAGMA cache_size = -{PAGES_KIB}")
                self._database.execute(_TABLE)
            except sqlite3.Error:
                self.close()
                raise
        return self._database
