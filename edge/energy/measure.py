"""What is said of the energy of a window: joules with class, source, rate, baseline and uncertainty, or why there are none."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["metered", "sensor", "modelled"]


@dataclass(frozen=True)
class Energy:
    """Joules of a window and how they were obtained, or None and why there are none.

    `kind` is the class: `metered` (an external meter), `sensor` (on the board) or `modelled`. `resolution` says how often was read.

    `uncertainty_joules` is what joules may be off by, both ways, in about 95 of 100 windows, as far as the source's own steps and
    the time between readings tell: two standard deviations of these parts, taken as independent:

        steps       the smallest difference that the source shows, as an even spread over one step (step / √12), for the whole window
        swings      two readings that differ say nothing of when it changed: |difference| · time between them / √12, each
        age         of a counter's last refresh at both ends; what a model left over when it was fitted

    It does not hold the error of the sensor itself (its shunt's tolerance), which nobody here can know, nor swings that are over
    before the next reading. Of a window that is too short it is no less than the joules themselves.
    """

    joules: float | None = None
    kind: Kind | None = None
    source: str | None = None
    reason: str | None = None
    resolution: str | None = None
    uncertainty_joules: float | None = None
    seconds: float | None = None
    """Length of the window."""
    readings: int | None = None
    """Of the source within the window, both ends included."""
    too_short: bool = False
    """Whether the window is shorter than two samples of the source."""
    idle_watts: float | None = None
    """What the board took while nothing ran, from the same source; None where no baseline was taken."""

    @property
    def hertz(self) -> float | None:
        """Readings a second, as they came."""
        return (self.readings - 1) / self.seconds if self.readings and self.seconds else None

    @property
    def above_idle_joules(self) -> float | None:
        """What the window took beyond an idle board; None without joules or baseline."""
        if self.joules is None or self.idle_watts is None or self.seconds is None:
            return None
        return self.joules - self.idle_watts * self.seconds

    def to_record(self) -> dict[str, float | str | bool | None]:
        """Returns all as a plain dictionary for files."""
        return {
            **self.to_report(),
            "unit": "J",
            "uncertainty_joules": self.uncertainty_joules,
            "seconds": self.seconds,
            "hertz": self.hertz,
            "too_short": self.too_short,
            "idle_watts": self.idle_watts,
            "above_idle_joules": self.above_idle_joules,
        }

    def to_report(self) -> dict[str, float | str | bool | None]:
        """Returns what travels to the hub with a report, where each byte counts."""
        return {
            "joules": self.joules,
            "kind": self.kind,
            "source": self.source,
            "reason": self.reason,
            "resolution": self.resolution,
        }
