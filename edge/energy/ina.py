"""INA219, INA226, INA3221 and their kin: through hwmon, and through the driver of NVIDIA's older kernels (Jetson Nano, TX2)."""

import re
from collections.abc import Iterable, Iterator

from edge.energy.source import Gauge, Rail
from edge.files import Files, UnreadableError

SENSOR_SECONDS = 0.1  # an INA2xx without update_interval: the driver's conversions take up to about this long

# Rails that feed all others of their board, best first: beside one of these, the rest would be counted twice, and so would
# a module's own input beside that of the board which carries it.
WHOLE_BOARD_RAILS = ("VDD_MUX", "VDD_IN", "POM_5V_IN", "VIN", "5V_IN", "TOTAL")
UNCONNECTED = ("NC", "[NC]")

HWMON = "sys/class/hwmon"
DRIVERS = "sys/bus/i2c/drivers"
IIO = "sys/bus/iio/devices"
DEFAULT_SHUNT = 10_000  # µΩ that the drivers take where the device tree is silent

# A power register counts in so many steps of the current register, whose own step in µA is the second number over the shunt in
# µΩ: both are fixed in the driver. An INA260 has its shunt inside (2 mΩ), and tells of none.
POWER_STEPS = {
    "ina219": (20, 1e7),
    "ina220": (20, 1e7),
    "ina232": (32, 2.5e6),
    "ina234": (32, 2.5e6),
    "ina260": (8, 1.25e7),
}
USUAL_STEPS = (25, 2.5e6)


def hwmon(files: Files, seconds_between: float = SENSOR_SECONDS) -> Gauge:
    """Finds the INA2xx and INA3221 sensors of a board: all rails, or the one that feeds the others."""
    chips = list(_chips(files))
    rails = [rail for chip in chips for rail in _rails(files, chip)]
    driver = "hwmon"
    if not rails:
        rails, driver = list(_iio_rails(files)), "ina3221x"
    rails = _that_feed_the_board(rails)
    if not rails:
        raise UnreadableError(f"no power sensor under /{HWMON}")
    for rail in rails:
        rail.watts(files)
    name = f"{driver} {', '.join(rail.label for rail in rails)}"
    refresh = max([SENSOR_SECONDS] if driver != "hwmon" else [_refresh_seconds(files, chip) for chip in chips])
    step = sum(rail.step_watts**2 for rail in rails) ** 0.5
    return Gauge(name, lambda: sum(rail.watts(files) for rail in rails), seconds_between, refresh, step)


def _that_feed_the_board(rails: list[Rail]) -> list[Rail]:
    for name in WHOLE_BOARD_RAILS:
        if whole := [rail for rail in rails if rail.label.upper() == name]:
            return whole
    return rails


def _chips(files: Files) -> Iterator[str]:
    """Yields folders of power sensors, from the class or, where there is no such folder, from the driver's devices."""
    found = [f"{HWMON}/{name}" for name in files.names(HWMON)] or [
        f"{DRIVERS}/{driver}/{device}/hwmon/{name}"
        for driver in files.names(DRIVERS, "ina*")
        for device in files.names(f"{DRIVERS}/{driver}", "*-00*")
        for name in files.names(f"{DRIVERS}/{driver}/{device}/hwmon")
    ]
    for folder in found:
        # Drivers of old kernels keep their files one folder further in.
        chip = folder if files.exists(f"{folder}/name") else f"{folder}/device"
        if files.exists(f"{chip}/name") and _is_power_sensor(files.text(f"{chip}/name")):
            yield chip


def _is_power_sensor(chip: str) -> bool:
    """Whether a chip measures a supply rail; batteries, disks and graphics cards show power in hwmon too."""
    return re.fullmatch(r"ina(2\d\d|3221)x?", chip) is not None


def _rails(files: Files, chip: str) -> Iterator[Rail]:
    """Yields a chip's rails: power in µW where the chip multiplies, else mV times mA of the same channel.

    in0 of an INA2xx and in4 to in6 of an INA3221 are the voltage over the shunt, curr4 is a sum: channels are 1 to 3.
    """
    name = files.text(f"{chip}/name")
    for n in (1, 2, 3):
        power, pair = f"{chip}/power{n}_input", (f"{chip}/in{n}_input", f"{chip}/curr{n}_input")
        if files.exists(f"{chip}/in{n}_enable") and files.text(f"{chip}/in{n}_enable") == "0":
            continue
        label = _label(files, chip, n, name)
        if label in UNCONNECTED:
            continue
        if files.exists(power):
            yield Rail(label, (power,), 1e-6, _power_step(files, chip, name))
        elif all(files.exists(path) for path in pair):
            yield Rail(label, pair, 1e-6, _product_step(files, chip, n, pair))


def _power_step(files: Files, chip: str, name: str) -> float:
    """The smallest difference in watts that a power register shows, by the driver's scaling and the shunt."""
    steps, current_step = POWER_STEPS.get(name, USUAL_STEPS)
    shunt = files.number_or_none(f"{chip}/shunt_resistor") or DEFAULT_SHUNT
    return steps * current_step / shunt / 1e6


def _product_step(files: Files, chip: str, n: int, pair: tuple[str, str]) -> float:
    """The same of volts times amperes of an INA3221: its steps are 40 µV over the shunt and 8 mV of the rail."""
    shunt = files.number_or_none(f"{chip}/shunt{n}_resistor") or DEFAULT_SHUNT
    volts, amperes = ((files.number_or_none(path) or 0) / 1e3 for path in pair)
    return float(((volts * 40 / shunt) ** 2 + (amperes * 0.008) ** 2) ** 0.5)


def _label(files: Files, chip: str, n: int, name: str) -> str:
    """The channel's own label, else the chip's from the device tree, else chip and channel."""
    for path in (f"{chip}/power{n}_label", f"{chip}/in{n}_label", f"{chip}/label"):
        if files.exists(path):
            return files.text(path)
    return f"{name} {chip.removesuffix('/device').rsplit('/', 1)[-1]} channel {n}"


def _refresh_seconds(files: Files, chip: str) -> float:
    path = f"{chip}/update_interval"
    return max(files.number(path) / 1e3, 1e-3) if files.exists(path) else SENSOR_SECONDS


def _iio_rails(files: Files) -> Iterator[Rail]:
    """Yields rails of NVIDIA's own driver: in_powerN_input in mW, rail_name_N, channels 0 to 2."""
    driver = f"{DRIVERS}/ina3221x"
    named = (f"{IIO}/{name}" for name in files.names(IIO))
    chips: Iterable[str] = [chip for chip in named if files.text_or_none(f"{chip}/name") == "ina3221x"]
    chips = chips or [
        f"{driver}/{device}/{name}"
        for device in files.names(driver, "*-00*")
        for pattern in ("iio:device*", "iio_device*")
        for name in files.names(f"{driver}/{device}", pattern)
    ]
    for chip in chips:
        for n in (0, 1, 2):
            label = files.text_or_none(f"{chip}/rail_name_{n}") or f"ina3221x {chip.rsplit('/', 1)[-1]} channel {n}"
            if label not in UNCONNECTED and files.exists(f"{chip}/in_power{n}_input"):
                yield Rail(label, (f"{chip}/in_power{n}_input",), 1e-3, 1e-3)
