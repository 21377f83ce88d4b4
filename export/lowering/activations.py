"""Activations and their derivatives."""

import math
from collections.abc import Callable
from typing import Any

import torch

from export.builder import Builder, Value
from export.lowering.elementwise import expm1, operand
from export.trace import Call

aten = torch.ops.aten
Lowering = Callable[..., Any]


def _hardtanh(b: Builder, _: Call, x: Value, minimum: float = -1.0, maximum: float = 1.0) -> Value:
    return b.elementwise("Clip", [x, b.scalar(float(minimum), x.dtype), b.scalar(float(maximum), x.dtype)], x.dtype)


def _hardtanh_backward(b: Builder, _: Call, gradient: Value, x: Value, minimum: float, maximum: float) -> Value:
    """Of the clipped value, which is there: so nobody needs ``x`` any more and the forward pass clips it in place."""
    y = _hardtanh(b, _, x, minimum, maximum)
    inside = b.binary(
        "And",
        b.binary("Greater", y, b.scalar(float(minimum), x.dtype), torch.bool),
        b.binary("Less", y, b.scalar(float(maximum), x.dtype), torch.bool),
        torch.bool,
    )
    return b.binary("Mul", gradient, b.cast(inside, gradient.dtype))


def _threshold_backward(b: Builder, _: Call, gradient: Value, x: Value, threshold: float) -> Value:
    passes = b.binary("Greater", x, b.scalar(threshold, x.dtype), torch.bool)
    return b.binary("Mul", gradient, b.cast(passes, gradient.dtype))


def _leaky_relu(b: Builder, _: Call, x: Value, slope: float = 0.01) -> Value:
    return b.elementwise("LeakyRelu", [x], x.dtype, alpha=float(slope))


def _leaky_relu_backward(b: Builder, _: Call, gradient: Value, x: Value, slope: float, is_result: bool) -> Value:  # noqa: ARG001  the sign is the same
    passes = b.cast(b.binary("Greater", x, b.scalar(0.0, x.dtype), torch.bool), gradient.dtype)
    factor = b.binary("Add", b.binary("Mul", passes, b.scalar(1.0 - slope, x.dtype)), b.scalar(slope, x.dtype))
    return b.binary("Mul", gradient, factor)


def _elu(b: Builder, _: Call, x: Value, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Value:
    def times(value: Value, factor: float) -> Value:
        return value if factor == 1 else b.binary("Mul", value, b.scalar(float(factor), x.dtype))

    below = times(expm1(b, _, times(x, input_scale)), alpha * scale)
    positive = b.binary("Greater", x, b.scalar(0.0, x.dtype), torch.bool)
    return b.elementwise("Where", [positive, times(x, scale), below], x.dtype)


def _shrink_backward(b: Builder, _: Call, gradient: Value, x: Value, limit: float) -> Value:
    outside = b.binary("Greater", b.elementwise("Abs", [x], x.dtype), b.scalar(float(limit), x.dtype), torch.bool)
    return b.binary("Mul", gradient, b.cast(outside, gradient.dtype))


def _gelu(b: Builder, _: Call, x: Value, approximate: str = "none") -> Value:
    return b.elementwise("Gelu", [x], x.dtype, approximate=approximate)


def _gelu_backward(b: Builder, _: Call, gradient: Value, x: Value, approximate: str = "none") -> Value:
    def times(left: Value, right: Value | float) -> Value:
        return b.binary("Mul", left, operand(b, right, x.dtype))

    def plus(left: Value, right: Value | float) -> Value:
        return b.binary("Add", left, operand(b, right, x.dtype))

    square = times(x, x)
    if approximate == "none":
        inner = b.elementwise("Erf", [times(x, math.sqrt(0.5))], x.dtype)
        bell = b.elementwise("Exp", [times(square, -0.5)], x.dtype)
        slope = plus(plus(times(inner, 0.5), 0.5), times(times(bell, x), 1.0 / math.sqrt(2.0 * math.pi)))
        return times(gradient, slope)
    scale = math.sqrt(2.0 / math.pi)
    inner = b.elementwise("Tanh", [times(times(x, scale), plus(times(square, 0.044715), 1.0))], x.dtype)
    steep = times(plus(times(square, 3.0 * 0.044715), 1.0), 0.5 * scale)
    tail = times(times(x, b.binary("Sub", b.scalar(1.0, x.dtype), times(inner, inner))), steep)
    return times(gradient, plus(plus(times(inner, 0.5), 0.5), tail))


def _sigmoid_backward(b: Builder, _: Call, gradient: Value, y: Value) -> Value:
    return b.binary("Mul", gradient, b.binary("Mul", y, b.binary("Sub", b.scalar(1.0, y.dtype), y)))


def _tanh_backward(b: Builder, _: Call, gradient: Value, y: Value) -> Value:
    return b.binary("Mul", gradient, b.binary("Sub", b.scalar(1.0, y.dtype), b.binary("Mul", y, y)))


def _silu(b: Builder, _: Call, x: Value) -> Value:
    return b.binary("Mul", x, b.elementwise("Sigmoid", [x], x.dtype))


def _silu_backward(b: Builder, _: Call, gradient: Value, x: Value) -> Value:
    gate = b.elementwise("Sigmoid", [x], x.dtype)
    rest = b.binary("Mul", x, b.binary("Sub", b.scalar(1.0, x.dtype), gate))
    return b.binary("Mul", gradient, b.binary("Mul", gate, b.binary("Add", rest, b.scalar(1.0, x.dtype))))


def _softplus(b: Builder, _: Call, x: Value, beta: float = 1, threshold: float = 20) -> Value:
    scaled = b.binary("Mul", x, b.scalar(float(beta), x.dtype)) if beta != 1 else x
    soft = b.elementwise("Softplus", [scaled], x.dtype)
    soft = b.binary("Mul", soft, b.scalar(1.0 / beta, x.dtype)) if beta != 1 else soft
    return b.elementwise(
        "Where", [b.binary("Greater", scaled, b.scalar(float(threshold), x.dtype), torch.bool), x, soft], x.dtype
    )


def _softplus_backward(b: Builder, _: Call, gradient: Value, x: Value, beta: float, threshold: float) -> Value:
    scaled = b.binary("Mul", x, b.scalar(float(beta), x.dtype)) if beta != 1 else x
    gate = b.elementwise("Sigmoid", [scaled], x.dtype)
    straight = b.binary("Greater", scaled, b.scalar(float(threshold), x.dtype), torch.bool)
    return b.elementwise("Where", [straight, gradient, b.binary("Mul", gradient, gate)], x.dtype)


LOWERINGS: dict[Any, Lowering] = {
    aten.hardtanh.default: _hardtanh,
    aten.hardtanh_backward.default: _hardtanh_backward,
    aten.threshold_backward.default: _threshold_backward,
    aten.leaky_relu.default: _leaky_relu,
    aten.leaky_relu_backward.default: _leaky_relu_backward,
    aten.elu.default: _elu,
    aten.hardshrink_backward.default: _shrink_backward,
    aten.softshrink_backward.default: _shrink_backward,
    aten.gelu.default: _gelu,
    aten.gelu_backward.default: _gelu_backward,
    aten.sigmoid_backward.default: _sigmoid_backward,
    aten.tanh_backward.default: _tanh_backward,
    aten.silu.default: _silu,
    aten.silu_backward.default: _silu_backward,
    aten.softplus.default: _softplus,
    aten.softplus_backward.default: _softplus_backward,
}
