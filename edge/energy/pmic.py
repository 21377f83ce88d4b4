"""The power chip of a Raspberry Pi 5, asked through `vcgencmd pmic_read_adc`: a line for the current and the voltage of each rail.

What draws from the 5 V input itself (USB, a HAT, the chip's own losses) passes no rail: the sum is less than the board takes,
and the source's name says so. No fit is put on top of it; `[energy] model` is for that.
"""

import re
import time
from collections.abc import Callable

from edge.energy.source import Gauge
from edge.files import Files, UnreadableError
from edge.vcgencmd import Vcgencmd

PMIC_SECONDS = 1.0
"""Between two questions: each is a process, which takes some milliseconds of the CPU that is being measured."""
STEP_WATTS = 1e-3
"""About what the steps of its converters (10 bits a rail) come to, over all rails."""
QUESTION = "pmic_read_adc"
LINE = re.compile(r"(\S+)_([AV])\s+(?:current|volt)\(\d+\)=(-?[\d.]+)[AV]")


def pmic(vcgencmd: Vcgencmd, seconds_between: float = PMIC_SECONDS, now: Callable[[], float] = time.monotonic) -> Gauge:
    """Asks once to see that the board has such a chip; raises UnreadableError with the firmware's answer where not."""
    held: list[tuple[float, float]] = []

    def watts_or_held() -> float:
        # A step that asks for its joules must not start a process each time.
        if not held or now() - held[0][0] >= PMIC_SECONDS:
            held[:] = [(now(), watts(vcgencmd.ask(QUESTION)))]
        return held[0][1]

    watts_or_held()
    name = "PMIC of the Raspberry Pi 5 (its rails, without what draws from 5 V itself)"
    return Gauge(name, watts_or_held, max(seconds_between, PMIC_SECONDS), PMIC_SECONDS, STEP_WATTS)


def watts(answer: str) -> float:
    """Sum of volts times amperes over the rails that have both; EXT5V and BATT have no current."""
    readings: dict[str, dict[str, float]] = {"A": {}, "V": {}}
    for rail, quantity, value in LINE.findall(answer):
        readings[quantity][rail] = float(value)
    rails = readings["A"].keys() & readings["V"].keys()
    if not rails:
        raise UnreadableError(f"vcgencmd {QUESTION} tells of no rail with volts and amperes: {answer[:80]!r}")
    return sum(readings["A"][rail] * readings["V"][rail] for rail in rails)


def has_pmic(files: Files) -> bool:
    """Whether this is a Raspberry Pi 5 or a sibling of it."""
    return "brcm,bcm2712" in (files.text_or_none("proc/device-tree/compatible") or "")
