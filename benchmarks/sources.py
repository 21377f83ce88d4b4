"""The papers' splits as data sets of a user's own: `cutlayer-hub demo --dataset benchmarks.sources:mixed_cifar --data DIR`.

All are cut down to a size a device (`SIZES`), so that a run takes tens of seconds, and all pictures are 32x32, as LeNet wants
them. What is looked for in DIR:

    CIFAR-10        data_batch_*.bin and test_batch.bin, or cifar10*.npz (`hub.datasets.cifar`)
    other sets      IDX files, gzipped or not, in a folder of the set's name (fashion-mnist, mnist, notmnist) or named notmnist-…
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hub.datasets.cifar import cifar
from hub.datasets.digits import digits
from hub.datasets.federation import DatasetError, DeviceData, Federation, Labels, Request, Samples
from hub.datasets.idx import read_idx
from hub.datasets.shares import hold_out, share

Pool = tuple[tuple[Samples, Labels], tuple[Samples, Labels]]
"""Training samples with labels, test samples with labels."""


@dataclass(frozen=True)
class Size:
    """Most samples a device trains on and is tested on."""

    train: int
    test: int


SIZES = {"fashion": Size(200, 200), "mixed_cifar": Size(256, 200), "mixed_noniid": Size(200, 200)}
CLASSES = 5
"""Classes of each part of Mixed-NonIID."""
PICTURE = 32


def fashion(request: Request) -> Federation:
    """Fashion-MNIST `(1, 32, 32)` in [0, 1]: two classes a device, each class on one device of five.

    Raises:
        DatasetError: the files are not in the folder, or are damaged.
    """
    train, test = _idx(_folder(request), "fashion-mnist")
    names = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
    dealt = share(_two_classes(request), _padded(train), _padded(test), names, "Fashion-MNIST (Zalando, MIT).")
    return _at_most(dealt, SIZES["fashion"])


def mixed_cifar(request: Request) -> Federation:
    """AdaSplit's Mixed-CIFAR: CIFAR-10 `(3, 32, 32)`, two classes a device. That labels are those of all ten classes is ours.

    Raises:
        DatasetError: the files are not in the folder, or are damaged.
    """
    return _at_most(cifar(_two_classes(request)), SIZES["mixed_cifar"])


def mixed_noniid(request: Request) -> Federation:
    """AdaSplit's Mixed-NonIID, one data set a device, five classes of each, `(3, 32, 32)`; labels are of all 25 [ours].

    Two halves of CIFAR-10 stand for CIFAR-10 and CIFAR-100. Where there is no folder `mnist`, scikit-learn's digits,
    four times as large, stand for it. The provenance names what was taken.

    Raises:
        DatasetError: it is asked for in another way, or files are missing or damaged.
    """
    if request.devices != len(PARTS) or request.windows != "all" or request.classes_per_device or request.new_wearers:
        raise DatasetError(
            f"mixed_noniid has one data set for each of {len(PARTS)} devices: ask for --devices {len(PARTS)} --windows all and nothing else"
        )
    parts = list(_parts(_folder(request), request.seed))
    shares = {}
    for number, (name, pool) in enumerate(parts):
        train, test = (_renumbered(x, y, number) for x, y in pool)
        rng = np.random.default_rng([request.seed, number])
        size = SIZES["mixed_noniid"]
        shares[f"{number + 1}-{name}"] = DeviceData(*_some(*train, size.train, rng), *_some(*test, size.test, rng))
    names = tuple(f"{name} {label}" for name, _ in parts for label in range(CLASSES))
    provenance = (
        f"Mixed-NonIID: {', '.join(name for name, _ in parts)}; {CLASSES} classes of each; seed {request.seed}."
    )
    return Federation(shares, names, provenance)


PARTS = ("cifar10-low", "cifar10-high", "fashion-mnist", "mnist", "notmnist")


def _parts(folder: Path, seed: int) -> Iterator[tuple[str, Pool]]:
    """Name and samples of each part, with labels from 0 to 4 for the classes that are used."""
    whole = cifar(Request("cifar", 1, "all", seed, folder))["device-01"]
    for name, first in (("cifar10-low", 0), ("cifar10-high", CLASSES)):
        train, test = (whole.x_train, whole.y_train - first), (whole.x_test, whole.y_test - first)
        yield name, (_five(*train), _five(*test))
    for name in ("fashion-mnist", "mnist", "notmnist"):
        found = name != "mnist" or (folder / name).is_dir()
        train, test = _idx(folder, name) if found else _digits(seed)
        yield name if found else "digits", (_coloured(*_five(*train)), _coloured(*_five(*test)))


def _five(x: Samples, y: Labels) -> tuple[Samples, Labels]:
    rows = (y >= 0) & (y < CLASSES)
    return x[rows], y[rows]


def _renumbered(x: Samples, y: Labels, part: int) -> tuple[Samples, Labels]:
    return x, y + part * CLASSES


def _some(x: Samples, y: Labels, most: int, rng: np.random.Generator) -> tuple[Samples, Labels]:
    """At most so many samples, of every class alike."""
    each = most // CLASSES
    rows = rng.permutation(np.concatenate([rng.permutation(np.flatnonzero(y == c))[:each] for c in np.unique(y)]))
    return x[rows], y[rows]


def _digits(seed: int) -> Pool:
    """The 8x8 digits at four times their size."""
    (data,) = digits(Request("digits", 1, "all", seed)).devices.values()
    train, test = (x.repeat(PICTURE // 8, axis=2).repeat(PICTURE // 8, axis=3) for x in (data.x_train, data.x_test))
    return (train, data.y_train), (test, data.y_test)


def _coloured(x: Samples, y: Labels) -> tuple[Samples, Labels]:
    """Grey pictures `(1, h, w)` in [0, 1] as `(3, 32, 32)` in [-1, 1], about the range of CIFAR's."""
    padded, _ = _padded((x, y))
    return np.repeat(padded * np.float32(2) - np.float32(1), 3, axis=1), y


def _padded(samples: tuple[Samples, Labels]) -> tuple[Samples, Labels]:
    x, y = samples
    margin = (PICTURE - x.shape[-1]) // 2
    return np.pad(x, ((0, 0), (0, 0), (margin, margin), (margin, margin))), y


def _idx(folder: Path, name: str) -> Pool:
    """A set's IDX files; without training files four fifths of the t10k files are for training."""
    test = _read(folder, name, "t10k")
    if test is None:
        raise DatasetError(f"{folder} holds no {name}: {name}/*t10k*images* or {name}*t10k*images* was looked for")
    train = _read(folder, name, "train")
    if train is None:
        x, y = test
        a, b = hold_out(y, np.random.default_rng(0))
        return (x[a], y[a]), (x[b], y[b])
    return train, test


def _read(folder: Path, name: str, part: str) -> tuple[Samples, Labels] | None:
    paths = [_first(folder, name, f"{part}*{what}") for what in ("images", "labels")]
    if paths[0] is None or paths[1] is None:
        return None
    x, y = read_idx(paths[0]), read_idx(paths[1])
    return x[:, None].astype(np.float32) / np.float32(255), y.astype(np.int64)


def _first(folder: Path, name: str, what: str) -> Path | None:
    inside = folder / name if (folder / name).is_dir() else None
    found = [*inside.glob(f"*{what}*")] if inside else [*folder.glob(f"{name}*{what}*")]
    if not found and folder.name == name:
        found = [*folder.glob(f"*{what}*")]
    return min(found, default=None)


def _two_classes(request: Request) -> Request:
    return replace(request, classes_per_device=request.classes_per_device or 2)


def _at_most(federation: Federation, size: Size) -> Federation:
    """The first samples of each device, which are dealt by chance."""
    shares = {
        name: DeviceData(data.x_train[: size.train], data.y_train[: size.train], data.x_test[: size.test], data.y_test[: size.test])
        for name, data in federation.items()
    }  # fmt: skip
    told = f"{federation.provenance} At most {size.train} training and {size.test} test samples a device."
    return Federation(shares, federation.class_names, told, federation.unseen)


def _folder(request: Request) -> Path:
    if request.folder is None:
        raise DatasetError(f"the data set {request.name!r} reads files from your disk: give their folder")
    return request.folder
