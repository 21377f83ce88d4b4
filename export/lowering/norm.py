# ruff: noqa: ARG001  the order of arguments is aten's, and not all of them matter here
"""Batch, group and layer norm and their gradients, in few passes over the data."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from export.builder import Builder, Value, elements
from export.symbolic import Dim, fixed, product
from export.trace import Call

aten = torch.ops.aten
Lowering = Callable[..., Any]


def _channelwise(b: Builder, vector: Value, rank: int) -> Value:
    return b.reshape(vector, (vector.shape[0], *([1] * (rank - 2))))


def affine(b: Builder, x: Value, scale: Value, shift: Value) -> Value:
    """Return ``x * scale + shift`` per channel (batch, channels, ...) in one pass: onnxruntime's inference batch norm does just that."""
    channels = fixed(x.shape[1])
    zero = b.constant(np.zeros(channels, np.float32))
    one = b.constant(np.ones(channels, np.float32))
    return b.node("BatchNormalization", [b.dense(x), scale, shift, zero, one], x.shape, x.dtype, epsilon=0.0)


def _scaled(b: Builder, scale: Value, weight: Value | None) -> Value:
    return scale if weight is None else b.binary("Mul", scale, weight)


def _batch_norm_training(
    b: Builder,
    call: Call,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    mean: Value,
    variance: Value,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Value, ...]:
    if not training:
        return (*_batch_norm_inference(b, call, x, weight, bias, mean, variance, momentum, eps), mean, variance)
    out, batch_mean, rstd, spread = _batch_norm_of_batch(b, x, weight, bias, eps)
    count = elements((x.shape[0], *x.shape[2:]))
    unbiased = b.binary("Mul", spread, b.binary("Div", b.scalar(count, x.dtype), b.scalar(count + -1, x.dtype)))
    after = [
        b.binary(
            "Add",
            b.binary("Mul", old, b.scalar(1.0 - momentum, x.dtype)),
            b.binary("Mul", new, b.scalar(momentum, x.dtype)),
        )
        for old, new in ((mean, batch_mean), (variance, unbiased))
    ]
    return out, batch_mean, rstd, *after


def _batch_norm_without_statistics(
    b: Builder, _: Call, x: Value, weight: Value | None, bias: Value | None, training: bool, momentum: float, eps: float
) -> tuple[Value, ...]:
    return _batch_norm_of_batch(b, x, weight, bias, eps)[:3]


def _batch_norm_read_only(
    b: Builder,
    call: Call,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    mean: Value | None,
    variance: Value | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Value, ...]:
    """The variant that writes running statistics behind the schema's back: fine as long as there are none to write."""
    if mean is None or variance is None:
        return _batch_norm_of_batch(b, x, weight, bias, eps)[:3]
    if training:
        raise ValueError("running statistics that are written in place; use BatchNorm, or track_running_stats=False")
    return _batch_norm_inference(b, call, x, weight, bias, mean, variance, momentum, eps)


def _batch_norm_of_batch(
    b: Builder, x: Value, weight: Value | None, bias: Value | None, eps: float
) -> tuple[Value, Value, Value, Value]:
    """In one node, which takes 0.45 of the time of its parts: with momentum 0 the "running" statistics are the batch's own.

    Trap: onnxruntime writes these outputs over the old statistics without asking who else reads them, be it a constant. So
    the node gets throw-away numbers taken from the batch. They count zero times; two nodes share them only if they share
    the batch, and then write the same.
    """
    channels = fixed(x.shape[1])
    zero, one = (b.constant(np.full(channels, number, np.float32)) for number in (0, 1))
    axes = [0, *range(2, len(x.shape))]
    corner = b.slice(x, axes, [0] * len(axes), [1] * len(axes), [1] * len(axes))
    old_mean = b.reshape(corner, (channels,))
    old_spread = b.elementwise("Abs", [old_mean], x.dtype)
    inputs = [
        b.dense(x),
        weight if weight is not None else one,
        bias if bias is not None else zero,
        old_mean,
        old_spread,
    ]
    kinds = [(x.shape, x.dtype), ((channels,), x.dtype), ((channels,), x.dtype)]
    out, mean, spread = b.nodes_out(
        "BatchNormalization", inputs, kinds, epsilon=float(eps), momentum=0.0, training_mode=1
    )
    rstd = b.elementwise(
        "Reciprocal", [b.elementwise("Sqrt", [b.binary("Add", spread, b.scalar(eps, x.dtype))], x.dtype)], x.dtype
    )
    return out, mean, rstd, spread


def _batch_norm_inference(
    b: Builder,
    _: Call,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    mean: Value,
    variance: Value,
    momentum: float,
    eps: float,
) -> tuple[Value, Value, Value]:
    channels = fixed(x.shape[1])
    scale = weight if weight is not None else b.constant(np.ones(channels, np.float32))
    shift = bias if bias is not None else b.constant(np.zeros(channels, np.float32))
    out = b.node("BatchNormalization", [b.dense(x), scale, shift, mean, variance], x.shape, x.dtype, epsilon=float(eps))
    return out, mean, mean


def _batch_norm_backward(
    b: Builder,
    _: Call,
    gradient: Value,
    x: Value,
    weight: Value | None,
    running_mean: Value | None,
    running_variance: Value | None,
    mean: Value | None,
    rstd: Value | None,
    training: bool,
    eps: float,
    wanted: Sequence[bool],
) -> tuple[Value | None, Value | None, Value | None]:
    """Gradient of batch norm: dx = scale * (g - mean(g) - xhat * mean(g * xhat)), every mean over a channel."""
    axes = [0, *range(2, len(x.shape))]
    rank = len(x.shape)
    if not training:
        assert running_mean is not None  # noqa: S101  torch's schema: given when not training
        assert running_variance is not None  # noqa: S101  see above
        mean = running_mean
        rstd = b.elementwise(
            "Reciprocal",
            [b.elementwise("Sqrt", [b.binary("Add", running_variance, b.scalar(eps, x.dtype))], x.dtype)],
            x.dtype,
        )
    assert mean is not None  # noqa: S101  saved by the forward pass
    assert rstd is not None  # noqa: S101  see above
    gradient, x = b.dense(gradient), b.dense(x)
    centred = b.binary("Sub", x, _channelwise(b, mean, rank))
    total = b.reduce("ReduceSum", gradient, axes, keep=False)
    along = b.binary("Mul", b.reduce("ReduceSum", b.binary("Mul", gradient, centred), axes, keep=False), rstd)
    scale = _scaled(b, rstd, weight)
    if not training:
        down = b.binary("Mul", gradient, _channelwise(b, scale, rank))
        return (down if wanted[0] else None), (along if wanted[1] else None), (total if wanted[2] else None)
    count = b.scalar(elements((x.shape[0], *x.shape[2:])), x.dtype)
    tilt = b.binary("Mul", rstd, b.binary("Div", along, count))
    inner = b.binary("Sub", gradient, b.binary("Mul", centred, _channelwise(b, tilt, rank)))
    shift = b.elementwise("Neg", [b.binary("Mul", scale, b.binary("Div", total, count))], x.dtype)
    down = affine(b, inner, scale, shift)
    return (down if wanted[0] else None), (along if wanted[1] else None), (total if wanted[2] else None)


def _layer_norm(
    b: Builder, call: Call, x: Value, shape: Sequence[int], weight: Value | None, bias: Value | None, eps: float
) -> list[Value]:
    size = tuple(fixed(dim) for dim in shape)
    weight = weight if weight is not None else b.constant(np.ones(size, np.float32))
    outputs = [(spec.shape, x.dtype) for spec in call.outputs]
    inputs = [b.dense(x), b.dense(weight), *([b.dense(bias)] if bias is not None else [])]
    return b.nodes_out("LayerNormalization", inputs, outputs, axis=len(x.shape) - len(size), epsilon=float(eps))


def _layer_norm_backward(
    b: Builder,
    _: Call,
    gradient: Value,
    x: Value,
    shape: Sequence[int],
    mean: Value,
    rstd: Value,
    weight: Value | None,
    bias: Value | None,
    wanted: Sequence[bool],
) -> tuple[Value | None, Value | None, Value | None]:
    """Gradient of layer norm. The means over a row are products with the vector weight / features: no pass of their own."""
    features = fixed(product(list(shape)))
    rows = product(x.shape[: len(x.shape) - len(shape)])
    flat = [b.reshape(value, (rows, features)) for value in (gradient, x)]
    column_mean, column_rstd = (b.reshape(value, (rows, 1)) for value in (mean, rstd))
    given, raw = flat
    normal = b.binary("Mul", b.binary("Sub", raw, column_mean), column_rstd)
    along = b.binary("Mul", given, normal)
    weights = b.reshape(weight, (features,)) if weight is not None else b.constant(np.ones(features, np.float32))
    share = b.reshape(b.binary("Div", weights, b.scalar(float(features), x.dtype)), (features, 1))
    first, second = b.matmul(given, share), b.matmul(along, share)
    inner = b.binary("Sub", b.binary("Sub", b.binary("Mul", given, weights), first), b.binary("Mul", normal, second))
    down = b.reshape(b.binary("Mul", inner, column_rstd), x.shape)
    ends = tuple(fixed(dim) for dim in shape)
    up = [b.reshape(b.reduce("ReduceSum", value, [0], keep=False), ends) for value in (along, given)]
    return (down if wanted[0] else None), (up[0] if wanted[1] else None), (up[1] if wanted[2] else None)


def _group_norm(
    b: Builder,
    call: Call,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    n: Dim,
    channels: int,
    places: int,
    groups: int,
    eps: float,
) -> tuple[Value, Value, Value]:
    width = channels // groups * places
    rows = b.reshape(x, (x.shape[0], groups, width))
    one = b.constant(np.ones(width, np.float32))
    kinds = [(rows.shape, x.dtype), ((x.shape[0], groups, 1), x.dtype), ((x.shape[0], groups, 1), x.dtype)]
    normal, mean, rstd = b.nodes_out("LayerNormalization", [rows, one], kinds, axis=2, epsilon=float(eps))
    out = b.reshape(normal, x.shape)
    if weight is not None:
        assert bias is not None  # noqa: S101  torch's GroupNorm has both or neither
        out = affine(b, out, weight, bias)
    return out, b.reshape(mean, (x.shape[0], groups)), b.reshape(rstd, (x.shape[0], groups))


def _group_norm_backward(
    b: Builder,
    _: Call,
    gradient: Value,
    x: Value,
    mean: Value,
    rstd: Value,
    weight: Value | None,
    n: Dim,
    channels: int,
    places: int,
    groups: int,
    wanted: Sequence[bool],
) -> tuple[Value | None, Value | None, Value | None]:
    batch, width = x.shape[0], channels // groups * places
    centre, scale = (b.reshape(value, (batch, groups, 1)) for value in (mean, rstd))
    normal = b.binary("Mul", b.binary("Sub", b.reshape(x, (batch, groups, width)), centre), scale)
    along = b.binary(
        "Mul", b.reshape(gradient, (batch, channels, places)), b.reshape(normal, (batch, channels, places))
    )
    given = b.reshape(gradient, (batch, channels, places))
    sums = [b.reduce("ReduceSum", value, [2], keep=False) for value in (along, given)]
    weighted = given if weight is None else b.binary("Mul", given, b.reshape(weight, (channels, 1)))
    means = [
        b.binary(
            "Div",
            b.reduce(
                "ReduceSum", b.reshape(_scaled(b, total, weight), (batch, groups, channels // groups)), [2], keep=True
            ),
            b.scalar(float(width), x.dtype),
        )
        for total in sums
    ]
    inner = b.binary(
        "Sub", b.binary("Sub", b.reshape(weighted, (batch, groups, width)), means[1]), b.binary("Mul", normal, means[0])
    )
    down = b.reshape(b.binary("Mul", inner, scale), x.shape)
    up = [b.reduce("ReduceSum", total, [0], keep=False) for total in sums]
    return (down if wanted[0] else None), (up[0] if wanted[1] else None), (up[1] if wanted[2] else None)


LOWERINGS: dict[Any, Lowering] = {
    aten._native_batch_norm_legit_functional.default: _batch_norm_training,  # noqa: SLF001  torch names its operators so
    aten._native_batch_norm_legit.no_stats: _batch_norm_without_statistics,  # noqa: SLF001  see above
    aten._native_batch_norm_legit_no_training.default: _batch_norm_inference,  # noqa: SLF001  see above
    aten.native_batch_norm.default: _batch_norm_read_only,
    aten.native_batch_norm_backward.default: _batch_norm_backward,
    aten.native_layer_norm.default: _layer_norm,
    aten.native_layer_norm_backward.default: _layer_norm_backward,
    aten.native_group_norm.default: _group_norm,
    aten.native_group_norm_backward.default: _group_norm_backward,
}
