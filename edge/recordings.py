"""Reading recorded samples: a .npz is checked from its headers before anything is allocated, its values before they are used."""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

MOST_BYTES = 2**31  # a file of recorded samples that is held in memory; a board that has more keeps a folder of pieces
KEYS = ("x", "y", "test_x", "test_y")

_ROWS = 4096  # rows checked at a time, so that a check needs little memory
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError)


class SensorError(ValueError):
    """A source of data cannot be used; the text names the file or function, the number and what the bundle wants."""


@dataclass(frozen=True)
class Wanted:
    """What the bundle's graphs take: one sample's shape, its dtype (float32 or int64), and labels 0 to classes - 1."""

    shape: tuple[int, ...]
    dtype: str
    classes: int
    training: bool = True
    """Whether there must be samples to train on; a device that is only tested has none."""


@dataclass(frozen=True)
class _Header:
    """What a member of a .npz says about itself."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


def read_npz(path: Path, wanted: Wanted, most_bytes: int = MOST_BYTES) -> dict[str, Array]:
    """Reads x, y and, where they are there, test_x and test_y; values are not looked at.

    Raises:
        SensorError: the file is missing, empty, damaged, too large, or its headers do not fit what is wanted.
    """
    try:
        _check_filled(path)
        with zipfile.ZipFile(path) as archive:
            members = {name: f"{name}.npy" for name in KEYS if f"{name}.npy" in archive.namelist()}
            check_keys(path.name, list(members))
            headers = {name: _header(archive, member) for name, member in members.items()}
            _check_headers(path.name, headers, wanted, most_bytes)
            return {name: _read_array(archive, member) for name, member in members.items()}
    except SensorError:
        raise
    except OSError as error:
        raise SensorError(f"{path} cannot be read: {error.strerror or error}") from None
    except MemoryError:
        raise SensorError(f"{path.name} does not fit in memory: keep a folder of smaller pieces") from None
    except _DAMAGE as error:
        raise SensorError(f"{path.name} is not a whole .npz file: {error}") from None


def check_keys(name: str, keys: list[str]) -> None:
    """Raises SensorError unless there are x and y, and of test_x and test_y both or neither."""
    pairs = [("x", "y"), ("test_x", "test_y")] if "test_x" in keys or "test_y" in keys else [("x", "y")]
    missing = [key for pair in pairs for key in pair if key not in keys]
    if missing:
        raise SensorError(f"{name} has no {', '.join(missing)}; wanted are x, y and both or neither of test_x, test_y")


def check_arrays(name: str, prefix: str, x: Array, y: Array, wanted: Wanted) -> tuple[Array, npt.NDArray[np.int64]]:
    """Checks samples and labels; returns x as it is and y as int64.

    Raises:
        SensorError: naming the array, the row and the number that is wrong.
    """
    check_shape(name, f"{prefix}x", x.shape, x.dtype, wanted)
    check_labels_shape(name, f"{prefix}y", y.shape, y.dtype, len(x))
    outside = np.flatnonzero((y < 0) | (y >= wanted.classes))
    if outside.size:
        row, others = int(outside[0]), _others(outside.size)
        limits = f"the bundle has {wanted.classes} classes: 0..{wanted.classes - 1}"
        raise SensorError(f"{name}: label {y[row]} at row {row} of {prefix}y{others}, {limits}")
    rows = _not_finite(x) if wanted.dtype == "float32" and x.dtype.kind == "f" else []
    if rows:
        total = sum(count for _, count in rows)
        raise SensorError(
            f"{name}: {prefix}x has {total} values that are not finite in float32, the first at row {rows[0][0]}"
        )
    return x, y.astype(np.int64)


def check_shape(name: str, key: str, shape: tuple[int, ...], dtype: np.dtype[Any], wanted: Wanted) -> None:
    """Raises SensorError unless rows of this shape and type can be given to the bundle's graphs."""
    if len(shape) != len(wanted.shape) + 1 or tuple(shape[1:]) != tuple(wanted.shape):
        rows = ", ".join(["n", *map(str, wanted.shape)])
        raise SensorError(f"{name}: {key} is {tuple(shape)}, the bundle wants ({rows})")
    if dtype.kind not in ("iu" if wanted.dtype == "int64" else "fiub"):
        numbers = "whole numbers" if wanted.dtype == "int64" else "numbers"
        raise SensorError(f"{name}: {key} is {dtype}, the bundle wants {wanted.dtype}: record {numbers}")


def check_labels_shape(name: str, key: str, shape: tuple[int, ...], dtype: np.dtype[Any], rows: int) -> None:
    """Raises SensorError unless there is one whole number for each row."""
    if tuple(shape) != (rows,):
        raise SensorError(f"{name}: {key} is {tuple(shape)}, with {rows} samples it must be ({rows},)")
    if dtype.kind not in "iu":
        raise SensorError(f"{name}: {key} is {dtype}, labels must be whole numbers")


def count_labels(y: npt.NDArray[np.int64]) -> dict[int, int]:
    """Returns how often each label occurs."""
    labels, counts = np.unique(y, return_counts=True)
    return dict(zip(labels.tolist(), counts.tolist(), strict=True))


_HEADER_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def _check_filled(path: Path) -> None:
    if not path.stat().st_size:
        raise SensorError(f"{path.name} is empty (0 bytes)")


def _header(archive: zipfile.ZipFile, member: str) -> _Header:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = _HEADER_READERS.get(version)
        if read is None:
            raise ValueError(f"{member} has the unknown format version {version}")
        shape, _, dtype = read(file)
        if dtype.hasobject:
            raise ValueError(f"{member} holds Python objects, which are never loaded")
        header = _Header(shape, dtype)
        stored = archive.getinfo(member).file_size - file.tell()
        if header.bytes != stored:
            raise ValueError(f"{member} says {header.bytes} bytes and holds {stored}")
        return header


def _check_headers(name: str, headers: dict[str, _Header], wanted: Wanted, most_bytes: int) -> None:
    total = sum(header.bytes for header in headers.values())
    if total > most_bytes:
        raise SensorError(
            f"{name} takes {total / 2**20:.1f} MiB in memory, the limit is {most_bytes / 2**20:.1f} MiB: record smaller pieces"
        )
    for prefix in [""] + ["test_"] * ("test_x" in headers):
        x, y = headers[f"{prefix}x"], headers[f"{prefix}y"]
        check_shape(name, f"{prefix}x", x.shape, x.dtype, wanted)
        check_labels_shape(name, f"{prefix}y", y.shape, y.dtype, x.shape[0])


def _read_array(archive: zipfile.ZipFile, member: str) -> Array:
    with archive.open(member) as file:
        array: Array = np.lib.format.read_array(file, allow_pickle=False)
        return array


def _not_finite(x: Array) -> list[tuple[int, int]]:
    """Returns the rows with values float32 cannot hold, and how many of them."""
    bad: list[tuple[int, int]] = []
    for first in range(0, len(x), _ROWS):
        with np.errstate(over="ignore"):
            part = x[first : first + _ROWS].astype(np.float32).reshape(len(x[first : first + _ROWS]), -1)
        counts = (~np.isfinite(part)).sum(axis=1)
        bad += [(first + int(row), int(counts[row])) for row in np.flatnonzero(counts)]
    return bad


def _others(count: int) -> str:
    return f" and {count - 1} more like it" if count > 1 else ""
