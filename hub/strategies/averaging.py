"""Weighted means of what devices gave: the heart of every federated method."""

# ruff: noqa: RUF002  letters are the papers'

from collections.abc import Mapping

import numpy as np

from edge.wire.weights import STATISTICS
from hub.strategies.base import Fleet, Lower


def shares(fleet: Fleet, names: Mapping[str, object]) -> dict[str, float]:
    """Return δ_i = n_i / Σ n of the devices named, n being their training samples; they sum to 1."""
    samples = {member.name: member.samples for member in fleet.members if member.name in names}
    return {name: count / sum(samples.values()) for name, count in samples.items()}


def mean(states: Mapping[str, Lower], weights: Mapping[str, float]) -> dict[str, np.ndarray]:
    """Return Σ weights[i] · states[i], tensor by tensor, summed in float64 and given in each tensor's own type.

    The sum goes by the devices' names, so that who came first does not show in its last bit.
    """
    in_order = sorted(states.items())
    return {
        name: np.asarray(sum(weights[device] * state[name].astype(np.float64) for device, state in in_order)).astype(
            array.dtype
        )
        for name, array in in_order[0][1].items()
    }


def moved(
    start: Lower, states: Mapping[str, Lower], weights: Mapping[str, float], rates: Mapping[str, float]
) -> dict[str, np.ndarray]:
    """Return start + Σ rates[i] · (states[i] − start); running statistics become the mean by `weights`.

    Where the rates sum to more than 1 the step goes beyond the devices' weights, and a variance must not become negative.
    """
    stay = 1.0 - sum(rates.values())
    beyond = mean({"": start, **states}, {"": stay, **rates})
    between = mean(states, weights)
    return {name: between[name] if name.endswith(STATISTICS) else beyond[name] for name in between}
