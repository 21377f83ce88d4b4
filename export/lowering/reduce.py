"""Sums, means, extrema, softmax, matrix products."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from export.builder import Builder, Value, elements
from export.symbolic import Dim, fixed
from export.trace import Call

aten = torch.ops.aten
Lowering = Callable[..., Any]


def _axes(x: Value, axes: Any) -> list[int]:
    if axes is None or axes == []:
        return list(range(len(x.shape)))
    return [axis % len(x.shape) for axis in (axes if isinstance(axes, list) else [axes])]


def _sum(b: Builder, call: Call, x: Value, axes: Any = None, keep: bool = False, **_: Any) -> Value:
    return b.reduce("ReduceSum", b.cast(x, call.outputs[0].dtype), _axes(x, axes), keep=keep)


def _mean(b: Builder, call: Call, x: Value, axes: Any = None, keep: bool = False, **_: Any) -> Value:
    return b.reduce("ReduceMean", b.cast(x, call.outputs[0].dtype), _axes(x, axes), keep=keep)


def _extremum(op: str) -> Lowering:
    def lower(b: Builder, _: Call, x: Value, axes: Any = None, keep: bool = False) -> Value:
        return b.reduce(op, x, _axes(x, axes), keep=keep)

    return lower


def _extremum_at(op: str, where: str) -> Lowering:
    def lower(b: Builder, _: Call, x: Value, axis: int, keep: bool = False) -> tuple[Value, Value]:
        axis %= len(x.shape)
        value = b.reduce(op, x, [axis], keep=keep)
        return value, b.reshape(_place(b, op, where, b.dense(x), axis), value.shape)

    return lower


def _argument(where: str) -> Lowering:
    def lower(b: Builder, _: Call, x: Value, axis: int | None = None, keep: bool = False) -> Value:
        if axis is None:
            raise ValueError("argmax over all dimensions")
        axis %= len(x.shape)
        shape = tuple(1 if place == axis else dim for place, dim in enumerate(x.shape) if keep or place != axis)
        op = "ReduceMax" if where == "ArgMax" else "ReduceMin"
        return b.reshape(_place(b, op, where, b.dense(x), axis), shape)

    return lower


def _place(b: Builder, op: str, where: str, x: Value, axis: int) -> Value:
    """Return the place of the extremum, keeping the dimension.

    onnxruntime's ArgMax looks at one element at a time, its ReduceMax at many: first the best of some blocks, then the
    place in it, is ten times as fast. The first of equals wins in both.
    """
    length = x.shape[axis]
    width = _block(length) if axis == len(x.shape) - 1 and isinstance(length, int) else 1
    if width == 1:
        return b.node(where, [x], (*x.shape[:axis], 1, *x.shape[axis + 1 :]), torch.int64, axis=axis, keepdims=1)
    outer = x.shape[:-1]
    blocks = b.reshape(x, (*outer, fixed(length) // width, width))
    best = b.reduce(op, blocks, [-1], keep=False)
    block = b.node(where, [best], (*outer, 1), torch.int64, axis=axis, keepdims=1)
    index = b.reshape(block, (*outer, 1, 1))
    wide = b.dense(Value(index.name, (*outer, 1, width), index.dtype, index.shape))
    row = b.node("GatherElements", [blocks, wide], (*outer, 1, width), x.dtype, axis=axis)
    inside = b.node(where, [b.reshape(row, (*outer, width))], (*outer, 1), torch.int64, axis=axis, keepdims=1)
    return b.binary("Add", b.binary("Mul", block, b.scalar(width, torch.int64)), inside)


def _block(length: int) -> int:
    """Return the divisor nearest to the square root; 1 if there is none of use."""
    root = math.isqrt(length)
    return next((width for width in range(root, 3, -1) if length % width == 0), 1)


def _any(b: Builder, _: Call, x: Value, axes: Any = None, keep: bool = False) -> Value:
    flags = b.cast(b.cast(x, torch.bool), torch.float32)
    return b.cast(b.reduce("ReduceMax", flags, _axes(x, axes), keep=keep), torch.bool)


def _variance(
    b: Builder, _: Call, x: Value, axes: Any = None, correction: float | None = 1, keepdim: bool = False
) -> Value:
    where = _axes(x, axes)
    centred = b.binary("Sub", b.dense(x), b.reduce("ReduceMean", x, where, keep=True))
    total = b.reduce("ReduceSumSquare", centred, where, keep=keepdim)
    count: Dim = elements(tuple(x.shape[axis] for axis in where)) + -int(1 if correction is None else correction)
    return b.binary("Div", total, b.scalar(count, x.dtype))


def _softmax(op: str) -> Lowering:
    def lower(b: Builder, _: Call, x: Value, axis: int, *__: Any) -> Value:
        return b.node(op, [b.dense(x)], x.shape, x.dtype, axis=axis % len(x.shape))

    return lower


def _softmax_backward(b: Builder, _: Call, gradient: Value, y: Value, axis: int, __: Any) -> Value:
    weighted = b.binary("Mul", gradient, y)
    total = b.reduce("ReduceSum", weighted, [axis], keep=True)
    return b.binary("Sub", weighted, b.binary("Mul", y, total))


def _log_softmax_backward(b: Builder, _: Call, gradient: Value, y: Value, axis: int, __: Any) -> Value:
    total = b.reduce("ReduceSum", gradient, [axis], keep=True)
    return b.binary("Sub", gradient, b.binary("Mul", b.elementwise("Exp", [y], y.dtype), total))


def _mm(b: Builder, _: Call, left: Value, right: Value) -> Value:
    return b.matmul(left, right)


def _addmm(b: Builder, _: Call, bias: Value, left: Value, right: Value, beta: float = 1, alpha: float = 1) -> Value:
    if len(left.shape) != 2:
        return b.binary("Add", _scaled(b, bias, beta), _scaled(b, b.matmul(left, right), alpha))
    shape = (left.shape[0], right.shape[1])
    inputs = [b.dense(left), b.dense(right), Value(bias.name, bias.stored, bias.dtype, bias.stored)]
    return b.node("Gemm", inputs, shape, left.dtype, alpha=float(alpha), beta=float(beta))


def _scaled(b: Builder, x: Value, factor: float) -> Value:
    return x if factor == 1 else b.binary("Mul", x, b.scalar(float(factor), x.dtype))


def _vector_norm(
    b: Builder, _: Call, x: Value, order: float = 2, axes: Any = None, keep: bool = False, **__: Any
) -> Value:
    ops = {1: "ReduceL1", 2: "ReduceL2"}
    if order not in ops:
        raise ValueError(f"the norm of order {order}")
    return b.reduce(ops[int(order)], x, _axes(x, axes), keep=keep)


def _cumsum(b: Builder, call: Call, x: Value, axis: int, **_: Any) -> Value:
    return b.node(
        "CumSum",
        [b.dense(b.cast(x, call.outputs[0].dtype)), b.constant(np.array(axis % len(x.shape)))],
        x.shape,
        call.outputs[0].dtype,
    )


LOWERINGS: dict[Any, Lowering] = {
    aten.sum.default: _sum,
    aten.sum.dim_IntList: _sum,
    aten.mean.default: _mean,
    aten.mean.dim: _mean,
    aten.amax.default: _extremum("ReduceMax"),
    aten.amin.default: _extremum("ReduceMin"),
    aten.max.default: _extremum("ReduceMax"),
    aten.min.default: _extremum("ReduceMin"),
    aten.max.dim: _extremum_at("ReduceMax", "ArgMax"),
    aten.min.dim: _extremum_at("ReduceMin", "ArgMin"),
    aten.argmax.default: _argument("ArgMax"),
    aten.argmin.default: _argument("ArgMin"),
    aten.any.default: _any,
    aten.any.dim: _any,
    aten.any.dims: _any,
    aten.var.correction: _variance,
    aten._softmax.default: _softmax("Softmax"),  # noqa: SLF001  torch names its operators so
    aten._safe_softmax.default: _softmax("Softmax"),  # noqa: SLF001  a row of -inf only is refused by the check
    aten._log_softmax.default: _softmax("LogSoftmax"),  # noqa: SLF001  see above
    aten._softmax_backward_data.default: _softmax_backward,  # noqa: SLF001  see above
    aten._log_softmax_backward_data.default: _log_softmax_backward,  # noqa: SLF001  see above
    aten.mm.default: _mm,
    aten.bmm.default: _mm,
    aten.addmm.default: _addmm,
    aten.baddbmm.default: _addmm,
    aten.linalg_vector_norm.default: _vector_norm,
    aten.cumsum.default: _cumsum,
}
