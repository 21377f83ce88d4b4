"""Bytes of a release file, for those who ask."""

import hashlib
import os
from datetime import datetime
from pathlib import Path

from edge.release.archive import Accepts, open_release
from edge.release.signatures import read_keys
from edge.wire.updates import PIECE_BYTES, Piece, Release, Want
from hub.rollout.plan import RolloutError


class ReleaseFile:
    """A release file that stays open.

    Args:
        path: of the file.
        keys: file of the public keys that it must be signed with.
        fleet: that it must be of.
        now: it must not have expired.

    Raises:
        RolloutError: it cannot be read.
        ReleaseError: it is no release that the devices would take.
    """

    def __init__(self, path: Path, keys: Path, *, fleet: str, now: datetime) -> None:
        with open_release(path, read_keys(keys), now=now, accepts=Accepts(fleet=fleet)) as found:
            found.check()
            manifest = found.manifest
        try:
            self._file = path.open("rb")
            digest = hashlib.file_digest(self._file, "sha256").hexdigest()
        except OSError as error:
            raise RolloutError(f"{path} cannot be read: {error.strerror}") from error
        size = os.fstat(self._file.fileno()).st_size
        self.release = Release(manifest.id, manifest.version, size, digest, manifest.bundle, manifest.cutlayer)

    def answer(self, want: Want, longest: int) -> Piece | None:
        """What is asked for, or the first of it; None where it is of another file, or beyond the end."""
        if want.tag != self.release.tag or want.offset >= self.release.size:
            return None
        data = os.pread(self._file.fileno(), min(want.length, longest, PIECE_BYTES), want.offset)
        return Piece(want.tag, want.offset, data) if data else None

    def close(self) -> None:
        """Close it."""
        self._file.close()
