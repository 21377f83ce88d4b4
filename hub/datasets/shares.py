"""Sharing a pool of labelled samples, as the pictures are, over devices."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hub.datasets.federation import DatasetError, DeviceData, Federation, Labels, Request, Samples

SCARCE = 5
"""How many labelled samples of each class a device has in the scarce task."""

Indices = NDArray[np.int64]


def share(
    request: Request,
    train: tuple[Samples, Labels],
    test: tuple[Samples, Labels],
    class_names: Sequence[str],
    provenance: str,
) -> Federation:
    """Deal training and test samples to devices, every sample to at most one of them.

    All devices hold all classes in equal measure, or `classes_per_device` of them each, which go round so that all classes are used before one repeats.
    The test samples of a device are of its own classes.

    Args:
        request: how many devices, how many samples, which seed.
        train: samples `(n, *shape)` and labels `(n,)`.
        test: the same, for testing.
        class_names: one a class.
        provenance: where the samples come from; how they were dealt is added.

    Raises:
        DatasetError: a label without a class, more classes a device than there are, or new wearers where nobody wears anything.
    """
    if request.new_wearers:
        raise DatasetError(
            f"the data set {request.name!r} has no wearers that could be left out; {request.new_wearers} were asked for"
        )
    for y in (train[1], test[1]):
        if y.max(initial=0) >= len(class_names):
            raise DatasetError(
                f"the data set {request.name!r} has the label {y.max()}; labels go from 0 to {len(class_names) - 1}"
            )
    rng = np.random.default_rng(request.seed)
    held = _classes_of(request, len(class_names), rng)
    train_parts = deal(train[1], held, rng)
    test_parts = deal(test[1], held, rng)
    if request.windows != "all":
        train_parts = [_first_of_each(train[1], part) for part in train_parts]
    shares = {
        f"device-{i + 1:02d}": DeviceData(train[0][a], train[1][a], test[0][b], test[1][b])
        for i, (a, b) in enumerate(zip(train_parts, test_parts, strict=True))
    }
    return Federation(shares, tuple(class_names), f"{provenance} {_how(request)}")


def deal(y: Labels, held: Sequence[Sequence[int]], rng: np.random.Generator) -> list[Indices]:
    """Indices of the samples of each device: every class is shuffled and cut evenly among the devices that hold it."""
    parts: list[list[Indices]] = [[] for _ in held]
    for label in np.unique(y):
        holders = [device for device, classes in enumerate(held) if label in classes]
        # Without turning the holders, device 1 would get the odd sample of every class.
        holders = holders[label % len(holders) :] + holders[: label % len(holders)] if holders else []
        pieces = np.array_split(rng.permutation(np.flatnonzero(y == label)), max(1, len(holders)))
        for device, piece in zip(holders, pieces, strict=False):
            parts[device].append(piece)
    return [rng.permutation(np.concatenate(part)) if part else np.empty(0, np.int64) for part in parts]


def hold_out(y: Labels, rng: np.random.Generator, fraction: float = 0.2) -> tuple[Indices, Indices]:
    """Indices to train on and to test on, the same fraction of every class held out."""
    held_out = np.concatenate(
        [
            rng.permutation(rows)[: round(fraction * len(rows))]
            for rows in (np.flatnonzero(y == c) for c in np.unique(y))
        ]
    )
    return np.setdiff1d(np.arange(len(y)), held_out), np.sort(held_out)


def _classes_of(request: Request, classes: int, rng: np.random.Generator) -> list[list[int]]:
    wanted = request.classes_per_device
    if wanted is None:
        return [list(range(classes))] * request.devices
    if not 1 <= wanted <= classes:
        raise DatasetError(f"{wanted} classes a device were asked for; the data set {request.name!r} has {classes}")
    order = rng.permutation(classes).tolist()
    return [[order[(device * wanted + i) % classes] for i in range(wanted)] for device in range(request.devices)]


def _first_of_each(y: Labels, part: Indices) -> Indices:
    """Keep the first samples of each class, in the order they were dealt in (which is by chance)."""
    kept = [part[y[part] == label][:SCARCE] for label in np.unique(y[part])]
    return np.concatenate(kept) if kept else part


def _how(request: Request) -> str:
    classes = (
        "all classes alike" if request.classes_per_device is None else f"{request.classes_per_device} classes each"
    )
    amount = f", {SCARCE} labelled samples of each class a device" if request.windows != "all" else ""
    return f"Dealt to {request.devices} devices, {classes}{amount}; seed {request.seed}."
