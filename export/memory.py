"""What a device will need to run a graph, estimated from the graph alone: see `edge.memory` for what is done with it.

Tensors live from the node that makes them to the last that reads them, in the order in which onnxruntime runs the nodes, which
is not that of the file. Left out: the process itself (`edge.memory.PROCESS_BYTES`), the device's data, codec and outbox.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from math import prod

import onnx
import torch

from edge.wire.manifest import Need
from export.graphs import Graph
from export.in_place import unsafe_states
from export.runtime import optimised
from export.symbolic import Size

VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"})
"""Operators that give their input's memory another shape."""

BATCHES = (1, 8, 32, 128)
"""Batches at which a graph is looked at; the straight line through the first that lies above all of them is what counts."""

ARENA = 1.3
"""Resident memory of a run / bytes of the tensors alive at once: what onnxruntime's arena rounds up and cannot use again, and
what kernels take for themselves. Measured 1.05 to 1.6 on the benchmark's models; `tests/export/test_memory.py` compares three of them with a process."""

NODE_BYTES = 4500
"""A node in a session, measured as the difference between sessions of graphs of 13 to 855 nodes."""

STATE_COPIES = 6
"""The state of a device: in the archive, as loaded, in use, as snapshot, as bytes for SQLite, and in SQLite's cache."""

HANDED_COPIES = 2
"""What goes up, beside the graph's own: checked for numbers that are not finite, and as a message."""

INITIALIZER_COPIES = 2
"""Constants of a graph: in the file's bytes and in the session."""


def need(graphs: Iterable[Graph], state: Mapping[str, torch.Tensor]) -> Need:
    """Return the bytes that running one of these graphs, whichever needs more, adds to a device's process: fixed, and for each sample of a batch.

    Args:
        graphs: the ways to write one graph, with the shapes of all they compute.
        state: of the device, by name.
    """
    needs = [_need(graph, state) for graph in graphs]
    return Need(max(one.fixed_bytes for one in needs), max(one.sample_bytes for one in needs))


def _need(graph: Graph, state: Mapping[str, torch.Tensor]) -> Need:
    model = graph.model
    nodes = optimised(model).graph.node
    peaks = {batch: peak(graph, nodes, batch) for batch in BATCHES}
    first = BATCHES[0]
    slope = max((peaks[batch] - peaks[first]) / (batch - first) for batch in BATCHES[1:])
    states = sum(value.numel() * value.element_size() for value in state.values())
    constants = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    spare = sum(_bytes(graph, f"state.{name}.next", first) for name in state) if unsafe_states(model) else 0
    fixed = max(0.0, ARENA * (peaks[first] - slope * first))
    handed = sum(_bytes(graph, name, first) for name in graph.outputs if name.startswith("up."))
    given = sum(
        _bytes(graph, name, first) for name in graph.inputs if name.partition(".")[0] in ("batch", "down", "random")
    )
    return Need(
        fixed_bytes=round(fixed)
        + STATE_COPIES * states
        + spare
        + NODE_BYTES * len(model.graph.node)
        + INITIALIZER_COPIES * constants,
        sample_bytes=round(ARENA * slope) + HANDED_COPIES * handed + given,
    )


def peak(graph: Graph, nodes: Iterable[onnx.NodeProto], batch: int) -> int:
    """Return the most bytes that the tensors a graph computes take at once, on a batch of so many samples.

    New state goes into buffers that are there already and does not count.

    Args:
        graph: with the shapes of all it computes.
        nodes: its nodes in the order in which they run, some of them fused.
        batch: number of samples.
    """
    nodes = list(nodes)
    readers = Counter(name for node in nodes for name in node.input)
    readers.update(name for name in graph.outputs)
    owners: dict[str, str] = {}
    waiting: Counter[str] = Counter()
    alive = most = 0
    for node in nodes:
        made = [name for name in node.output if name and not name.endswith(".next")]
        for name in made:
            owners[name] = owners.get(node.input[0], "") if node.op_type in VIEWS else name
            waiting[owners[name]] += readers[name]
        fresh = [name for name in made if owners[name] == name]
        alive += sum(_bytes(graph, name, batch) for name in fresh)
        most = max(most, alive)
        for name in node.input:
            waiting[owners.get(name, "")] -= 1
        touched = {*fresh, *(owners.get(name, "") for name in node.input)} - {""}
        alive -= sum(_bytes(graph, name, batch) for name in touched if waiting[name] == 0)
    return most


def _bytes(graph: Graph, name: str, batch: int) -> int:
    if name in graph.shapes:
        shape, dtype = graph.shapes[name]
        return prod(dim.at(batch) if isinstance(dim, Size) else dim for dim in shape) * dtype.itemsize
    value = next((value for value in graph.model.graph.input if value.name == name), None)
    if value is None:
        return 0
    dims = (dim.dim_value or batch for dim in value.type.tensor_type.shape.dim)
    return prod(dims) * onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).itemsize
