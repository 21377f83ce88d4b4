"""What federated methods do to the gradient of a device, and to its state before and after a round of local steps.

Vectors are flat, of the length of the weights. `begin` and `end` become graphs of their own, which a device runs before
the first and after the last step of a local order.
"""

from collections.abc import Mapping
from typing import ClassVar, Protocol

from torch import Tensor

from edge.wire.manifest import Setting

Vectors = Mapping[str, Tensor]


class Correction(Protocol):
    """One row of `export.objectives`; state and settings go by name."""

    vectors: ClassVar[tuple[str, ...]]
    """Further state vectors, all starting at zero."""
    settings: ClassVar[dict[str, Setting]]

    def gradient(self, gradient: Tensor, state: Vectors, setting: Vectors) -> Tensor:
        """Return the gradient that the optimizer gets."""

    def begin(self, state: Vectors) -> dict[str, Tensor]:
        """Return the state vectors that change before the first step."""

    def end(self, state: Vectors, setting: Vectors) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the state vectors that change after the last step, and what goes up to the hub."""


class Fresh:
    """FedAvg (McMahan et al., 2017): plain local training."""

    vectors: ClassVar[tuple[str, ...]] = ()
    settings: ClassVar[dict[str, Setting]] = {}

    def gradient(self, gradient: Tensor, state: Vectors, setting: Vectors) -> Tensor:  # noqa: ARG002  the contract's
        """Return the gradient as it is."""
        return gradient

    def begin(self, state: Vectors) -> dict[str, Tensor]:  # noqa: ARG002  the contract's
        """Change nothing."""
        return {}

    def end(self, state: Vectors, setting: Vectors) -> tuple[dict[str, Tensor], dict[str, Tensor]]:  # noqa: ARG002  the contract's
        """Change nothing, hand out nothing."""
        return {}, {}


class Proximal(Fresh):
    """FedProx (Li et al., 2020): the loss has the term (mu/2) |w - anchor|^2, the anchor being the weights of the round's start."""

    vectors: ClassVar[tuple[str, ...]] = ("anchor",)
    settings: ClassVar[dict[str, Setting]] = {"mu": Setting(0.01, 0.0, 1e3)}

    def gradient(self, gradient: Tensor, state: Vectors, setting: Vectors) -> Tensor:
        """Add the derivative of the term, mu (w - anchor)."""
        return gradient + setting["mu"] * (state["weights"] - state["anchor"])

    def begin(self, state: Vectors) -> dict[str, Tensor]:
        """Drop the anchor."""
        return {"anchor": state["weights"].clone()}


class ControlVariates(Fresh):
    """SCAFFOLD (Karimireddy et al., 2020), option II.

    Steps go along g + c - c_i; after the round c_i becomes c_i - c + (x - y) / (K lr), and its change goes up. The device
    keeps c_i as `own`; c comes down as `common`.
    """

    vectors: ClassVar[tuple[str, ...]] = ("anchor", "own", "common")
    settings: ClassVar[dict[str, Setting]] = {"local_steps": Setting(1.0, 1.0, 1e6)}

    def gradient(self, gradient: Tensor, state: Vectors, setting: Vectors) -> Tensor:  # noqa: ARG002  the contract's
        """Correct the drift."""
        return gradient + state["common"] - state["own"]

    def begin(self, state: Vectors) -> dict[str, Tensor]:
        """Remember x."""
        return {"anchor": state["weights"].clone()}

    def end(self, state: Vectors, setting: Vectors) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the new c_i, and its change for the hub."""
        way = (state["anchor"] - state["weights"]) / (setting["local_steps"] * setting["lr"])
        return {"own": state["own"] + (way - state["common"])}, {"change": way - state["common"]}
