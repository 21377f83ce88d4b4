"""What happened to each link in each second, as JSON lines that a report can draw.

The first line says what was emulated, and how. Every other one is a device's second:

    {"seconds": 12.0, "time": 1789.5, "device": "pi-1", "outage": false,
     "up": {"rate": 256000.0, "offered_bytes": 31500, "delivered_bytes": 31500, "lost_bytes": 0}, "down": {...}}

`seconds` from the start of the trial, at the end of that second; `time` the same since 1970; `rate` in bit/s, null where
nothing limits it; bytes in this second, not since the start. `outage` says whether there was one at any moment of it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Protocol, TextIO

from hub.trial.channel import Counters
from hub.trial.outages import Outages

BYTES = ("offered_bytes", "delivered_bytes", "lost_bytes")


class Direction(Protocol):
    """What a timeline reads: a `Channel`, or a `Stream` of the relay."""

    @property
    def counters(self) -> Counters:
        """What has happened so far."""
        ...

    def rate(self, now: float) -> float | None:
        """Bits a second at this moment."""
        ...


class Timeline:
    """Writes the seconds of every device.

    Args:
        file: where to.
        heading: the first line.
        started: the time of the trial's start, in seconds since 1970.
    """

    def __init__(self, file: TextIO, heading: Mapping[str, Any], started: float) -> None:
        self._file, self._started = file, started
        self._before: dict[tuple[str, str], Counters] = {}
        self._last = 0.0
        self._write({**heading, "time": started})

    def second(self, now: float, links: Mapping[str, tuple[Mapping[str, Direction], Outages, str]]) -> None:
        """Write what has happened since the last call, for devices with their directions, outages and outage seeds."""
        for device, (directions, outages, seed) in links.items():
            self._write(
                {
                    "seconds": round(now, 3),
                    "time": round(self._started + now, 3),
                    "device": device,
                    "outage": outages.during(self._last, now, seed) is not None,
                    **{name: self._direction((device, name), now, one) for name, one in directions.items()},
                }
            )
        self._last = now
        self._file.flush()

    def _direction(self, key: tuple[str, str], now: float, direction: Direction) -> dict[str, Any]:
        counters = Counters(**asdict(direction.counters))
        before = self._before.get(key, Counters())
        self._before[key] = counters
        return {
            "rate": direction.rate(now),
            **{name: getattr(counters, name) - getattr(before, name) for name in BYTES},
        }

    def _write(self, record: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(record) + "\n")
