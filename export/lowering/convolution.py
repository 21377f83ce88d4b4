# ruff: noqa: ARG001  the order of arguments is aten's, and not all of them matter here
"""Convolution and its gradients, each in the formulation that is fastest for the shape at hand."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from export.builder import Builder, Value
from export.geometry import Geometry, Site
from export.lowering import blocked, weight_gradient
from export.lowering.weight_gradient import depthwise_input_gradient, fits_row_products
from export.symbolic import Shape, fixed, product
from export.trace import Call

aten = torch.ops.aten
Lowering = Callable[..., Any]


FORWARD, DOWN, ABOVE = "forward", "input gradient", "weight gradient"
BY_BLOCKS = "blocks"
"""The formulation that not every processor's onnxruntime has."""


def formulations(site: Site, block: int) -> list[str]:
    """Return the formulations that fit a site; the first is taken where nothing was measured."""
    if site.operator == ABOVE:
        return weight_gradient.fitting(site.left, site.right, site.out, site.geometry)
    if site.operator == DOWN:
        return _fitting_down(site, block)
    return [PLAIN, *([BY_BLOCKS] if blocked.fits(site.left, site.right, site.geometry, block) else [])]


def emit(b: Builder, site: Site, left: Value, right: Value, bias: Value | None = None) -> Value:
    """Return the result of a site's operator, in the formulation that the builder picks."""
    picked = b.pick(site, formulations(site, b.block))
    if site.operator == ABOVE:
        return weight_gradient.EMIT[picked](b, left, right, site.out, site.geometry)
    if site.operator == DOWN:
        return _DOWN[picked](b, left, right, site.out, site.geometry)
    if picked == BY_BLOCKS:
        return blocked.convolution(b, left, right, bias, site.out, site.geometry)
    inputs = [left, right, *([bias] if bias is not None else [])]
    return b.node("Conv", inputs, site.out, left.dtype, **site.geometry.attributes)


PLAIN = "plain"


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
    shape, x = call.outputs[0].shape, b.dense(x)
    if transposed:
        extra = tuple(output_padding) * (len(weight.shape) - 2 if len(output_padding) == 1 else 1)
        inputs = [x, weight, *([bias] if bias is not None else [])]
        return b.node("ConvTranspose", inputs, shape, x.dtype, **geometry.attributes, output_padding=extra)
    return emit(b, Site(FORWARD, x.shape, weight.shape, shape, geometry), x, weight, bias)


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
    # A transposed convolution is the input gradient of a convolution: the roles of input and gradient swap.
    outer, inner, operator = (x, gradient, FORWARD) if transposed else (gradient, x, DOWN)
    down = above = bias = None
    if wanted[0]:
        down = emit(b, Site(operator, gradient.shape, weight.shape, x.shape, geometry), gradient, weight)
    if wanted[1]:
        above = emit(b, Site(ABOVE, outer.shape, inner.shape, weight.shape, geometry), outer, inner)
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


def _fitting_down(site: Site, block: int) -> list[str]:
    """Formulations of the gradient with respect to the input, of which `left` is the output's gradient and `out` the shape."""
    weight, geometry = site.right, site.geometry
    reach = _reach(weight, geometry)
    unit_stride = all(step == 1 for step in geometry.stride)
    found = []
    if unit_stride and product(weight[2:]) == 1 and not any(geometry.padding) and geometry.groups == 1:
        found.append("product")
    if unit_stride and all(pad <= far for pad, far in zip(geometry.padding, reach, strict=True)):
        found.append("turned")
        if blocked.fits(site.left, _turned_shape(weight, geometry.groups), geometry, block):
            found.append(BY_BLOCKS)
    depthwise = geometry.groups > 1 and weight[:2] == (geometry.groups, 1)
    if depthwise and fits_row_products(site.out, geometry):
        found.append("row products")
    return found or ["transposed"]


def _reach(weight: Shape, geometry: Geometry) -> list[int]:
    return [spread * (fixed(length) - 1) for spread, length in zip(geometry.dilation, weight[2:], strict=True)]


def _by_turned(b: Builder, gradient: Value, weight: Value, shape: Shape, geometry: Geometry) -> Value:
    """The convolution of the gradient with the weight turned round."""
    turned, back = _turned(b, weight, geometry.groups), _turned_geometry(weight.shape, geometry)
    return b.node("Conv", [gradient, turned], shape, gradient.dtype, **back.attributes)


def _by_blocks(b: Builder, gradient: Value, weight: Value, shape: Shape, geometry: Geometry) -> Value:
    """The same by the operators of `export.lowering.blocked`."""
    turned, back = _turned(b, weight, geometry.groups), _turned_geometry(weight.shape, geometry)
    return blocked.convolution(b, gradient, turned, None, shape, back)


def _turned_geometry(weight: Shape, geometry: Geometry) -> Geometry:
    pads = tuple(far - pad for far, pad in zip(_reach(weight, geometry), geometry.padding, strict=True))
    return Geometry(geometry.stride, pads, geometry.dilation, geometry.groups)


def _by_transposed(b: Builder, gradient: Value, weight: Value, shape: Shape, geometry: Geometry) -> Value:
    """The transposed convolution."""
    extra = [
        fixed(full) - ((fixed(places) - 1) * step - 2 * pad + far + 1)
        for full, places, step, pad, far in zip(
            shape[2:],
            gradient.shape[2:],
            geometry.stride,
            geometry.padding,
            _reach(weight.shape, geometry),
            strict=True,
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


def _by_product(b: Builder, gradient: Value, weight: Value, shape: Shape, _: Geometry) -> Value:
    """Of one place only: a matrix product."""
    outputs, inputs = weight.shape[:2]
    matrix = b.transpose(b.reshape(weight, (outputs, inputs)), [1, 0])
    flat = b.reshape(gradient, (*gradient.shape[:2], product(gradient.shape[2:])))
    return b.reshape(b.matmul(matrix, flat), shape)


def _turned(b: Builder, weight: Value, groups: int) -> Value:
    """Return the weight with its taps reversed and its channels exchanged: (inputs, outputs / groups, *kernel)."""
    outputs, inputs, *kernel = weight.shape
    taps = fixed(product(kernel))
    shape = _turned_shape(weight.shape, groups)
    flat = b.reshape(weight, (groups, fixed(outputs) // groups, inputs, taps))
    if taps > 1:
        backwards = b.constant(np.arange(taps)[::-1])
        flat = b.node("Gather", [flat, backwards], flat.shape, flat.dtype, axis=3)
    return b.reshape(b.transpose(flat, [0, 2, 1, 3]), shape)


def _turned_shape(weight: Shape, groups: int) -> Shape:
    return (groups * fixed(weight[1]), fixed(weight[0]) // groups, *weight[2:])


_DOWN: dict[str, Callable[[Builder, Value, Value, Shape, Geometry], Value]] = {
    "product": _by_product,
    "turned": _by_turned,
    BY_BLOCKS: _by_blocks,
    "row products": depthwise_input_gradient,
    "transposed": _by_transposed,
}


LOWERINGS: dict[Any, Lowering] = {
    aten.convolution.default: _convolution,
    aten.convolution_backward.default: _convolution_backward,
}
