"""Profiles as they are shown: each with a name of its own, and what its loose records (board, conditions) say.

A profile comes from a board, and board and conditions may hold anything: whatever is not what it should be counts as not recorded.
"""

import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from edge.wire.profile import ROWS, Profile, ProfileError

MOST = 1e15
"""No figure of a board is larger: years in nanoseconds, a petabyte."""
MOST_BYTES = 64 * 2**20
"""Largest file; the profile of a step with ten thousand operators takes 2 MB."""


@dataclass(frozen=True)
class Shown:
    """A profile and what it is called on the page, different from all others there."""

    name: str
    profile: Profile


def load(paths: Sequence[Path]) -> list[Shown]:
    """The profiles in files, in their order.

    Raises:
        ProfileError: a file is missing, cannot be read, or is no profile; the message names it.
    """
    return named([(path.stem, _read(path)) for path in paths])


def named(profiles: Sequence[tuple[str, Profile]]) -> list[Shown]:
    """Profiles by what their boards are called; boards of one name are told apart by what comes with each, then by number."""
    names = [plain(profile.name) or "unknown board" for _, profile in profiles]
    twice = Counter(names)
    names = [
        f"{name} ({plain(origin)})" if twice[name] > 1 else name
        for name, (origin, _) in zip(names, profiles, strict=True)
    ]
    twice = Counter(names)
    names = [f"{name}, no. {place + 1}" if twice[name] > 1 else name for place, name in enumerate(names)]
    return [Shown(name, profile) for name, (_, profile) in zip(names, profiles, strict=True)]


def parse(text: str) -> Profile:
    """The profile in a text that came from elsewhere.

    Raises:
        ProfileError: it is none, or has a figure that no board can have.
    """
    profile = Profile.parse(text)
    for rows, kind in ROWS.items():
        for place, row in enumerate(getattr(profile, rows)):
            for field in fields(kind):
                value = getattr(row, field.name)
                if isinstance(value, int | float) and value > MOST:
                    raise ProfileError(f"{rows}[{place}]: {field.name} is beyond {MOST:g}: no board has that")
    return profile


def decode(data: bytes) -> Profile:
    """The profile in a file's bytes, of which no more than one beyond `MOST_BYTES` need be read.

    Raises:
        ProfileError: they are none.
    """
    if len(data) > MOST_BYTES:
        raise ProfileError(f"it is larger than {MOST_BYTES >> 20} MiB")
    try:
        return parse(data.decode())
    except UnicodeDecodeError as error:
        raise ProfileError("it is not UTF-8") from error


def _read(path: Path) -> Profile:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        return decode(data)
    except OSError as error:
        raise ProfileError(f"{path} cannot be read: {error.strerror}") from error
    except ProfileError as error:
        raise ProfileError(f"{path} is no profile of a board: {error}") from error


def plain(text: Any, longest: int = 60) -> str:
    """A text on one line, without characters that are not seen, cut to a length."""
    shown = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in str(text)[: 4 * longest])
    shown = " ".join(shown.split())
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def number(record: Any, *keys: str) -> float | None:
    """The figure at a place of nested records; None where there is none."""
    value = _at(record, keys)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= MOST and not math.isnan(value) else None


def words(record: Any, *keys: str) -> str:
    """The text at a place of nested records; empty where there is none."""
    value = _at(record, keys)
    return value if isinstance(value, str) else ""


def items(record: Any, *keys: str) -> list[Any]:
    """The list at a place of nested records; empty where there is none."""
    value = _at(record, keys)
    return list(value) if isinstance(value, list | tuple) else []


def _at(record: Any, keys: Iterable[str]) -> Any:
    for key in keys:
        if not isinstance(record, Mapping):
            return None
        record = record.get(key)
    return record


def course(profile: Profile) -> list[tuple[float, float | None, float | None]]:
    """Seconds since the start, °C, Hz of the first clock, as they followed each other; what was not read is None."""
    found = []
    for point in items(profile.conditions, "course"):
        if isinstance(point, list | tuple) and len(point) == 3:
            seconds, celsius, hertz = (number({"": value}, "") for value in point)
            if seconds is not None:
                found.append((seconds, celsius, hertz))
    return sorted(found, key=lambda point: point[0])


@dataclass(frozen=True)
class Memory:
    """Room for a process, in bytes; None where a profile does not say."""

    total: int | None
    available: int | None
    limit: int | None
    limit_source: str
    """The file of the limit, or why there is none."""

    @property
    def ceiling(self) -> int | None:
        """What a process has to stay below; None where nothing is known."""
        known = [value for value in (self.total, self.limit) if value is not None]
        return min(known) if known else None


def memory(profile: Profile) -> Memory:
    """What the profile says of the board's memory and of the limit of the service."""

    def whole(*keys: str) -> int | None:
        value = number(profile.conditions, "room", *keys)
        return None if value is None else int(value)

    source = words(profile.conditions, "room", "limit_source") or "the profile does not say"
    return Memory(whole("total_bytes") or board_memory(profile), whole("available_bytes"), whole("limit_bytes"), source)


def board_memory(profile: Profile) -> int | None:
    """Bytes of the board's memory, where its record says."""
    value = number(profile.board, "memory_bytes")
    return int(value) if value is not None and value > 0 else None
