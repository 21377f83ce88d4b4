"""Where batches come from: a recorded file, a folder that grows, a generator, or a user's own function.

`open_source` reads `[data] source` of the configuration and refuses what the bundle's graphs cannot take. A source of one's own is
one function, without an argument or with the device's name, that returns (x, y), (x, y, test_x, test_y), a dictionary of
these, or an object with `samples`, `test_samples`, `batch(round, step, size, seed)` and `test_batch(index, size)`.
"""

import difflib
import importlib
import inspect
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edge.config import FUNCTION, SYNTHETIC, DeviceConfig
from edge.pieces import Folder
from edge.recordings import KEYS, Array, SensorError, Wanted, check_arrays, check_keys, count_labels, read_npz
from edge.shuffle import Batch, Shuffled, device_number

__all__ = [
    "Batch",
    "Folder",
    "OwnSource",
    "RecordedFile",
    "SensorError",
    "Source",
    "Synthetic",
    "Wanted",
    "open_source",
]

SYNTHETIC_SAMPLES = 256


class Source(Protocol):
    """A device's data. `samples` and `test_samples` count rows."""

    @property
    def samples(self) -> int:
        """Rows to train on."""

    @property
    def test_samples(self) -> int:
        """Rows to test on; 0 where there are none."""

    def batches(self, size: int) -> int:
        """Returns how many batches one pass over the samples has; the last may be short."""

    def batch(self, round: int, step: int, size: int, seed: int) -> Batch:  # noqa: A002  the paper's word for it
        """Returns the batch of a step of a round, the same one whenever it is asked for."""

    def numbers(self, round: int, step: int, size: int, seed: int) -> npt.NDArray[np.int64] | None:  # noqa: A002
        """Returns the numbers of that batch's samples, each the same sample for ever; None where samples have none."""

    def fingerprint(self) -> int:
        """Returns what tells these samples from others under the same numbers; 32 bits."""

    def test_batch(self, index: int, size: int) -> Batch:
        """Returns one batch of test samples, in their recorded order; empty beyond the last."""

    def test_batches(self, size: int) -> Iterator[Batch]:
        """Yields all test samples in order; the last batch may be short."""

    def labels(self) -> dict[int, int]:
        """Returns how many training samples each label has."""


class Arrays(Shuffled):
    """Samples held in memory in the dtype they were recorded in; a batch is converted when it is asked for.

    Args:
        name: what messages call this data.
        arrays: `x`, `y` and, both or neither, `test_x`, `test_y`.
        device: the device's name.
        wanted: what the bundle takes.

    Raises:
        SensorError: an array is missing, empty, of a wrong shape or dtype, not finite, or a label is out of range.
    """

    def __init__(self, name: str, arrays: dict[str, Array], device: str, wanted: Wanted) -> None:
        super().__init__(device, wanted)
        check_keys(name, list(arrays))
        self._x, self._y = check_arrays(name, "", arrays["x"], arrays["y"], wanted)
        empty = np.empty((0, *wanted.shape), wanted.dtype), np.empty(0, np.int64)
        tested = "test_x" in arrays
        self._test = check_arrays(name, "test_", arrays["test_x"], arrays["test_y"], wanted) if tested else empty
        if not self.samples and wanted.training:
            raise SensorError(f"{name} holds no samples: x is {self._x.shape}")

    @property
    def samples(self) -> int:
        """Rows to train on."""
        return len(self._x)

    @property
    def test_samples(self) -> int:
        """Rows to test on."""
        return len(self._test[0])

    @property
    def held_bytes(self) -> int:
        """Bytes of memory that all of them take."""
        return sum(array.nbytes for array in (self._x, self._y, *self._test))

    def labels(self) -> dict[int, int]:
        """Returns how many training samples each label has."""
        return count_labels(self._y)

    def numbers(self, round: int, step: int, size: int, seed: int) -> npt.NDArray[np.int64]:  # noqa: A002
        """Returns the rows of a batch: what is held in memory stays in its place."""
        return self._rows_of(round, step, size, seed)

    def fingerprint(self) -> int:
        """Returns a CRC of the samples and their labels: another file may lie under the same name after a restart."""
        return zlib.crc32(np.ascontiguousarray(self._y).data, zlib.crc32(np.ascontiguousarray(self._x).data))

    def _rows(self, rows: npt.NDArray[np.int64], *, test: bool) -> tuple[Array, Array]:
        x, y = self._test if test else (self._x, self._y)
        return x[rows], y[rows]


class RecordedFile(Arrays):
    """A .npz file with x, y and, where there is something to test on, test_x, test_y."""

    def __init__(self, path: Path, device: str, wanted: Wanted) -> None:
        super().__init__(path.name, read_npz(path, wanted), device, wanted)


class Synthetic(Arrays):
    """Made-up samples, for checks without data: noise around a centre for each class, a fifth of them for testing.

    Token inputs (int64) are zeros and ones, which every vocabulary has.
    """

    def __init__(self, samples: int, device: str, wanted: Wanted) -> None:
        rng = np.random.default_rng([device_number(device), samples])
        y = np.arange(samples + samples // 4) % wanted.classes
        # The centres are the same on all devices, so that there is something to learn together.
        centres = np.random.default_rng(0).normal(size=(wanted.classes, *wanted.shape))
        x = (centres[y] + rng.normal(size=(len(y), *wanted.shape))).astype(np.float32)
        x = (x > 0).astype(np.int64) if wanted.dtype == "int64" else x
        parts: dict[str, Array] = {"x": x[:samples], "y": y[:samples], "test_x": x[samples:], "test_y": y[samples:]}
        super().__init__(f"synthetic:{samples}", parts, device, wanted)


class OwnSource:
    """A user's object behind checks: whatever it returns is looked at before a graph sees it."""

    def __init__(self, name: str, own: Any, wanted: Wanted) -> None:
        missing = [part for part in ("samples", "test_samples", "batch", "test_batch") if not hasattr(own, part)]
        if missing:
            raise SensorError(f"{name} returned a {type(own).__name__} without {', '.join(missing)}")
        self._name, self._own, self._wanted = name, own, wanted

    @property
    def samples(self) -> int:
        """Rows to train on."""
        return int(self._own.samples)

    @property
    def test_samples(self) -> int:
        """Rows to test on."""
        return int(self._own.test_samples)

    def batches(self, size: int) -> int:
        """Returns how many batches one pass over the samples has."""
        return -(-self.samples // size)

    def batch(self, round: int, step: int, size: int, seed: int) -> Batch:  # noqa: A002  the paper's word for it
        """Returns the user's batch of a step, checked."""
        return self._checked(f"batch of step {step}", lambda: self._own.batch(round, step, size, seed))

    def numbers(self, round: int, step: int, size: int, seed: int) -> None:  # noqa: A002
        """Returns None: what the user's object gives may be new every time."""

    def fingerprint(self) -> int:
        """Returns nothing of use: samples have no numbers."""
        return 0

    def test_batch(self, index: int, size: int) -> Batch:
        """Returns one of the user's batches of test samples, checked."""
        return self._checked(f"test batch {index}", lambda: self._own.test_batch(index, size))

    def test_batches(self, size: int) -> Iterator[Batch]:
        """Yields all test samples in order."""
        for index in range(-(-self.test_samples // size)):
            yield self.test_batch(index, size)

    def labels(self) -> dict[int, int]:
        """Returns how many training samples each label has; empty when the user's object does not tell."""
        return dict(self._own.labels()) if hasattr(self._own, "labels") else {}

    def _checked(self, what: str, take: Callable[[], Any]) -> Batch:
        taken = _called(f"{self._name}, {what}", take)
        x, y = (taken.x, taken.y) if hasattr(taken, "x") else taken
        x, y = check_arrays(f"{self._name}, {what}", "", np.asarray(x), np.asarray(y), self._wanted)
        return Batch(np.ascontiguousarray(x, self._wanted.dtype), y)


def open_source(config: DeviceConfig, shape: tuple[int, ...], dtype: str, classes: int) -> Source:
    """Opens what `[data] source` names, and checks it against what the bundle takes.

    Args:
        config: the device's configuration.
        shape: of one sample, without the batch.
        dtype: `float32` or `int64` (token ids).
        classes: labels are 0 to classes - 1.

    Raises:
        SensorError: it is missing, empty or damaged, or does not fit the bundle.
    """
    source, device = config.data.source, config.device.name
    wanted = Wanted(tuple(shape), dtype, classes, training=not config.data.only_tested)
    if re.fullmatch(SYNTHETIC, source):
        return Synthetic(int(source.partition(":")[2] or SYNTHETIC_SAMPLES), device, wanted)
    if re.fullmatch(FUNCTION, source):
        return _own(source, device, wanted)
    path = Path(source)
    if path.is_dir():
        return Folder(path, device, wanted, config.device.state_directory / "pieces.json")
    return RecordedFile(path, device, wanted)


def _own(name: str, device: str, wanted: Wanted) -> Source:
    """Calls the user's function and takes what it returns."""
    function = _find(name)
    arguments = [device] if inspect.signature(function).parameters else []
    made = _called(name, lambda: function(*arguments))
    if isinstance(made, tuple | list):
        if len(made) not in (2, 4):
            raise SensorError(f"{name} returned {len(made)} arrays, wanted are 2 (x, y) or 4 (x, y, test_x, test_y)")
        made = dict(zip(KEYS, made, strict=False))
    if isinstance(made, Mapping):
        return Arrays(name, {key: np.asarray(value) for key, value in made.items()}, device, wanted)
    return OwnSource(name, made, wanted)


def _find(name: str) -> Callable[..., Any]:
    package, _, attribute = name.partition(":")
    module = _called(f"{name}: import of {package}", lambda: importlib.import_module(package))
    function = getattr(module, attribute, None)
    if function is None:
        near = difflib.get_close_matches(attribute, dir(module), n=1)
        raise SensorError(f"{name}: {package} has no {attribute}{f': did you mean {near[0]}?' if near else ''}")
    if not callable(function):
        raise SensorError(f"{name} is a {type(function).__name__}, not a function")
    return function  # type: ignore[no-any-return]  # the user's own, of any kind


def _called(what: str, call: Callable[[], Any]) -> Any:
    """Calls the user's code; whatever it raises becomes a sentence that names it."""
    try:
        return call()
    except Exception as error:
        raise SensorError(f"{what} failed: {type(error).__name__}: {error}") from error
