"""A strategy's state as a checkpoint, and back: every field of the state, but for the fleet and what is `BRIEF`."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hub.strategies.base import Fleet

BRIEF = {"brief": True}
"""Metadata of a state's field that means nothing between two rounds, and is not kept."""


def pack(state: Any) -> dict[str, Any]:
    """The state as tensors and plain values that `torch.load(weights_only=True)` reads; nothing of it is shared."""
    return {"fleet": list(state.fleet.names), **{name: _pack(getattr(state, name)) for name in _kept(state)}}


def unpack(saved: Mapping[str, Any], state: Any) -> None:
    """Put what `pack` gave into a fresh state of the same fleet.

    Raises:
        ValueError: it was saved for another fleet or another upper segment.
    """
    _same_fleet(state.fleet, saved["fleet"])
    for name in _kept(state):
        setattr(state, name, _unpack(saved[name], getattr(state, name)))


def _same_fleet(fleet: Fleet, names: list[str]) -> None:
    if names != list(fleet.names):
        raise ValueError(
            f"the checkpoint was made for the devices {', '.join(names)}; these are {', '.join(fleet.names)}"
        )


def _kept(state: Any) -> list[str]:
    return [f.name for f in fields(state) if f.name != "fleet" and "brief" not in f.metadata]


def _pack(value: Any) -> Any:
    if hasattr(value, "save"):
        return value.save()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(value))
    if isinstance(value, Mapping):
        return {key: _pack(part) for key, part in value.items()}
    if is_dataclass(value):
        return {f.name: _pack(getattr(value, f.name)) for f in fields(value)}
    return sorted(value) if isinstance(value, set) else value


def _unpack(saved: Any, fresh: Any) -> Any:
    """A saved value; `fresh` is what the new state has in its place, and tells its type."""
    if hasattr(fresh, "load"):
        fresh.load(saved)
        return fresh
    if isinstance(saved, Tensor):
        return saved.numpy()
    if isinstance(saved, Mapping):
        parts = {key: _unpack(part, None) for key, part in saved.items()}
        return replace(fresh, **parts) if is_dataclass(fresh) and not isinstance(fresh, type) else parts
    return set(saved) if isinstance(fresh, set) else saved
