"""`profile.json`: what graphs cost on a board. `cutlayer profile` and `cutlayer-export cuts` write it, `cuts` and hubs read it.

    {"format": 1,
     "board": {"model": "Raspberry Pi 5", "memory_bytes": 4294967296, "onnxruntime": "1.31.0", ...},
     "steps": [{"model": "my.package:factory", "cut": "layer2", "objective": …, "optimizer": "adam", "kind": "local",
                "batch": 32, "threads": 1, "repeats": 200, "median_seconds": 0.031, "p95_seconds": 0.036, "quiet_seconds": 0.030,
                "joules": 0.11, "joules_why": "", "peak_bytes": 91000000, "own_bytes": 30000000, "peak_why": ""}, ...],
     "operators": [{"op": "Conv", "inputs": "…", "outputs": "…", "seconds": 0.0011}, ...]}

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

    @property
    def name(self) -> str:
        """What the board is called."""
        return str(self.board.get("model") or self.board.get("cpu") or "unknown board")

    @property
    def memory_bytes(self) -> int | None:
        """Memory of the board; None where its record does not say."""
        found = self.board.get("memory_bytes")
        return int(found) if isinstance(found, int | float) and found > 0 else None

    def serialize(self) -> str:
        """The file's text."""
        steps, operators = ([asdict(item) for item in items] for items in (self.steps, self.operators))
        fields = {"format": FORMAT, "board": dict(self.board), "steps": steps, "operators": operators}
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
        board = fields.get("board")
        if not isinstance(board, dict):
            raise ProfileError("it has no object 'board'")
        return cls(board, _rows(fields, "steps", Step), _rows(fields, "operators", Operator))


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
