"""Picking and writing by index: embeddings, gathers, scatters."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from export.builder import Builder, Value, elements, small
from export.lowering.shape import zeros
from export.symbolic import fixed
from export.trace import Call

aten = torch.ops.aten
Lowering = Callable[..., Any]


def _arange(b: Builder, call: Call, start: Any, end: Any, step: Any = 1, **_: Any) -> Value:
    spec = call.outputs[0]
    if isinstance(start, int) and isinstance(end, int):
        return b.constant(np.arange(start, end, step), spec.dtype)
    limits = [b.size(start), b.size(end), b.scalar(step, torch.int64)]
    return b.cast(b.node("Range", limits, spec.shape, torch.int64), spec.dtype)


def _embedding(b: Builder, call: Call, weight: Value, tokens: Value, *_: Any) -> Value:
    return b.node("Gather", [b.dense(weight), b.dense(tokens)], call.outputs[0].shape, weight.dtype, axis=0)


def _embedding_backward(
    b: Builder, call: Call, gradient: Value, tokens: Value, count: int, padding: int, by_frequency: bool
) -> Value:
    if by_frequency:
        raise ValueError("Embedding(scale_grad_by_freq=True)")
    width = gradient.shape[-1]
    rows = b.reshape(gradient, (elements(tokens.shape), width))
    places = b.reshape(tokens, (elements(tokens.shape), 1))
    if padding >= 0:
        kept = b.elementwise("Not", [b.binary("Equal", places, b.scalar(padding, torch.int64), torch.bool)], torch.bool)
        rows = b.binary("Mul", rows, b.cast(kept, rows.dtype))
    return b.node(
        "ScatterND",
        [zeros(b, (count, width), rows.dtype), places, rows],
        call.outputs[0].shape,
        rows.dtype,
        reduction="add",
    )


FEW = 64
"""Places up to which picking by one index for all channels goes by a matrix product; with 256 both ways take as long."""


def _one_hot(b: Builder, x: Value, axis: int, index: Value) -> Value | None:
    """Return (batch, picks, places) with a one where a place is picked, if one index serves all channels and places are few."""
    if len(x.shape) != 3 or axis % 3 != 2 or x.dtype != torch.float32 or index.stored[1:2] != (1,):
        return None
    if index.shape[:2] != x.shape[:2] or index.stored != (index.shape[0], 1, index.shape[2]) or x.shape[1] == 1:
        return None
    places = x.shape[2]
    if not isinstance(places, int) or places > FEW:
        return None
    picks = b.reshape(small(index), (index.shape[0], index.shape[2], 1))
    met = b.binary("Equal", picks, b.constant(np.arange(places)), torch.bool)
    return b.cast(met, x.dtype)


def _gather(b: Builder, call: Call, x: Value, axis: int, index: Value, **_: Any) -> Value:
    hot = _one_hot(b, x, axis, index)
    if hot is not None:
        return b.matmul(x, b.transpose(hot, [0, 2, 1]))
    return b.node(
        "GatherElements", [b.dense(x), b.dense(index)], call.outputs[0].shape, x.dtype, axis=axis % len(x.shape)
    )


def _scatter(reduction: str) -> Lowering:
    def lower(b: Builder, call: Call, x: Value, axis: int, index: Value, source: Any) -> Value:
        if not isinstance(source, Value):
            scalar = b.scalar(source, x.dtype)
            source = Value(scalar.name, index.shape, x.dtype, ())
        hot = _one_hot(b, x, axis, index) if reduction == "add" else None
        if hot is not None:
            # Scattering took more time than the convolutions of a small net.
            added = b.matmul(source, hot)
            return added if b.is_zero(x) else b.binary("Add", x, added)
        inputs = [b.dense(x), b.dense(index), b.dense(source)]
        return b.node(
            "ScatterElements", inputs, call.outputs[0].shape, x.dtype, axis=axis % len(x.shape), reduction=reduction
        )

    return lower


def _index_select(b: Builder, call: Call, x: Value, axis: int, index: Value) -> Value:
    return b.node("Gather", [b.dense(x), b.dense(index)], call.outputs[0].shape, x.dtype, axis=axis % len(x.shape))


def _only_index(indices: Sequence[Value | None]) -> tuple[int, Value]:
    given = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    if len(given) != 1 or given[0][1].dtype == torch.bool:
        raise ValueError("indexing by several tensors or by a mask")
    return given[0]


def _index(b: Builder, call: Call, x: Value, indices: Sequence[Value | None]) -> Value:
    axis, index = _only_index(indices)
    return b.node("Gather", [b.dense(x), b.dense(index)], call.outputs[0].shape, x.dtype, axis=axis)


def _index_put(
    b: Builder, call: Call, x: Value, indices: Sequence[Value | None], rows: Value, accumulate: bool = False
) -> Value:
    axis, index = _only_index(indices)
    if axis:
        raise ValueError("writing by an index that is not in the first dimension")
    places = b.reshape(index, (*index.shape, 1))
    shape = (*index.shape, *x.shape[1:])
    rows = b.dense(Value(rows.name, shape, rows.dtype, rows.stored))
    return b.node(
        "ScatterND",
        [b.dense(x), places, rows],
        call.outputs[0].shape,
        x.dtype,
        reduction="add" if accumulate else "none",
    )


def _flip(b: Builder, _: Call, x: Value, axes: Sequence[int]) -> Value:
    value = b.dense(x)
    for axis in axes:
        backwards = b.constant(np.arange(fixed(value.shape[axis]))[::-1])
        value = b.node("Gather", [value, backwards], value.shape, value.dtype, axis=axis % len(value.shape))
    return value


def _roll(b: Builder, _: Call, x: Value, shifts: Sequence[int], axes: Sequence[int] = ()) -> Value:
    value = b.dense(x)
    for shift, axis in zip(shifts, axes, strict=True):
        places = np.roll(np.arange(fixed(value.shape[axis])), shift)
        value = b.node("Gather", [value, b.constant(places)], value.shape, value.dtype, axis=axis % len(value.shape))
    return value


LOWERINGS: dict[Any, Lowering] = {
    aten.arange.start_step: _arange,
    aten.arange.start: _arange,
    aten.arange.default: lambda b, call, end, **_: _arange(b, call, 0, end),
    aten.embedding.default: _embedding,
    aten.embedding_dense_backward.default: _embedding_backward,
    aten.gather.default: _gather,
    aten.scatter.src: _scatter("none"),
    aten.scatter.value: _scatter("none"),
    aten.scatter_add.default: _scatter("add"),
    aten.index_select.default: _index_select,
    aten.index.Tensor: _index,
    aten.index_put.default: _index_put,
    aten.flip.default: _flip,
    aten.roll.default: _roll,
}
