"""What a window has cost, as it is handed out and recorded."""

from dataclasses import dataclass

from edge.energy import Energy
from edge.thermal import Temperature


@dataclass(frozen=True)
class Measurement:
    """What one window cost this process; memory in bytes at the end of the window and at its peak.

    `uss_bytes` (what would be free if the process ended) and the temperature are None where the system does not tell.
    """

    window: str
    seconds: float
    cpu_seconds: float
    peak_rss_bytes: int
    peak_rss_source: str
    rss_bytes: int
    uss_bytes: int | None
    temperature: Temperature
    energy: Energy
    uss_grown_bytes: int | None = None
    """By how much `uss_bytes` is more at the end than at the begin: around the loading of a model, the model's own share."""
    sampling_cpu_seconds: float = 0.0
    """What reading the energy source took of the processor meanwhile, its programs included; part of the board's joules."""

    @property
    def sampling_share(self) -> float:
        """Share of one core that reading the energy source took; wanted is less than 0.01."""
        return self.sampling_cpu_seconds / self.seconds if self.seconds else 0.0

    @property
    def temperature_celsius(self) -> float | None:
        """The processor's temperature at the end of the window."""
        return self.temperature.celsius

    def to_record(self) -> dict[str, object]:
        """Returns a dictionary for reports: plain values, missing ones None with their reason beside them."""
        return {
            "window": self.window,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "peak_rss_bytes": self.peak_rss_bytes,
            "peak_rss_source": self.peak_rss_source,
            "rss_bytes": self.rss_bytes,
            "uss_bytes": self.uss_bytes,
            "uss_grown_bytes": self.uss_grown_bytes,
            "temperature_celsius": self.temperature.celsius,
            "temperature_source": self.temperature.source,
            "temperature_reason": self.temperature.reason,
            "energy": self.energy.to_record(),
            "sampling_cpu_seconds": self.sampling_cpu_seconds,
            "sampling_share": self.sampling_share,
        }


@dataclass(frozen=True)
class Used:
    """What a process and its board have taken since some moment before it: only differences mean something."""

    cpu_seconds: float
    joules: float | None = None
    reason: str = ""
    """Why there are no joules: not asked for, no sensor, or it could not be read since it was asked last."""
