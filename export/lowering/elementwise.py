"""Arithmetic, comparisons, activations and their derivatives."""

from collections.abc import Callable
from typing import Any

import torch

from export.builder import Builder, Value
from export.symbolic import BATCH
from export.trace import Call

aten = torch.ops.aten
Lowering = Callable[..., Any]


def operand(b: Builder, value: Any, dtype: torch.dtype) -> Value:
    """Return a tensor or number as a value of the given type."""
    return b.cast(value, dtype) if isinstance(value, Value) else b.scalar(value, dtype)


def _arithmetic(op: str) -> Lowering:
    def lower(b: Builder, call: Call, left: Any, right: Any, alpha: float = 1) -> Value:
        dtype = call.outputs[0].dtype
        left, right = operand(b, left, dtype), operand(b, right, dtype)
        if alpha != 1:
            right = b.binary("Mul", right, b.scalar(alpha, dtype))
        return b.binary(op, left, right)

    return lower


def _reversed_subtraction(b: Builder, call: Call, left: Value, right: Any, alpha: float = 1) -> Value:
    return _arithmetic("Sub")(b, call, right, left, alpha)


def _unary(*ops: str) -> Lowering:
    def lower(b: Builder, call: Call, x: Value, *_: Any, **__: Any) -> Value:
        value = b.cast(x, call.outputs[0].dtype)
        for op in ops:
            value = b.elementwise(op, [value], value.dtype)
        return value

    return lower


def _comparison(*ops: str) -> Lowering:
    def lower(b: Builder, _: Call, left: Any, right: Any) -> Value:
        dtype = _common(left, right)
        value = b.binary(ops[0], operand(b, left, dtype), operand(b, right, dtype), torch.bool)
        for op in ops[1:]:
            value = b.elementwise(op, [value], torch.bool)
        return value

    return lower


def _common(left: Any, right: Any) -> torch.dtype:
    kinds = [value.dtype for value in (left, right) if isinstance(value, Value)]
    dtype = kinds[0] if len(kinds) == 1 else torch.promote_types(*kinds)
    if len(kinds) == 1 and not dtype.is_floating_point and isinstance(left if kinds[0] is None else right, float):
        return torch.float32
    return torch.int64 if dtype == torch.bool and len(kinds) == 1 else dtype


def _logical(op: str) -> Lowering:
    def lower(b: Builder, _: Call, left: Value, right: Any) -> Value:
        return b.binary(op, operand(b, left, torch.bool), operand(b, right, torch.bool), torch.bool)

    return lower


def _logical_not(b: Builder, _: Call, x: Value) -> Value:
    return b.elementwise("Not", [b.cast(x, torch.bool)], torch.bool)


def _where(b: Builder, call: Call, condition: Value, left: Any, right: Any) -> Value:
    dtype = call.outputs[0].dtype
    return b.elementwise(
        "Where", [b.cast(condition, torch.bool), operand(b, left, dtype), operand(b, right, dtype)], dtype
    )


def _masked_fill(b: Builder, call: Call, x: Value, mask: Value, fill: Any) -> Value:
    return _where(b, call, mask, fill, x)


def _clamp(b: Builder, call: Call, x: Value, minimum: Any = None, maximum: Any = None) -> Value:
    value = b.cast(x, call.outputs[0].dtype)
    for op, bound in (("Max", minimum), ("Min", maximum)):
        if bound is not None:
            value = b.binary(op, value, operand(b, bound, value.dtype))
    return value


def _clamp_max(b: Builder, call: Call, x: Value, maximum: Any) -> Value:
    return _clamp(b, call, x, None, maximum)


def _power(b: Builder, call: Call, x: Any, exponent: Any) -> Value:
    dtype = call.outputs[0].dtype
    base = operand(b, x, dtype)
    if exponent == 0:
        return b.binary("Add", b.binary("Mul", base, b.scalar(0.0, dtype)), b.scalar(1.0, dtype))
    if exponent == 1:
        return base
    if exponent == 2:
        return b.binary("Mul", base, base)
    if exponent == 0.5:
        return b.elementwise("Sqrt", [base], dtype)
    if exponent == -1:
        return b.elementwise("Reciprocal", [base], dtype)
    # A root of a positive power: two square roots cost a fraction of pow (local response norm's 0.75).
    if exponent in (0.75, -0.75):
        root = b.elementwise("Sqrt", [base], dtype)
        value = b.binary("Mul", root, b.elementwise("Sqrt", [root], dtype))
        return value if exponent > 0 else b.elementwise("Reciprocal", [value], dtype)
    if exponent == -1.75:
        root = b.elementwise("Sqrt", [base], dtype)
        value = b.binary("Mul", b.binary("Mul", root, b.elementwise("Sqrt", [root], dtype)), base)
        return b.elementwise("Reciprocal", [value], dtype)
    if exponent == -0.25:
        root = b.elementwise("Sqrt", [base], dtype)
        return b.elementwise("Reciprocal", [b.elementwise("Sqrt", [root], dtype)], dtype)
    return b.binary("Pow", base, operand(b, exponent, dtype))


def _rsqrt(b: Builder, _: Call, x: Value) -> Value:
    return b.elementwise("Reciprocal", [b.elementwise("Sqrt", [x], x.dtype)], x.dtype)


def _log1p(b: Builder, _: Call, x: Value) -> Value:
    return b.elementwise("Log", [b.binary("Add", x, b.scalar(1.0, x.dtype))], x.dtype)


def expm1(b: Builder, _: Call, x: Value) -> Value:
    """Return exp(x) - 1."""
    return b.binary("Sub", b.elementwise("Exp", [x], x.dtype), b.scalar(1.0, x.dtype))


def _same(b: Builder, call: Call, x: Value, *_: Any, **__: Any) -> Value:
    return b.cast(x, call.outputs[0].dtype)


def _fill(number: float | None) -> Lowering:
    def lower(b: Builder, call: Call, *args: Any, **_: Any) -> Value:
        spec = call.outputs[0]
        value = b.scalar(args[-1] if number is None else number, spec.dtype)
        return Value(value.name, spec.shape, spec.dtype, ())

    return lower


def _bernoulli(b: Builder, call: Call, x: Value, p: float, **_: Any) -> Value:  # noqa: ARG001  only its shape matters
    spec = call.outputs[0]
    return b.cast(b.binary("Less", noise(b, spec.shape), b.scalar(p, torch.float32), torch.bool), spec.dtype)


def noise(b: Builder, shape: tuple[Any, ...]) -> Value:
    """Return a new noise input in the wanted shape; the input itself has the batch first."""
    place = next((place for place, dim in enumerate(shape) if not isinstance(dim, int)), None)
    if place is None or shape[place].constant or shape[place].square:
        raise ValueError("random numbers whose shape has no batch dimension")
    factor = shape[place].linear
    rest = shape[:place] + shape[place + 1 :]
    if factor == 1:
        value = b.random((shape[place], *rest), place)
        return b.transpose(value, [*range(1, place + 1), 0, *range(place + 1, len(shape))])
    if place:
        raise ValueError("random numbers whose batch is folded into an inner dimension")
    return b.reshape(b.random((BATCH, factor, *rest), 0), shape)


LOWERINGS: dict[Any, Lowering] = {
    aten.add.Tensor: _arithmetic("Add"),
    aten.add.Scalar: _arithmetic("Add"),
    aten.sub.Tensor: _arithmetic("Sub"),
    aten.sub.Scalar: _arithmetic("Sub"),
    aten.rsub.Scalar: _reversed_subtraction,
    aten.rsub.Tensor: _reversed_subtraction,
    aten.mul.Tensor: _arithmetic("Mul"),
    aten.mul.Scalar: _arithmetic("Mul"),
    aten.div.Tensor: _arithmetic("Div"),
    aten.div.Scalar: _arithmetic("Div"),
    aten.maximum.default: _arithmetic("Max"),
    aten.minimum.default: _arithmetic("Min"),
    aten.neg.default: _unary("Neg"),
    aten.abs.default: _unary("Abs"),
    aten.sgn.default: _unary("Sign"),
    aten.sign.default: _unary("Sign"),
    aten.exp.default: _unary("Exp"),
    aten.log.default: _unary("Log"),
    aten.sqrt.default: _unary("Sqrt"),
    aten.reciprocal.default: _unary("Reciprocal"),
    aten.erf.default: _unary("Erf"),
    aten.sin.default: _unary("Sin"),
    aten.cos.default: _unary("Cos"),
    aten.floor.default: _unary("Floor"),
    aten.ceil.default: _unary("Ceil"),
    aten.round.default: _unary("Round"),
    aten.relu.default: _unary("Relu"),
    aten.sigmoid.default: _unary("Sigmoid"),
    aten.tanh.default: _unary("Tanh"),
    aten.rsqrt.default: _rsqrt,
    aten.log1p.default: _log1p,
    aten.expm1.default: expm1,
    aten.pow.Tensor_Scalar: _power,
    aten.pow.Tensor_Tensor: _power,
    aten.pow.Scalar: _power,
    aten.eq.Tensor: _comparison("Equal"),
    aten.eq.Scalar: _comparison("Equal"),
    aten.ne.Tensor: _comparison("Equal", "Not"),
    aten.ne.Scalar: _comparison("Equal", "Not"),
    aten.gt.Tensor: _comparison("Greater"),
    aten.gt.Scalar: _comparison("Greater"),
    aten.ge.Tensor: _comparison("GreaterOrEqual"),
    aten.ge.Scalar: _comparison("GreaterOrEqual"),
    aten.lt.Tensor: _comparison("Less"),
    aten.lt.Scalar: _comparison("Less"),
    aten.le.Tensor: _comparison("LessOrEqual"),
    aten.le.Scalar: _comparison("LessOrEqual"),
    aten.logical_and.default: _logical("And"),
    aten.logical_or.default: _logical("Or"),
    aten.bitwise_and.Tensor: _logical("And"),
    aten.bitwise_or.Tensor: _logical("Or"),
    aten.logical_not.default: _logical_not,
    aten.bitwise_not.default: _logical_not,
    aten.where.self: _where,
    aten.where.ScalarSelf: _where,
    aten.where.ScalarOther: _where,
    aten.where.Scalar: _where,
    aten.masked_fill.Scalar: _masked_fill,
    aten.masked_fill.Tensor: _masked_fill,
    aten.clamp.default: _clamp,
    aten.clamp_min.default: _clamp,
    aten.clamp_max.default: _clamp_max,
    aten._to_copy.default: _same,  # noqa: SLF001  torch names its operators so
    aten.clone.default: _same,
    aten.detach.default: _same,
    aten.alias.default: _same,
    aten.lift_fresh_copy.default: _same,
    aten.zeros.default: _fill(0),
    aten.zeros_like.default: _fill(0),
    aten.new_zeros.default: _fill(0),
    aten.ones.default: _fill(1),
    aten.ones_like.default: _fill(1),
    aten.new_ones.default: _fill(1),
    aten.full.default: _fill(None),
    aten.full_like.default: _fill(None),
    aten.new_full.default: _fill(None),
    aten.scalar_tensor.default: _fill(None),
    aten.empty.memory_format: _fill(0),
    aten.empty_like.default: _fill(0),
    aten.new_empty.default: _fill(0),
    aten.new_empty_strided.default: _fill(0),
    aten.empty_strided.default: _fill(0),
    aten.bernoulli.p: _bernoulli,
}
