"""Gauges of batteries, in /sys/class/power_supply."""

from edge.energy.source import Gauge, Rail
from edge.files import Files, UnreadableError

BATTERY_SECONDS = 10.0  # gauges of batteries refresh every 1 to 30 s
SUPPLIES = "sys/class/power_supply"


def battery(files: Files, seconds_between: float = 1.0) -> Gauge:
    """Finds the batteries that feed the board; their gauges speak only while they discharge and nothing charges."""
    supplies = [f"{SUPPLIES}/{name}" for name in files.names(SUPPLIES)]
    packs = [supply for supply in supplies if _feeds_the_board(files, supply)]
    rails = {pack: rail for pack in packs if (rail := _rail(files, pack))}
    if not rails:
        raise UnreadableError(f"no battery under /{SUPPLIES}")

    def watts() -> float:
        states = {pack: files.text(f"{pack}/status") for pack in rails}
        feeding = [pack for pack, state in states.items() if state == "Discharging"]
        if not feeding or "Charging" in states.values():
            said = ", ".join(f"{rails[pack].label} is {state}" for pack, state in states.items())
            raise UnreadableError(f"a battery's gauge shows the board only while it discharges: {said}")
        # Some drivers give the current a sign while discharging, others do not.
        return sum(abs(rails[pack].watts(files)) for pack in feeding)

    name = f"battery {', '.join(rail.label for rail in rails.values())}"
    step = sum(rail.step_watts**2 for rail in rails.values()) ** 0.5
    return Gauge(name, watts, max(seconds_between, 1.0), BATTERY_SECONDS, step)


def _feeds_the_board(files: Files, supply: str) -> bool:
    """Whether a supply is a battery of the board, not that of a mouse plugged into it."""
    if not files.exists(f"{supply}/type") or files.text(f"{supply}/type") != "Battery":
        return False
    return not (files.exists(f"{supply}/scope") and files.text(f"{supply}/scope") == "Device")


def _rail(files: Files, pack: str) -> Rail | None:
    label, power = pack.rsplit("/", 1)[-1], f"{pack}/power_now"
    pair = (f"{pack}/voltage_now", f"{pack}/current_now")
    if files.exists(power):
        return Rail(label, (power,), 1e-6, 1e-3)  # ACPI tells whole mW, or mA, whatever the file's unit
    volts = (files.number_or_none(pair[0]) or 0) / 1e6
    return Rail(label, pair, 1e-12, volts * 1e-3) if all(files.exists(path) for path in pair) else None
