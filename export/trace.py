"""A training step as a list of aten calls in which the batch size is symbolic.

The step is an ordinary function of tensors. ``make_fx`` traces it with fake tensors, functionalised (no in-place
operator survives), at three batch sizes; see `export.symbolic` for why three. Random operators stay in the list, so that
the exporter can replace them by explicit noise inputs.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  the name everybody reads
from torch import Tensor, fx
from torch._decomp import core_aten_decompositions
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from export.errors import ExportError
from export.response_norm import local_response_norm
from export.symbolic import Shape, fit_float, fit_integer

# Primes that are unlikely to be a dimension of a model. Not 1 (broadcasting differs), and small (fake tensors, real loops).
BATCHES = (7, 11, 13)


@dataclass(frozen=True)
class Ref:
    """Output number ``output`` of the call or input named ``name``."""

    name: str
    output: int = 0


@dataclass(frozen=True)
class Spec:
    """Shape and element type of one tensor of the trace."""

    shape: Shape
    dtype: torch.dtype


NOTHING = Spec((0,), torch.float32)
"""An output that torch leaves out, or leaves empty."""


@dataclass(frozen=True)
class Call:
    """One aten operator: its arguments (tensors as `Ref`, batch-dependent numbers as `Size` or `Ratio`) and its outputs."""

    name: str
    op: torch._ops.OpOverload
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Spec, ...]


@dataclass(frozen=True)
class Program:
    """A traced function: inputs in order, calls in order, constants met on the way, and where each output comes from."""

    inputs: dict[str, Spec]
    constants: dict[str, Tensor]
    calls: tuple[Call, ...]
    outputs: dict[str, Ref]


def trace(
    function: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    example: Callable[[int], Mapping[str, Tensor]],
    lowered: frozenset[Any],
) -> Program:
    """Trace ``function`` at three batch sizes and merge the traces into one program.

    Args:
        function: From named input tensors to named output tensors; may use autograd inside.
        example: Gives the input tensors for one batch size.
        lowered: The aten operators that are to be kept whole; all others are decomposed as far as torch can.

    Raises:
        ExportError: The step cannot be traced, or its operators depend on the batch size.
    """
    # torch's own decomposition of attention writes its dropout in place; the math backend chosen below is decomposed anyway.
    table = {
        op: rule for op, rule in core_aten_decompositions().items() if op not in lowered and "attention" not in str(op)
    }
    graphs = [_trace_once(function, dict(example(batch)), table) for batch in BATCHES]
    return _merge(graphs, list(example(BATCHES[0])))


@contextlib.contextmanager
def traceable_torch() -> Iterator[None]:
    """Have torch call the variants of its operators that can be traced: explicit attention, no fast paths, functional batch norm."""

    def batch_norm(x: Tensor, weight: Any, bias: Any, mean: Any, variance: Any, *options: Any) -> Tensor:
        # torch.batch_norm writes running statistics without saying so in its schema; these overloads say so.
        if mean is None:
            return legit.no_stats(x, weight, bias, *options[:3])[0]
        return legit(x, weight, bias, mean, variance, *options[:3])[0]

    def instance_norm(
        x: Tensor,
        weight: Any,
        bias: Any,
        mean: Any,
        variance: Any,
        use_input: bool,
        momentum: float,
        eps: float,
        fast: bool,
    ) -> Tensor:
        # Without running statistics it is group norm with one channel a group; torch folds the batch into the channels instead.
        if mean is None:
            return torch.group_norm(x, x.shape[1], weight, bias, eps)
        return plain_instance(x, weight, bias, mean, variance, use_input, momentum, eps, fast)

    plain_instance = torch.instance_norm
    legit = torch.ops.aten._native_batch_norm_legit  # noqa: SLF001  torch names it so
    plain, fast, response_norm = torch.batch_norm, torch.backends.mha.get_fastpath_enabled(), F.local_response_norm
    torch.backends.mha.set_fastpath_enabled(False)
    torch.batch_norm, torch.instance_norm = batch_norm, instance_norm
    F.local_response_norm = local_response_norm  # type: ignore[assignment]  # its first parameter is called x
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.batch_norm, torch.instance_norm, F.local_response_norm = plain, plain_instance, response_norm
        torch.backends.mha.set_fastpath_enabled(fast)


def _trace_once(
    function: Callable[[dict[str, Tensor]], dict[str, Tensor]], inputs: dict[str, Tensor], table: dict[Any, Any]
) -> fx.Graph:
    names: list[str] = []

    def positional(*tensors: Tensor) -> tuple[Tensor, ...]:
        results = function(dict(zip(inputs, tensors, strict=True)))
        names[:] = results
        return tuple(results.values())

    with traceable_torch():
        # First the autograd, then the removal of in-place operators: functionalize does not know autograd.Function.
        written = make_fx(positional, decomposition_table=table, tracing_mode="fake")(*inputs.values())
        module = make_fx(functionalize(written, remove="mutations"), decomposition_table=table, tracing_mode="fake")(
            *inputs.values()
        )
    graph: fx.Graph = module.graph
    graph.eliminate_dead_code(is_impure_node=lambda node: node.op in {"placeholder", "output"})
    graph.result_names = list(names)
    for node in graph.nodes:
        if node.op == "get_attr":
            node.meta["constant"] = getattr(module, node.target)
    return graph


def _merge(graphs: Sequence[fx.Graph], input_names: list[str]) -> Program:
    columns = list(zip(*(graph.nodes for graph in graphs), strict=False))
    renamed: dict[str, str] = {}
    inputs: dict[str, Spec] = {}
    constants: dict[str, Tensor] = {}
    calls: list[Call] = []
    outputs: dict[str, Ref] = {}
    waiting = iter(input_names)
    for column in columns:
        node = column[0]
        if any(other.op != node.op or (node.op == "call_function" and other.target != node.target) for other in column):
            raise ExportError(_differs(column))
        if node.op == "placeholder":
            renamed[node.name] = next(waiting)
            inputs[renamed[node.name]] = _spec([other.meta["val"] for other in column], node.name)
        elif node.op == "get_attr":
            constants[node.name] = node.meta["constant"]
            if any(not torch.equal(other.meta["constant"], node.meta["constant"]) for other in column):
                raise ExportError(
                    f"the constant tensor '{node.name}' depends on the batch size; compute it from the input instead"
                )
        elif node.op == "output":
            for name, ref in zip(graphs[0].result_names, node.args[0], strict=True):
                outputs[name] = _argument([ref], renamed)
        elif not _is_getitem(node):
            calls.append(_call(column, renamed))
    if len({len(graph.nodes) for graph in graphs}) != 1:
        raise ExportError("the operators of the model depend on the batch size: remove branches on x.shape[0]")
    return Program(inputs, constants, tuple(calls), outputs)


def _call(column: Sequence[fx.Node], renamed: Mapping[str, str]) -> Call:
    node = column[0]
    try:
        args = tuple(_argument(values, renamed) for values in zip(*(other.args for other in column), strict=True))
        kwargs = {key: _argument([other.kwargs[key] for other in column], renamed) for key in node.kwargs}
    except ValueError as error:
        raise ExportError(_differs(column)) from error
    values = [other.meta["val"] for other in column]
    many = isinstance(values[0], (tuple, list))
    grouped = zip(*values, strict=True) if many else [tuple(values)]
    return Call(node.name, node.target, args, kwargs, tuple(_spec(list(group), node.name) for group in grouped))


def _argument(values: Sequence[Any], renamed: Mapping[str, str]) -> Any:
    first = values[0]
    if isinstance(first, fx.Node):
        if len({value.name for value in values}) != 1:
            raise ValueError("different operands")
        if _is_getitem(first):
            return Ref(first.args[0].name, first.args[1])
        return Ref(renamed.get(first.name, first.name))
    if isinstance(first, (list, tuple)):
        return [_argument(group, renamed) for group in zip(*values, strict=True)]
    if isinstance(first, int) and not isinstance(first, bool):
        found: Any = fit_integer(values, BATCHES[: len(values)]) if len(values) > 1 else first
    elif isinstance(first, float):
        found = fit_float(values, BATCHES[: len(values)]) if len(values) > 1 else first
    elif all(value == first for value in values):
        return first
    else:
        found = None
    if found is None:
        raise ValueError(f"{values} is no polynomial of the batch size")
    return found


def _spec(values: Sequence[Any], name: str) -> Spec:
    first = values[0]
    if not isinstance(first, Tensor):
        return NOTHING
    dims = [
        fit_integer([int(value) for value in group], BATCHES) for group in zip(*(v.shape for v in values), strict=True)
    ]
    shape = tuple(dim for dim in dims if dim is not None)
    if len(shape) < len(dims):
        raise ExportError(
            f"the shape of '{name}' is no polynomial of the batch size: {[tuple(v.shape) for v in values]}"
        )
    return Spec(shape, first.dtype)


def _is_getitem(node: fx.Node) -> bool:
    return getattr(node.target, "__name__", "") == "getitem"


def _differs(column: Sequence[fx.Node]) -> str:
    seen = "; ".join(f"B={batch}: {node.target}{node.args}" for batch, node in zip(BATCHES, column, strict=False))
    return f"the operators of the model depend on the batch size in a way that cannot be exported ({seen}); remove branches on x.shape[0]"
