"""The release file: a plain ustar archive, one way to write it, and a reader that believes nothing early.

    manifest.json      what it is (manifest.py)
    manifest.sig       who says so (signatures.py)
    files/SHA256 …     the contents, sorted by hash, each once; those a board has already may be missing

Every header has date 0, owner 0, mode 0644; two blocks of zeros end it. A reader compares each header with the one a
writer would make, so there are no links, folders, long names, extensions or hidden bytes to handle. The order of
reading: sizes of the first two members (capped), their bytes, the signature, the manifest, whether this board takes it,
then the other headers; contents only when they are copied, and hashed meanwhile.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from edge.release.manifest import (
    MAXIMUM_MANIFEST_BYTES,
    ClockError,
    ReleaseError,
    ReleaseManifest,
    format_date,
    numbers,
)
from edge.release.signatures import MAXIMUM_SIGNATURE_BYTES, check_signature

BLOCK = 512
END = bytes(2 * BLOCK)
MANIFEST, SIGNATURE, FILES = "manifest.json", "manifest.sig", "files/"
CLOCK_SLACK = timedelta(days=1)
"""How far a board's clock may be behind the workstation's that issued the release."""

_PIECE = 1 << 20


@dataclass(frozen=True)
class Accepts:
    """What a board takes; empty texts and None ask nothing."""

    fleet: str = ""
    board: str = ""
    architecture: str = ""
    python: str = ""
    version_above: int = 0
    """Highest version it has ever taken."""
    again: frozenset[str] = frozenset()
    """Ids it may take although their version is not above that: what it runs already."""
    agent: str | None = None
    """Version of the agent that is running, where the release comes over the air."""

    def check(self, manifest: ReleaseManifest, now: datetime | None) -> None:
        """Raise where this board must not take the release.

        Raises:
            ReleaseError: it is for others, older than what was taken before, or expired.
            ClockError: the clock is not set yet.
        """
        for name in ("fleet", "board", "architecture"):
            ours, stated = getattr(self, name), getattr(manifest, name)
            if ours and ours != stated:
                raise ReleaseError(f"it is for the {name} {stated}, this is {ours}")
        if self.python and self.python != manifest.python:
            raise ReleaseError(f"it is for Python {manifest.python}, this board has {self.python}: build it with --python {self.python}")  # fmt: skip
        if manifest.version <= self.version_above and manifest.id not in self.again:
            raise ReleaseError(
                f"it has version {manifest.version}, this board has had {self.version_above}: it does not go back"
            )
        minimum = manifest.minimum_agent
        if self.agent is not None and minimum and numbers(self.agent) < numbers(minimum):
            raise ReleaseError(f"it needs a running agent of cutlayer {minimum} or later, this is {self.agent}")
        if now is None:
            return
        if now < manifest.issued - CLOCK_SLACK:
            raise ClockError(
                f"it was issued at {format_date(manifest.issued)} and this board's clock says {format_date(now)}: "
                "the clock has to be set first"
            )
        if now >= manifest.expires:
            raise ReleaseError(f"it has expired at {format_date(manifest.expires)}; it is {format_date(now)}")


ANY = Accepts()


@dataclass(frozen=True)
class _Place:
    offset: int
    bytes: int


class Release:
    """An open release whose signature, manifest and layout are right; close it, or use it in a `with`."""

    def __init__(
        self, path: Path, file: BinaryIO, manifest: ReleaseManifest, signature: bytes, places: Mapping[str, _Place]
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.signature = signature
        """The bytes of manifest.sig, which go with `manifest.pack()`."""
        self._file = file
        self._places = places

    @property
    def id(self) -> str:
        """SHA-256 of the manifest, 64 hexadecimal digits."""
        return self.manifest.id

    @property
    def present(self) -> frozenset[str]:
        """Hashes of the contents in the file; a partial release lacks some of `manifest.sizes`."""
        return frozenset(self._places)

    @property
    def missing(self) -> tuple[str, ...]:
        """Paths whose contents are not in the file, sorted: the board must have them."""
        files = self.manifest.files
        return tuple(path for path in sorted(files) if files[path].sha256 not in self._places)

    def copy(self, sha256: str, to: BinaryIO) -> None:
        """Write the contents of this hash; what has been written is to be thrown away if this raises.

        Raises:
            ReleaseError: they are not in the file, or are not what the manifest says.
            OSError: `to` does not take them.
        """
        to.writelines(self.pieces(sha256))

    def pieces(self, sha256: str) -> Iterator[bytes]:
        """Yield the contents of this hash in pieces of at most 1 MiB; believe them only when it has ended without raising.

        Raises:
            ReleaseError: they are not in the file, or are not what the manifest says.
        """
        if (place := self._places.get(sha256)) is None:
            raise ReleaseError(f"{self.path}: the contents {sha256[:16]}… are not in it")
        found, left = hashlib.sha256(), place.bytes
        self._file.seek(place.offset)
        while left:
            piece = _take(self._file, min(left, _PIECE))
            found.update(piece)
            left -= len(piece)
            yield piece
        if found.hexdigest() != sha256:
            raise ReleaseError(f"{self.path}: the contents {sha256[:16]}… are damaged: they hash to {found.hexdigest()[:16]}…")  # fmt: skip

    def check(self) -> None:
        """Read and hash all contents.

        Raises:
            ReleaseError: some are damaged.
        """
        for sha256 in sorted(self._places):
            for _ in self.pieces(sha256):
                pass

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_release(path: Path, keys: Sequence[bytes], *, now: datetime | None, accepts: Accepts = ANY) -> Release:
    """Return the release at `path` when a trusted key has signed it, it is whole, and this board takes it.

    Contents are hashed when they are copied, not here.

    Args:
        path: a regular file; others may write to it meanwhile, every byte is checked as it is used.
        keys: trusted public keys of 32 bytes.
        now: with a time zone; None does not ask whether it has expired.
        accepts: what this board takes.

    Raises:
        ReleaseError: anything is wrong with it; the message begins with the path.
        ClockError: only the clock is.
    """
    try:
        file = _open(path)
    except OSError as error:
        raise ReleaseError(f"{path}: {error.strerror}") from error
    try:
        manifest, signature = _read_manifest(file, keys)
        accepts.check(manifest, now)
        return Release(path, file, manifest, signature, dict(_places(file, manifest, file.tell())))
    except ReleaseError as error:
        file.close()
        raise type(error)(f"{path}: {error}") from error
    except OSError as error:
        file.close()
        raise ReleaseError(f"{path}: {error.strerror}") from error


def header(name: str, size: int) -> bytes:
    """Return the block that stands before a member: the only form that is read."""
    fields = (
        name.encode("ascii").ljust(100, b"\0"), b"0000644\0", b"0000000\0", b"0000000\0", b"%011o\0" % size,
        b"%011o\0" % 0, b" " * 8, b"0", bytes(100), b"ustar\00000", bytes(64), b"0000000\0", b"0000000\0", bytes(167),
    )  # fmt: skip
    block = b"".join(fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def padding(size: int) -> int:
    """Return how many zeros follow a member of this size."""
    return -size % BLOCK


def _open(path: Path) -> BinaryIO:
    # Without blocking: a pipe laid where an update is expected must not stop the installer for ever.
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise ReleaseError(f"{path}: it is no file")
    return os.fdopen(number, "rb")


def _read_manifest(file: BinaryIO, keys: Sequence[bytes]) -> tuple[ReleaseManifest, bytes]:
    """Return the manifest and the bytes of its signature; the file stands where the contents begin."""
    manifest = _first_member(file, MANIFEST, MAXIMUM_MANIFEST_BYTES)
    signature = _first_member(file, SIGNATURE, MAXIMUM_SIGNATURE_BYTES)
    check_signature(manifest, signature, keys)
    return ReleaseManifest.parse(manifest), signature


def _first_member(file: BinaryIO, name: str, limit: int) -> bytes:
    stated, size = _read_header(file)
    if stated != name:
        raise ReleaseError(f"it is no release: {name} is not where it should be")
    if size > limit:
        raise ReleaseError(f"{name} has {size} bytes; the limit is {limit}")
    data = _take(file, size)
    if any(_take(file, padding(size))):
        raise ReleaseError(f"there are bytes between {name} and the next member")
    return data


def _places(file: BinaryIO, manifest: ReleaseManifest, offset: int) -> Iterator[tuple[str, _Place]]:
    """Yield hash and place of every content; the layout is checked to the last byte of the file."""
    length, before, sizes = os.fstat(file.fileno()).st_size, "", manifest.sizes
    while offset + len(END) != length:
        file.seek(offset)
        name, size = _read_header(file)
        sha256 = name.removeprefix(FILES)
        if name == sha256 or sha256 not in sizes:
            raise ReleaseError(f"it has a member {name!r:.100}, which its manifest does not name")
        if sha256 <= before:
            raise ReleaseError(f"{name} is there twice, or not in its order")
        if size != sizes[sha256]:
            raise ReleaseError(f"{name} has {size} bytes; the manifest says {sizes[sha256]}")
        yield sha256, _Place(offset + BLOCK, size)
        file.seek(offset + BLOCK + size)
        if any(_take(file, padding(size))):
            raise ReleaseError(f"there are bytes between {name} and the next member")
        offset, before = file.tell(), sha256
    file.seek(offset)
    if _take(file, len(END)) != END:
        raise ReleaseError("it does not end as a release does")


def _read_header(file: BinaryIO) -> tuple[str, int]:
    block = _take(file, BLOCK)
    try:
        name, size = block[:100].rstrip(b"\0").decode("ascii"), int(block[124:135], 8)
    except ValueError:
        raise ReleaseError("it is no release, or damaged: a header cannot be read") from None
    if size < 0 or header(name, size) != block:
        raise ReleaseError(f"it is no release, or damaged: the header of {name!r:.100} is not as releases have it")
    return name, size


def _take(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise ReleaseError("it is no release, or ends too early: a part is missing")
    return data
