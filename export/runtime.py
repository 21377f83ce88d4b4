"""Runs graphs with onnxruntime as a device would: the only file of the exporter that imports it."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

# Must be in the environment before the import: the wheels report home otherwise.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

Arrays = dict[str, np.ndarray]


def make_session(model: bytes, threads: int = 1, profile: str | None = None) -> Any:
    """A session with a board's options: least memory, no spinning; those of `edge.segment`.

    Args:
        model: ONNX bytes.
        threads: of one step.
        profile: where onnxruntime's profiler writes, as the beginning of a file's path; None: it does not run.
    """
    options = onnxruntime.SessionOptions()
    options.enable_mem_pattern = False
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, profile
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def optimised(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """The graph as a session has it, nodes fused and in the order in which they run; without what only this machine's processor wants.

    onnxruntime sorts the nodes after it has fused them, so the order in the file says little: the tensors that are alive at
    once differ by half between the two.
    """
    import onnx  # noqa: PLC0415  the measured processes do without

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory(prefix="optimised-") as folder:
        options.optimized_model_filepath = str(Path(folder) / "graph.onnx")
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)


def block_of(probe: bytes) -> int:
    """Channels in a block in which this processor's onnxruntime lays out convolutions, by a probing graph; 0: it has none."""
    try:
        session = make_session(probe)
    except Exception:  # noqa: BLE001  onnxruntime's exceptions have no common class, and each says: not here
        return 0
    (taken,) = session.get_inputs()
    return int(session.run(None, {taken.name: np.zeros(taken.shape, np.float32)})[0].shape[1])


def shared(array: np.ndarray) -> Any:
    """A value over the array's own memory, which it does not keep alive."""
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def version() -> str:
    """Of onnxruntime."""
    return str(onnxruntime.__version__)


class Runner:
    """One graph in one session, with a board's options."""

    def __init__(self, model: "onnx.ModelProto", threads: int = 1) -> None:
        self.session = make_session(model.SerializeToString(), threads)
        self.inputs = [value.name for value in self.session.get_inputs()]
        self.outputs = [value.name for value in self.session.get_outputs()]

    def run(self, arrays: Mapping[str, np.ndarray]) -> Arrays:
        """Return all outputs; ``arrays`` may hold more than the inputs."""
        results = self.session.run(None, {name: arrays[name] for name in self.inputs})
        return dict(zip(self.outputs, results, strict=True))

    def run_in_place(self, arrays: Mapping[str, np.ndarray], steps: int) -> Arrays:
        """Run several steps with one buffer for each state, old and new, and return the states after them."""
        # A value on the CPU borrows the memory of its array and does not keep it alive.
        held = {name: arrays[name].copy() for name in self.inputs}
        values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in held.items()}
        states = {name: value for name, value in values.items() if name.startswith("state.")}
        binding = self.session.io_binding()
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        for name in self.outputs:
            old = name.removesuffix(".next")
            if old in states:
                binding.bind_ortvalue_output(name, states[old])
            else:
                binding.bind_output(name)
        for _ in range(steps):
            self.session.run_with_iobinding(binding)
        return {name: value.numpy().copy() for name, value in states.items()}
