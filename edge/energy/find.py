"""Which source a board has, or which one its configuration names."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from edge.board import board_name
from edge.energy.battery import battery
from edge.energy.config import EnergyConfig
from edge.energy.external import ExternalMeter
from edge.energy.ina import SENSOR_SECONDS, hwmon
from edge.energy.model import Modelled, load
from edge.energy.pmic import has_pmic, pmic
from edge.energy.rapl import Rapl
from edge.energy.source import Source
from edge.files import Files, UnreadableError
from edge.vcgencmd import Vcgencmd


@dataclass(frozen=True)
class Wish:
    """What a source is opened with: the files, the seconds between two readings that are wanted, our clock, the configuration."""

    files: Files
    seconds_between: float
    now: Callable[[], float]
    config: EnergyConfig


def _pmic(wish: Wish) -> Source:
    return pmic(Vcgencmd(wish.config.vcgencmd), wish.seconds_between, wish.now)


def _meter(wish: Wish) -> Source:
    return ExternalMeter(wish.config.meter or "", wish.seconds_between, now=wish.now)


def _model(wish: Wish) -> Source:
    if wish.config.model is None:
        raise UnreadableError("no model is given")
    return Modelled(load(wish.config.model), wish.files, board_name(wish.files))


SOURCES: dict[str, Callable[[Wish], Source]] = {
    "rapl": lambda wish: Rapl(wish.files),
    "hwmon": lambda wish: hwmon(wish.files, wish.seconds_between),
    "pmic": _pmic,
    "battery": lambda wish: battery(wish.files, wish.seconds_between),
    "meter": _meter,
    "model": _model,
}


def _automatic(files: Files) -> list[str]:
    """Best first: a counter misses nothing between readings; a rail shows the whole board; a battery's gauge is slow."""
    return ["rapl", "hwmon", *(["pmic"] if has_pmic(files) else []), "battery"]


def find(
    files: Files,
    seconds_between: float = SENSOR_SECONDS,
    now: Callable[[], float] = time.monotonic,
    config: EnergyConfig | None = None,
) -> tuple[Source | None, str]:
    """Returns the source that is named, or the best that can be read, and an empty reason; or None and what was looked for."""
    wish = Wish(files, seconds_between, now, config or EnergyConfig())
    if wish.config.source == "none":
        return None, 'not measured: [energy] source = "none"'
    named = wish.config.source
    missing = []
    for name in _automatic(files) if named == "auto" else [named]:
        try:
            return SOURCES[name](wish), ""
        except UnreadableError as error:
            missing.append(str(error))
    return None, "no meter: " + ", ".join(missing)
