"""Data for a fleet: one share of training and test samples a device.

A source is one function that takes a `Request` and returns a `Federation`. Those that ship are named in `SOURCES`; a user's own is named the same way on the command line,
`--dataset package.module:function`, and gets no other treatment:

    def greenhouse(request: Request) -> Federation:
        shares = {f"bed-{i}": DeviceData(x_train, y_train, x_test, y_test) for i in range(request.devices)}
        return Federation(shares, class_names=("dry", "moist", "wet"), provenance="our own recordings of 2025")
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from hub.datasets.federation import DatasetError, DeviceData, Federation, Request, check, write_device_file

__all__ = ["SOURCES", "DatasetError", "DeviceData", "Federation", "Request", "split", "write_device_file"]

SOURCES = {
    "wearables": "hub.datasets.wearables:wearables",
    "digits": "hub.datasets.digits:digits",
    "idx": "hub.datasets.idx:idx",
    "cifar": "hub.datasets.cifar:cifar",
}


def split(
    name: str,
    devices: int,
    windows: Literal["scarce", "spread", "all"],
    seed: int,
    folder: Path | None,
    new_wearers: int = 0,
    classes_per_device: int | None = None,
) -> Federation:
    """Share a data set over a fleet.

    Args:
        name: a key of `SOURCES`, or a user's own `package.module:function`.
        devices: how many devices train.
        windows: `scarce` leaves every device five labelled samples of each class, in a row where samples lie in time; `spread` takes them
            from all of the training time; `all` leaves everything.
        seed: the same seed gives the same shares, byte for byte.
        folder: where the files lie, for the sources that read the user's disk.
        new_wearers: devices that take no part in training and are only tested (`Federation.unseen`).
        classes_per_device: where the source allows it, how many different classes one device holds.

    Returns:
        The shares: float32 samples `(n, *shape)` and int64 labels `(n,)` for each device.

    Raises:
        DatasetError: the source is unknown, its package is missing, a file is damaged, or a share makes no sense.
    """
    if devices < 1:
        raise DatasetError(f"{devices} devices were asked for; at least 1 is needed")
    if windows not in ("scarce", "spread", "all"):
        raise DatasetError(f"windows is {windows!r}; it must be 'scarce', 'spread' or 'all'")
    if new_wearers < 0:
        raise DatasetError(f"{new_wearers} new wearers were asked for; it must be 0 or more")
    source = _source(name)
    federation = source(Request(name, devices, windows, seed, folder, new_wearers, classes_per_device))
    return check(name, federation)


def _source(name: str) -> Callable[[Request], Federation]:
    module_name, _, function_name = SOURCES.get(name, name).partition(":")
    if not function_name:
        raise DatasetError(
            f"unknown data set {name!r}: take one of {', '.join(SOURCES)}, or name your own function as package.module:function"
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise DatasetError(_missing(name, str(error.name))) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise DatasetError(
            f"the data set {name!r} names no function: the module {module_name!r} has no {function_name!r} that can be called"
        )
    return function


def _missing(name: str, module: str) -> str:
    if name in SOURCES:
        return (
            f"the data set {name!r} needs the package {module!r}, which is not installed: pip install 'cutlayer[data]'"
        )
    return f"the data set {name!r} cannot be loaded: there is no module {module!r} on the Python path"
