"""Profiles such as boards would give: a Raspberry Pi 5 with a sensor, a weaker board without, and what `cuts` writes."""

from dataclasses import asdict, replace

from edge.wire.profile import Missing, Operator, Profile, Share, Stage, Step

HOW = "VmHWM, reset at the window's begin"
NO_BROKER = "no broker is configured: [hub] broker is empty"
BACKWARD = "the bundle has no backward graph"
# Milliseconds at batch 32 on one thread, own MiB, bytes that come out.
STAGES = {
    "sensor": (0.62, 0.4, None),
    "forward": (8.4, 9.0, None),
    "local": (31.2, 22.0, None),
    "encode": (2.1, 1.2, 12_345),
    "outbox": (5.3, 0.6, None),
}
SHARES = {
    "forward": {"Conv": 0.61, "MaxPool": 0.17, "Relu": 0.12, "Gemm": 0.10},
    "local": {
        "Conv": 0.31, "ConvTranspose": 0.22, "MatMul": 0.13, "Transpose": 0.09, "Mul": 0.07, "MaxPool": 0.05, "Where": 0.04,
        "Relu": 0.03, "Add": 0.03, "ReduceSum": 0.02, "Sqrt": 0.01,
    },
}  # fmt: skip


def thermal(celsius, flags=(), since=()):
    return {
        "temperature": {"celsius": celsius, "source": "/sys/class/thermal/thermal_zone0/temp (cpu-thermal)", "reason": None},
        "zones": [{"kind": "cpu-thermal", "celsius": celsius, "trips": [["active", 50.0], ["passive", 80.0], ["critical", 110.0]]}],
        "flags": list(flags), "since_start": list(since), "flags_source": "vcgencmd get_throttled", "cooling": [],
        "throttle_count": None,
    }  # fmt: skip


BOARD = {
    "model": "Raspberry Pi 5 Model B Rev 1.0",
    "soc": "bcm2712",
    "compatible": ["raspberrypi,5-model-b", "brcm,bcm2712"],
    "cpu": "Cortex-A76",
    "machine": "aarch64",
    "cores": 4,
    "clocks": [
        {
            "cores": "0 1 2 3", "governor": "ondemand", "driver": "cpufreq-dt", "minimum_hertz": 1_500_000_000,
            "maximum_hertz": 2_400_000_000, "hardware_maximum_hertz": 2_400_000_000, "now_hertz": 1_500_000_000,
        }
    ],
    "memory_bytes": 4 << 30,
    "kernel": "6.12.25+rpt-rpi-2712",
    "system": "Linux-6.12.25+rpt-rpi-2712-aarch64-with-glibc2.36",
    "python": "3.11.2",
    "onnxruntime": "1.31.0",
    "providers": ["CPUExecutionProvider"],
    "thermal": thermal(54.2),
}  # fmt: skip
CONDITIONS = {
    "date": "2026-11-20T14:03:11+00:00",
    "cutlayer": "0.1.0",
    "bundle": "5d41402abc4b2a76b9719d911017c5925d41402abc4b2a76b9719d911017c592",
    "model": "export.models:lenet",
    "cut": "pool2",
    "objective": "contrastive",
    "optimizer": "adam",
    "data": "the device's own, 480 samples",
    "confidence": 0.95,
    "seconds": 5.0,
    "precision": 0.03,
    "slowed": "",
    "drifts": [],
    "thermal_before": thermal(54.2),
    "thermal_after": thermal(66.9),
    "course": [[10.0 * i, 66.9 - 12.7 * 0.8**i if i != 7 else None, 2.4e9 if i else 1.5e9] for i in range(24)],
    "room": {
        "total_bytes": 4 << 30, "available_bytes": 3 << 30, "limit_bytes": 512 << 20,
        "limit_source": "/etc/systemd/system/cutlayer.service",
    },
    "unit": "cutlayer.service",
    "energy": "sensor: Raspberry Pi 5 PMIC",
    "energy_missing": "",
    "idle": {"joules": 27.1, "kind": "sensor", "source": "Raspberry Pi 5 PMIC", "seconds": 10.0, "uncertainty_joules": 0.2},
    "sampling_share": 0.0042,
    "busy_share": 0.012,
    "flops": {"forward": 1_234_000.0, "local": 4_100_000.0},
}  # fmt: skip


def stage(name, batch, threads, *, slow=1.0, joules=True, unsure=0.01):
    base, own, out = STAGES[name]
    speed = {1: 1.0, 2: 0.58, 4: 0.36}[threads] if name in {"forward", "local"} else 1.0
    seconds = slow * 1e-3 * base * speed * (0.15 + 0.85 * batch / 32)
    watts = 2.7 + 1.4 * (threads if name in {"forward", "local"} else 1)
    energy = {
        "joules": watts * seconds, "joules_kind": "sensor", "joules_source": "Raspberry Pi 5 PMIC",
        "joules_uncertainty": 0.06 * watts * seconds + 1e-4, "joules_hertz": 39.8 + batch / 100, "idle_watts": 2.71,
    }  # fmt: skip
    return Stage(
        name, batch, threads, "entropy:1" if name == "encode" else "", 160,
        seconds, seconds * (1 - unsure), seconds * (1 + 1.4 * unsure), 1.12 * seconds, 0.97 * seconds, speed * seconds * threads,
        **(energy if joules else {"joules_why": "no meter: no RAPL under /sys/class/powercap"}),
        peak_bytes=int((66 + own * batch / 16) * 2**20), peak_why=HOW, unshared_bytes=int((58 + own) * 2**20),
        own_bytes=int(own * 2**20), bytes=out and out * batch // 32,
    )  # fmt: skip


def shares(slow=1.0):
    return tuple(
        Share(graph, 32, threads, op, 2 if op == "Conv" else 1, slow * share * STAGES[graph][0] * 1e-3, share)
        for graph, ops in SHARES.items()
        for threads in (1, 4)
        for op, share in ops.items()
    )


def pi5(configurations=((8, 1), (8, 4), (32, 1), (32, 4)), **conditions):
    stages = tuple(stage(name, batch, threads) for batch, threads in configurations for name in STAGES)
    stages = (
        replace(stages[0], joules=None, joules_kind="", joules_source="", joules_why="too short for the sensor: 0.1 s"),
        *stages[1:],
    )
    missing = tuple(
        Missing(name, batch, threads, why)
        for batch, threads in configurations
        for name, why in (("backward", BACKWARD), ("send", NO_BROKER))
    )
    step = Step("export.models:lenet", "pool2", "contrastive", "adam", "local", 32, 1, 160, 0.0312, 0.035, 0.0303, 0.13)
    return Profile(BOARD, (step,), (), stages, missing, shares(), {**CONDITIONS, **conditions})


def zero2(configurations=((32, 1), (32, 4))):
    """A weaker board without a meter, slowed down, in 512 MB."""
    stages = tuple(
        stage(name, batch, threads, slow=6.3, joules=False, unsure=0.05)
        for batch, threads in configurations
        for name in STAGES
    )
    board = {
        **BOARD,
        "model": "Raspberry Pi Zero 2 W Rev 1.0",
        "soc": "bcm2837",
        "cpu": "Cortex-A53",
        "memory_bytes": 448 << 20,
    }
    told = {
        **CONDITIONS, "slowed": "under-voltage, throttled in between", "thermal_after": thermal(80.6, ["under-voltage"]),
        "course": [[5.0 * i, min(80.6, 45 + 4.0 * i), 1.0e9 if i < 9 else 6e8] for i in range(16)],
        "room": {"total_bytes": 448 << 20, "available_bytes": 260 << 20, "limit_bytes": None, "limit_source": "no control group limits it"},
        "unit": "", "energy": "", "energy_missing": "no meter: no RAPL under /sys/class/powercap", "idle": None, "busy_share": 0.11,
    }  # fmt: skip
    missing = tuple(Missing("send", batch, threads, NO_BROKER) for batch, threads in configurations)
    return Profile(board, (), (), stages, missing, shares(6.3), told)


def cuts():
    """As cutlayer-export cuts --profile writes it: board, steps, operators."""
    why = "cuts reads no meter: joules come with a profile of the board"
    steps = tuple(
        Step(
            "export.models:lenet", cut, "contrastive", "adam", kind, 32, 1, 40, ms * 1e-3, ms * 1.2e-3, ms * 0.95e-3, None, why,
            96 << 20, 31 << 20,
        )
        for cut, times in {"conv1": (6.0, 2.1), "pool1": (9.5, 3.4), "conv2": (17.2, 5.8), "pool2": (19.0, 6.4)}.items()
        for kind, ms in zip(("local", "forward"), times, strict=True)
    )  # fmt: skip
    operators = (
        Operator("Conv", "float[32,1,28,28] float[6,1,5,5]", "float[32,6,24,24]", 0.0011),
        Operator("MaxPool", "float[32,6,24,24]", "float[32,6,12,12]", 0.0004),
    )
    board = {
        "model": "Intel(R) Xeon(R) Processor", "architecture": "x86_64", "cores": 2, "memory_bytes": 16 << 30,
        "kernel": "Linux 6.1", "onnxruntime": "1.31.0",
    }  # fmt: skip
    return Profile(board, steps, operators)


def changed(profile, **fields):
    """With other values in every stage."""
    return replace(profile, stages=tuple(Stage(**{**asdict(row), **fields}) for row in profile.stages))
