"""Samples to measure with: an .npz as a device reads it, or a function of the user's own."""

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export.errors import ExportError

Array = npt.NDArray[Any]

FUNCTION = r"[A-Za-z_][\w.]*:[A-Za-z_]\w*"
LEAST = 16
"""Samples below which nothing can be said."""


@dataclass(frozen=True)
class Calibration:
    """Samples `x` (n, *input) with labels `y` (n,)."""

    x: Array
    y: Array

    def batch(self, step: int, size: int, seed: int = 0) -> tuple[Array, Array]:
        """The samples of one step: every epoch in an order of its own, all of the same size."""
        count = min(size, len(self.x))
        whole = len(self.x) // count
        order = np.random.default_rng([seed, step // whole]).permutation(len(self.x))
        rows = order[(step % whole) * count : (step % whole + 1) * count]
        return self.x[rows], self.y[rows]


def read(source: str, shape: tuple[int, ...], dtype: str, classes: int) -> Calibration:
    """Samples from `source`: the path of an .npz with `x` and `y`, or `package.module:function` that returns both.

    Args:
        source: as `--data` has it.
        shape: of one sample.
        dtype: float32 or int64.
        classes: labels are 0 to classes - 1.

    Raises:
        ExportError: nothing is there, or it does not fit the model.
    """
    x, y = _called(source) if re.fullmatch(FUNCTION, source) else _file(Path(source))
    if x.shape[1:] != shape:
        raise ExportError(f"{source}: samples have the shape {x.shape[1:]}; the model takes {shape}")
    if len(x) != len(y) or len(x) < LEAST:
        raise ExportError(
            f"{source}: {len(x)} samples and {len(y)} labels; wanted are as many of both, at least {LEAST}"
        )
    if (dtype == "int64") != (x.dtype.kind in "iu"):
        raise ExportError(f"{source}: samples are {x.dtype}; the model takes {dtype}")
    if not np.isfinite(x).all():
        raise ExportError(f"{source}: samples have values that are not finite")
    if y.ndim != 1 or y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= classes:
        raise ExportError(f"{source}: labels must be whole numbers from 0 to {classes - 1}, one a sample")
    return Calibration(np.ascontiguousarray(x, dtype), y.astype(np.int64))


def _file(path: Path) -> tuple[Array, Array]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return archive["x"], archive["y"]
    except FileNotFoundError as error:
        raise ExportError(f"there are no calibration data at {path}") from error
    except KeyError as error:
        raise ExportError(f"{path} must hold arrays named x and y: {error.args[0]}") from error
    except (OSError, ValueError, EOFError, TypeError, AttributeError) as error:
        raise ExportError(f"{path} is not an .npz of plain arrays: {error}") from error


def _called(name: str) -> tuple[Array, Array]:
    module, _, attribute = name.partition(":")
    try:
        made = getattr(importlib.import_module(module), attribute)()
    except Exception as error:  # the user's code may raise anything
        raise ExportError(f"{name} failed: {type(error).__name__}: {error}") from error
    if isinstance(made, dict):
        made = (made.get("x"), made.get("y"))
    if not isinstance(made, tuple | list) or len(made) < 2 or any(part is None for part in made[:2]):
        raise ExportError(f"{name} returned a {type(made).__name__}; wanted are the arrays x and y")
    return np.asarray(made[0]), np.asarray(made[1])
