"""Convolution by onnxruntime's fastest kernels, which want channels in blocks (NCHWc).

onnxruntime lays out so by itself only where weights are constant; here weights are the state, so the graph says it: the
input's channels are blocked, the filter is put in order (it is small), and the output is unblocked. The operators are onnxruntime's own,
not ONNX's, and the filter's order depends on the block that suits the processor. So a graph with them is an addition to a bundle,
beside one that runs everywhere: see `edge.segment.Segment.blocked`.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper

from export.builder import BLOCKED, IR_VERSION, OPSET, Builder, Value
from export.geometry import Geometry
from export.symbolic import Shape, fixed


def fits(x: Shape, weight: Shape, geometry: Geometry, block: int) -> bool:
    """Whether a convolution of ``x`` (batch, channels, *places) can go by blocks of so many channels; 0: there are none."""
    if not block or len(x) not in (3, 4):
        return False
    channels, outputs = fixed(x[1]), fixed(weight[0])
    if geometry.groups > 1:
        return outputs == channels == geometry.groups and fixed(weight[1]) == 1 and channels % 4 == 0
    return (channels < block or channels % 4 == 0) and outputs % 4 == 0


def convolution(b: Builder, x: Value, weight: Value, bias: Value | None, shape: Shape, geometry: Geometry) -> Value:
    """Return the convolution, of ``shape`` (batch, outputs, *places)."""
    if len(shape) == 3:
        flat = Geometry((1, *geometry.stride), (0, *geometry.padding), (1, *geometry.dilation), geometry.groups)
        x, weight = (b.reshape(value, (*value.shape[:2], 1, value.shape[2])) for value in (x, weight))
        return b.reshape(convolution(b, x, weight, bias, (*shape[:2], 1, shape[2]), flat), shape)
    block, outputs, channels = b.block, fixed(shape[1]), fixed(x.shape[1])
    width, deep = _up(outputs, block), channels >= block
    if deep:
        blocked = (x.shape[0], _up(channels, block), *x.shape[2:])
        x = b.node("ReorderInput", [x], blocked, x.dtype, domain=BLOCKED)
    attributes = geometry.attributes | {"group": width if geometry.groups > 1 else 1}
    inputs = [x, _filter(b, weight, block, by_inputs=deep and geometry.groups == 1)]
    if bias is not None:
        inputs.append(_padded(b, bias, (width,)))
    out = b.node("Conv", inputs, (shape[0], width, *shape[2:]), x.dtype, domain=BLOCKED, **attributes)
    return b.node("ReorderOutput", [out], shape, x.dtype, domain=BLOCKED, channels=outputs)


def _filter(b: Builder, weight: Value, block: int, *, by_inputs: bool) -> Value:
    """Return the filter with blocks of outputs innermost, and before them, where the input is blocked, blocks of inputs."""
    outputs, inputs, *kernel = (fixed(length) for length in weight.shape)
    outputs, inputs = _up(outputs, block), _up(inputs, block) if by_inputs else inputs
    weight = _padded(b, weight, (outputs, inputs, *kernel))
    if by_inputs:
        apart = b.reshape(weight, (outputs // block, block, inputs // block, block, *kernel))
        order = [0, 2, 4, 5, 3, 1]
    else:
        apart = b.reshape(weight, (outputs // block, block, inputs, *kernel))
        order = [0, 2, 3, 4, 1]
    return b.reshape(b.transpose(apart, order), (outputs, inputs, *kernel))


def _padded(b: Builder, x: Value, shape: tuple[int, ...]) -> Value:
    ends = [full - fixed(length) for full, length in zip(shape, x.shape, strict=True)]
    if not any(ends):
        return x
    return b.node("Pad", [x, b.constant([0] * len(shape) + ends)], shape, x.dtype)


def _up(count: int, block: int) -> int:
    return -(-count // block) * block


def probe() -> bytes:
    """An ONNX graph whose one output has, as its second dimension, the block that the onnxruntime at hand uses; it fails to load where there is none."""
    four = helper.make_tensor("four", TensorProto.FLOAT, (1, 4, 1, 1), np.zeros(4, np.float32))
    nodes = [
        helper.make_node("Add", ["zero", "four"], ["sum"]),
        helper.make_node("ReorderInput", ["sum"], ["blocked"], domain=BLOCKED),
    ]
    zero = helper.make_tensor_value_info("zero", TensorProto.FLOAT, (1, 4, 1, 1))
    out = helper.make_tensor_value_info("blocked", TensorProto.FLOAT, (1, None, 1, 1))
    graph = helper.make_graph(nodes, "probe", [zero], [out], [four])
    imports = [helper.make_opsetid("", OPSET), helper.make_opsetid(BLOCKED, 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION, producer_name="cutlayer")
    return onnx.ModelProto.SerializeToString(model, deterministic=True)
