"""What `budget` measures: its tasks, and its rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from benchmarks import papers_rows
from benchmarks.papers_rows import OURS, SEQUENTIAL, TUNED

SMALLEST = 16_000
"""The smallest budget of a run that a device takes; bytes."""
TASKS = tuple(task for task in papers_rows.TASKS if task.name in ("scarce", "fashion", "cifar"))


@dataclass(frozen=True)
class Method:
    """A row: what is trained, and what of it may leave a device."""

    trained: papers_rows.Method
    weights_codec: str = "float32"
    evaluation_codec: str = "float32"
    part: int | None = None
    """The budget is one of so many parts of what uncompressed AdaSplit sends with the same seed."""
    budget: int | None = None
    """The budget itself, bytes; neither of the two is no budget."""
    known: Mapping[str, float] = field(default_factory=dict)
    """[known] of the hub."""
    tasks: tuple[str, ...] = ("scarce",)

    def bytes(self, upload: float | None) -> int | None:
        """Its budget, where uncompressed AdaSplit sends so many bytes.

        Raises:
            ValueError: it is a part of an upload that nobody knows.
        """
        if self.part is None:
            return self.budget
        if upload is None:
            raise ValueError(f"1/{self.part} of what? There is no row of uncompressed AdaSplit with this seed")
        return round(upload / self.part)

    def arguments(self, budget: int | None) -> list[str]:
        """Of the demo, with a budget in bytes."""
        told = [*self.trained.arguments, "--weights-codec", self.weights_codec]
        told += ["--evaluation-codec", self.evaluation_codec]
        told += [part for key, value in self.known.items() for part in ("--known", f"{key}={value:g}")]
        return told + (["--budget", f"up_per_run={budget} B", "--budget", "evaluation=apart"] if budget else [])


_EVERY = tuple(task.name for task in TASKS)
_PICTURES = ("fashion", "cifar")
_KNOWN = {"skip_below": 0.1}


def _papers(name: str, codec: str = "float32", **options: object) -> papers_rows.Method:
    """A method of `papers`, with another codec and more options."""
    method = papers_rows.METHODS[name]
    return replace(method, codec=codec, options={**method.options, **options})


def _paired(codec: str) -> papers_rows.Method:
    """Both steps of a round in one turn: half of the orders and reports."""
    return _papers(OURS, codec, select_every=2)


_ENTROPY = "entropy:1.5"
UNCOMPRESSED = "AdaSplit, uncompressed"
METHODS: dict[str, Method] = {
    UNCOMPRESSED: Method(_papers(OURS), tasks=_EVERY),
    "AdaSplit, entropy": Method(_papers(OURS, _ENTROPY)),
    "AdaSplit, entropy, known": Method(_papers(OURS, _ENTROPY), known=_KNOWN),
    "AdaSplit, 1/2": Method(_papers(OURS, _ENTROPY), part=2, tasks=_EVERY),
    "AdaSplit, 1/10": Method(_papers(OURS, _ENTROPY), part=10, tasks=_EVERY),
    "AdaSplit, 1/20": Method(_papers(OURS, _ENTROPY), part=20),
    "AdaSplit, 1/30": Method(_papers(OURS, _ENTROPY), part=30, tasks=_EVERY),
    "AdaSplit, 1/40": Method(_papers(OURS, _ENTROPY), part=40),
    "AdaSplit, 1/100": Method(_papers(OURS, _ENTROPY), part=100, tasks=_PICTURES),
    "AdaSplit, 16 kB": Method(_papers(OURS, _ENTROPY), budget=SMALLEST, tasks=_EVERY),
    "AdaSplit, 1/30, known": Method(_papers(OURS, _ENTROPY), part=30, known=_KNOWN),
    "AdaSplit, 16 kB, known": Method(_papers(OURS, _ENTROPY), budget=SMALLEST, known=_KNOWN),
    "AdaSplit, topk:0.1": Method(_paired("topk:0.1"), evaluation_codec="topk:0.1", tasks=_EVERY),
    "AdaSplit, topk:0.03": Method(_paired("topk:0.03"), evaluation_codec="topk:0.03", tasks=_EVERY),
    "AdaSplit, randtopk:0.1": Method(_paired("randtopk:0.1"), evaluation_codec="topk:0.1", tasks=_EVERY),
    "AdaSplit, randtopk:0.03": Method(_paired("randtopk:0.03"), evaluation_codec="topk:0.03", tasks=_EVERY),
    SEQUENTIAL: Method(_papers(SEQUENTIAL), tasks=_EVERY),
    "SplitFed v1, entropy": Method(_papers(TUNED.format("SplitFed v1"), _ENTROPY), "entropy:1"),
    "SplitFed v1 untuned, entropy": Method(_papers("SplitFed v1", _ENTROPY), "entropy:1", tasks=_PICTURES),
    "SplitFed v2, entropy": Method(_papers(TUNED.format("SplitFed v2"), _ENTROPY), "entropy:1"),
    "FedAvg, float32": Method(_papers(TUNED.format("FedAvg"))),
    "FedAvg, uniform:8": Method(_papers(TUNED.format("FedAvg")), "uniform:8"),
    "FedAvg untuned, uniform:8": Method(_papers("FedAvg"), "uniform:8", tasks=_PICTURES),
}
"""Names are not those of earlier results: what a budget buys has changed since."""
CURVE = tuple(name for name, method in METHODS.items() if (method.part or method.budget) and not method.known)
"""The rows of AdaSplit's curve."""
