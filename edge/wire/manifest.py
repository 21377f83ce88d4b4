"""The manifest of a bundle: what its graphs expect, give and hash to.

A bundle is a zip archive; `manifest.json` in it names every other member with its size and SHA-256, and the
SHA-256 of the manifest's own bytes is the bundle's id. Hub and device compare ids before they exchange a tensor.
"""

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

FORMAT = 1
"""Version of the layout below; a reader refuses what is newer.

It rises when a reader that does not know a change would do something wrong. Optional keys (`memory`) do not raise it: readers
ignore keys they do not know, and the id is that of the bytes.
"""

MAXIMUM_ELEMENTS = 1 << 28
"""Largest number of elements one state tensor or one sample may have (1 GiB of float32)."""

DTYPES = ("float32", "int64")

GRAPHS = ("local", "forward", "backward", "evaluate", "begin", "end")
"""The first four run on a batch; `begin` and `end`, where a bundle has them, before the first and after the last step of every local order."""

PARTS = ("head", "lower")
"""What a device trains: the model's lower segment, and what only the local objective uses."""


class ManifestError(ValueError):
    """A manifest that cannot be used; the message names the key, the value and what would be right."""


@dataclass(frozen=True)
class TensorSpec:
    """Shape (without the batch for samples and smashed data) and dtype of one tensor."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Setting:
    """One hyperparameter the hub may set per order: its default and the range the graphs were checked for."""

    default: float
    minimum: float
    maximum: float


@dataclass(frozen=True)
class Slice:
    """Where one parameter or buffer lies in a flat state vector."""

    name: str
    state: str
    offset: int
    shape: tuple[int, ...]
    part: str
    """One of `PARTS`."""

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Graph:
    """One ONNX graph: its file, its routed inputs and outputs, and what the build has proved about it."""

    file: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    in_place: bool
    """Whether one buffer may serve as old and new state; false means two buffers take turns."""
    random: Mapping[str, tuple[int, ...]]
    """Noise inputs and their shapes without the batch: uniform in [0, 1), drawn by the device."""
    blocked: str = ""
    """File of the same graph by operators that see channels in blocks, for devices that have them; empty: there is none."""


@dataclass(frozen=True)
class Layout:
    """What the blocked graphs ask of a device."""

    block: int
    """Channels in a block."""
    probe: str
    """File of a graph whose output's second dimension is the block that the device's onnxruntime uses."""


@dataclass(frozen=True)
class Need:
    """Memory that running one graph is estimated to add to a device's process."""

    fixed_bytes: int
    """Whatever the batch: state with its copies, constants, the session."""
    sample_bytes: int
    """For each sample of a batch."""


@dataclass(frozen=True)
class File:
    """Size and SHA-256 of one member of the archive."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything a device must know before it loads a graph, and a hub before it sends an order."""

    name: str
    model: str
    cut: str
    objective: str
    optimizer: str
    input: TensorSpec
    classes: int
    smashed: TensorSpec
    settings: Mapping[str, Setting]
    state: Mapping[str, TensorSpec]
    slices: tuple[Slice, ...]
    graphs: Mapping[str, Graph]
    files: Mapping[str, File]
    flops: Mapping[str, float]
    """Multiply-adds per sample: `forward` of the lower segment, `training` of one local step."""
    check: Mapping[str, Any]
    versions: Mapping[str, Any]
    layout: Layout | None = None
    """Of the blocked graphs; None where there are none."""
    tuning: Mapping[str, Any] = field(default_factory=dict)
    """Which formulations were chosen, what they were measured at, and on which machine; empty where nothing was measured."""
    format: int = FORMAT
    memory: Mapping[str, Need] = field(default_factory=dict)
    """By kind of graph; empty in a bundle of an older release."""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a manifest and check that its parts fit together.

        Raises:
            ManifestError: not JSON, a key missing or of the wrong type, a newer format, a slice outside its state,
                a graph whose file has no hash.
        """
        try:
            fields = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ManifestError(f"the manifest is not JSON: {error}") from error
        if not isinstance(fields, dict):
            raise ManifestError(f"the manifest is a JSON {type(fields).__name__}, not an object")
        if (found := fields.get("format")) != FORMAT:
            newer = type(found) is int and found > FORMAT
            help_ = (
                "install the release of cutlayer that built it, or a later one" if newer else "build the bundle anew"
            )
            raise ManifestError(f"the manifest has format {found!r}; this release reads format {FORMAT}: {help_}")
        try:
            manifest = cls(**{key: _READERS[key](value) for key, value in fields.items() if key in _READERS})
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise ManifestError(f"the manifest is incomplete or has a value of the wrong type: {error}") from error
        manifest._check()
        return manifest

    def serialize(self) -> bytes:
        """The canonical bytes: sorted keys, no spaces; equal manifests give equal bytes and so equal ids."""
        # What a bundle of an older release did not have must not change its id.
        fields = {key: value for key, value in _plain(self).items() if value or key not in _OPTIONAL}
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()

    @property
    def id(self) -> str:
        """SHA-256 of the canonical bytes, 64 hexadecimal digits."""
        return hashlib.sha256(self.serialize()).hexdigest()

    def pieces(self, parts: Collection[str]) -> tuple[Slice, ...]:
        """The slices of these parts of the device's model, in the order of the manifest."""
        return tuple(piece for piece in self.slices if piece.part in parts)

    def find(self, name: str) -> Slice | None:
        """Where a tensor of a message lies: a parameter or buffer by its name, a whole state vector as `state.NAME`."""
        vector = name.removeprefix("state.")
        if name != vector and vector in self.state:
            return Slice(name, vector, 0, self.state[vector].shape, "state")
        return next((piece for piece in self.slices if piece.name == name), None)

    def _check(self) -> None:
        for name, spec in {**self.state, "input": self.input, "smashed": self.smashed}.items():
            if spec.dtype not in DTYPES:
                raise ManifestError(f"{name} has dtype {spec.dtype!r}; known are {', '.join(DTYPES)}")
            if any(size < 0 for size in spec.shape) or spec.elements > MAXIMUM_ELEMENTS:
                raise ManifestError(f"{name} has shape {spec.shape}; the limit is {MAXIMUM_ELEMENTS} elements")
        if self.classes < 1:
            raise ManifestError(f"classes is {self.classes}; at least 1 is needed")
        for piece in self.slices:
            self._check_slice(piece)
        for kind, graph in self.graphs.items():
            if kind not in GRAPHS:
                raise ManifestError(f"there is a graph {kind!r}; known are {', '.join(GRAPHS)}")
            if graph.file not in self.files:
                raise ManifestError(f"the {kind} graph's file {graph.file!r} has no hash under files")
            if graph.blocked and (graph.blocked not in self.files or self.layout is None):
                raise ManifestError(
                    f"the {kind} graph's blocked file {graph.blocked!r} has no hash, or layout is missing"
                )
        if self.layout is not None and self.layout.probe not in self.files:
            raise ManifestError(f"the layout's probe {self.layout.probe!r} has no hash under files")

    def _check_slice(self, piece: Slice) -> None:
        vector = self.state.get(piece.state)
        if piece.part not in PARTS:
            raise ManifestError(f"slice {piece.name!r} is of the part {piece.part!r}; known are {', '.join(PARTS)}")
        if vector is None or piece.offset < 0 or piece.offset + piece.size > vector.elements:
            raise ManifestError(f"slice {piece.name!r} does not lie inside state {piece.state!r}")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {key: _plain(getattr(value, key)) for key in value.__dataclass_fields__}
    return value


def _shape(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(size) is int for size in value):
        raise ValueError(f"{value!r} is not a shape")
    return tuple(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(_text(item) for item in value)


def _count(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is not a whole number")
    return value


def _tensor(value: Any) -> TensorSpec:
    return TensorSpec(_shape(value["shape"]), _text(value["dtype"]))


def _setting(value: Any) -> Setting:
    return Setting(float(value["default"]), float(value["minimum"]), float(value["maximum"]))


def _slice(value: Any) -> Slice:
    return Slice(
        _text(value["name"]),
        _text(value["state"]),
        _count(value["offset"]),
        _shape(value["shape"]),
        _text(value["part"]),
    )


def _graph(value: Any) -> Graph:
    if type(value["in_place"]) is not bool:
        raise TypeError(f"in_place is {value['in_place']!r}, not true or false")
    random = {_text(name): _shape(shape) for name, shape in value["random"].items()}
    return Graph(
        _text(value["file"]),
        _texts(value["inputs"]),
        _texts(value["outputs"]),
        value["in_place"],
        random,
        _text(value.get("blocked", "")),
    )


def _layout(value: Any) -> Layout | None:
    return None if value is None else Layout(_count(value["block"]), _text(value["probe"]))


def _need(value: Any) -> Need:
    found = Need(_count(value["fixed_bytes"]), _count(value["sample_bytes"]))
    if min(found.fixed_bytes, found.sample_bytes) < 0:
        raise ValueError(f"a graph cannot need {min(found.fixed_bytes, found.sample_bytes)} bytes of memory")
    return found


def _file(value: Any) -> File:
    return File(_count(value["bytes"]), _text(value["sha256"]))


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is not an object")
    return value


_READERS: dict[str, Any] = {
    "format": _count,
    "name": _text,
    "model": _text,
    "cut": _text,
    "objective": _text,
    "optimizer": _text,
    "input": _tensor,
    "classes": _count,
    "smashed": _tensor,
    "settings": lambda value: {name: _setting(item) for name, item in _object(value).items()},
    "state": lambda value: {name: _tensor(item) for name, item in _object(value).items()},
    "slices": lambda value: tuple(_slice(item) for item in value),
    "graphs": lambda value: {kind: _graph(item) for kind, item in _object(value).items()},
    "files": lambda value: {name: _file(item) for name, item in _object(value).items()},
    "flops": lambda value: {name: float(item) for name, item in _object(value).items()},
    "check": _object,
    "versions": _object,
    "memory": lambda value: {kind: _need(item) for kind, item in _object(value).items()},
    "layout": _layout,
    "tuning": _object,
}

_OPTIONAL = ("memory",)
