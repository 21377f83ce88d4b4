"""CIFAR-10 from the user's disk: the original binary files, or an .npz of part of them."""

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hub.datasets.federation import DatasetError, Federation, Labels, Request, Samples
from hub.datasets.shares import share

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RECORD_BYTES = 1 + 3 * 32 * 32
"""A label, then the red, green and blue plane of a picture, row by row."""
# The mean and deviation of the channels everyone uses for CIFAR-10: constants, so that no board needs to see another's pictures.
MEAN = np.array([0.4914, 0.4822, 0.4465], np.float32)[:, None, None]
DEVIATION = np.array([0.2470, 0.2435, 0.2616], np.float32)[:, None, None]


def cifar(request: Request) -> Federation:
    """Pictures `(3, 32, 32)`, normalised per channel with fixed constants, 10 classes.

    The folder holds `data_batch_*.bin` and `test_batch.bin` (also in `cifar-10-batches-bin/`), or one `cifar10*.npz` with `xtr`, `ytr`, `xte`, `yte`.
    Without a choice every device holds all classes; `classes_per_device=2` is the Mixed-CIFAR split of AdaSplit.

    Raises:
        DatasetError: no folder, a file is missing or damaged.
    """
    if request.folder is None:
        raise DatasetError("the data set 'cifar' reads files from your disk: give their folder")
    train, test, provenance = _load(request.folder)
    return share(request, train, test, CLASSES, provenance)


def read_bin(path: Path) -> tuple[NDArray[np.uint8], Labels]:
    """Read one original file: pictures `(n, 3, 32, 32)` uint8 and labels `(n,)`.

    Raises:
        DatasetError: its length is not a whole number of records.
    """
    size = path.stat().st_size
    if not size or size % RECORD_BYTES:
        raise DatasetError(f"{path.name} is damaged: expected a multiple of {RECORD_BYTES} bytes, found {size}")
    records = np.fromfile(path, np.uint8).reshape(-1, RECORD_BYTES)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].astype(np.int64)


def _load(folder: Path) -> tuple[tuple[Samples, Labels], tuple[Samples, Labels], str]:
    for place in (folder, folder / "cifar-10-batches-bin"):
        batches, test = sorted(place.glob("data_batch_*.bin")), place / "test_batch.bin"
        if batches and test.is_file():
            parts = [read_bin(path) for path in batches]
            x, y = (np.concatenate(column) for column in zip(*parts, strict=True))
            return (
                _scaled(x, y),
                _scaled(*read_bin(test)),
                f"CIFAR-10 (Krizhevsky 2009), {len(batches)} binary files of {place.name!r}.",
            )
    archives = sorted(folder.glob("cifar10*.npz"))
    if len(archives) != 1:
        raise DatasetError(
            f"{folder} holds no CIFAR-10: data_batch_*.bin with test_batch.bin, or one cifar10*.npz, were looked for ({len(archives)} .npz found)"
        )
    return *_read_npz(archives[0]), f"CIFAR-10 (Krizhevsky 2009), {archives[0].name}."


def _read_npz(path: Path) -> tuple[tuple[Samples, Labels], tuple[Samples, Labels]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return _scaled(archive["xtr"], archive["ytr"]), _scaled(archive["xte"], archive["yte"])
    except KeyError as error:
        raise DatasetError(f"{path.name} lacks an array: expected xtr, ytr, xte and yte ({error.args[0]})") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path.name} is damaged: {error}") from error


def _scaled(x: NDArray[np.uint8], y: NDArray[np.integer]) -> tuple[Samples, Labels]:
    if x.shape[1:] != (3, 32, 32) or x.dtype != np.uint8 or len(x) != len(y):
        raise DatasetError(
            f"pictures {x.shape} {x.dtype} with labels {y.shape}; expected (n, 3, 32, 32) uint8 with (n,)"
        )
    return ((x.astype(np.float32) / np.float32(255) - MEAN) / DEVIATION).astype(np.float32), y.astype(np.int64)
