"""What `papers` measures: its tasks, its methods, the settings it sweeps; and the authors' figures, which it does not."""

# ruff: noqa: RUF001  letters are the paper's

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from hub.demo import MODES
from hub.strategies import STRATEGIES

Source = Literal["", "fashion", "data"]


@dataclass(frozen=True)
class Task:
    """What is trained, on what, for how long."""

    name: str
    title: str
    dataset: str
    devices: int
    rounds: int
    seeds: int
    model: str = "export.models:LeNet"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    windows: Literal["scarce", "all"] = "all"
    source: Source = ""
    """Which folder of the command line it is read from."""


TASKS = (
    Task("scarce", "Smartwatch wearers, scarce", "wearables", 10, 40, 3, "export.models:Wearable", windows="scarce"),
    Task("all", "Smartwatch wearers, all windows", "wearables", 10, 10, 3, "export.models:Wearable"),
    Task("fashion", "Fashion-MNIST, 5 x 2 classes", "benchmarks.sources:fashion", 5, 8, 2, arguments={"channels": 1}, source="fashion"),
    Task("cifar", "Mixed-CIFAR, 5 x 2 classes", "benchmarks.sources:mixed_cifar", 5, 8, 2, source="data"),
    Task("noniid", "Mixed-NonIID, a data set a device", "benchmarks.sources:mixed_noniid", 5, 8, 2, source="data"),
)  # fmt: skip
SENSITIVE = TASKS[0]
"""The task of the sensitivity tables."""
SENSITIVITY_SEEDS = 2


@dataclass(frozen=True)
class Method:
    """A row: what the demo is told."""

    strategy: str
    options: Mapping[str, Any] = field(default_factory=dict)
    mode: str = "paper"
    """Of AdaSplit: whose options `options` are set upon."""
    cut: str = "pool1"
    codec: str = "float32"
    tasks: tuple[str, ...] = ()
    """Where it is run; empty for all."""

    @property
    def built(self) -> tuple[str, str]:
        """Objective and optimizer that the devices' bundle must have."""
        method = STRATEGIES[self.strategy]
        base = MODES[self.mode] if self.strategy == "adasplit" else {}
        strategy = method(method.options(**{**base, **self.options}))
        return strategy.objective, strategy.optimizer

    @property
    def arguments(self) -> list[str]:
        """How the demo's command line says it."""
        told = ["--strategy", self.strategy, "--codec", self.codec]
        told += ["--mode", self.mode] if self.strategy == "adasplit" else []
        return told + [
            part for name, value in self.options.items() for part in ("--set", f"{name}={json.dumps(value)}")
        ]


_REPLAY = {"eta": 0.2, "masks": False, "replay": 32, "schedule": "constant"}
OURS = "AdaSplit, ours"
SEQUENTIAL = "sequential SL"
METHODS: dict[str, Method] = {
    OURS: Method("adasplit", mode="ours"),
    "AdaSplit, paper's": Method("adasplit"),
    "AdaSplit, ours + masks": Method("adasplit", {"masks": True}, "ours", tasks=("cifar", "noniid")),
    "frozen (masks only)": Method("frozen"),
    "frozen, as ours": Method("frozen", _REPLAY, tasks=("scarce", "all", "cifar")),
    SEQUENTIAL: Method("split_learning"),
    "parallel SL": Method("parallel_split_learning"),
    "SplitFed v1": Method("splitfed"),
    "SplitFed v2": Method("splitfed", {"version": "v2"}),
    "LocSplitFed": Method("locsplitfed"),
    "LocSplitFed, replay 4": Method("locsplitfed", {"replay": 4}, tasks=("scarce",)),
    "LocFedMix-SL": Method("locfedmix"),
    "one-shot (Ampere)": Method("one_shot"),
    "FedAvg": Method("fedavg"),
    "FedProx": Method("fedprox"),
    "SCAFFOLD": Method("scaffold"),
    "FedNova": Method("fednova"),
}
TUNED = "{}, tuned"
METHODS |= {
    TUNED.format(name): replace(METHODS[name], options={**METHODS[name].options, **options}, tasks=("scarce",))
    for name, options in {
        OURS: {"lr": 3e-4},
        "AdaSplit, paper's": {"lr": 1e-2},
        "frozen (masks only)": {"lr": 3e-3},
        "SplitFed v1": {"lr": 1e-2},
        "SplitFed v2": {"lr": 3e-3},
        "LocSplitFed": {"lr": 3e-3},
        "LocFedMix-SL": {"lr": 1e-2},
        "one-shot (Ampere)": {"lr": 1e-2},
        "FedAvg": {"lr": 1e-2, "epochs": 5},
        "FedProx": {"lr": 1e-2, "epochs": 5},
        "SCAFFOLD": {"lr": 3e-2, "epochs": 5},
        "FedNova": {"lr": 3e-2, "epochs": 5},
    }.items()
}
"""What `tuning` found to be best on seeds of its own, where that is not the default."""
REFERENCES = ("local only", "centralised")


@dataclass(frozen=True)
class Sweep:
    """A table of sensitivity: one setting of `AdaSplit, ours`, its values, and which of them is the base's own."""

    title: str
    rows: Mapping[str, Method | None]
    """None is the base itself, which is measured with the methods."""
    theirs: Mapping[str, str] = field(default_factory=dict)
    """What the authors had, by row."""


def _ours(**options: Any) -> Method:
    return Method("adasplit", options, mode="ours")


_QUANTISED = "quantised:1"
SWEEPS: dict[str, Sweep] = {
    "kappa": Sweep(
        "κ, the share of rounds in which nobody sends",
        {f"kappa {k:g}": None if k == 0.6 else _ours(kappa=k) for k in (0.3, 0.45, 0.6, 0.75, 0.9)},
        {
            "kappa 0.3": "89.80 / 17.2",
            "kappa 0.45": "89.77 / 13.4",
            "kappa 0.6": "89.08 / 9.65",
            "kappa 0.75": "88.18 / 6.1",
            "kappa 0.9": "87.11 / 2.4",
        },
    ),
    "eta": Sweep(
        "η, the share of devices that send in an iteration",
        {f"eta {e:g}": None if e == 0.2 else _ours(eta=e) for e in (0.1, 0.2, 0.4, 0.6, 1.0)},
    ),
    "cut": Sweep(
        "μ, the cut",
        {
            "cut pool1": None,
            "cut pool2": replace(_ours(), cut="pool2"),
            "cut relu3": replace(_ours(), cut="relu3"),
            "cut average": replace(_ours(), cut="average"),
        },
        {
            "cut pool1": "89.05 / 9.65",
            "cut pool2": "90.06 / 3.95",
            "cut relu3": "88.86 / 0.19",
            "cut average": "85.87 / 0.11",
        },
    ),
    "beta": Sweep(
        "β, the price of activations that are not zero; smashed data quantised in steps of one deviation and packed",
        {f"beta {b:g}": replace(_ours(beta=b), codec=_QUANTISED) for b in (0.0, 1e-6, 1e-5, 1e-4, 1e-3)},
    ),
    "switches": Sweep(
        "The server's gradient and the selection",
        {
            "as it is": None,
            "server gradient": _ours(server_gradient=True),
            "random selection": _ours(selection="random"),
            "random, eta 0.6": _ours(selection="random", eta=0.6),
        },
        {
            "as it is": "89.08 / 9.65",
            "server gradient": "88.21 / 17.0",
            "random, eta 0.6": "88.74 / –",
        },
    ),
}

THEIRS: dict[str, dict[str, tuple[float, float, float]]] = {
    "noniid": {
        OURS: (88.88, 9.71, 5.38),
        "AdaSplit, paper's": (88.88, 9.71, 5.38),
        "frozen (masks only)": (89.38, 43.81, 3.76),
        SEQUENTIAL: (84.65, 84.64, 3.76),
        "SplitFed v1": (84.64, 84.54, 3.76),
        "FedAvg": (84.21, 2.39, 17.13),
        "FedProx": (85.09, 2.39, 17.13),
        "SCAFFOLD": (84.73, 4.78, 17.13),
        "FedNova": (82.71, 2.39, 17.13),
    },
    "cifar": {
        OURS: (91.63, 3.63, 2.38),
        "AdaSplit, paper's": (91.63, 3.63, 2.38),
        "frozen (masks only)": (93.02, 17.04, 1.66),
        SEQUENTIAL: (70.93, 25.98, 1.66),
        "SplitFed v1": (65.76, 29.51, 1.66),
        "FedAvg": (91.61, 2.39, 11.77),
        "FedProx": (92.55, 2.39, 11.77),
        "SCAFFOLD": (91.40, 4.79, 11.77),
        "FedNova": (70.60, 2.39, 11.77),
    },
}
"""Accuracy in percent (maximum over rounds, mean of 5), GB, client TFLOP of the authors' notebooks [code]."""
