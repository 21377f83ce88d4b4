"""Lower segment, objective and optimizer as ONNX graphs with routed names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx
from torch import Tensor

from export.builder import Builder, Noise, Value
from export.errors import ExportError
from export.lowering import LOWERINGS
from export.step import StepMaker
from export.trace import Call, Program, Ref, trace


@dataclass(frozen=True)
class Graph:
    """One ONNX graph.

    Attributes:
        kind: local, forward, backward or evaluate.
        model: What is written into the bundle.
        checked: The same graph with the flat gradient as one more output, ``check.gradient``, for the check only.
        noise: Noise inputs, in the order in which the model draws them.
    """

    kind: str
    model: onnx.ModelProto
    checked: onnx.ModelProto
    noise: dict[str, Noise]

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs."""
        return [value.name for value in self.model.graph.input]

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs."""
        return [value.name for value in self.model.graph.output]


def make_graph(steps: StepMaker, kind: str) -> Graph:
    """Trace one kind of step and write it as ONNX.

    Raises:
        ExportError: An operator of the model has no counterpart; the message names it and its layer.
    """
    program = trace(lambda tensors: steps.run(kind, tensors), lambda batch: steps.inputs(kind, batch), frozenset(LOWERINGS))
    models = [_emit(program, steps.constants(), kind, checked=checked) for checked in (False, True)]
    return Graph(kind, models[0][0], models[1][0], models[0][1])


def _emit(program: Program, constants: dict[str, Tensor], kind: str, *, checked: bool) -> tuple[onnx.ModelProto, dict[str, Noise]]:
    b = Builder()
    known: dict[str, Any] = {}
    for name, spec in program.inputs.items():
        if name.startswith("constant."):
            known[name] = b.constant(constants[name.removeprefix("constant.")].numpy())
        else:
            known[name] = b.input(name, spec.shape, spec.dtype)
    for name, tensor in program.constants.items():
        known[name] = b.constant(tensor.numpy())
    for call in program.calls:
        b.scope = call.name
        known[call.name] = _lower(b, call, known)
    outputs = {name: _find(known, ref) for name, ref in program.outputs.items() if checked or not name.startswith("check.")}
    return b.finish(outputs, kind), b.noise


def _lower(b: Builder, call: Call, known: dict[str, Any]) -> Any:
    if call.op not in LOWERINGS:
        raise ExportError(f"the operator {call.op} cannot be exported yet")
    args = [_resolve(known, argument) for argument in call.args]
    kwargs = {name: _resolve(known, argument) for name, argument in call.kwargs.items()}
    try:
        result = LOWERINGS[call.op](b, call, *args, **kwargs)
    except (ValueError, TypeError, OverflowError) as error:
        raise ExportError(f"the operator {call.op} cannot be exported in this form: {error}") from error
    _agree(call, result)
    return result


def _resolve(known: dict[str, Any], argument: Any) -> Any:
    if isinstance(argument, Ref):
        return _find(known, argument)
    if isinstance(argument, list):
        return [_resolve(known, item) for item in argument]
    return argument


def _find(known: dict[str, Any], ref: Ref) -> Any:
    found = known[ref.name]
    return found[ref.output] if isinstance(found, (list, tuple)) else found


def _agree(call: Call, result: Any) -> None:
    """Every lowering must give the shapes torch gave: a slip here would surface far away."""
    values = result if isinstance(result, (list, tuple)) else [result]
    for value, spec in zip(values, call.outputs, strict=False):
        if isinstance(value, Value) and spec is not None and spec.shape != (0,) and (value.shape != spec.shape or value.dtype != spec.dtype):
            raise AssertionError(f"{call.op}: {value.shape} {value.dtype}, but torch has {spec.shape} {spec.dtype}")
