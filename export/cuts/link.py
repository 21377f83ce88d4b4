"""Links and budgets as users write them: `256kbit`, `1.5Mbit/s`, `20kB/s`; `5MB/day`, `200 kB/round`, `2 MB/run`."""

import re
from dataclasses import dataclass

from edge.wire.budget import amount_of
from export.errors import ExportError

_BITS = {"bit": 1.0, "kbit": 1e3, "Mbit": 1e6, "Gbit": 1e9}
PERIODS = ("round", "day", "run")
HEADER_BYTES = 40
"""IP and TCP of a segment."""
SEGMENT_BYTES = 1448
MQTT_BYTES = 32
"""Topic and head of a PUBLISH, about."""


@dataclass(frozen=True)
class Link:
    """How fast bytes travel, each way, one way at a time."""

    text: str
    bytes_per_second: float

    def seconds(self, count: float) -> float:
        """How long so many bytes take."""
        return count / self.bytes_per_second


@dataclass(frozen=True)
class Budget:
    """The most bytes, both ways together, of a period."""

    text: str
    bytes: float
    period: str

    def rounds_per_day(self, bytes_per_round: float, rounds: int) -> float:
        """How many rounds a day it pays for: any number (infinite) where it is one of a round or run that suffices, else none."""
        if bytes_per_round <= 0:
            return float("inf")
        if self.period == "day":
            return self.bytes / bytes_per_round
        needed = bytes_per_round * (rounds if self.period == "run" else 1)
        return float("inf") if needed <= self.bytes else 0.0


def parse_link(text: str) -> Link:
    """A link from its text.

    Raises:
        ExportError: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(bit|kbit|Mbit|Gbit)(?:/s)?", text)
    if found:
        speed = float(found[1]) * _BITS[found[2]] / 8
    elif re.fullmatch(r"\d+(\.\d+)? ?(B|kB|MB|KiB|MiB)/s", text):
        speed = amount_of(text)
    else:
        raise ExportError(f"'{text}' is no link: write its speed, like 256kbit, 1.5Mbit or 20kB/s")
    if speed <= 0:
        raise ExportError(f"a link of '{text}' carries nothing: its speed must be more than 0")
    return Link(text, speed)


def parse_budget(text: str) -> Budget:
    """A budget from its text.

    Raises:
        ExportError: it is none.
    """
    amount, slash, period = text.partition("/")
    if not slash or period not in PERIODS or not re.fullmatch(r"\d+(\.\d+)? ?(B|kB|MB|GB|KiB|MiB|GiB)", amount):
        raise ExportError(f"'{text}' is no budget: write bytes and a period, like 5MB/day, 200kB/round or 2MB/run")
    found = amount_of(amount)
    if found <= 0:
        raise ExportError(f"a budget of '{text}' pays for nothing: it must be more than 0")
    return Budget(text, found, period)


def on_the_wire(frames: float, chunk_bytes: int = 8192) -> float:
    """Bytes on the wire of so many bytes of frames, with the headers of MQTT, TCP and IP."""
    packets = frames / chunk_bytes
    whole = frames + MQTT_BYTES * max(packets, 1.0 if frames else 0.0)
    return whole + HEADER_BYTES * max(whole / SEGMENT_BYTES, 1.0 if frames else 0.0)
