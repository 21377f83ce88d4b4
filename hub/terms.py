"""What a run is held to, and what the devices' messages have to look like in it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy.typing as npt


@dataclass(frozen=True)
class Terms:
    """What a run is held to."""

    rounds: int
    batch: int
    """Samples a batch."""
    seed: int
    run: int
    """Random for each run, the same after a restart: devices start over with another one."""
    devices: int
    """Devices to wait for at the start."""
    minimum_devices: int
    """With fewer, the run waits."""
    gather_seconds: float
    """Longest wait for the devices at the start; then the run begins with those who came, if they are enough."""
    patient: bool = field(default=False, kw_only=True)
    """Whether the start is put off for as long as they are not enough: boards have yet to be enrolled."""
    order: Literal["free", "fixed"]
    """Whether turns go on without the late, or wait for everybody."""
    turn_seconds: float
    """Deadline of a turn."""
    grace_seconds: float
    """How long a turn waits for a device that has gone."""
    evaluate_every: int
    """Rounds between evaluations; 0 evaluates after the last round only."""
    codec: str
    """Codec of smashed data and gradients in training."""
    evaluation_codec: str
    rounds_per_order: int = 1
    """Rounds in which nobody sends anything that one order covers."""
    weights_codec: str = "float32"
    """Codec of weights, both ways; float32 sends them as they are."""
    budget: Mapping[str, float] = field(default_factory=dict)
    """Amounts that hold for devices without a budget of their own; names as in `edge.wire.budget`."""
    skip_below: float = 0.0
    """Devices do not send a sample again whose activation has changed by less than this share; 0: they do."""
    refresh_rounds: int = 0
    """After so many rounds they do."""


@dataclass(frozen=True)
class Shapes:
    """What an activation of this run looks like."""

    bundle: str
    """Id of the devices' bundle."""
    smashed: tuple[int, ...]
    """Shape of one sample's smashed data."""
    classes: int
    given: Mapping[str, Mapping[str, tuple[int, ...]]] = field(default_factory=dict)
    """Shapes of the tensors of each part that devices may be asked for; under `end` those that come with any local order."""
    start: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    """The weights that devices begin with, by name; none where the hub does not know them."""
