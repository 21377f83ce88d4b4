"""A model cut at a named layer into the lower segment (for the device) and the upper segment (for the hub)."""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from export.errors import ExportError

WHOLE = "output"
"""The cut of a model that is not cut."""


@dataclass(frozen=True)
class Split:
    """A cut model. ``upper(lower(x))`` is ``model(x)``; parameters keep the names (and the storage) they have in the model.

    Attributes:
        cut: Name of the cut layer.
        lower: Segment for the device, from input to smashed data.
        upper: Segment for the hub, from smashed data to output.
        smashed_shape: Shape of the smashed data without the batch dimension.
    """

    cut: str
    lower: nn.Module
    upper: nn.Module
    smashed_shape: tuple[int, ...]


@dataclass
class _Trace:
    model: nn.Module
    graph: fx.Graph
    names: dict[str, fx.Node] = field(default_factory=dict)


class _NamingTracer(fx.Tracer):
    """Remembers which node is the output of which module, leaf or not."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: dict[str, list[fx.Node]] = {}
        self.entered: list[str] = []

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        path = self.path_of_module(m)
        self.entered.append(path)
        result = super().call_module(m, forward, args, kwargs)
        self.entered.pop()
        if isinstance(result, fx.Proxy):
            self.outputs.setdefault(path, []).append(result.node)
        return result


def load_factory(path: str, **arguments: Any) -> nn.Module:
    """Return the model that ``package.module:factory`` makes.

    Raises:
        ExportError: No such module or factory, or it does not return a ``torch.nn.Module``.
    """
    module_name, _, name = path.partition(":")
    if not name:
        raise ExportError(f"the model '{path}' must be named as package.module:factory")
    try:
        factory = getattr(importlib.import_module(module_name), name)
    except ModuleNotFoundError as error:
        raise ExportError(f"the model '{path}': there is no module '{error.name}' to import") from error
    except AttributeError as error:
        raise ExportError(f"the model '{path}': module '{module_name}' has no '{name}'") from error
    try:
        model = factory(**arguments)
    except TypeError as error:
        raise ExportError(f"the model '{path}' could not be made: {error}") from error
    if not isinstance(model, nn.Module):
        raise ExportError(f"the model '{path}' returned a {type(model).__name__}, not a torch.nn.Module")
    return model


def split(model: nn.Module, cut: str, example: Tensor) -> Split:
    """Cut ``model`` behind the layer named ``cut``.

    Args:
        model: Traceable by ``torch.fx``; modules of torch.nn are taken whole.
        cut: Qualified name of a layer or block (``layer1.0``), as `legal_cuts` lists them.
        example: Input batch (batch, *input) with at least two samples.

    Raises:
        ExportError: The model cannot be traced, there is no such layer, or more than one tensor crosses there.
    """
    traced = _trace(model)
    names = legal_cuts(traced)
    if cut not in traced.names:
        raise ExportError(f"there is no layer '{cut}' to cut at; possible cuts: {', '.join(names)}")
    node = traced.names[cut]
    across = _crossing(traced.graph, node)
    if cut not in names:
        found = ", ".join(f"'{_name_of(traced, other)}'" for other in across)
        raise ExportError(
            f"the model cannot be cut at '{cut}': {len(across)} values cross there ({found}) and only one may; possible cuts: {', '.join(names)}"
        )
    lower, upper = _lower(traced, node), _upper(traced, node)
    _refuse_shared(lower, upper, cut)
    return Split(cut, lower, upper, _smashed_shape(lower, cut, example))


def uncut(model: nn.Module, example: Tensor) -> Split:
    """Return the whole ``model`` as the lower segment; the hub's is empty, and the smashed data are the output.

    Raises:
        ExportError: The output is not one tensor of (batch, classes).
    """
    shape = _smashed_shape(model, WHOLE, example)
    if len(shape) != 1:
        raise ExportError(f"a whole model must give logits (batch, classes), and this one gives (batch, {shape})")
    return Split(WHOLE, model, nn.Identity(), shape)


def legal_cuts(traced: _Trace) -> list[str]:
    """Return the names of all points where exactly one tensor crosses, from the input upwards."""
    order = {node: place for place, node in enumerate(traced.graph.nodes)}
    legal = {
        name
        for name, node in traced.names.items()
        if _crossing(traced.graph, node) == [node] and node.op != "placeholder" and not _is_last(node)
    }
    return sorted(legal, key=lambda name: (order[traced.names[name]], -len(name), name))


def trace_layers(model: nn.Module) -> _Trace:
    """Trace a model for `legal_cuts`."""
    return _trace(model)


def segment_below(trace: _Trace, cut: str) -> fx.GraphModule:
    """Return the lower segment of one of the `legal_cuts`."""
    return _lower(trace, trace.names[cut])


def _trace(model: nn.Module) -> _Trace:
    tracer = _NamingTracer()
    try:
        graph = tracer.trace(model)
    except Exception as error:  # a user's forward may raise anything under a tracer
        layer = tracer.entered[-1] if tracer.entered else type(model).__name__
        raise ExportError(
            f"the model cannot be traced: in '{layer}': {str(error).splitlines()[0]}. "
            "Branches and loops on tensor values cannot be cut; put them into a module of their own below or above the cut, or write them without the branch"
        ) from error
    named = {nodes[-1] for path, nodes in tracer.outputs.items() if path}
    functions = [node for node in graph.nodes if node.op in {"call_function", "call_method"} and node not in named]
    names: dict[str, fx.Node] = {node.name: node for node in functions}
    for path, nodes in tracer.outputs.items():
        names[path] = nodes[-1]
        if len(nodes) > 1:
            del names[path]
            names.update({f"{path}#{number}": node for number, node in enumerate(nodes, 1)})
    names.pop("", None)
    return _Trace(model, graph, names)


def _crossing(graph: fx.Graph, last: fx.Node) -> list[fx.Node]:
    below: dict[fx.Node, None] = {}
    for node in graph.nodes:
        below[node] = None
        if node is last:
            break
    return [node for node in below if any(user not in below for user in node.users)]


def _is_last(node: fx.Node) -> bool:
    return all(user.op == "output" for user in node.users)


def _name_of(traced: _Trace, node: fx.Node) -> str:
    paths = [name for name, other in traced.names.items() if other is node]
    return min(paths, key=len) if paths else node.name


def _lower(traced: _Trace, last: fx.Node) -> fx.GraphModule:
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in traced.graph.nodes:
        copies[node] = graph.node_copy(node, lambda old: copies[old])
        if node is last:
            break
    graph.output(copies[last])
    return fx.GraphModule(traced.model, graph, "Lower")


def _upper(traced: _Trace, last: fx.Node) -> fx.GraphModule:
    graph = fx.Graph()
    copies = {last: graph.placeholder("smashed")}
    for node in _after(traced.graph, last):
        if node.op == "output":
            graph.output(fx.map_arg(node.args[0], lambda old: copies[old]))
        elif node.op != "placeholder":
            copies[node] = graph.node_copy(node, lambda old: copies[old])
    return fx.GraphModule(traced.model, graph, "Upper")


def _after(graph: fx.Graph, last: fx.Node) -> Iterator[fx.Node]:
    nodes = iter(graph.nodes)
    for node in nodes:
        if node is last:
            break
    yield from nodes


def _refuse_shared(lower: nn.Module, upper: nn.Module, cut: str) -> None:
    above = {id(parameter): name for name, parameter in upper.named_parameters()}
    for name, parameter in lower.named_parameters():
        if id(parameter) in above:
            raise ExportError(
                f"the model cannot be cut at '{cut}': the parameter '{name}' is also used above the cut (as '{above[id(parameter)]}'); "
                "a device and the hub cannot share one parameter"
            )


def _smashed_shape(lower: nn.Module, cut: str, example: Tensor) -> tuple[int, ...]:
    training = lower.training
    try:
        with torch.no_grad():
            smashed = lower.eval()(example)
            fewer = lower(example[:1])
    except Exception as error:
        raise ExportError(
            f"the lower segment does not take an input of shape {tuple(example.shape[1:])} and type {example.dtype}: {str(error).splitlines()[0]}"
        ) from error
    finally:
        lower.train(training)
    if not isinstance(smashed, Tensor) or not smashed.is_floating_point():
        raise ExportError(f"the cut '{cut}' does not hand out one floating point tensor")
    if smashed.shape[0] != example.shape[0] or fewer.shape[0] != 1:
        raise ExportError(
            f"the first dimension of the smashed data at '{cut}' must be the batch: for {example.shape[0]} samples it has the shape {tuple(smashed.shape)}"
        )
    return tuple(smashed.shape[1:])
