"""What a source of data is asked for and what it returns, and the file a board reads."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
Labels = NDArray[np.int64]


class DatasetError(ValueError):
    """The data cannot be used as asked for; the message says what, the number and the limit."""


@dataclass(frozen=True)
class Request:
    """What `hub.datasets.split` asks of a source; a source ignores nothing in silence: what it cannot do, it refuses."""

    name: str
    devices: int
    windows: Literal["scarce", "spread", "all"]
    seed: int
    folder: Path | None = None
    new_wearers: int = 0
    classes_per_device: int | None = None


@dataclass(frozen=True, eq=False)
class DeviceData:
    """One device's own samples, and nobody else's.

    `x_*` are `(n, *shape)` float32 in the model's input scale, `y_*` are `(n,)` int64. A device that is only tested has `n = 0` training samples.
    """

    x_train: Samples
    y_train: Labels
    x_test: Samples
    y_test: Labels


@dataclass(frozen=True, eq=False)
class Federation(Mapping[str, DeviceData]):
    """The shares of the devices that train, as a mapping from the device's name.

    `unseen` holds devices that take no part in training; `provenance` says in a sentence where the data come from and how they were split.
    """

    devices: Mapping[str, DeviceData]
    class_names: tuple[str, ...]
    provenance: str
    unseen: Mapping[str, DeviceData] = field(default_factory=dict)

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return next(iter(self.devices.values())).x_test.shape[1:]

    def __getitem__(self, name: str) -> DeviceData:
        return self.devices[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.devices)

    def __len__(self) -> int:
        return len(self.devices)


def check(name: str, federation: object) -> Federation:
    """Refuse shares that could not train or be tested.

    Raises:
        DatasetError: not a `Federation`; no device; empty, misshapen or non-finite samples; a label out of range.
    """
    if not isinstance(federation, Federation):
        raise DatasetError(
            f"the data set {name!r} returned a {type(federation).__name__}; it must return a hub.datasets.Federation"
        )
    if not federation.devices:
        raise DatasetError(f"the data set {name!r} has no device to train on")
    if federation.classes < 2:
        raise DatasetError(f"the data set {name!r} names {federation.classes} classes; at least 2 are needed")
    for device, data in federation.items():
        if not len(data.x_train):
            raise DatasetError(f"{device} of the data set {name!r} has no training samples")
        _check_part(device, "training", data.x_train, data.y_train, federation)
    for device, data in [*federation.items(), *federation.unseen.items()]:
        if not len(data.x_test):
            raise DatasetError(f"{device} of the data set {name!r} has no test samples")
        _check_part(device, "test", data.x_test, data.y_test, federation)
    return federation


def _check_part(device: str, part: str, x: Samples, y: Labels, federation: Federation) -> None:
    if x.dtype != np.float32 or y.dtype != np.int64:
        raise DatasetError(
            f"the {part} data of {device} are {x.dtype} with {y.dtype} labels; float32 and int64 are needed"
        )
    if len(x) != len(y) or y.ndim != 1:
        raise DatasetError(
            f"the {part} data of {device} have {len(x)} samples and labels of shape {y.shape}; there must be one label a sample"
        )
    if x.shape[1:] != federation.shape:
        raise DatasetError(
            f"the {part} samples of {device} have the shape {x.shape[1:]}; the others have {federation.shape}"
        )
    if not np.isfinite(x).all():
        raise DatasetError(
            f"the {part} data of {device} hold {np.count_nonzero(~np.isfinite(x))} values that are not finite"
        )
    wrong = y[(y < 0) | (y >= federation.classes)]
    if len(wrong):
        raise DatasetError(
            f"the {part} data of {device} have the label {wrong[0]}; labels go from 0 to {federation.classes - 1}"
        )


def write_device_file(path: Path, data: DeviceData) -> None:
    """Write what one board reads: an .npz with `x`, `y`, `test_x`, `test_y`, never pickled, the same bytes for the same data.

    The file appears whole or not at all.
    """
    for array in (data.x_train, data.y_train, data.x_test, data.y_test):
        if array.dtype.hasobject:  # numpy would pickle these
            raise DatasetError(
                f"{path.name} would hold Python objects ({array.dtype}); a device file holds numbers only"
            )
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        np.savez(file, x=data.x_train, y=data.y_train, test_x=data.x_test, test_y=data.y_test)
    part.replace(path)
