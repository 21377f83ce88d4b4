"""A release on its way to a board: what is offered, what is asked for, what comes, and where the board stands. `README.md` has the bytes.

    offer   hub to device, retained: a release that the device may fetch, or only how often its state is wanted
    want    device to hub: so many bytes from an offset
    piece   hub to device: they, or the first of them
    state   device to hub, retained: what runs, what is being fetched, how training goes on it

The device asks, the hub answers and remembers nothing: whatever is lost is asked for again.
"""

import struct
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edge.wire import fields
from edge.wire.fields import Check
from edge.wire.frames import U32, WireError

TEXT_BYTES = 4096
"""Longest offer or state."""
RELEASE_BYTES = 1 << 30
"""Longest release file."""
PIECE_BYTES = 256 << 10
"""Most bytes of a piece."""
LEAST_PIECE_BYTES = 64
"""Fewer are not worth a packet."""
REASON_LIMIT = 300
"""Most characters of the reason in a state; what is longer is cut."""
FORMAT = 1

PHASES = ("idle", "fetching", "ready", "trial", "healthy", "refused", "rolled back")
"""Where a device can be. idle: nothing is offered; fetching: pieces come, or `reason` says what they wait for; ready: the file is whole and
its signature is good, the installer is awaited; trial: the release runs and has not proven itself; healthy: it has; refused: the
offer is not taken; rolled back: the release was installed, did not become healthy, and the one before runs again."""

_MAGIC = b"CU"
_VERSION = 1
_WANT, _PIECE = 1, 2
_HEAD = struct.Struct("<2sBB16sI")
_LENGTH = struct.Struct("<I")
_CRC = struct.Struct("<I")
PIECE_OVERHEAD = _HEAD.size + _CRC.size
"""Bytes around those of a piece."""


@dataclass(frozen=True)
class Release:
    """A release file that is offered."""

    id: str
    """SHA-256 of its manifest, in hexadecimal digits, and so are `file` and `bundle`."""
    version: int
    size: int
    """Bytes of the file."""
    file: str
    """SHA-256 of the file: the same release may have a whole file and partial ones."""
    bundle: str = ""
    """Id of its graphs."""
    cutlayer: str = ""
    """Version of its agent."""

    @property
    def tag(self) -> bytes:
        """What names the file in wants and pieces."""
        return bytes.fromhex(self.file)[:16]


@dataclass(frozen=True)
class Offer:
    """What the hub tells a device."""

    fleet: str
    release: Release | None = None
    """None: nothing, the state alone is wanted."""
    state_seconds: float = 30.0
    """How often the device shall tell its state, where it has changed."""

    def pack(self) -> bytes:
        """Its bytes.

        Raises:
            WireError: a value is out of its range.
        """
        return _packed({"format": FORMAT, **asdict(self)}, _OFFER, "offer")

    @classmethod
    def parse(cls, data: bytes) -> "Offer":
        """The offer in these bytes.

        Raises:
            WireError: it is none.
        """
        record = _read(data, _OFFER, "offer")
        release = record.pop("release")
        return cls(release=Release(**release) if release else None, **record)


@dataclass(frozen=True)
class Want:
    """The device asks for bytes."""

    tag: bytes
    """`Release.tag`."""
    offset: int
    length: int

    def pack(self) -> bytes:
        """Its bytes."""
        return _sealed(_HEAD.pack(_MAGIC, _VERSION, _WANT, self.tag, self.offset) + _LENGTH.pack(self.length))

    @classmethod
    def parse(cls, data: bytes) -> "Want":
        """The want in these bytes.

        Raises:
            WireError: it is none, or asks for nothing or for more than `PIECE_BYTES`.
        """
        tag, offset, rest = _opened(data, _WANT, "want")
        if len(rest) != _LENGTH.size:
            raise WireError(f"a want of {len(data)} bytes, it has {PIECE_OVERHEAD + _LENGTH.size}", "length")
        (length,) = _LENGTH.unpack(rest)
        if not 1 <= length <= PIECE_BYTES:
            raise WireError(f"a want of {length} bytes, there are 1 to {PIECE_BYTES}", "length")
        return cls(tag, offset, length)


@dataclass(frozen=True)
class Piece:
    """Bytes of a release file."""

    tag: bytes
    offset: int
    data: bytes = field(repr=False)

    def pack(self) -> bytes:
        """Its bytes."""
        return _sealed(_HEAD.pack(_MAGIC, _VERSION, _PIECE, self.tag, self.offset) + self.data)

    @classmethod
    def parse(cls, data: bytes) -> "Piece":
        """The piece in these bytes.

        Raises:
            WireError: it is none, damaged, empty, or longer than `PIECE_BYTES`.
        """
        tag, offset, rest = _opened(data, _PIECE, "piece")
        if not 1 <= len(rest) <= PIECE_BYTES:
            raise WireError(f"a piece of {len(rest)} bytes, there are 1 to {PIECE_BYTES}", "length")
        return cls(tag, offset, rest)


@dataclass(frozen=True)
class Figures:
    """How training went on a release: of the last steps, so that two releases can be compared."""

    steps: int = 0
    """Done since the release was started for the first time; those of the figures are the last of them."""
    step_seconds: float | None = None
    """Median of a step."""
    loss: float | None = None
    """Mean; None where the device does not know it."""
    bundle: str = ""
    """Losses of other graphs are other losses."""


@dataclass(frozen=True)
class State:
    """Where a device stands."""

    phase: str = "idle"
    reason: str = ""
    """Why it is refused or rolled back, or what is waited for."""
    release: str = ""
    """Id of the release that runs; empty on a board that no release was installed on."""
    version: int = 0
    cutlayer: str = ""
    bundle: str = ""
    offered: str = ""
    """Id of the release that was heard of last, which phase and reason are about, if there is one."""
    here: int = 0
    """Bytes of the offered file that have come."""
    size: int = 0
    """And of all of it."""
    starts: int = 0
    """Of the agent on this release."""
    now: Figures = field(default_factory=Figures)
    before: Figures | None = None
    """On the release that ran before this one."""

    def pack(self) -> bytes:
        """Its bytes.

        Raises:
            WireError: a value is out of its range.
        """
        return _packed({"format": FORMAT, **asdict(self), "reason": self.reason[:REASON_LIMIT]}, _STATE, "state")

    @classmethod
    def parse(cls, data: bytes) -> "State":
        """The state in these bytes.

        Raises:
            WireError: it is none.
        """
        record = _read(data, _STATE, "state")
        now, before = record.pop("now"), record.pop("before")
        return cls(now=Figures(**now), before=Figures(**before) if before else None, **record)


def _or_empty(inner: Check) -> Check:
    return lambda name, value: "" if value == "" else inner(name, value)


def _positive(name: str, value: Any) -> float:
    if not 0 < fields.number(name, value) <= 1e9:
        raise WireError(f"{name} = {value} is not a number above 0 and up to 1e9", "fields")
    return float(value)


def _seconds(name: str, value: Any) -> float:
    if not 0 <= fields.number(name, value) <= 1e9:
        raise WireError(f"{name} = {value} is not a number from 0 to 1e9", "fields")
    return float(value)


_HASH = fields.hexadecimal(64)
_COUNT = fields.integer(0, U32)
_MOST_VERSION = (1 << 53) - 1
_SIZE = fields.integer(0, RELEASE_BYTES)
_VERSION_TEXT = fields.text(64)
_FORMAT = fields.integer(FORMAT, FORMAT)
_FIGURES = fields.exactly(
    steps=fields.integer(0, fields.INTEGER_LIMIT),
    step_seconds=fields.optional(_seconds),
    loss=fields.optional(fields.number),
    bundle=_or_empty(_HASH),
)
_OFFER: dict[str, Check] = {
    "format": _FORMAT,
    "fleet": fields.text(64),
    "release": fields.optional(
        fields.exactly(
            id=_HASH,
            version=fields.integer(1, _MOST_VERSION),
            size=fields.integer(1, RELEASE_BYTES),
            file=_HASH,
            bundle=_or_empty(_HASH),
            cutlayer=_VERSION_TEXT,
        )
    ),
    "state_seconds": _positive,
}
_STATE: dict[str, Check] = {
    "format": _FORMAT,
    "phase": fields.one_of(*PHASES),
    "reason": fields.text(REASON_LIMIT),
    "release": _or_empty(_HASH),
    "version": fields.integer(0, _MOST_VERSION),
    "cutlayer": _VERSION_TEXT,
    "bundle": _or_empty(_HASH),
    "offered": _or_empty(_HASH),
    "here": _SIZE,
    "size": _SIZE,
    "starts": _COUNT,
    "now": _FIGURES,
    "before": fields.optional(_FIGURES),
}


def _packed(record: Mapping[str, Any], checks: Mapping[str, Check], what: str) -> bytes:
    data = fields.dump(fields.checked(record, checks, what))
    _bounded(len(data), what)
    return data


def _read(data: bytes, checks: Mapping[str, Check], what: str) -> dict[str, Any]:
    _bounded(len(data), what)
    record = fields.checked(fields.load(data), checks, what)
    del record["format"]
    return record


def _bounded(size: int, what: str) -> None:
    if size > TEXT_BYTES:
        raise WireError(f"{what} of {size} bytes, the limit is {TEXT_BYTES}", "too long")


def _sealed(data: bytes) -> bytes:
    return data + _CRC.pack(zlib.crc32(data))


def _opened(data: bytes, kind: int, what: str) -> tuple[bytes, int, bytes]:
    """Tag, offset and what follows."""
    if not PIECE_OVERHEAD <= len(data) <= PIECE_OVERHEAD + PIECE_BYTES:
        raise WireError(f"{len(data)} bytes are no {what}", "length")
    magic, version, found, tag, offset = _HEAD.unpack_from(data)
    if (magic, version, found) != (_MAGIC, _VERSION, kind):
        raise WireError(f"{data[:4]!r} does not begin a {what}", "kind")
    if _CRC.unpack_from(data, len(data) - _CRC.size)[0] != zlib.crc32(memoryview(data)[: -_CRC.size]):
        raise WireError(f"a damaged {what}: its CRC does not fit", "crc")
    return tag, offset, data[_HEAD.size : -_CRC.size]
