"""Runs the bundle's graphs: the only file that knows onnxruntime.

Every tensor of a graph says in its name where it comes from and where it goes:

    batch.*    from the sensor           up.*      to the hub
    down.*     from the hub              metric.*  to the report
    setting.*  from the order            state.*   stays here, `state.NAME.next` becomes `state.NAME`
    random.*   noise drawn here

so a new algorithm is a new bundle, and this file never learns its name.
"""

import functools
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Linux wheels since 1.29 report to their vendor unless this is set before the import; afterwards is too late.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import numpy.typing as npt
import onnxruntime

from edge.bundle import Bundle
from edge.memory import Room, TooLargeError, refuse_too_large
from edge.wire.manifest import Slice

Array = npt.NDArray[Any]
Sessions = dict[str, onnxruntime.InferenceSession]
NEXT = ".next"


class SegmentError(ValueError):
    """A value the graphs cannot take or gave; the message names the tensor, what it is and what was wanted."""


def providers() -> tuple[str, ...]:
    """Execution providers that this onnxruntime has, best first; `Segment` uses the CPU's."""
    return tuple(onnxruntime.get_available_providers())


@dataclass(frozen=True)
class Result:
    """What one run of a graph handed out besides the new state."""

    up: Mapping[str, Array] = field(default_factory=dict)
    """Tensors for the hub by name without the prefix: `smashed` with shape (batch, *smashed)."""
    metrics: Mapping[str, float] = field(default_factory=dict)


class Segment:
    """The lower segment on the device: its graphs, and its state, which stays in place between steps.

    Args:
        bundle: what it is made of.
        threads: of one step.
        sessions: by kind of graph; segments of one bundle that take turns in one process may share theirs.
        room: the memory there is for this process; without it nothing is refused as too large.
    """

    def __init__(
        self, bundle: Bundle, *, threads: int = 1, sessions: Sessions | None = None, room: Room | None = None
    ) -> None:
        self.manifest = bundle.manifest
        self._bundle = bundle
        self._threads = threads
        self._sessions: Sessions = {} if sessions is None else sessions
        self._room = room
        self._largest: dict[str, int] = {}
        """The largest batch each graph has run on: its session keeps the memory for that."""
        self._state = {name: np.array(value, order="C") for name, value in bundle.state.items()}
        self._values = {name: _shared(array) for name, array in self._state.items()}
        self._scalars: dict[str, tuple[float, Array, Any]] = {}
        """Settings as they were last: the number, its array, and the value over that."""
        # Only graphs without the in-place proof need a second buffer; it takes turns with the first.
        self._spare: dict[str, tuple[Array, Any]] = {}

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of graph this bundle has."""
        return tuple(self.manifest.graphs)

    def too_large(self, kind: str, batch: int) -> str | None:
        """Why a graph cannot run on such a batch beside those that have run, for want of memory; None where it can."""
        if self._room is None or batch <= self._largest.get(kind, -1):
            return None
        try:
            refuse_too_large(self.manifest, kind, batch, self._room, self._largest)
        except TooLargeError as error:
            return str(error)
        return None

    def run(
        self,
        kind: str,
        inputs: Mapping[str, Array],
        settings: Mapping[str, float],
        rng: np.random.Generator,
        *,
        up: bool = True,
    ) -> Result:
        """Run one graph on one batch and move the state on.

        Args:
            kind: a kind of graph of `edge.wire.manifest.GRAPHS`.
            inputs: by full name: `batch.x` (batch, *input), `batch.y` (batch,), `down.gradient` (batch, *smashed);
                none for `begin` and `end`.
            settings: hyperparameters by name without prefix; what is not given has the manifest's default.
            rng: draws the noise of `random.*` inputs; same generator state, same noise.
            up: false leaves the tensors for the hub where they are: a step that sends nothing copies nothing.

        Raises:
            SegmentError: the bundle has no such graph, an input is missing, there is not enough memory for it, or a loss or
                activation is not finite.
        """
        rows = len(inputs["batch.x"]) if inputs else 0
        session = self._session(kind, rows)
        graph = self.manifest.graphs[kind]
        binding = session.io_binding()
        for name in graph.inputs:
            self._bind_input(binding, name, inputs, settings, graph.random, rows, rng)
        outputs = [name for name in graph.outputs if up or not name.startswith("up.")]
        for name in outputs:
            self._bind_output(binding, name, in_place=graph.in_place)
        session.run_with_iobinding(binding)
        self._swap([name for name in outputs if name.endswith(NEXT)], in_place=graph.in_place)
        return _result(dict(zip(outputs, binding.get_outputs(), strict=True)))

    def snapshot(self) -> dict[str, Array]:
        """A copy of every state tensor, for the outbox."""
        return {name: array.copy() for name, array in self._state.items()}

    def reset(self) -> None:
        """Go back to the state the bundle was built with."""
        self.restore(self._bundle.state)

    def restore(self, state: Mapping[str, Array]) -> None:
        """Overwrite the whole state with a snapshot.

        Raises:
            SegmentError: a tensor is missing or has another shape or dtype than the bundle's.
        """
        for name, array in self._state.items():
            found = state.get(name)
            if found is None or found.shape != array.shape or found.dtype != array.dtype:
                seen = "missing" if found is None else f"{found.dtype} {found.shape}"
                raise SegmentError(f"stored state {name!r} is {seen}; the bundle wants {array.dtype} {array.shape}")
        for name, array in self._state.items():
            array[...] = state[name]

    def tensors(self, parts: Collection[str]) -> dict[str, Array]:
        """Copies of the parameters and buffers of these parts of the model, by name."""
        return {piece.name: self._view(piece).copy() for piece in self.manifest.pieces(parts)}

    def load(self, tensors: Mapping[str, Array]) -> None:
        """Replace parameters, buffers and whole state vectors by name; all others stay as they are.

        Raises:
            SegmentError: see `places`; nothing is changed then.
        """
        for name, place in self.places(tensors).items():
            self._view(place)[...] = tensors[name]

    def places(self, tensors: Mapping[str, Array]) -> dict[str, Slice]:
        """Where tensors from the hub belong.

        Raises:
            SegmentError: a name this device does not have, another shape, or a value that is not finite.
        """
        places = {}
        for name, array in tensors.items():
            place = self.manifest.find(name)
            if place is None:
                raise SegmentError(f"the hub sent {name!r}, which this device's model does not have")
            if array.shape != place.shape:
                raise SegmentError(f"the hub sent {name!r} with shape {array.shape}; here it has {place.shape}")
            if not np.isfinite(array).all():
                raise SegmentError(f"the hub sent {name!r} with values that are not finite")
            places[name] = place
        return places

    def _view(self, piece: Slice) -> Array:
        flat = self._state[piece.state].reshape(-1)
        return flat[piece.offset : piece.offset + piece.size].reshape(piece.shape)

    def _session(self, kind: str, rows: int) -> Any:
        if kind not in self._bundle.graphs:
            raise SegmentError(f"the bundle has no {kind!r} graph; it has {', '.join(self.kinds)}")
        if fault := self.too_large(kind, rows):
            raise SegmentError(fault)
        self._largest[kind] = max(rows, self._largest.get(kind, 0))
        if kind not in self._sessions:
            self._sessions[kind] = onnxruntime.InferenceSession(
                self.graph(kind), session_options(self._threads), providers=["CPUExecutionProvider"]
            )
        return self._sessions[kind]

    def graph(self, kind: str) -> bytes:
        """The ONNX graph that is run for a kind here: the one for channels in blocks, where there is one and they are to be had."""
        graphs = self._bundle.blocked if self.blocked else {}
        return graphs.get(kind, self._bundle.graphs[kind])

    @functools.cached_property
    def blocked(self) -> bool:
        """Whether the bundle's graphs for channels in blocks are used: it has some, and this onnxruntime has their block."""
        layout = self.manifest.layout
        return layout is not None and block(self._bundle.probe) == layout.block

    def _bind_input(
        self,
        binding: Any,
        name: str,
        inputs: Mapping[str, Array],
        settings: Mapping[str, float],
        random: Mapping[str, tuple[int, ...]],
        rows: int,
        rng: np.random.Generator,
    ) -> None:
        route, _, rest = name.partition(".")
        if route == "state":
            binding.bind_ortvalue_input(name, self._values[rest])
        elif route == "setting":
            binding.bind_ortvalue_input(name, self._setting(rest, settings))
        elif route == "random":
            binding.bind_cpu_input(name, rng.random((rows, *random[name]), np.float32))
        elif name in inputs:
            binding.bind_cpu_input(name, np.ascontiguousarray(inputs[name]))
        else:
            raise SegmentError(f"the graph wants {name!r}, and this step has only {', '.join(inputs)}")

    def _setting(self, name: str, settings: Mapping[str, float]) -> Any:
        value = settings.get(name, self.manifest.settings[name].default)
        known = self._scalars.get(name)
        if known is None or known[0] != value:
            array = np.array(value, np.float32)
            known = self._scalars[name] = (value, array, _shared(array))
        return known[2]

    def _bind_output(self, binding: Any, name: str, *, in_place: bool) -> None:
        if not name.endswith(NEXT):
            binding.bind_output(name, "cpu")
            return
        state = _state_name(name)
        if in_place:
            binding.bind_ortvalue_output(name, self._values[state])
            return
        if state not in self._spare:
            spare = np.empty_like(self._state[state])
            self._spare[state] = (spare, _shared(spare))
        binding.bind_ortvalue_output(name, self._spare[state][1])

    def _swap(self, outputs: list[str], *, in_place: bool) -> None:
        if in_place:
            return
        for state in map(_state_name, outputs):
            old = (self._state[state], self._values[state])
            self._state[state], self._values[state] = self._spare[state]
            self._spare[state] = old


def block(probe: bytes) -> int:
    """Channels in a block in which this processor's onnxruntime lays out convolutions; 0: it has none.

    Args:
        probe: a graph from one input to one output whose second dimension is the block; it does not load where there is none.
    """
    try:
        session = onnxruntime.InferenceSession(probe, session_options(1), providers=["CPUExecutionProvider"])
    except Exception:  # noqa: BLE001  onnxruntime's exceptions have no common class, and each says: not here
        return 0
    (taken,) = session.get_inputs()
    return int(session.run(None, {taken.name: np.zeros(taken.shape, np.float32)})[0].shape[1])


def session_options(threads: int) -> Any:
    """Options measured to suit a board: least memory, no spinning, threads as told."""
    options = onnxruntime.SessionOptions()
    options.enable_mem_pattern = False
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def profiled_session(graph: bytes, threads: int, path: Path) -> Any:
    """A session under onnxruntime's profiler, which makes it slower: `end_profiling` tells the file, whose name begins with `path`."""
    options = session_options(threads)
    options.enable_profiling, options.profile_file_prefix = True, str(path)
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _shared(array: Array) -> Any:
    """An onnxruntime value over the array's own memory: what a graph writes there is seen through the array."""
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def _state_name(output: str) -> str:
    return output.removeprefix("state.").removesuffix(NEXT)


def _result(outputs: Mapping[str, Any]) -> Result:
    up = {name.removeprefix("up."): value.numpy() for name, value in outputs.items() if name.startswith("up.")}
    metrics = {
        name.removeprefix("metric."): float(value.numpy())
        for name, value in outputs.items()
        if name.startswith("metric.")
    }
    for name, number in metrics.items():
        if not np.isfinite(number):
            raise SegmentError(f"metric {name!r} is {number}: training has diverged; a lower lr may help")
    for name, array in up.items():
        if not np.isfinite(array).all():
            raise SegmentError(f"{name!r} has values that are not finite: training has diverged")
    return Result(up, metrics)
