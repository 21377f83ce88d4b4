"""Seconds, joules and bytes of a round for one device: what its steps take, and what its messages take on the link.

Computing and sending are added up, as if they never overlapped; the hub's own time, round trips and other devices are left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from export.cuts.coded import Sizes
from export.cuts.link import Link, on_the_wire
from export.cuts.strategies import Round

ORDER_BYTES, REPORT_BYTES = 260.0, 180.0
"""Frames of an order and of a report without tensors; counted in simulated runs of the demo."""


@dataclass(frozen=True)
class Cost:
    """What a step of one kind takes."""

    seconds: float
    joules: float | None = None


@dataclass(frozen=True)
class RoundCost:
    """A device's round."""

    compute_seconds: float
    link_seconds: float | None
    """None without a link."""
    joules: float | None
    """Of its computing; None where that is not measured."""
    up_bytes: float
    down_bytes: float
    """On the wire, headers included."""

    @property
    def seconds(self) -> float:
        """Computing and sending."""
        return self.compute_seconds + (self.link_seconds or 0.0)

    @property
    def bytes(self) -> float:
        """Both ways."""
        return self.up_bytes + self.down_bytes


def frames_of(round_: Round, sizes: Sizes, weights: float) -> tuple[float, float]:
    """Bytes of the frames that go up and come down in a round; `weights` are those of one message with the parts that travel."""
    up = round_.uploads * sizes.activation + round_.weights_up * weights + round_.orders * REPORT_BYTES
    down = round_.gradients * (sizes.gradient or 0.0) + round_.weights_down * weights + round_.orders * ORDER_BYTES
    return up, down


def cost_of(round_: Round, steps: Mapping[str, Cost], sizes: Sizes, weights: float, link: Link | None) -> RoundCost:
    """What a round comes to."""
    up, down = (on_the_wire(frames) for frames in frames_of(round_, sizes, weights))
    joules = [steps[kind].joules for kind in round_.runs]
    known = [each for each in joules if each is not None]
    return RoundCost(
        sum(count * steps[kind].seconds for kind, count in round_.runs.items()),
        None if link is None else link.seconds(up + down),
        sum(count * each for count, each in zip(round_.runs.values(), known, strict=True))
        if len(known) == len(joules)
        else None,
        up,
        down,
    )
