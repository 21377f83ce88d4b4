"""Weighted means of what devices gave: the heart of every federated method. And what is alike in those that do not cut the model."""

# ruff: noqa: A002, ARG002, RUF002  arguments are the contract's, letters the papers'

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Literal, NoReturn

import numpy as np
from torch import Tensor

from hub.strategies.base import Batch, Fleet, Lower, Order, Orders, Stand

STATISTICS = ("running_mean", "running_var")
"""How the names of batch norm's running statistics end."""


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


def local_steps(fleet: Fleet, name: str, epochs: Literal["own", "longest"]) -> int:
    """Return the steps of a device's round: its own batches once, or as many as the device with the most has."""
    return fleet.steps if epochs == "longest" else fleet.members[fleet.index(name)].batches


def ask_for_weights(fleet: Fleet, turn: int, present: Collection[str]) -> Orders | None:
    """Orders that train nothing and bring the hub one device's weights; None once everybody could have been asked.

    For methods whose first update needs the weights that everybody started from: only the devices have them.
    """
    if not present or turn >= len(fleet):
        return None
    # Another one in every turn: who was asked and did not answer may still count as present.
    name = sorted(present)[turn % len(present)]
    return {name: Order(kind="local", first_step=0, steps=0, give=("lower",))}


class Uncut:
    """The side of a strategy whose devices train the whole model: the hub has no segment and learns from no activation.

    The smashed data of an uncut model are its logits. A state has `weights`, the global ones, or None while the hub
    knows none and every device has those of the bundle.
    """

    together: ClassVar[bool] = False

    def learn(self, state: Any, round: int, step: int, batches: Mapping[str, Batch]) -> NoReturn:
        """Nothing is asked for, so nothing can come.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(
            f"{type(self).__name__} trains the whole model on the devices: the hub has nothing to learn from the "
            f"smashed data of {', '.join(batches)} (step {step} of round {round})"
        )

    def end_round(self, state: Any, round: int) -> Any:
        """Nothing: the learning rate is constant."""
        return state

    def stand(self, state: Any, device: str, present: Collection[str]) -> Stand:
        """The global weights for everybody, strangers included; before there are any, the device's own."""
        return Stand(state.weights)

    def predict(self, state: Any, device: str, smashed: Tensor) -> Tensor:
        """What the device sent are the logits already."""
        return smashed

    def samples(self, state: Any) -> int:
        """None ever goes through the hub."""
        return 0
