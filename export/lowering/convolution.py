# ruff: noqa: ARG001  the order of arguments is aten's, and not all of them matter here
"""Convolution and its gradients, each in the formulation that is fastest for the shape at hand."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from export.builder import Builder, Value
from export.lowering.weight_gradient import Geometry, depthwise_input_gradient, fits_row_products, weight_gradient
from export.symbolic import Dim, fixed, product
from export.trace import Call

aten = torch.ops.aten
Lowering = Callable[..., Any]


def _convolution(
    b: Builder,
    call: Call,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Value:
    geometry = _geometry(weight, stride, padding, dilation, groups)
    inputs = [b.dense(x), weight, *([bias] if bias is not None else [])]
    shape = call.outputs[0].shape
    if transposed:
        extra = tuple(output_padding) * (len(weight.shape) - 2 if len(output_padding) == 1 else 1)
        return b.node("ConvTranspose", inputs, shape, x.dtype, **geometry.attributes, output_padding=extra)
    return b.node("Conv", inputs, shape, x.dtype, **geometry.attributes)


def _convolution_backward(
    b: Builder,
    call: Call,
    gradient: Value,
    x: Value,
    weight: Value,
    bias_sizes: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    wanted: Sequence[bool],
) -> tuple[Value | None, Value | None, Value | None]:
    geometry = _geometry(weight, stride, padding, dilation, groups)
    gradient, x = b.dense(gradient), b.dense(x)
    spatial = list(range(2, len(x.shape)))
    down = above = bias = None
    if transposed:
        # A transposed convolution is the input gradient of a convolution: the roles of input and gradient swap.
        down = b.node("Conv", [gradient, weight], x.shape, x.dtype, **geometry.attributes) if wanted[0] else None
        above = weight_gradient(b, x, gradient, weight.shape, geometry) if wanted[1] else None
    else:
        down = input_gradient(b, gradient, weight, x.shape, geometry) if wanted[0] else None
        above = weight_gradient(b, gradient, x, weight.shape, geometry) if wanted[1] else None
    if wanted[2]:
        bias = b.reduce("ReduceSum", gradient, [0, *spatial], keep=False)
    return down, above, bias


def _geometry(
    weight: Value, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int
) -> Geometry:
    rank = len(weight.shape) - 2

    def full(values: Sequence[int]) -> tuple[int, ...]:
        return tuple(values) * (rank if len(values) == 1 else 1)

    return Geometry(full(stride), full(padding), full(dilation), groups)


def input_gradient(b: Builder, gradient: Value, weight: Value, shape: tuple[Dim, ...], geometry: Geometry) -> Value:
    """Return the gradient with respect to the input, of ``shape`` (batch, channels, *places)."""
    kernel = [fixed(length) for length in weight.shape[2:]]
    reach = [spread * (length - 1) for spread, length in zip(geometry.dilation, kernel, strict=True)]
    unit_stride = all(step == 1 for step in geometry.stride)
    if unit_stride and all(length == 1 for length in kernel) and not any(geometry.padding) and geometry.groups == 1:
        return _pointwise_input_gradient(b, gradient, weight, shape)
    if unit_stride and all(pad <= far for pad, far in zip(geometry.padding, reach, strict=True)):
        turned = _turned(b, weight, geometry.groups)
        pads = [far - pad for far, pad in zip(reach, geometry.padding, strict=True)]
        attributes = {"pads": (*pads, *pads), "dilations": geometry.dilation, "group": geometry.groups}
        return b.node("Conv", [gradient, turned], shape, gradient.dtype, **attributes)
    if weight.shape[:2] == (geometry.groups, 1) and geometry.groups > 1 and fits_row_products(shape, geometry):
        return depthwise_input_gradient(b, gradient, weight, shape, geometry)
    extra = [
        fixed(full) - ((fixed(places) - 1) * step - 2 * pad + far + 1)
        for full, places, step, pad, far in zip(
            shape[2:], gradient.shape[2:], geometry.stride, geometry.padding, reach, strict=True
        )
    ]
    # onnxruntime wants output padding below the stride or the dilation; what is more goes into the padding at the end.
    ends = [pad - more for pad, more in zip(geometry.padding, extra, strict=True)]
    if all(more < step for more, step in zip(extra, geometry.stride, strict=True)):
        return b.node(
            "ConvTranspose", [gradient, weight], shape, gradient.dtype, **geometry.attributes, output_padding=extra
        )
    attributes = {**geometry.attributes, "pads": (*geometry.padding, *ends)}
    return b.node("ConvTranspose", [gradient, weight], shape, gradient.dtype, **attributes)


def _pointwise_input_gradient(b: Builder, gradient: Value, weight: Value, shape: tuple[Dim, ...]) -> Value:
    outputs, inputs = weight.shape[:2]
    matrix = b.transpose(b.reshape(weight, (outputs, inputs)), [1, 0])
    flat = b.reshape(gradient, (*gradient.shape[:2], product(gradient.shape[2:])))
    return b.reshape(b.matmul(matrix, flat), shape)


def _turned(b: Builder, weight: Value, groups: int) -> Value:
    """Return the weight with its taps reversed and its channels exchanged: (inputs, outputs / groups, *kernel)."""
    outputs, inputs, *kernel = weight.shape
    taps = fixed(product(kernel))
    flat = b.reshape(weight, (groups, fixed(outputs) // groups, inputs, taps))
    if taps > 1:
        backwards = b.constant(np.arange(taps)[::-1])
        flat = b.node("Gather", [flat, backwards], flat.shape, flat.dtype, axis=3)
    return b.reshape(b.transpose(flat, [0, 2, 1, 3]), (groups * fixed(inputs), fixed(outputs) // groups, *kernel))


LOWERINGS: dict[Any, Lowering] = {
    aten.convolution.default: _convolution,
    aten.convolution_backward.default: _convolution_backward,
}
