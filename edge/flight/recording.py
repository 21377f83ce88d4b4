"""A recording as it lies on the disk, read and ready to run again."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from edge.flight import ring, trace
from edge.flight.freeze import FreezeError
from edge.flight.recorder import read_snapshot
from edge.flight.trace import Entry


@dataclass(frozen=True)
class Recording:
    """One file of a recording, ready to run again."""

    path: Path
    record: Mapping[str, Any]
    """The snapshot."""
    blobs: list[bytes]
    entries: list[Entry]
    ignored_bytes: int
    """Behind the last whole record."""

    @property
    def mailbox(self) -> Mapping[str, Any]:
        """The frozen mailbox."""
        found: Mapping[str, Any] = self.record["agent"]["has"]["_mailbox"]["has"]
        return found

    @property
    def device(self) -> str:
        """The device's name."""
        return str(self.mailbox["device"])

    @property
    def instance(self) -> int:
        """The process of the device."""
        return int(self.mailbox["instance"])

    @property
    def span(self) -> tuple[float, float]:
        """First and last reading of the clock."""
        readings = [entry.seconds for entry in self.entries if isinstance(entry, trace.Clock)]
        began = float(self.record["monotonic"])
        return began, max(readings, default=began)

    @property
    def wall(self) -> float:
        """Seconds since 1970 at the beginning, as far as the board knew."""
        return float(self.record["wall"])

    @property
    def restarted(self) -> bool:
        """Whether a process begins here, and not only a file."""
        return bool(self.record["restarted"])

    @property
    def machine(self) -> str:
        """What it was recorded on."""
        return f"{self.record['machine']}, onnxruntime {self.record['onnxruntime']}"

    @property
    def same_machine(self) -> bool:
        """Whether a graph computes the same to the last bit here as there."""
        return (self.record["machine"], self.record["onnxruntime"]) == _here()


class ReplayError(ValueError):
    """A recording, or what is at hand of its device, that cannot be used; the message names it."""


def read(path: Path) -> Recording:
    """Read one file of a ring.

    Raises:
        ReplayError: it is none, or its beginning is damaged.
    """
    try:
        return _read(path)
    except (OSError, ring.RingError, trace.TraceError, FreezeError) as error:
        raise ReplayError(str(error)) from error


def _read(path: Path) -> Recording:
    bodies, ignored = ring.read(path)
    if not bodies:
        raise ring.RingError(f"{path} has no snapshot: its beginning was lost")
    record, blobs = read_snapshot(bodies[0])
    reader = trace.Reader()
    entries = [entry for body in bodies[1:] for entry in reader.entries(body)]
    recording = Recording(path, record, blobs, entries, ignored)
    try:
        _ = (
            recording.device,
            recording.instance,
            recording.span,
            recording.same_machine,
            recording.wall,
            recording.restarted,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FreezeError(f"{path}: the snapshot is damaged: {error}") from error
    return recording


def _here() -> tuple[str, str]:
    return platform.machine(), metadata.version("onnxruntime")
