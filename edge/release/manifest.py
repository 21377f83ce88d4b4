"""What a release states of itself: for which board it is, which version, and the hash of every file.

Canonical JSON: ASCII, keys sorted, no spaces. A reader refuses any other spelling, so that one release has one id.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any, Self

FORMAT = 1
"""Version of this layout; a reader refuses every other."""

MAXIMUM_MANIFEST_BYTES = 256 << 10
MAXIMUM_FILES = 256
MAXIMUM_FILE_BYTES = 256 << 20
MAXIMUM_TOTAL_BYTES = 512 << 20

BUNDLE, AGENT, INSTALLER = "device.bundle", "agent.zip", "installer.pyz"
REQUIRED = (BUNDLE, AGENT, INSTALLER)
"""Files that every release names."""

WHEELS, UNITS = "wheels/", "units/"
"""Folders of a release; a name in them has no further folder."""

_WHEEL = re.compile(r"wheels/[A-Za-z0-9][A-Za-z0-9._+!-]{0,180}\.whl")
_UNIT = re.compile(r"units/[a-z][a-z0-9-]{0,60}\.(?:service|timer|path)")
_HASH = re.compile(r"[0-9a-f]{64}")
_DATE = "%Y-%m-%dT%H:%M:%SZ"
_DATE_LOOKS = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


class ReleaseError(ValueError):
    """A release that will not be used; the message says which one and why, in one sentence."""


class BoardError(ReleaseError):
    """Something of the board stands against it and nothing of the release, which may be tried again."""


class ClockError(ReleaseError):
    """This board's clock is before the release was made: wait until it has been set."""


@dataclass(frozen=True)
class ReleaseFile:
    """SHA-256 and size of one file of a release."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class ReleaseManifest:
    """Everything a board must know before it unpacks anything."""

    fleet: str
    version: int
    """Counter of the fleet's releases, from 1: a board never goes back by a release file."""
    issued: datetime
    expires: datetime
    """After this no board takes it up; one that runs it goes on."""
    board: str
    architecture: str
    """As `platform.machine()` names it."""
    python: str
    """Such as 3.13: the wheels are for it."""
    minimum_agent: str
    """Version of cutlayer that must be running to take this as an update; empty: any."""
    cutlayer: str
    """Version of the agent inside."""
    bundle: str
    """Id of device.bundle: the hash of the manifest in it, which is not the hash of the file."""
    environment: str
    """`environment_of(files)`: releases with the same wheels share one environment."""
    files: Mapping[str, ReleaseFile]

    def __post_init__(self) -> None:
        """Check every value and that they fit together.

        Raises:
            ReleaseError: one is out of its range.
        """
        for name, (pattern, example) in _TEXTS.items():
            value = getattr(self, name)
            if not isinstance(value, str) or not re.fullmatch(pattern, value):
                raise ReleaseError(f"{name} is {value!r:.80}, not such as {example!r}")
        if type(self.version) is not int or not 1 <= self.version < 1 << 53:
            raise ReleaseError(f"version is {self.version!r:.80}, not a whole number from 1 to 2^53 - 1")
        for moment in (self.issued, self.expires):
            if parse_date(format_date(moment), "a date") != moment:
                raise ReleaseError(f"{moment} is no moment of whole seconds")
        if self.expires <= self.issued:
            raise ReleaseError(f"it expires at {format_date(self.expires)}, before it was issued at {format_date(self.issued)}")  # fmt: skip
        self._check_files()

    def _check_files(self) -> None:
        if len(self.files) > MAXIMUM_FILES:
            raise ReleaseError(f"it names {len(self.files)} files; the limit is {MAXIMUM_FILES}")
        for path, file in self.files.items():
            _check_path(path)
            if not isinstance(file.sha256, str) or not _HASH.fullmatch(file.sha256):
                raise ReleaseError(f"{path} has the hash {file.sha256!r:.80}, not 64 hexadecimal digits")
            if type(file.bytes) is not int or not 0 <= file.bytes <= MAXIMUM_FILE_BYTES:
                raise ReleaseError(f"{path} has {file.bytes!r:.40} bytes; a file has 0 to {MAXIMUM_FILE_BYTES}")
        if missing := [path for path in REQUIRED if path not in self.files]:
            raise ReleaseError(f"{', '.join(missing)} is not among its files")
        if len({(file.sha256, file.bytes) for file in self.files.values()}) != len(self.sizes):
            raise ReleaseError("it states two sizes for one hash")
        if self.total_bytes > MAXIMUM_TOTAL_BYTES:
            raise ReleaseError(f"its files have {self.total_bytes} bytes; the limit is {MAXIMUM_TOTAL_BYTES}")
        if self.environment != environment_of(self.files):
            raise ReleaseError(f"environment is {self.environment[:16]}…, its wheels make {environment_of(self.files)[:16]}…")  # fmt: skip

    @property
    def id(self) -> str:
        """SHA-256 of the canonical bytes, 64 hexadecimal digits."""
        return hashlib.sha256(self.pack()).hexdigest()

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes by hash: what the file has to bring, each once."""
        return {file.sha256: file.bytes for file in self.files.values()}

    @property
    def total_bytes(self) -> int:
        """Of all files, each path counted."""
        return sum(file.bytes for file in self.files.values())

    def below(self, folder: str) -> dict[str, ReleaseFile]:
        """The files of `WHEELS` or `UNITS`, by their names in it, sorted."""
        return {path.removeprefix(folder): self.files[path] for path in sorted(self.files) if path.startswith(folder)}

    def pack(self) -> bytes:
        """The canonical bytes."""
        plain: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        plain["format"] = FORMAT
        plain["issued"], plain["expires"] = format_date(self.issued), format_date(self.expires)
        plain["files"] = {path: {"bytes": file.bytes, "sha256": file.sha256} for path, file in self.files.items()}
        return canonical(plain)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read canonical bytes, whose signature is right already.

        Raises:
            ReleaseError: they are too many, no canonical JSON, of another format, or state what cannot be.
        """
        if len(data) > MAXIMUM_MANIFEST_BYTES:
            raise ReleaseError(f"the manifest has {len(data)} bytes; the limit is {MAXIMUM_MANIFEST_BYTES}")
        plain = read_canonical(data, "the manifest")
        if plain.get("format") != FORMAT or type(plain["format"]) is not int:
            raise ReleaseError(f"the manifest has format {plain.get('format')!r:.40}; this version of cutlayer reads format {FORMAT}")  # fmt: skip
        _check_keys(plain, {"format", *_READERS}, "the manifest")
        manifest = cls(**{name: read(plain[name], name) for name, read in _READERS.items()})
        if manifest.pack() != data:  # the id is that of the bytes, however they were read
            raise ReleaseError("the manifest is not what it would be written as")
        return manifest


def environment_of(files: Mapping[str, ReleaseFile]) -> str:
    """Return the SHA-256, hexadecimal, over the sorted lines `NAME SHA256` of the wheels; of nothing where there are none."""
    lines = sorted(
        f"{path.removeprefix(WHEELS)} {file.sha256}\n" for path, file in files.items() if path.startswith(WHEELS)
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def canonical(value: Any) -> bytes:
    """Return a value as JSON in the one spelling that is read."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False, sort_keys=True, separators=(",", ":")).encode()


def read_canonical(data: bytes, what: str) -> dict[str, Any]:
    """Return the object of these bytes.

    Raises:
        ReleaseError: they are no JSON object, or spelled in another way than `canonical` would.
    """
    try:
        value = json.loads(
            data.decode("ascii"), object_pairs_hook=_without_twins, parse_constant=_no_number, parse_float=_no_number
        )
    except (ValueError, RecursionError) as error:
        raise ReleaseError(f"{what} is not JSON as releases have it: {error}") from error
    if not isinstance(value, dict):
        raise ReleaseError(f"{what} is a JSON {type(value).__name__}, not an object")
    if canonical(value) != data:
        raise ReleaseError(f"{what} is not spelled canonically (ASCII, sorted keys, no spaces)")
    return value


def parse_date(text: Any, name: str) -> datetime:
    """Read `2026-11-22T00:00:00Z`.

    Raises:
        ReleaseError: it is written in another way, or there is no such moment.
    """
    if isinstance(text, str) and _DATE_LOOKS.fullmatch(text):
        with suppress(ValueError):
            return datetime.strptime(text, _DATE).replace(tzinfo=UTC)
    raise ReleaseError(f"{name} is {text!r:.80}, not a moment such as '2026-11-22T00:00:00Z'")


def format_date(moment: datetime) -> str:
    """Write a moment as `parse_date` reads it; seconds are cut off."""
    return moment.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version, to compare by: 0.10.1.dev3 is (0, 10, 1), and 0.2.0 is 0.2."""
    found = [int(part) for part in takewhile(str.isdecimal, version.split("."))]
    while found and not found[-1]:
        found.pop()
    return tuple(found)


def _check_path(path: str) -> None:
    if path not in REQUIRED and not _WHEEL.fullmatch(path) and not _UNIT.fullmatch(path):
        raise ReleaseError(f"it names a file {path!r:.100}, which no release has")


def _check_keys(plain: Mapping[str, Any], wanted: set[str], what: str) -> None:
    if missing := sorted(wanted - set(plain)):
        raise ReleaseError(f"{what} has no {', '.join(missing)}")
    if strange := sorted(set(plain) - wanted):
        raise ReleaseError(f"{what} has {', '.join(strange):.100}, which this version of cutlayer does not know")


def _files(plain: Any, _: str) -> dict[str, ReleaseFile]:
    if not isinstance(plain, dict):
        raise ReleaseError(f"files is a JSON {type(plain).__name__}, not an object")
    found = {}
    for path, file in plain.items():
        if not isinstance(file, dict):
            raise ReleaseError(f"{path!r:.100} is a JSON {type(file).__name__}, not an object")
        _check_keys(file, {"sha256", "bytes"}, repr(path)[:100])
        found[path] = ReleaseFile(file["sha256"], file["bytes"])
    return found


def _as_it_is(value: Any, _: str) -> Any:
    return value  # checked when the manifest is made


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"{text[:40]} is not a whole number")


_VERSION = r"[0-9]{1,9}(?:\.[0-9]{1,9}){0,3}"
_TEXTS = {
    "fleet": (r"[A-Za-z0-9_.-]{1,64}", "fleet"),
    "board": (r"[a-z][a-z0-9-]{0,63}", "pi5"),
    "architecture": (r"[a-z][a-z0-9_]{0,31}", "aarch64"),
    "python": (r"3\.[0-9]{1,3}", "3.13"),
    "minimum_agent": (rf"(?:{_VERSION})?", "0.1.0"),
    "cutlayer": (rf"{_VERSION}(?:[a-z.+][0-9a-z.+]{{0,40}})?", "0.1.0"),
    "bundle": (_HASH.pattern, "64 hexadecimal digits"),
    "environment": (_HASH.pattern, "64 hexadecimal digits"),
}
"""What the texts look like, and an example of each."""

_READERS: dict[str, Callable[[Any, str], Any]] = {
    **dict.fromkeys(_TEXTS, _as_it_is),
    "version": _as_it_is,
    "issued": parse_date,
    "expires": parse_date,
    "files": _files,
}
