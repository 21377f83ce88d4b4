"""How far two runs are apart."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch


def numbers(value: Any, name: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Every number and array in nested dicts and lists, with its way there."""
    if isinstance(value, torch.Tensor | np.ndarray):
        yield name, np.asarray(value, np.float64)
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield from numbers(value[key], f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for place, part in enumerate(value):
            yield from numbers(part, f"{name}.{place}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, np.asarray(value, np.float64)


def distances(one: Any, other: Any) -> dict[str, float]:
    """The largest difference of each array; both must have the same ones."""
    first, second = dict(numbers(one)), dict(numbers(other))
    assert first.keys() == second.keys()
    return {name: float(np.max(np.abs(first[name] - second[name]), initial=0.0)) for name in first}
