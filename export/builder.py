"""Builds ONNX graphs: values with shapes and types, constants kept once, equal nodes kept once.

A value may be *lazy*: an expanded tensor of which only the small original exists. Elementwise operators take the small
one and broadcast; everything else asks for `Builder.dense`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from export.geometry import Site
from export.symbolic import BATCH, Dim, Ratio, Shape, Size, product

OPSET = 20
IR_VERSION = 10
BLOCKED = "com.microsoft.nchwc"
"""Operators of onnxruntime's that see channels in blocks; not every processor has them, and the block differs."""

ONNX_TYPE = {
    torch.float32: TensorProto.FLOAT,
    torch.float64: TensorProto.DOUBLE,
    torch.int64: TensorProto.INT64,
    torch.int32: TensorProto.INT32,
    torch.bool: TensorProto.BOOL,
}
NUMPY_TYPE = {
    torch.float32: np.float32,
    torch.float64: np.float64,
    torch.int64: np.int64,
    torch.int32: np.int32,
    torch.bool: np.bool_,
}


@dataclass(frozen=True)
class Value:
    """A tensor of the graph.

    Attributes:
        name: Its name in the graph.
        shape: Its shape as the model sees it.
        dtype: Element type.
        stored: The shape that exists in memory, which broadcasts to `shape`; the same unless the value is lazy.
    """

    name: str
    shape: Shape
    dtype: torch.dtype
    stored: Shape

    @property
    def lazy(self) -> bool:
        """Whether only a smaller original exists."""
        return self.stored != self.shape


@dataclass(frozen=True)
class Noise:
    """A noise input: its shape without the batch, which comes first, and the dimension at which the model has the batch."""

    shape: tuple[int, ...]
    axis: int


class Builder:
    """Collects nodes. Lowerings call the methods below; nothing here knows of aten.

    Args:
        choices: Formulations by the name of their site; a site that is not named takes its first that fits.
        block: Channels in a block, for graphs that may use operators of the domain `BLOCKED`; 0 for those that may not.
    """

    def __init__(self, choices: Mapping[str, str] | None = None, block: int = 0) -> None:
        self.block = block
        self.sites: dict[Site, tuple[str, ...]] = {}
        """Where there was a choice: the formulations that fit, the first being what is taken where nothing was chosen."""
        self._choices = dict(choices or {})
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: dict[str, Value] = {}
        self.noise: dict[str, Noise] = {}
        self.shapes: dict[str, tuple[Shape, torch.dtype]] = {}
        """What each node's outputs are like in memory, by name; routed outputs under their routed name after `finish`."""
        self.scope = "node"
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._constants: dict[tuple[Any, ...], Value] = {}
        self._known: dict[tuple[Any, ...], tuple[str, ...]] = {}
        self._count = 0

    # Values

    def input(self, name: str, shape: Shape, dtype: torch.dtype) -> Value:
        """Declare a graph input."""
        self.inputs[name] = Value(name, shape, dtype, shape)
        return self.inputs[name]

    def random(self, shape: Shape, axis: int) -> Value:
        """Declare the next noise input, uniform in [0, 1), with the batch first; ``axis`` is where the model has the batch."""
        name = f"random.{len(self.noise)}"
        self.noise[name] = Noise(tuple(int(dim) for dim in shape[1:] if isinstance(dim, int)), axis)
        return self.input(name, shape, torch.float32)

    def constant(self, array: np.ndarray | Sequence[int], dtype: torch.dtype | None = None) -> Value:
        """Return an initializer; equal arrays share one."""
        fixed = np.ascontiguousarray(array, None if dtype is None else NUMPY_TYPE[dtype]).reshape(np.shape(array))
        key = (fixed.dtype.str, fixed.shape, fixed.tobytes())
        if key not in self._constants:
            name = f"constant.{len(self._constants)}"
            self._initializers[name] = numpy_helper.from_array(fixed, name)
            kind = next(torch_type for torch_type, numpy_type in NUMPY_TYPE.items() if fixed.dtype == numpy_type)
            self._constants[key] = Value(name, fixed.shape, kind, fixed.shape)
        return self._constants[key]

    def is_zero(self, value: Value) -> bool:
        """Whether a value is known to be nothing but zeros."""
        tensor = self._initializers.get(value.name)
        return tensor is not None and not numpy_helper.to_array(tensor).any()

    def scalar(self, number: bool | float | Size | Ratio, dtype: torch.dtype) -> Value:
        """Return a scalar of the given type; one that depends on the batch size is computed at run time."""
        if isinstance(number, Ratio):
            return self.binary("Div", self.scalar(number.numerator, dtype), self.cast(self.size(number.size), dtype))
        if isinstance(number, Size):
            return self.cast(self.size(number), dtype)
        return self.constant(np.array(number, NUMPY_TYPE[dtype]))

    def size(self, dim: Dim) -> Value:
        """Return a dimension as an int64 scalar."""
        if isinstance(dim, int):
            return self.constant(np.array(dim, np.int64))
        shape = self.node("Shape", [self.inputs["batch.x"]], (1,), torch.int64, start=0, end=1)
        batch = self.reshape(shape, ())
        total = self.constant(np.array(dim.constant, np.int64)) if dim.constant else None
        power = batch
        for factor in (dim.linear, dim.square):
            if factor:
                term = power if factor == 1 else self.binary("Mul", power, self.constant(np.array(factor, np.int64)))
                total = term if total is None else self.binary("Add", total, term)
            power = self.binary("Mul", power, batch) if dim.square else power
        assert total is not None  # noqa: S101  a Size without terms is the int 0
        return total

    def shape(self, dims: Sequence[Dim]) -> Value:
        """Return a shape as an int64 vector."""
        if all(isinstance(dim, int) for dim in dims):
            return self.constant(np.array(dims, np.int64))
        parts = [self.reshape(self.size(dim), (1,)) for dim in dims]
        return parts[0] if len(parts) == 1 else self.node("Concat", parts, (len(parts),), torch.int64, axis=0)

    def pick(self, site: Site, fitting: Sequence[str]) -> str:
        """Return which of the formulations that fit is to be used: the chosen one, else the first.

        Raises:
            ValueError: The chosen one does not fit.
        """
        self.sites[site] = tuple(fitting)
        chosen = self._choices.get(site.name, fitting[0])
        if chosen not in fitting:
            raise ValueError(f"{chosen!r} was chosen for {site.name}; what fits is {', '.join(fitting)}")
        return chosen

    # Nodes

    def node(
        self, op: str, inputs: Sequence[Value | None], shape: Shape, dtype: torch.dtype, **attributes: Any
    ) -> Value:
        """Append a node with one output. The inputs must not be lazy."""
        return self.nodes_out(op, inputs, [(shape, dtype)], **attributes)[0]

    def nodes_out(
        self, op: str, inputs: Sequence[Value | None], outputs: Sequence[tuple[Shape, torch.dtype]], **attributes: Any
    ) -> list[Value]:
        """Append a node with several outputs, or find the same node among the earlier ones."""
        names = tuple("" if value is None else value.name for value in inputs)
        key = (op, names, tuple(sorted((name, repr(value)) for name, value in attributes.items())), len(outputs))
        if key not in self._known:
            self._count += 1
            fresh = tuple(
                f"{self.scope}.{self._count}" + (f".{number}" if number else "") for number in range(len(outputs))
            )
            self.nodes.append(helper.make_node(op, list(names), list(fresh), name=f"{op}.{self._count}", **attributes))
            self._known[key] = fresh
            self.shapes.update(zip(fresh, outputs, strict=True))
        return [
            Value(name, shape, dtype, shape) for name, (shape, dtype) in zip(self._known[key], outputs, strict=True)
        ]

    def binary(self, op: str, left: Value, right: Value, dtype: torch.dtype | None = None) -> Value:
        """Append an elementwise operator of two values with broadcasting; lazy inputs stay unexpanded."""
        return self.elementwise(op, [left, right], dtype or left.dtype)

    def elementwise(self, op: str, inputs: Sequence[Value], dtype: torch.dtype, **attributes: Any) -> Value:
        """Append an elementwise operator; the result is lazy when all inputs broadcast in the same way."""
        stored = broadcast([value.stored for value in inputs])
        shape = broadcast([value.shape for value in inputs])
        out = self.node(op, inputs, stored, dtype, **attributes)
        return Value(out.name, shape, dtype, stored)

    def cast(self, value: Value, dtype: torch.dtype) -> Value:
        """Return the value in another element type."""
        return value if value.dtype == dtype else self.elementwise("Cast", [value], dtype, to=ONNX_TYPE[dtype])

    def dense(self, value: Value) -> Value:
        """Return the value with its full shape in memory."""
        if not value.lazy:
            return value
        return self.node("Expand", [small(value), self.shape(value.shape)], value.shape, value.dtype)

    def reshape(self, value: Value, shape: Shape) -> Value:
        """Return the value in another shape of as many elements."""
        value = self.dense(value)
        if value.shape == shape:
            return value
        free = [place for place, dim in enumerate(shape) if isinstance(dim, Size)]
        target: list[Dim] = list(shape)
        kept = [place for place in free if place < len(value.shape) and value.shape[place] == shape[place]]
        for place in kept[: max(0, len(free) - 1)]:
            target[place] = 0
            free.remove(place)
        if len(free) == 1:
            target[free[0]] = -1
        wanted = self.shape(target) if len(free) <= 1 else self.shape(shape)
        return self.node("Reshape", [value, wanted], shape, value.dtype)

    def transpose(self, value: Value, order: Sequence[int]) -> Value:
        """Return the value with its dimensions in another order."""
        if list(order) == list(range(len(order))):
            return value
        if value.lazy and len(value.stored) == len(value.shape):
            moved = self.transpose(small(value), order)
            return Value(moved.name, tuple(value.shape[place] for place in order), value.dtype, moved.shape)
        value = self.dense(value)
        shape = tuple(value.shape[place] for place in order)
        if sum(dim != 1 for dim in value.shape) <= 1:
            return self.reshape(value, shape)
        return self.node("Transpose", [value], shape, value.dtype, perm=list(order))

    def matmul(self, left: Value, right: Value) -> Value:
        """Return the (batched) matrix product."""
        left, right = self.dense(left), self.dense(right)
        shape = (*broadcast([left.shape[:-2], right.shape[:-2]]), left.shape[-2], right.shape[-1])
        return self.node("MatMul", [left, right], shape, left.dtype)

    def reduce(self, op: str, value: Value, axes: Sequence[int], *, keep: bool) -> Value:
        """Return a reduction over the given dimensions."""
        value = self.dense(value)
        gone = {axis % len(value.shape) for axis in axes}
        shape = tuple(1 if place in gone else dim for place, dim in enumerate(value.shape) if keep or place not in gone)
        if not gone:
            return value
        return self.node(
            op, [value, self.constant(np.array(sorted(gone), np.int64))], shape, value.dtype, keepdims=int(keep)
        )

    def slice(
        self, value: Value, axes: Sequence[int], starts: Sequence[Dim], ends: Sequence[Dim], steps: Sequence[int]
    ) -> Value:
        """Return a strided part; ``shape`` must come out without the batch in the cut dimensions, or with known bounds."""
        value = self.dense(value)
        shape = list(value.shape)
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
            shape[axis] = end + -1 * start if step == 1 else (int(end) - int(start) + step - 1) // step  # type: ignore[arg-type]
        tensors = [self.shape(starts), self.shape(ends), self.constant(list(axes)), self.constant(list(steps))]
        return self.node("Slice", [value, *tensors], tuple(shape), value.dtype)

    def concat(self, values: Sequence[Value], axis: int) -> Value:
        """Return values joined along a dimension."""
        parts = [self.dense(value) for value in values]
        if len(parts) == 1:
            return parts[0]
        total = parts[0].shape[axis]
        for part in parts[1:]:
            total = total + part.shape[axis]
        shape = list(parts[0].shape)
        shape[axis] = total
        return self.node("Concat", parts, tuple(shape), parts[0].dtype, axis=axis)

    # The graph

    def finish(self, outputs: dict[str, Value], name: str) -> onnx.ModelProto:
        """Return the checked model with the given routed outputs; nodes that none of them needs are left out."""
        finals = self._named_outputs(outputs)
        needed = {value.name for value in finals.values()}
        kept: list[onnx.NodeProto] = []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                if node.op_type == "MaxPool" and not needed.intersection(node.output[1:]):
                    del node.output[
                        1:
                    ]  # where the places are not asked for, onnxruntime has a kernel five times as fast
                kept.append(node)
                needed.update(node.input)
        kept.reverse()
        renamed = {value.name: routed for routed, value in finals.items()}
        self.shapes |= {routed: (value.shape, value.dtype) for routed, value in finals.items()}
        graph = helper.make_graph(
            [_rename(node, renamed) for node in kept],
            name,
            [
                _info(value.name, value)
                for value in self.inputs.values()
                if value.name in needed or not value.name.startswith("random.")
            ],
            [_info(routed, value) for routed, value in finals.items()],
            [tensor for key, tensor in self._initializers.items() if key in needed],
        )
        imports = [helper.make_opsetid("", OPSET)]
        if any(node.domain == BLOCKED for node in kept):
            imports.append(helper.make_opsetid(BLOCKED, 1))
        model = helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION, producer_name="cutlayer")
        onnx.checker.check_model(model, full_check=True)
        return model

    def _named_outputs(self, outputs: dict[str, Value]) -> dict[str, Value]:
        finals: dict[str, Value] = {}
        taken: set[str] = set(self.inputs) | set(self._initializers)
        for routed, given in outputs.items():
            value = self.dense(given)
            if value.name in taken:
                self._count += 1
                fresh = f"{routed}.{self._count}"
                self.nodes.append(helper.make_node("Identity", [value.name], [fresh], name=f"Identity.{self._count}"))
                value = Value(fresh, value.shape, value.dtype, value.shape)
            taken.add(value.name)
            finals[routed] = value
        return finals


def small(value: Value) -> Value:
    """Return the original of a lazy value, with the shape it has in memory."""
    return Value(value.name, value.stored, value.dtype, value.stored)


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """Return the shape that the given shapes broadcast to."""
    rank = max(len(shape) for shape in shapes)
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(next((dim for dim in column if dim != 1), 1) for column in zip(*padded, strict=True))


def elements(shape: Shape) -> Dim:
    """Return the number of elements."""
    return product(shape)


def _rename(node: onnx.NodeProto, names: dict[str, str]) -> onnx.NodeProto:
    for ports in (node.input, node.output):
        for place, name in enumerate(ports):
            ports[place] = names.get(name, name)
    return node


def _info(name: str, value: Value) -> onnx.ValueInfoProto:
    dims = [_dim_name(dim) if isinstance(dim, Size) else dim for dim in value.shape]
    return helper.make_tensor_value_info(name, ONNX_TYPE[value.dtype], dims)


def _dim_name(size: Size) -> str:
    return "batch" if size == BATCH else str(size)
