"""Bundles as zip archives whose bytes depend on nothing but their contents."""

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from export.errors import ExportError


def write(path: Path | BinaryIO, members: Mapping[str, bytes], *, packed: bool = True) -> None:
    """Write members, sorted by name, with fixed dates, to a file or behind what an open one has.

    Packed ones have the same bytes again with the same zlib only; others, with any.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(members):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, members[name])


def read(path: Path) -> dict[str, bytes]:
    """Return all members.

    Raises:
        ExportError: There is no such file, or it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    except FileNotFoundError as error:
        raise ExportError(f"there is no bundle {path}") from error
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError) as error:
        raise ExportError(f"the bundle {path} is damaged: {error}") from error


def array_bytes(array: np.ndarray) -> bytes:
    """Return an array as the bytes of a .npy file."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array, order="C"), allow_pickle=False)
    return file.getvalue()


def array(data: bytes) -> np.ndarray:
    """Return the array of a .npy file's bytes; objects (pickles) are refused with ValueError."""
    return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)


def sha256(data: bytes) -> str:
    """Return the hash in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()
