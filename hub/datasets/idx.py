"""Pictures in IDX files from the user's disk: MNIST, Fashion-MNIST, notMNIST and their kin.

An IDX file: two zero bytes, a type (8 = unsigned byte), the number of dimensions, each dimension as a big-endian uint32, then the values. It may be gzipped.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from hub.datasets.federation import DatasetError, Federation, Labels, Request, Samples
from hub.datasets.shares import hold_out, share

UNSIGNED_BYTE = 8
LARGEST_BYTES = 1 << 30
"""A file that promises more values than this is refused before anything is read."""


def idx(request: Request) -> Federation:
    """Pictures `(1, height, width)` in [0, 1] from a folder with `*train*images*`, `*train*labels*`, `*t10k*images*`, `*t10k*labels*`.

    Without training files, a fifth of every class of the test files is for testing and the rest for training; the provenance says so.

    Raises:
        DatasetError: no folder, a file is missing or damaged, the labels do not fit the pictures.
    """
    if request.folder is None:
        raise DatasetError("the data set 'idx' reads files from your disk: give their folder")
    train, test = _pair(request.folder, "train"), _pair(request.folder, "t10k")
    if test is None:
        raise DatasetError(f"{request.folder} holds no IDX files: *t10k*images* and *t10k*labels* were looked for")
    provenance = f"IDX files of the folder {request.folder.name!r}."
    if train is None:
        x, y = test
        a, b = hold_out(y, np.random.default_rng(request.seed))
        train, test = (x[a], y[a]), (x[b], y[b])
        provenance += " There are no training files: a fifth of the t10k files is for testing, the rest for training."
    names = [str(c) for c in range(1 + int(max(train[1].max(initial=0), test[1].max(initial=0))))]
    return share(request, train, test, names, provenance)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read one IDX file of unsigned bytes, gzipped or not.

    Raises:
        DatasetError: with the name, the expected and the found number of bytes.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return _parse(path.name, cast("BinaryIO", file))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DatasetError(f"{path.name} is damaged: its gzip stream does not end as it should ({error})") from error
    except OSError as error:
        raise DatasetError(f"{path.name} cannot be read: {error.strerror or error}") from error


def _parse(name: str, file: BinaryIO) -> NDArray[np.uint8]:
    head = _exactly(name, file, 4, "the head")
    if head[:2] != b"\0\0" or head[2] != UNSIGNED_BYTE or not 1 <= head[3] <= 4:
        raise DatasetError(
            f"{name} is no IDX file of unsigned bytes: it begins with {head.hex(' ')}, expected 00 00 08 and 1 to 4 dimensions"
        )
    shape = struct.unpack(f">{head[3]}I", _exactly(name, file, 4 * head[3], "the dimensions"))
    size = math.prod(shape)
    if size > LARGEST_BYTES:
        raise DatasetError(f"{name} promises {size} bytes of values; the limit is {LARGEST_BYTES}")
    values = _exactly(name, file, size, f"the values {'x'.join(map(str, shape))}")
    if file.read(1):
        raise DatasetError(f"{name} is damaged: expected {size} bytes of values, found more")
    return np.frombuffer(values, np.uint8).reshape(shape)


def _exactly(name: str, file: BinaryIO, size: int, what: str) -> bytes:
    found = file.read(size)
    if len(found) != size:
        raise DatasetError(f"{name} is damaged: expected {size} bytes for {what}, found {len(found)}")
    return found


def _pair(folder: Path, part: str) -> tuple[Samples, Labels] | None:
    paths = [_one(folder, f"*{part}*{what}*") for what in ("images", "labels")]
    if paths[0] is None and paths[1] is None:
        return None
    if paths[0] is None or paths[1] is None:
        raise DatasetError(
            f"{folder} has the {part} {'labels' if paths[0] is None else 'images'} but not the {'images' if paths[0] is None else 'labels'}"
        )
    images, labels = read_idx(paths[0]), read_idx(paths[1])
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise DatasetError(
            f"{paths[0].name} has the shape {images.shape} and {paths[1].name} {labels.shape}; expected (n, height, width) and (n,)"
        )
    return images[:, None].astype(np.float32) / np.float32(255), labels.astype(np.int64)


def _one(folder: Path, pattern: str) -> Path | None:
    # The unpacked file wins over the packed one beside it: "x" sorts before "x.gz".
    found = sorted(p for p in folder.glob(pattern) if p.is_file())
    if len({p.name.removesuffix(".gz") for p in found}) > 1:
        raise DatasetError(
            f"{folder} has {len(found)} files for {pattern}: {', '.join(p.name for p in found)}; one is expected"
        )
    return found[0] if found else None
