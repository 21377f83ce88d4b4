"""What the hub keeps on its disk: its identity, the checkpoint of the last round, the metrics of every round.

Every write is whole or not at all: written beside, flushed to the disk, renamed over.
"""

import io
import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch

log = logging.getLogger("cutlayer.hub")

RETRY_SECONDS = 5.0
"""How long to wait before a full disk is tried again."""

ORDERS_RESERVED = 10_000
"""Order numbers taken from the disk at a time, so that a restarted hub never uses one twice."""


FIRST_ORDERS = 1_000_000_000
"""A run's orders count from a number drawn between this and twice this: always ten digits, so that no byte hangs on chance."""


class StoreError(OSError):
    """The run's folder cannot be used; the message names the file and says why."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything a hub needs to go on after a round."""

    rounds_done: int
    strategy: Mapping[str, Any]
    """What the strategy's `save` gave."""
    fleet: list[dict[str, Any]]
    """Name, samples and test samples of each device, in the order of the fleet."""
    ledgers: Mapping[str, Any]
    """What had been received from each device."""
    tally: Mapping[str, Any]
    """The run's own totals: best accuracy, bytes of the hub, seconds."""
    metrics_bytes: int
    """Length of metrics.jsonl when the checkpoint was written; what is behind it is done again."""
    journal: int
    """Entries of the journal up to this number are in the checkpoint."""
    weights: Mapping[str, Any] = field(default_factory=dict)
    """What the devices held of weights."""
    known: Mapping[str, Any] = field(default_factory=dict)
    """Where the cache of samples stood, see `hub.known`."""


class Store:
    """One run's folder."""

    def __init__(self, root: Path, generation: int, run: int) -> None:
        self.root = root
        self.run = run
        """Random for each folder; devices tell runs apart by it."""
        self.generation = generation
        """Higher for every later start, on this folder or on another, as far as the clock is right: later frames outrank earlier ones."""
        self._order = 0
        self._orders_until = 0

    @classmethod
    def open(cls, root: Path, now: float | None = None) -> Self:
        """Open or create the folder and note this start.

        Args:
            root: the folder.
            now: seconds since 1970; the clock's if None.

        Raises:
            StoreError: the folder cannot be written.
        """
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"the run's folder {root} cannot be used: {error.strerror}") from error
        identity = _identity(root / "identity.json")
        # Devices remember what they had from the hub of an earlier run, which has counted from its own start.
        generation = max(identity["generation"] + 1, int(time.time() if now is None else now))
        store = cls(root, generation, identity["run"])
        store._order = store._orders_until = identity["orders"]
        store._write_identity()
        return store

    @staticmethod
    def known(root: Path) -> bool:
        """Whether a hub has been started in the folder."""
        return any((root / name).exists() for name in ("identity.json", "checkpoint.pt"))

    @staticmethod
    def used(root: Path) -> bool:
        """Whether the folder holds anything of a run."""
        return any((root / name).exists() for name in ("metrics.jsonl", "checkpoint.pt"))

    @staticmethod
    def peek(root: Path) -> int:
        """Up to which entry of the journal the checkpoint in the folder goes; nothing is changed.

        Raises:
            StoreError: there is none, or it cannot be read.
        """
        try:
            return int(torch.load(root / "checkpoint.pt", weights_only=True)["journal"])
        except (OSError, RuntimeError, KeyError, ValueError, EOFError) as error:
            raise StoreError(f"the checkpoint in {root} cannot be read: {error}") from error

    @property
    def metrics(self) -> Path:
        """One JSON object a line: what the report is made from."""
        return self.root / "metrics.jsonl"

    @property
    def begun(self) -> bool:
        """Whether the metrics tell of more than that a run was about to begin."""
        return self.metrics.exists() and self.metrics.read_text("utf-8").count("\n") > 1

    def begin(self) -> None:
        """Forget what a hub wrote that was killed before its first checkpoint."""
        self.metrics.unlink(missing_ok=True)

    def next_order(self) -> int:
        """An order number no device has seen, in this run or in another.

        What devices send says the order it belongs to, not the run: a report that lay unsent since an earlier run must
        not bear the number of an order of this one.
        """
        if self._order >= self._orders_until:
            self._orders_until = self._order + ORDERS_RESERVED
            self._write_identity()
        self._order += 1
        return self._order

    def record(self, record: Mapping[str, Any]) -> None:
        """Append one record to the metrics.

        Raises:
            StoreError: the disk is full or gone.
        """
        line = json.dumps(record, allow_nan=False) + "\n"
        before = self._metrics_bytes()
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            if self._metrics_bytes() > before:
                os.truncate(self.metrics, before)  # half a line would spoil the next one
            raise StoreError(f"{self.metrics} cannot be written: {error.strerror}") from error

    def save(self, checkpoint: Mapping[str, Any]) -> None:
        """Replace the checkpoint.

        Raises:
            StoreError: the disk is full or gone; the checkpoint before stays.
        """
        buffer = io.BytesIO()
        torch.save({**checkpoint, "metrics_bytes": self._metrics_bytes()}, buffer)
        self._replace("checkpoint.pt", buffer.getvalue())

    def load(self) -> Checkpoint | None:
        """The last checkpoint, or None; metrics written after it are cut off, since that is done again.

        Raises:
            StoreError: the checkpoint cannot be read.
        """
        path = self.root / "checkpoint.pt"
        if not path.exists():
            return None
        try:
            checkpoint = Checkpoint(**torch.load(path, weights_only=True))
            if self._metrics_bytes() > checkpoint.metrics_bytes:
                os.truncate(self.metrics, checkpoint.metrics_bytes)
        except (OSError, RuntimeError, TypeError, ValueError, EOFError) as error:
            raise StoreError(f"the checkpoint {path} cannot be read: {error}") from error
        return checkpoint

    def _metrics_bytes(self) -> int:
        return self.metrics.stat().st_size if self.metrics.exists() else 0

    def _write_identity(self) -> None:
        identity = {"run": self.run, "generation": self.generation, "orders": self._orders_until}
        self._replace("identity.json", json.dumps(identity).encode())

    def _replace(self, name: str, data: bytes) -> None:
        path = self.root / name
        beside = path.with_suffix(path.suffix + ".new")
        try:
            with beside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
            _sync_folder(self.root)
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error.strerror}") from error


def patiently(write: Callable[[], None], sleep: Callable[[float], None] = time.sleep) -> None:
    """Write, and where the disk is full or gone try again until it is not: what cannot be kept must not be acknowledged."""
    while True:
        try:
            write()
        except StoreError as error:
            log.error("%s; nothing goes on until it can be, next try in %g s", error, RETRY_SECONDS)  # noqa: TRY400
            sleep(RETRY_SECONDS)
        else:
            return


def _identity(path: Path) -> dict[str, int]:
    if not path.exists():
        first = FIRST_ORDERS + secrets.randbelow(FIRST_ORDERS)
        return {"run": secrets.randbits(32), "generation": 0, "orders": first}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {name: int(found[name]) for name in ("run", "generation", "orders")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is damaged: {error}") from error


def _sync_folder(path: Path) -> None:
    """Make a rename in this folder durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
