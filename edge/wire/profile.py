"""`profile.json`: what a bundle costs on a board. `cutlayer profile` and `cutlayer-export cuts` write it, `cuts` and hubs read it.

    {"format": 1,
     "board": {"model": "Raspberry Pi 5", "memory_bytes": 4294967296, "onnxruntime": "1.31.0", ...},
     "conditions": {"date": …, "bundle": …, "confidence": 0.95, "slowed": "", ...},
     "steps": [{"model": "my.package:factory", "cut": "layer2", "objective": …, "optimizer": "adam", "kind": "local",
                "batch": 32, "threads": 1, "repeats": 200, "median_seconds": 0.031, "p95_seconds": 0.036, "quiet_seconds": 0.030,
                "joules": 0.11, "joules_why": "", "peak_bytes": 91000000, "own_bytes": 30000000, "peak_why": ""}, ...],
     "stages": [{"stage": "encode", "batch": 32, "threads": 1, "codec": "entropy:1", "repeats": 160, "median_seconds": 0.0021,
                 "low_seconds": 0.0020, "high_seconds": 0.0022, ...}, ...],
     "missing": [{"stage": "send", "batch": 32, "threads": 1, "why": "no broker …"}, ...],
     "shares": [{"stage": "local", "batch": 32, "threads": 1, "op": "Conv", "calls": 3, "seconds": 0.011, "share": 0.41}, ...],
     "operators": [{"op": "Conv", "inputs": "…", "outputs": "…", "seconds": 0.0011}, ...]}

`steps` are whole steps by what they are the cost of, for choosing a cut; `stages` what a step on this board is made of.
A figure that is not known is null, and its `_why` says why. Keys that a reader does not know are left alone.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

FORMAT = 1
"""Version of the layout; a reader refuses what is newer."""


class ProfileError(ValueError):
    """A profile that cannot be used; the message names the place, the value and what would be right."""


@dataclass(frozen=True)
class Step:
    """What one kind of graph of one bundle costs at one batch size and number of threads."""

    model: str
    """Factory, as `package.module:factory`."""
    cut: str
    objective: str
    optimizer: str
    kind: str
    """Of `edge.wire.manifest.GRAPHS`."""
    batch: int
    threads: int
    repeats: int
    median_seconds: float
    p95_seconds: float
    quiet_seconds: float
    """The tenth percentile: what it takes while nothing else runs."""
    joules: float | None = None
    joules_why: str = ""
    peak_bytes: int | None = None
    """Highest resident memory of the process that ran it, interpreter and libraries included."""
    own_bytes: int | None = None
    """What of that came with the graph."""
    peak_why: str = ""

    @property
    def key(self) -> tuple[str, str, str, str, str, int, int]:
        """What it is the cost of."""
        return self.model, self.cut, self.objective, self.optimizer, self.kind, self.batch, self.threads


STAGES = ("sensor", "forward", "local", "backward", "encode", "outbox", "send")
"""What a step is made of, in the order in which a batch passes them; `local` is a whole local step: forward, backward, optimizer."""


@dataclass(frozen=True)
class Stage:
    """What one stage costs at one batch size and number of threads; figures are those of one repetition."""

    stage: str
    """Of `STAGES`."""
    batch: int
    threads: int
    codec: str
    """That the activation is coded with; empty where nothing is coded."""
    repeats: int
    median_seconds: float
    low_seconds: float
    """The median lies between this and `high_seconds` with the confidence of the profile's conditions."""
    high_seconds: float
    p95_seconds: float
    quiet_seconds: float
    cpu_seconds: float
    """Of this process, all its threads together; the mean."""
    joules: float | None = None
    """Of the whole board; the mean."""
    joules_why: str = ""
    joules_kind: str = ""
    """`metered`, `sensor` or `modelled`."""
    joules_source: str = ""
    joules_uncertainty: float | None = None
    """Both ways, in about 95 of 100 cases."""
    joules_hertz: float | None = None
    """Readings a second."""
    idle_watts: float | None = None
    """Of the board before, by the same source."""
    peak_bytes: int | None = None
    """Highest resident memory of the process meanwhile, interpreter, libraries and earlier stages included."""
    peak_why: str = ""
    """How the peak was obtained, or why there is none."""
    unshared_bytes: int | None = None
    """What ending the process would free, after the stage."""
    own_bytes: int | None = None
    """By how much that grew from before the stage was set up: its graph, its tables, its file."""
    bytes: int | None = None
    """What comes out: of a coded message, or over the socket; None where nothing leaves."""


@dataclass(frozen=True)
class Missing:
    """A stage that was to be measured and was not, and why."""

    stage: str
    batch: int
    threads: int
    why: str


@dataclass(frozen=True)
class Share:
    """What the operators of one name take of a graph's step, by onnxruntime's profiler."""

    stage: str
    batch: int
    threads: int
    op: str
    calls: int
    """In one step."""
    seconds: float
    """Of one step, all calls together."""
    share: float
    """Of the seconds of all operators, 0 to 1."""


@dataclass(frozen=True)
class Operator:
    """What one operator takes at given shapes, as onnxruntime's profiler names them."""

    op: str
    inputs: str
    outputs: str
    seconds: float

    @property
    def signature(self) -> tuple[str, str, str]:
        """What it is the time of."""
        return self.op, self.inputs, self.outputs


@dataclass(frozen=True)
class Profile:
    """All that was measured on one board."""

    board: Mapping[str, Any]
    steps: Sequence[Step]
    operators: Sequence[Operator] = field(default_factory=tuple)
    stages: Sequence[Stage] = field(default_factory=tuple)
    missing: Sequence[Missing] = field(default_factory=tuple)
    shares: Sequence[Share] = field(default_factory=tuple)
    conditions: Mapping[str, Any] = field(default_factory=dict)
    """When, with what, on what data and how warm it was measured (`edge/profile/record.py` has the keys)."""

    @property
    def name(self) -> str:
        """What the board is called."""
        return str(self.board.get("model") or self.board.get("cpu") or "unknown board")

    @property
    def memory_bytes(self) -> int | None:
        """Memory of the board; None where its record does not say."""
        found = self.board.get("memory_bytes")
        return int(found) if isinstance(found, int | float) and 0 < found < math.inf else None

    def serialize(self) -> str:
        """The file's text."""
        fields = {"format": FORMAT, "board": dict(self.board), "conditions": dict(self.conditions)}
        fields |= {name: [asdict(item) for item in getattr(self, name)] for name in ROWS}
        return json.dumps(fields, indent=1, allow_nan=False) + "\n"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a file's text.

        Raises:
            ProfileError: not JSON, a newer format, a key missing or a value of the wrong type or below 0.
        """
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ProfileError(f"it is not JSON ({error})") from error
        if not isinstance(fields, dict) or type(fields.get("format")) is not int:
            raise ProfileError("it has no whole number as its 'format'")
        if not 1 <= fields["format"] <= FORMAT:
            raise ProfileError(f"it has format {fields['format']}; this release reads up to {FORMAT}")
        board, conditions = fields.get("board"), fields.get("conditions", {})
        if not isinstance(board, dict):
            raise ProfileError("it has no object 'board'")
        if not isinstance(conditions, dict):
            raise ProfileError(f"'conditions' is a {type(conditions).__name__}, not an object")
        return cls(board, conditions=conditions, **{name: _rows(fields, name, kind) for name, kind in ROWS.items()})


ROWS: dict[str, type] = {"steps": Step, "stages": Stage, "missing": Missing, "shares": Share, "operators": Operator}
"""The lists of a profile."""


def _rows(fields: Mapping[str, Any], name: str, kind: type) -> tuple[Any, ...]:
    rows = fields.get(name, [])
    if not isinstance(rows, list):
        raise ProfileError(f"'{name}' is a {type(rows).__name__}, not a list")
    return tuple(_row(row, f"{name}[{place}]", kind) for place, row in enumerate(rows))


_TEXT, _WHOLE, _REAL = (str,), (int,), (int, float)
_TYPES: dict[str, tuple[type, ...]] = {
    "str": _TEXT,
    "int": _WHOLE,
    "float": _REAL,
    "int | None": (*_WHOLE, type(None)),
    "float | None": (*_REAL, type(None)),
}


def _row(row: Any, place: str, kind: type) -> Any:
    if not isinstance(row, dict):
        raise ProfileError(f"{place} is a {type(row).__name__}, not an object")
    known = kind.__dataclass_fields__  # type: ignore[attr-defined]  # both kinds are dataclasses
    for name, spec in known.items():
        if name not in row:
            if isinstance(spec.default, str | type(None)):
                continue
            raise ProfileError(f"{place} has no '{name}'")
        value, types = row[name], _TYPES[getattr(spec.type, "__name__", None) or str(spec.type)]
        if not isinstance(value, types) or isinstance(value, bool):
            raise ProfileError(f"{place}: {name} is {value!r:.40}, not {' or '.join(each.__name__ for each in types)}")
        if isinstance(value, int | float) and not 0 <= value < math.inf:
            raise ProfileError(f"{place}: {name} is {value!r:.40}; it must be 0 or more")
    return kind(**{name: row[name] for name in known if name in row})
