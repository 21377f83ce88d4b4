"""Weighted means of what devices gave: the heart of every federated method."""

from collections.abc import Mapping

import numpy as np

from hub.strategies.base import Fleet, Lower


def shares(fleet: Fleet, names: Mapping[str, object]) -> dict[str, float]:
    """Return δ_i = n_i / Σ n of the devices named, n being their training samples; they sum to 1."""
    samples = {member.name: member.samples for member in fleet.members if member.name in names}
    return {name: count / sum(samples.values()) for name, count in samples.items()}


def mean(states: Mapping[str, Lower], weights: Mapping[str, float]) -> dict[str, np.ndarray]:
    """Return Σ weights[i] · states[i], tensor by tensor, summed in float64 and given in each tensor's own type."""
    first = next(iter(states.values()))
    return {
        name: np.asarray(
            sum(weights[device] * state[name].astype(np.float64) for device, state in states.items())
        ).astype(array.dtype)
        for name, array in first.items()
    }
