"""The section `[energy]` of a device's configuration."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from edge.energy.ports import MEANING, PATTERN
from edge.wire.toml_fields import Example, Pattern


@dataclass(frozen=True)
class EnergyConfig:
    """Where joules come from. What is not measured is missing with a reason: never 0, and never modelled unless this says so."""

    source: Literal["auto", "rapl", "hwmon", "pmic", "battery", "meter", "model", "none"] = "auto"
    """auto takes the best that can be read of rapl (counters of the CPU packages), hwmon (INA2xx and INA3221 on the board), pmic
    (Raspberry Pi 5) and battery (its gauge). meter and model must be named, and are given below."""

    meter: Annotated[str | None, Pattern(PATTERN, MEANING), Example("serial:/dev/ttyUSB0@115200")] = None
    """An external meter that says `time watts`, a line each: edge/energy/README.md."""

    model: Annotated[Path | None, Example("energy-model.json")] = None
    """File of a model that was calibrated on this board. Its joules are of class `modelled`."""

    vcgencmd: str = "vcgencmd"
    """Program that asks the firmware of a Raspberry Pi: a name on PATH, or a path."""

    def problems(self) -> Iterator[str]:
        """Yields what the source wants and has not, and a model that is not there."""
        if self.source in ("meter", "model") and getattr(self, self.source) is None:
            yield f'source = "{self.source}" wants {self.source}: add it'
        if self.source == "model" and self.model is not None and not self.model.is_file():
            yield f'model = "{self.model}": there is no such file'
