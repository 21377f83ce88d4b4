# ruff: noqa: ARG001  the order of arguments is aten's, and not all of them matter here
"""Views, parts, joins and indices."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from export.builder import Builder, Value, elements, small
from export.symbolic import Dim
from export.trace import Call

aten = torch.ops.aten
Lowering = Callable[..., Any]
LARGEST = np.iinfo(np.int64).max


def _view(b: Builder, call: Call, x: Value, *_: Any, **__: Any) -> Value:
    spec = call.outputs[0]
    if elements(x.stored) == 1 and x.lazy:
        return Value(b.reshape(small(x), ()).name, spec.shape, x.dtype, ())
    return b.reshape(x, spec.shape)


def _expand(_: Builder, call: Call, x: Value, *__: Any, **___: Any) -> Value:
    return Value(x.name, call.outputs[0].shape, x.dtype, x.stored)


def _copy(b: Builder, call: Call, _: Value, source: Value, *__: Any) -> Value:
    value = b.cast(source, call.outputs[0].dtype)
    return Value(value.name, call.outputs[0].shape, value.dtype, value.stored)


def _permute(b: Builder, _: Call, x: Value, order: Sequence[int]) -> Value:
    return b.transpose(x, [axis % len(x.shape) for axis in order])


def _transpose(b: Builder, _: Call, x: Value, first: int, second: int) -> Value:
    order = list(range(len(x.shape)))
    first, second = first % len(order), second % len(order)
    order[first], order[second] = second, first
    return b.transpose(x, order)


def _t(b: Builder, _: Call, x: Value) -> Value:
    return b.transpose(x, range(len(x.shape))[::-1])


def _bounds(x: Value, axis: int, start: Any, end: Any) -> tuple[Dim, Dim]:
    length = x.shape[axis]
    low: Dim = 0 if start is None else start
    high: Dim = length if end is None or (isinstance(end, int) and end >= LARGEST) else end
    if isinstance(low, int) and low < 0:
        low = length + low
    if isinstance(high, int) and high < 0:
        high = length + high
    if isinstance(high, int) and isinstance(length, int):
        high = min(high, length)
    return low, high


def _slice(b: Builder, call: Call, x: Value, axis: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Value:
    axis %= len(x.shape)
    if call.outputs[0].shape == x.shape:
        return x
    low, high = _bounds(x, axis, start, end)
    value = b.dense(x)
    tensors = [b.shape([low]), b.shape([high]), b.constant([axis]), b.constant([step])]
    return b.node("Slice", [value, *tensors], call.outputs[0].shape, x.dtype)


def _slice_backward(
    b: Builder, call: Call, gradient: Value, sizes: Any, axis: int, start: Any, end: Any, step: int
) -> Value:
    shape = call.outputs[0].shape
    target = Value("", shape, gradient.dtype, shape)
    low, high = _bounds(target, axis, start, end)
    if step != 1:
        places = b.node(
            "Range", [b.size(low), b.size(high), b.scalar(step, torch.int64)], (gradient.shape[axis],), torch.int64
        )
        return scatter_axis(b, gradient, axis, places, shape)
    before, after = low, shape[axis] + -1 * high
    rank = len(shape)
    pads = b.shape(
        [before if place == axis else 0 for place in range(rank)]
        + [after if place == axis else 0 for place in range(rank)]
    )
    return b.node("Pad", [b.dense(gradient), pads], shape, gradient.dtype)


def _slice_scatter(
    b: Builder, _: Call, x: Value, part: Value, axis: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Value:
    axis %= len(x.shape)
    low, high = _bounds(x, axis, start, end)
    if step != 1:
        raise ValueError("writing into a part with a step")
    parts = [b.slice(x, [axis], [0], [low], [1])] if low != 0 else []
    parts.append(part)
    if high != x.shape[axis]:
        parts.append(b.slice(x, [axis], [high], [x.shape[axis]], [1]))
    return b.concat(parts, axis)


def _select_scatter(b: Builder, call: Call, x: Value, part: Value, axis: int, place: int) -> Value:
    axis %= len(x.shape)
    row = b.reshape(part, (*x.shape[:axis], 1, *x.shape[axis + 1 :]))
    low = x.shape[axis] + place if place < 0 else place
    return _slice_scatter(b, call, x, row, axis, low, low + 1)


def _select(b: Builder, call: Call, x: Value, axis: int, place: Any) -> Value:
    index = x.shape[axis] + place if isinstance(place, int) and place < 0 else place
    return b.node("Gather", [b.dense(x), b.size(index)], call.outputs[0].shape, x.dtype, axis=axis % len(x.shape))


def _select_backward(b: Builder, call: Call, gradient: Value, sizes: Any, axis: int, place: Any) -> Value:
    shape = call.outputs[0].shape
    axis %= len(shape)
    low = shape[axis] + place if isinstance(place, int) and place < 0 else place
    row = b.reshape(gradient, (*shape[:axis], 1, *shape[axis + 1 :]))
    return _slice_backward(b, call, row, sizes, axis, low, low + 1, 1)


def scatter_axis(b: Builder, rows: Value, axis: int, places: Value, shape: tuple[Dim, ...]) -> Value:
    """Return zeros of the given shape with ``rows`` added at ``places`` (one index a row) of a dimension."""
    index = b.reshape(places, tuple(rows.shape[axis] if other == axis else 1 for other in range(len(shape))))
    index = b.dense(Value(index.name, rows.shape, index.dtype, index.stored))
    return b.node(
        "ScatterElements",
        [zeros(b, shape, rows.dtype), index, b.dense(rows)],
        shape,
        rows.dtype,
        axis=axis,
        reduction="add",
    )


def zeros(b: Builder, shape: tuple[Dim, ...], dtype: torch.dtype) -> Value:
    """Return dense zeros."""
    zero = b.scalar(0, dtype)
    return b.dense(Value(zero.name, shape, dtype, ()))


def _cat(b: Builder, call: Call, values: Sequence[Value], axis: int = 0) -> Value:
    dtype = call.outputs[0].dtype
    parts = [b.cast(value, dtype) for value in values if value.shape != (0,)]
    return b.concat(parts, axis % len(call.outputs[0].shape))


def _stack(b: Builder, call: Call, values: Sequence[Value], axis: int = 0) -> Value:
    axis %= len(call.outputs[0].shape)
    parts = [b.reshape(value, (*value.shape[:axis], 1, *value.shape[axis:])) for value in values]
    return b.concat(parts, axis)


def _split(b: Builder, call: Call, x: Value, sizes: Any, axis: int = 0) -> list[Value]:
    axis %= len(x.shape)
    shapes = [(spec.shape, x.dtype) for spec in call.outputs]
    if len(shapes) == 1:
        return [x]
    lengths = b.shape([shape[axis] for shape, _ in shapes])
    return b.nodes_out("Split", [b.dense(x), lengths], shapes, axis=axis)


def _unbind(b: Builder, call: Call, x: Value, axis: int = 0) -> list[Value]:
    axis %= len(x.shape)
    shape = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
    count = len(call.outputs)
    if count == 1:
        return [b.reshape(x, call.outputs[0].shape)]
    parts = b.nodes_out("Split", [b.dense(x), b.constant([1] * count)], [(shape, x.dtype)] * count, axis=axis)
    return [b.reshape(part, spec.shape) for part, spec in zip(parts, call.outputs, strict=True)]


def _pad(b: Builder, call: Call, x: Value, pads: Sequence[int], fill: float = 0.0) -> Value:
    rank = len(x.shape)
    before, after = [0] * rank, [0] * rank
    for place in range(len(pads) // 2):
        before[rank - 1 - place], after[rank - 1 - place] = pads[2 * place], pads[2 * place + 1]
    ends = b.constant([*before, *after])
    return b.node("Pad", [b.dense(x), ends, b.scalar(fill, x.dtype)], call.outputs[0].shape, x.dtype)


def _repeat(b: Builder, call: Call, x: Value, times: Sequence[int]) -> Value:
    raised = b.reshape(x, (1,) * (len(times) - len(x.shape)) + x.shape)
    return b.node("Tile", [raised, b.shape(times)], call.outputs[0].shape, x.dtype)


def _triangle(upper: bool) -> Lowering:
    def lower(b: Builder, _: Call, x: Value, diagonal: int = 0) -> Value:
        return b.node("Trilu", [b.dense(x), b.constant(np.array(diagonal))], x.shape, x.dtype, upper=int(upper))

    return lower


LOWERINGS: dict[Any, Lowering] = {
    aten.view.default: _view,
    aten._unsafe_view.default: _view,  # noqa: SLF001  torch names its operators so
    aten.reshape.default: _view,
    aten._reshape_alias.default: _view,  # noqa: SLF001  see above
    aten.unsqueeze.default: _view,
    aten.squeeze.default: _view,
    aten.squeeze.dim: _view,
    aten.squeeze.dims: _view,
    aten.expand.default: _expand,
    aten.copy.default: _copy,
    aten.permute.default: _permute,
    aten.transpose.int: _transpose,
    aten.t.default: _t,
    aten.slice.Tensor: _slice,
    aten.slice_backward.default: _slice_backward,
    aten.slice_scatter.default: _slice_scatter,
    aten.select_scatter.default: _select_scatter,
    aten.select.int: _select,
    aten.select_backward.default: _select_backward,
    aten.cat.default: _cat,
    aten.stack.default: _stack,
    aten.split_with_sizes.default: _split,
    aten.split.Tensor: _split,
    aten.unbind.int: _unbind,
    aten.constant_pad_nd.default: _pad,
    aten.repeat.default: _repeat,
    aten.triu.default: _triangle(upper=True),
    aten.tril.default: _triangle(upper=False),
}
