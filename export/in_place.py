"""May one buffer be input and output of a state at once? A proof on the graph, for each state.

onnxruntime promises nothing about a buffer bound twice. It is safe when every node that reads the old state has run
before the node that writes the new one starts (it is an ancestor of the writer), and the writer itself reads the old
state, if at all, element by element. Nodes that may hand on their input's memory under another name count as the state.
"""

from collections.abc import Sequence

import onnx

VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Cast"})
ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Div", "Sqrt", "Neg", "Where", "Max", "Min"})


def unsafe_states(model: onnx.ModelProto) -> dict[str, str]:
    """Return the states whose old and new value may not share a buffer, each with the reason; empty means all may."""
    nodes = list(model.graph.node)
    outputs = {value.name: value for value in model.graph.output}
    shapes = {value.name: value.type.tensor_type.shape for value in [*model.graph.input, *model.graph.output]}
    reasons: dict[str, str] = {}
    for name in (value.name for value in model.graph.input if f"{value.name}.next" in outputs):
        if shapes[name] != shapes[f"{name}.next"]:
            reasons[name] = "old and new state differ in shape"
            continue
        reason = _reason(nodes, name, f"{name}.next")
        if reason:
            reasons[name] = reason
    return reasons


def _reason(nodes: Sequence[onnx.NodeProto], old: str, new: str) -> str | None:
    writer = next((node for node in nodes if new in node.output), None)
    if writer is None:
        return "no node writes the new state"
    aliases = _aliases(nodes, old)
    before = _ancestors(nodes, writer)
    for node in nodes:
        if not aliases.intersection(node.input) or node.name in before:
            continue
        if node is not writer:
            return f"{node.name} reads the old state and need not have run when {writer.name} writes the new one"
        if writer.op_type not in ELEMENTWISE:
            return f"{writer.name} writes the new state while it reads the old one, and not element by element"
    return None


def _aliases(nodes: Sequence[onnx.NodeProto], old: str) -> set[str]:
    aliases = {old}
    for node in nodes:
        if node.op_type in VIEWS and node.input[0] in aliases:
            aliases.update(node.output)
    return aliases


def _ancestors(nodes: Sequence[onnx.NodeProto], last: onnx.NodeProto) -> set[str]:
    makers = {name: node for node in nodes for name in node.output}
    found: dict[str, None] = {}
    waiting = [last]
    while waiting:
        for name in waiting.pop().input:
            maker = makers.get(name)
            if maker is not None and maker.name not in found:
                found[maker.name] = None
                waiting.append(maker)
    return set(found)
