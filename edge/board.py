"""Which board this is, as it is recorded with every result."""

import os
import platform
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

from edge.files import Files
from edge.memory import room
from edge.thermal import CPUS, Thermal, thermal
from edge.vcgencmd import Vcgencmd


@dataclass(frozen=True)
class Clock:
    """The clock of the cores that share one, in Hz; limits are those in force, hardware limits those of the chip."""

    cores: str
    """As the kernel lists them, such as "0 1 2 3"."""
    governor: str | None
    driver: str | None
    minimum_hertz: int | None
    maximum_hertz: int | None
    hardware_maximum_hertz: int | None
    now_hertz: int | None


@dataclass(frozen=True)
class Board:
    """A board. What it does not tell is None or empty."""

    model: str | None
    """By the device tree, else by the firmware's tables (DMI)."""
    soc: str | None
    """The chip's name where the kernel knows it, else the last word of `compatible`."""
    compatible: tuple[str, ...]
    """Of the device tree, the board first."""
    cpu: str | None
    """The cores' name."""
    machine: str
    cores: int
    clocks: tuple[Clock, ...]
    memory_bytes: int | None
    kernel: str
    system: str
    python: str
    onnxruntime: str
    """Version."""
    providers: tuple[str, ...] | None
    """Execution providers of onnxruntime; None where nobody asked it."""
    thermal: Thermal

    def to_record(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return asdict(self)


def board_name(files: Files) -> str | None:
    """What a board calls itself, by its device tree or its firmware's tables."""
    if tree := files.text_or_none("proc/device-tree/model"):
        return tree
    words = (files.text_or_none(f"sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name"))
    return " ".join(word for word in words if word) or None


def software() -> dict[str, str]:
    """What runs here, by name: the machine, the system and the versions that matter."""
    return {
        "machine": platform.machine(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "onnxruntime": metadata.version("onnxruntime"),
        "cutlayer": metadata.version("cutlayer"),
    }


def recognise(files: Files, *, vcgencmd: Vcgencmd | None = None, providers: Sequence[str] | None = None) -> Board:
    """Reads what a board says of itself. Never raises: what cannot be read is None.

    Args:
        files: below the root.
        vcgencmd: asked for throttling flags where the kernel has no file for them; None asks nobody.
        providers: `edge.segment.providers()`, where onnxruntime may be imported.
    """
    runs = software()
    compatible = tuple((files.text_or_none("proc/device-tree/compatible") or "").strip("\0").split("\0"))
    compatible = tuple(filter(None, compatible))
    return Board(
        model=board_name(files),
        soc=files.text_or_none("sys/devices/soc0/soc_id") or (compatible[-1] if compatible else None),
        compatible=compatible,
        cpu=_cpu(files),
        machine=runs["machine"],
        cores=_cores(files),
        clocks=tuple(_clocks(files)),
        memory_bytes=room(files).total_bytes,
        kernel=files.text_or_none("proc/sys/kernel/osrelease") or platform.release(),
        system=runs["system"],
        python=runs["python"],
        onnxruntime=runs["onnxruntime"],
        providers=None if providers is None else tuple(providers),
        thermal=thermal(files, vcgencmd),
    )


def _cores(files: Files) -> int:
    """By the kernel's list of those that are on, such as "0-3,6"; else what the system says."""
    ranges = re.findall(r"(\d+)(?:-(\d+))?", files.text_or_none(f"{CPUS}/online") or "")
    return sum(int(last or first) - int(first) + 1 for first, last in ranges) or os.cpu_count() or 1


# Of /proc/cpuinfo on arm64, which has numbers only: implementer and part.
ARM_CORES = {
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd04"): "Cortex-A35",
    ("0x41", "0xd05"): "Cortex-A55",
    ("0x41", "0xd07"): "Cortex-A57",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd09"): "Cortex-A73",
    ("0x41", "0xd0a"): "Cortex-A75",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd41"): "Cortex-A78",
    ("0x41", "0xd42"): "Cortex-A78AE",
    ("0x4e", "0x003"): "Denver 2",
    ("0x4e", "0x004"): "Carmel",
}


def _cpu(files: Files) -> str | None:
    """The cores' names, each once; numbers where they have no name here."""
    found: dict[str, None] = {}
    implementer = ""
    for line in (files.text_or_none("proc/cpuinfo") or "").splitlines():
        name, _, value = (part.strip() for part in line.partition(":"))
        if name == "model name":
            found[value] = None
        elif name == "CPU implementer":
            implementer = value
        elif name == "CPU part":
            found[ARM_CORES.get((implementer, value), f"implementer {implementer} part {value}")] = None
    return ", ".join(found) or None


def _clocks(files: Files) -> Iterator[Clock]:
    for name in files.names(f"{CPUS}/cpufreq", "policy*"):
        folder = f"{CPUS}/cpufreq/{name}"

        def hertz(key: str, folder: str = folder) -> int | None:
            kilo = files.number_or_none(f"{folder}/{key}")
            return None if kilo is None else kilo * 1000

        yield Clock(
            files.text_or_none(f"{folder}/affected_cpus") or name.removeprefix("policy"),
            files.text_or_none(f"{folder}/scaling_governor"),
            files.text_or_none(f"{folder}/scaling_driver"),
            hertz("scaling_min_freq"),
            hertz("scaling_max_freq"),
            hertz("cpuinfo_max_freq"),
            hertz("scaling_cur_freq"),
        )
