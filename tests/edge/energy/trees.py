"""Trees laid out as the kernel documents them (power/powercap, hwmon/ina2xx, hwmon/ina3221, ABI sysfs-class-power)."""

from collections.abc import Callable, Mapping
from pathlib import Path

from edge.energy import Energy, Files, Integrator, find
from edge.energy.config import EnergyConfig

CAP = "sys/class/powercap"
HWMON = "sys/class/hwmon"
SUPPLY = "sys/class/power_supply"
NO_RAPL, NO_HWMON, NO_BATTERY = (
    f"no RAPL under /{CAP}",
    f"no power sensor under /{HWMON}",
    f"no battery under /{SUPPLY}",
)


class Board:
    """A tree of sensor files, some of which may refuse to be read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.refusing: dict[str, OSError] = {}
        self._put: dict[str, object] = {}

    def put(self, files: Mapping[str, object]) -> None:
        changed = {path: content for path, content in files.items() if self._put.get(path) != content}
        self._put |= changed
        for path, content in changed.items():
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_text(f"{content}\n")

    def read(self, path: Path) -> str:
        error = self.refusing.get(str(path.relative_to(self.root)))
        if error:
            raise error
        return path.read_text()

    @property
    def files(self) -> Files:
        return Files(self.root, self.read)

    def integrator(self, **config: object) -> Integrator:
        return Integrator(*find(self.files, config=EnergyConfig(**config)))


def zone(name: str, label: str, microjoules: int, most: int = 262143328850) -> dict[str, object]:
    folder = f"{CAP}/{name}"
    return {f"{folder}/name": label, f"{folder}/energy_uj": microjoules, f"{folder}/max_energy_range_uj": most}


def ina226(folder: str, microwatts: int, label: str | None = None) -> dict[str, object]:
    chip = f"{HWMON}/{folder}"
    files: dict[str, object] = {
        f"{chip}/name": "ina226",
        f"{chip}/power1_input": microwatts,
        f"{chip}/update_interval": 36,
    }
    files |= {f"{chip}/in0_input": 12, f"{chip}/in1_input": 5000, f"{chip}/curr1_input": 999999}
    return files | ({f"{chip}/label": label} if label else {})


def ina3221(folder: str, *channels: tuple[str, int, int]) -> dict[str, object]:
    """Channels are (label, mV, mA); shunt voltages and the sum are there as in the driver, to be left alone."""
    chip = f"{HWMON}/{folder}"
    files: dict[str, object] = {f"{chip}/name": "ina3221", f"{chip}/in7_input": 99, f"{chip}/curr4_input": 99999}
    for n, (label, millivolts, milliamperes) in enumerate(channels, 1):
        files |= {
            f"{chip}/in{n}_label": label,
            f"{chip}/in{n}_input": millivolts,
            f"{chip}/curr{n}_input": milliamperes,
        }
        files |= {f"{chip}/in{n}_enable": 1, f"{chip}/in{n + 3}_input": 77}
    return files


def batteries(name: str = "BAT0", status: str = "Discharging", **files: object) -> dict[str, object]:
    return {f"{SUPPLY}/{name}/{key}": value for key, value in {"type": "Battery", "status": status, **files}.items()}


def window(board: Board, seconds: float, change: Callable[[float], Mapping[str, object]], step: float = 0.1) -> Energy:
    """Opens a window at 0 s, changes the files and reads every `step`, closes it at `seconds`."""
    integrator = board.integrator()
    board.put(change(0.0))
    begin = integrator.advance(0.0)
    for n in range(1, round(seconds / step) + 1):
        board.put(change(n * step))
        end = integrator.advance(n * step)
    return integrator.between(begin, end)
