"""Lower segment, objective and optimizer as ONNX graphs with routed names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx
import torch
from torch import Tensor

from export.blame import LayerTracker, layer_of
from export.builder import Builder, Noise, Value
from export.errors import ExportError
from export.geometry import Site
from export.lowering import LOWERINGS
from export.step import StepMaker
from export.symbolic import Shape
from export.trace import Call, Program, Ref, trace


@dataclass(frozen=True)
class Graph:
    """One ONNX graph.

    Attributes:
        kind: local, forward, backward or evaluate.
        model: What is written into the bundle.
        checked: The same graph with the flat gradient as one more output, ``check.gradient``, for the check only.
        noise: Noise inputs, in the order in which the model draws them.
        shapes: Shape and type of what every node of ``model`` gives, by name.
        sites: Where there was a choice of formulations, and what fitted there.
    """

    kind: str
    model: onnx.ModelProto
    checked: onnx.ModelProto
    noise: dict[str, Noise]
    shapes: Mapping[str, tuple[Shape, torch.dtype]] = field(default_factory=dict)
    sites: dict[Site, tuple[str, ...]] = field(default_factory=dict)

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs."""
        return [value.name for value in self.model.graph.input]

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs."""
        return [value.name for value in self.model.graph.output]


class Unsupported(Exception):  # noqa: N818  it never leaves this file
    """An aten operator without a lowering, or not in this form."""

    def __init__(self, op: Any, reason: str = "") -> None:
        super().__init__(reason)
        self.op = op
        self.reason = reason


def make_graph(steps: StepMaker, kind: str) -> Graph:
    """Trace one kind of step and write it as ONNX, in the formulations that are taken where nothing was measured.

    Raises:
        ExportError: See `trace_step` and `write_graph`.
    """
    return write_graph(steps, kind, trace_step(steps, kind))


def write_graph(
    steps: StepMaker, kind: str, program: Program, choices: Mapping[str, str] | None = None, block: int = 0
) -> Graph:
    """Write a traced step as ONNX.

    Args:
        steps: What was traced.
        kind: Of step.
        program: The trace.
        choices: Formulations by the name of their site; see `Builder`.
        block: See `Builder`.

    Raises:
        ExportError: An operator has no counterpart, or a choice does not fit; the message names layer and operator.
    """
    try:
        written = [
            _emit(program, steps.constants(), kind, Builder(choices, block), checked=checked)
            for checked in (False, True)
        ]
    except Unsupported as error:
        raise ExportError(_refusal(error, steps)) from error
    (model, b), (checked_model, _) = written
    return Graph(kind, model, checked_model, b.noise, b.shapes, b.sites)


def trace_step(steps: StepMaker, kind: str) -> Program:
    """Trace one kind of step.

    Raises:
        ExportError: The model cannot be traced; the message names the layer.
    """
    with LayerTracker(steps.learner).watching() as tracker:
        try:
            return trace(
                lambda tensors: steps.run(kind, tensors), lambda batch: steps.inputs(kind, batch), frozenset(LOWERINGS)
            )
        except ExportError:
            raise
        except Exception as error:  # torch and a user's forward may raise anything under a tracer
            layer, reason = tracker.name().removeprefix("lower."), (str(error) or type(error).__name__).splitlines()[0]
            raise ExportError(
                f"the {kind} step cannot be traced: in the layer '{layer}': {reason}. "
                "A lower segment may not branch on values or call .item(); cut below this layer, or write it without"
            ) from error


def _refusal(error: Unsupported, steps: StepMaker) -> str:
    layer = layer_of(error.op, steps.learner.lower, steps.x)
    where = f"the layer '{layer}' uses" if layer else "the lower segment uses"
    if error.op == torch.ops.aten._local_scalar_dense.default:  # noqa: SLF001  what .item() and float(tensor) become
        return f"{where} the value of a tensor (.item(), float, int, bool), which cannot be exported: compute with the tensor itself"
    form = f" in a form ({error.reason})" if error.reason else ""
    return (
        f"{where} the operator {error.op}{form} that cannot be exported: cut below it so that it runs on the hub, "
        "replace it, or add a lowering in export/lowering"
    )


def _emit(
    program: Program, constants: dict[str, Tensor], kind: str, b: Builder, *, checked: bool
) -> tuple[onnx.ModelProto, Builder]:
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
    outputs = {
        name: _find(known, ref) for name, ref in program.outputs.items() if checked or not name.startswith("check.")
    }
    return b.finish(outputs, kind), b


def _lower(b: Builder, call: Call, known: dict[str, Any]) -> Any:
    if call.op not in LOWERINGS:
        raise Unsupported(call.op)
    args = [_resolve(known, argument) for argument in call.args]
    kwargs = {name: _resolve(known, argument) for name, argument in call.kwargs.items()}
    try:
        result = LOWERINGS[call.op](b, call, *args, **kwargs)
    except (ValueError, TypeError) as error:
        raise Unsupported(call.op, str(error)) from error
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
        if isinstance(value, Value) and spec.shape != (0,) and (value.shape != spec.shape or value.dtype != spec.dtype):
            raise AssertionError(f"{call.op}: {value.shape} {value.dtype}, but torch has {spec.shape} {spec.dtype}")
