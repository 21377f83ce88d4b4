# ruff: noqa: ARG001  the order of arguments is aten's, and not all of them matter here
"""Convolution and its three gradients, in the formulation that is fastest for the shape at hand."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from export.builder import Builder, Value
from export.symbolic import Dim, fixed, product
from export.trace import Call

aten = torch.ops.aten
Lowering = Callable[..., Any]

ROWS = 24
"""Kernel positions are multiplied together until so many rows are reached: joining them costs a copy, thin products cost more."""


LONG = 128
"""From so many places on, a sample is a matrix product of its own in the gradient of a 1x1 convolution."""


@dataclass(frozen=True)
class Geometry:
    """Stride, padding and dilation for each spatial dimension, and the number of groups."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of an ONNX Conv."""
        return {
            "strides": self.stride,
            "pads": (*self.padding, *self.padding),
            "dilations": self.dilation,
            "group": self.groups,
        }


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


def weight_gradient(b: Builder, gradient: Value, x: Value, shape: tuple[Dim, ...], geometry: Geometry) -> Value:
    """Return the gradient with respect to the weight, of ``shape`` (outputs, inputs / groups, *kernel).

    One slice of the input and one matrix product for each kernel position. As one convolution over transposed operands,
    as the textbooks have it, onnxruntime takes two to five times as long.
    """
    kernel = [fixed(length) for length in shape[2:]]
    if geometry.groups > 1 and shape[1] == 1 and shape[0] == geometry.groups:
        return _depthwise_weight_gradient(b, gradient, x, shape, geometry)
    if geometry.groups == 1 and product(kernel) == 1 and max(geometry.stride) == 1 and not any(geometry.padding):
        return _pointwise_weight_gradient(b, gradient, x, shape)
    order = [1, 0, *range(2, len(x.shape))]
    rows = _columns(b, b.transpose(gradient, order))
    taps = [_columns(b, tap) for tap in _taps(b, gradient.shape[2:], b.transpose(x, order), kernel, geometry)]
    if geometry.groups > 1:
        return _grouped_weight_gradient(b, rows, taps, shape, geometry.groups)
    outputs, inputs = fixed(shape[0]), fixed(shape[1])
    together = max(1, ROWS // inputs)
    turned = b.transpose(rows, [1, 0])
    products = [
        b.matmul(b.concat(taps[first : first + together], 0), turned) for first in range(0, len(taps), together)
    ]
    matrix = b.reshape(b.concat(products, 0), (len(taps), inputs, outputs))
    return b.reshape(b.transpose(matrix, [2, 1, 0]), shape)


def _pointwise_weight_gradient(b: Builder, gradient: Value, x: Value, shape: tuple[Dim, ...]) -> Value:
    """One product for each sample and their sum, where samples are long; else one product, for two transposed copies."""
    places = fixed(product(x.shape[2:]))
    if places >= LONG:
        left = b.reshape(gradient, (*gradient.shape[:2], places))
        right = b.transpose(b.reshape(x, (*x.shape[:2], places)), [0, 2, 1])
        return b.reshape(b.reduce("ReduceSum", b.matmul(left, right), [0], keep=False), shape)
    order = [1, 0, *range(2, len(x.shape))]
    left, right = (_columns(b, b.transpose(value, order)) for value in (gradient, x))
    return b.reshape(b.matmul(left, b.transpose(right, [1, 0])), shape)


def _columns(b: Builder, x: Value) -> Value:
    """Return (channels, batch, *places) as (channels, batch * places)."""
    return b.reshape(x, (x.shape[0], product(x.shape[1:])))


def _taps(b: Builder, places: Sequence[Dim], x: Value, kernel: Sequence[int], geometry: Geometry) -> list[Value]:
    """Return for each kernel position the inputs it touches: (…, …, *places), where ``places`` are those of the output."""
    counts = [fixed(count) for count in places]
    starts = [
        tuple(place * spread for place, spread in zip(position, geometry.dilation, strict=True))
        for position in itertools.product(*(range(length) for length in kernel))
    ]
    step = geometry.stride[0]
    if len(counts) == 2 and step > 1 and geometry.stride[1] == step and len(starts) > 1:
        return _taps_by_phase(b, counts, x, starts, geometry)
    lengths = [
        start + (count - 1) * step + 1 for start, count, step in zip(starts[-1], counts, geometry.stride, strict=True)
    ]
    padded = _padded(b, x, lengths, geometry.padding)
    return [_tap(b, padded, start, counts, geometry.stride) for start in starts]


def _tap(b: Builder, x: Value, start: tuple[int, ...], counts: Sequence[int], strides: Sequence[int]) -> Value:
    ends = [first + (count - 1) * step + 1 for first, count, step in zip(start, counts, strides, strict=True)]
    axes = list(range(2, len(x.shape)))
    if max(strides) > 1:
        return b.slice(x, axes, start, ends, strides)
    # From the last dimension on: its few slices are shared by all taps, the others copy whole rows.
    for axis, first, end in zip(reversed(axes), reversed(start), reversed(ends), strict=True):
        if first or end != x.shape[axis]:
            x = b.slice(x, [axis], [first], [end], [1])
    return x


def _taps_by_phase(
    b: Builder, counts: Sequence[int], x: Value, starts: Sequence[tuple[int, ...]], geometry: Geometry
) -> list[Value]:
    """Sort the input by its place modulo the stride once (SpaceToDepth); every tap is a contiguous part then."""
    step = geometry.stride[0]
    wanted = [
        -(-max((last // step + count) * step, fixed(length) + pad) // step) * step
        for last, count, length, pad in zip(starts[-1], counts, x.shape[2:], geometry.padding, strict=True)
    ]
    padded = _padded(b, x, wanted, geometry.padding)
    rows, columns = (length // step for length in wanted)
    outer, inner = padded.shape[:2]
    phases = b.node("SpaceToDepth", [padded], (outer, inner * (step * step), rows, columns), x.dtype, blocksize=step)
    taps = []
    for row, column in starts:
        phase = (row % step) * step + column % step
        low = [inner * phase if phase else 0, row // step, column // step]
        high = [inner * (phase + 1), row // step + counts[0], column // step + counts[1]]
        taps.append(b.slice(phases, [1, 2, 3], low, high, [1, 1, 1]))
    return taps


def _padded(b: Builder, x: Value, wanted: Sequence[int], padding: Sequence[int]) -> Value:
    """Return the input with its padding, and with zeros at the end up to the wanted lengths."""
    after = [max(0, want - fixed(length) - pad) for want, length, pad in zip(wanted, x.shape[2:], padding, strict=True)]
    if not any(padding) and not any(after):
        return x
    grown = [fixed(length) + pad + more for length, pad, more in zip(x.shape[2:], padding, after, strict=True)]
    pads = b.constant([0, 0, *padding, 0, 0, *after])
    return b.node("Pad", [x, pads], (*x.shape[:2], *grown), x.dtype)


def _depthwise_weight_gradient(
    b: Builder, gradient: Value, x: Value, shape: tuple[Dim, ...], geometry: Geometry
) -> Value:
    taps = _taps(b, gradient.shape[2:], x, [fixed(length) for length in shape[2:]], geometry)
    axes = [0, *range(2, len(x.shape))]
    sums = [b.reduce("ReduceSum", b.binary("Mul", gradient, tap), axes, keep=False) for tap in taps]
    columns = [b.reshape(total, (shape[0], 1)) for total in sums]
    return b.reshape(b.concat(columns, 1), shape)


def _grouped_weight_gradient(
    b: Builder, rows: Value, taps: Sequence[Value], shape: tuple[Dim, ...], groups: int
) -> Value:
    outputs, inputs = fixed(shape[0]), fixed(shape[1])
    left = b.reshape(rows, (groups, outputs // groups, rows.shape[1]))
    rights = [b.transpose(b.reshape(tap, (groups, inputs, tap.shape[1])), [0, 2, 1]) for tap in taps]
    joined = b.concat([b.reshape(b.matmul(left, right), (outputs, inputs, 1)) for right in rights], 2)
    return b.reshape(joined, shape)


LOWERINGS: dict[Any, Lowering] = {
    aten.convolution.default: _convolution,
    aten.convolution_backward.default: _convolution_backward,
}
