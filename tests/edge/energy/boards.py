"""Whole boards as trees, by what their kernels' documentation and drivers say; each with its power as a function of time."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.edge.energy.trees import CAP, HWMON, batteries, ina3221, zone

Files = Mapping[str, object]
CPUS = "sys/devices/system/cpu"
THERMAL = "sys/class/thermal"


@dataclass(frozen=True)
class Tree:
    """`files` lie still; `at(t, watts)` are those that tell of a power of so many watts, whose energy so far is given too."""

    files: Files
    at: Callable[[float, float], Files]
    source: str
    step: float = 0.25


def clock(policy: str, cpus: str, governor: str, kilohertz: tuple[int, int, int]) -> Files:
    folder = f"{CPUS}/cpufreq/{policy}"
    low, high, chip = kilohertz
    return {
        f"{folder}/affected_cpus": cpus,
        f"{folder}/scaling_governor": governor,
        f"{folder}/scaling_min_freq": low,
        f"{folder}/scaling_max_freq": high,
        f"{folder}/cpuinfo_max_freq": chip,
    }


def arm(model: str, *compatible: str, part: str, cores: int) -> Files:
    processor = f"processor\t: 0\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: {part}\n"
    return {
        "proc/device-tree/model": f"{model}\0",
        "proc/device-tree/compatible": "\0".join(compatible) + "\0",
        "proc/cpuinfo": processor * cores,
        f"{CPUS}/online": f"0-{cores - 1}",
    }


def warmth(n: int, kind: str, milli: int, *trips: tuple[str, int]) -> Files:
    folder = f"{THERMAL}/thermal_zone{n}"
    files = {f"{folder}/type": kind, f"{folder}/temp": milli}
    for m, (what, at) in enumerate(trips):
        files |= {f"{folder}/trip_point_{m}_type": what, f"{folder}/trip_point_{m}_temp": at}
    return files


RASPBERRY_PI_4 = {
    **arm("Raspberry Pi 4 Model B Rev 1.4", "raspberrypi,4-model-b", "brcm,bcm2711", part="0xd08", cores=4),
    **clock("policy0", "0 1 2 3", "ondemand", (600000, 1500000, 1800000)),
    **warmth(0, "cpu-thermal", 48312, ("critical", 110000)),
    # The Pi's own hwmon chips: a temperature and an alarm, no power.
    f"{HWMON}/hwmon0/name": "cpu_thermal",
    f"{HWMON}/hwmon0/temp1_input": 48312,
    f"{HWMON}/hwmon1/name": "rpi_volt",
    f"{HWMON}/hwmon1/in0_lcrit_alarm": 0,
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50005",
    "proc/meminfo": "MemTotal:        3884356 kB\nMemFree:          100 kB\nMemAvailable:    3012345 kB",
    "proc/sys/kernel/osrelease": "6.6.31+rpt-rpi-v8",
}

RASPBERRY_PI_5 = {
    **arm("Raspberry Pi 5 Model B Rev 1.0", "raspberrypi,5-model-b", "brcm,bcm2712", part="0xd0b", cores=4),
    **warmth(0, "cpu-thermal", 51250, ("active", 50000), ("passive", 80000), ("critical", 110000)),
}

# 12 rails with a current and a voltage; the 5 V input and the clock's battery have a voltage only. 2.25 W in all.
PMIC = """\
 3V7_WL_SW_A current(0)=0.10000000A
   3V3_SYS_A current(1)=0.10000000A
  VDD_CORE_A current(7)=1.00000000A
   0V8_AON_A current(16)=0.00000000A
 3V7_WL_SW_V volt(8)=3.70000000V
   3V3_SYS_V volt(9)=3.30000000V
  VDD_CORE_V volt(15)=0.80000000V
   0V8_AON_V volt(19)=0.80000000V
      HDMI_V volt(23)=5.00000000V
     EXT5V_V volt(24)=5.10000000V
      BATT_V volt(25)=0.00781436V
"""
PMIC_WATTS = 0.37 + 0.33 + 0.8


def _nano(folder: str) -> Tree:
    """L4T 32 (kernel 4.9): NVIDIA's own driver, milliwatts, the rails of the CPU and GPU within that of the input."""

    def at(_: float, watts: float) -> Files:
        inside = {f"{folder}/in_power{n}_input": round(1000 * share * watts) for n, share in ((1, 0.2), (2, 0.3))}
        return {f"{folder}/in_power0_input": round(1000 * watts), **inside}

    names = {0: "POM_5V_IN", 1: "POM_5V_GPU", 2: "POM_5V_CPU"}
    files = {f"{folder}/name": "ina3221x", **{f"{folder}/rail_name_{n}": name for n, name in names.items()}}
    model = arm("NVIDIA Jetson Nano Developer Kit", "nvidia,p3450-0000", "nvidia,tegra210", part="0xd07", cores=4)
    return Tree({**model, **files}, at, "ina3221x POM_5V_IN")


def _ina3221(model: Files, source: str, *chips: tuple[str, Mapping[str, float]]) -> Tree:
    """Channels by chip with their shares of the power; a share of 0 stands for a channel that is off."""

    def at(_: float, watts: float) -> Files:
        files: dict[str, object] = {}
        for folder, shares in chips:
            files |= ina3221(folder, *((label, 5000, round(200 * share * watts)) for label, share in shares.items()))
            for n, share in enumerate(shares.values(), 1):
                files[f"{HWMON}/{folder}/in{n}_enable"] = int(share > 0)
                files[f"{HWMON}/{folder}/shunt{n}_resistor"] = 5000
        return files

    return Tree(model, at, source)


def _rapl(vendor: Files, *packages: str, most: int = 262143328850) -> Tree:
    """Each package takes the same share; core and dram lie beside it as the drivers show them."""

    def at(joules: float, _: float) -> Files:
        counter = round(1e6 * joules / len(packages))
        files: dict[str, object] = {}
        for n, name in enumerate(packages):
            files |= zone(f"intel-rapl:{n}", name, (most - 5_000_000 + counter) % most, most)
            files |= zone(f"intel-rapl:{n}:0", "core", counter // 2, most)
        return files | {f"{CAP}/intel-rapl/enabled": 1}

    return Tree(vendor, at, f"RAPL {', '.join(packages)} (CPU only, not the board)", step=1.0)


def _x86(name: str, vendor: str, product: str) -> Files:
    return {
        "proc/cpuinfo": f"processor\t: 0\nmodel name\t: {name}\nprocessor\t: 1\nmodel name\t: {name}\n",
        "sys/class/dmi/id/sys_vendor": vendor,
        "sys/class/dmi/id/product_name": product,
        f"{CPUS}/online": "0-1",
        **clock("policy0", "0", "powersave", (800000, 4700000, 4700000)),
        **clock("policy1", "1", "powersave", (800000, 4700000, 4700000)),
    }


def _laptop() -> Tree:
    def at(_: float, watts: float) -> Files:
        return batteries("BAT0", voltage_now=12_000_000, current_now=-round(1e6 * watts / 12))

    return Tree(_x86("Some Laptop CPU", "LENOVO", "20XW"), at, "battery BAT0", step=1.0)


ORIN_NANO = arm("NVIDIA Jetson Orin Nano Developer Kit", "nvidia,p3767-0003", "nvidia,tegra234", part="0xd42", cores=6)
AGX_ORIN = arm("Jetson AGX Orin", "nvidia,p3701-0000", "nvidia,tegra234", part="0xd42", cores=12)

TREES = {
    "Jetson Nano, kernel 4.9, by class": _nano("sys/bus/iio/devices/iio:device0"),
    "Jetson Nano, kernel 4.9, by driver": _nano("sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"),
    "Jetson TX2, kernel 4.4": _nano("sys/bus/i2c/drivers/ina3221x/0-0041/iio_device"),
    "Jetson Nano, mainline": _ina3221(
        arm("NVIDIA Jetson Nano", "nvidia,p3450-0000", "nvidia,tegra210", part="0xd07", cores=4),
        "hwmon VDD_IN",
        ("hwmon1", {"VDD_IN": 1.0, "VDD_GPU": 0.3, "VDD_CPU": 0.4}),
    ),
    "Jetson Orin Nano": _ina3221(
        ORIN_NANO, "hwmon VDD_IN", ("hwmon1", {"VDD_IN": 1.0, "VDD_CPU_GPU_CV": 0.5, "VDD_SOC": 0.3})
    ),
    "Jetson AGX Orin": _ina3221(
        AGX_ORIN,
        "hwmon VDD_GPU_SOC, VDD_CPU_CV, VIN_SYS_5V0, VDDQ_VDD2_1V8AO",
        ("hwmon3", {"VDD_GPU_SOC": 0.4, "VDD_CPU_CV": 0.3, "VIN_SYS_5V0": 0.2}),
        ("hwmon4", {"NC": 0.0, "VDDQ_VDD2_1V8AO": 0.1, "NC2": 0.0}),
    ),
    "Intel, one package": _rapl(_x86("Intel(R) Core(TM) i5", "Dell Inc.", "OptiPlex"), "package-0"),
    "Intel, two sockets": _rapl(_x86("Intel(R) Xeon(R)", "Dell Inc.", "R740"), "package-0", "package-1"),
    "Intel, two dies": _rapl(_x86("Intel(R) Xeon(R)", "Intel", "AP"), "package-0-die-0", "package-0-die-1"),
    "AMD": _rapl(_x86("AMD Ryzen 7", "ASUS", "PN51"), "package-0", most=65_532_610_987),
    "laptop": _laptop(),
}
