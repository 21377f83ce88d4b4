"""Where a rollout stands, in the fleet's folder: a command that was ended, or a machine that lost power, goes on from it."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edge.wire.updates import Figures, Release
from hub.rollout.plan import RolloutError

FORMAT = 1
RUNNING, DONE, STOPPED = "running", "done", "stopped"


@dataclass
class Entry:
    """What is known of a device."""

    stage: int | None = None
    """In which it was chosen; None: not yet."""
    before: Figures | None = None
    """How training went on it when it was offered the release; of one that was not, when it was first seen."""
    phase: str = ""
    """As it said last."""
    reason: str = ""
    version: int = 0
    on_it: bool = False
    """Whether it runs the release."""
    took: bool = False
    """Whether it has had all of it."""
    well: bool = False
    """Whether it has been well on the release for long enough."""
    worse: str = ""
    """Why it is worse off."""


@dataclass
class Book:
    """A rollout."""

    release: Release
    stages: str
    """As the user wrote them."""
    only: tuple[str, ...] = ()
    canaries: tuple[str, ...] = ()
    stage: int = 0
    outcome: str = RUNNING
    reason: str = ""
    devices: dict[str, Entry] = field(default_factory=dict)

    def to_json(self) -> str:
        """As the file has it."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1)

    @classmethod
    def parse(cls, text: str) -> "Book":
        """From the file's text.

        Raises:
            RolloutError: it is no rollout of this version.
        """
        try:
            record: dict[str, Any] = json.loads(text)
            if record.pop("format") != FORMAT:
                raise RolloutError(f"it is of another version, this one reads {FORMAT}")
            devices = {
                name: Entry(**{**entry, "before": Figures(**entry["before"]) if entry["before"] else None})
                for name, entry in record.pop("devices").items()
            }
            release = Release(**record.pop("release"))
            only, canaries = (tuple(record.pop(name)) for name in ("only", "canaries"))
            return cls(release=release, only=only, canaries=canaries, devices=devices, **record)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RolloutError(f"it cannot be read: {error!r:.100}") from error


class Shelf:
    """The file of a fleet's rollout.

    Args:
        folder: of the fleet; made where there is none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "rollout.json"
        self._written = ""

    def load(self) -> Book | None:
        """The rollout, or None where there has never been one.

        Raises:
            RolloutError: the file cannot be read.
        """
        try:
            return Book.parse(self.path.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, RolloutError) as error:
            raise RolloutError(f"{self.path}: {error}") from error

    def save(self, book: Book) -> None:
        """Write it where it has changed, so that there is always a whole one.

        Raises:
            OSError: the disk is full or gone.
        """
        text = book.to_json()
        if text == self._written:
            return
        fresh = self.path.with_suffix(".new")
        with fresh.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)
        self._written = text

    @contextmanager
    def held(self) -> Iterator[None]:
        """For one command at a time.

        Raises:
            RolloutError: another one has it, or the folder cannot be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / "rollout.lock").open("a+")
        except OSError as error:
            raise RolloutError(f"the fleet's folder {self.folder} cannot be used: {error.strerror}") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RolloutError(f"another rollout of {self.folder} runs: end it, or wait for its end") from None
            yield
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_UN)
