"""The gradient of a convolution with respect to its weight, in the formulation that is fastest for the shape at hand."""

import itertools
from collections.abc import Sequence

import numpy as np

from export.builder import Builder, Value
from export.geometry import Geometry
from export.symbolic import Dim, Shape, fixed, product

ROWS = 24
"""Kernel positions are multiplied together until so many rows are reached: joining them costs a copy, thin products cost more."""


WIDE = 64
"""The same where the product is a sample's."""

LONG = 128
"""From so many places on, a sample is a matrix product of its own: no transposed copies."""

CHANNELS = 8
"""From so many input channels on, products with the columns' shifts are wide enough not to be joined first."""

NARROW = 64
"""Up to so many columns, products of whole rows (of which a depthwise gradient needs a diagonal) cost less than k*k passes."""


def _is_depthwise(shape: tuple[Dim, ...], geometry: Geometry) -> bool:
    return geometry.groups > 1 and shape[1] == 1 and shape[0] == geometry.groups


def _by_taps(b: Builder, gradient: Value, x: Value, shape: tuple[Dim, ...], geometry: Geometry) -> Value:
    """One slice of the input and one matrix product for each kernel position.

    As one convolution over transposed operands, as the textbooks have it, onnxruntime takes two to five times as long.
    """
    kernel = [fixed(length) for length in shape[2:]]
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


def _by_taps_of_samples(
    b: Builder, gradient: Value, x: Value, shape: tuple[Dim, ...], geometry: Geometry, rows: int = WIDE
) -> Value:
    """Products of the same slices, sample by sample and then summed: nothing is transposed."""
    outputs, inputs, *kernel = (fixed(length) for length in shape)
    places = fixed(product(gradient.shape[2:]))
    turned = b.transpose(b.reshape(gradient, (gradient.shape[0], outputs, places)), [0, 2, 1])
    taps = _taps(b, gradient.shape[2:], x, kernel, geometry)
    together = max(1, rows // inputs)
    products = []
    for first in range(0, len(taps), together):
        joined = b.concat(taps[first : first + together], 1)
        left = b.reshape(joined, (joined.shape[0], joined.shape[1], places))
        products.append(b.reduce("ReduceSum", b.matmul(left, turned), [0], keep=False))
    matrix = b.reshape(b.concat(products, 0), (len(taps), inputs, outputs))
    return b.reshape(b.transpose(matrix, [2, 1, 0]), shape)


def _by_columns_of_samples(b: Builder, gradient: Value, x: Value, shape: tuple[Dim, ...], geometry: Geometry) -> Value:
    """All slices joined, one product a sample (im2col)."""
    return _by_taps_of_samples(b, gradient, x, shape, geometry, rows=1 << 30)


def _pointwise_by_samples(b: Builder, gradient: Value, x: Value, shape: tuple[Dim, ...], _: Geometry) -> Value:
    """One product for each sample, and their sum: no transposed copies."""
    places = fixed(product(x.shape[2:]))
    left = b.reshape(gradient, (*gradient.shape[:2], places))
    right = b.transpose(b.reshape(x, (*x.shape[:2], places)), [0, 2, 1])
    return b.reshape(b.reduce("ReduceSum", b.matmul(left, right), [0], keep=False), shape)


def _pointwise_at_once(b: Builder, gradient: Value, x: Value, shape: tuple[Dim, ...], _: Geometry) -> Value:
    """One product, for two transposed copies."""
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


def _fits_shifts(gradient: Shape, x: Shape, shape: Shape, geometry: Geometry) -> bool:
    kernel = [fixed(length) for length in shape[2:]]
    if len(kernel) != 2 or geometry.groups > 1 or max(geometry.stride) > 1:
        return False
    lengths = [min(fixed(full), fixed(places)) for full, places in zip(x[2:], gradient[2:], strict=True)]
    far = [
        max(pad, (size - 1) * spread - pad)
        for size, spread, pad in zip(kernel, geometry.dilation, geometry.padding, strict=True)
    ]
    return all(shift < length for shift, length in zip(far, lengths, strict=True))


def _by_shifts(b: Builder, gradient: Value, x: Value, shape: tuple[Dim, ...], geometry: Geometry) -> Value:
    """Shift the gradient by the kernel's rows and the input by its columns: k + k copies give all k * k products.

    The rows' shifts are stacked, so that there are k products, each k times as wide. 0.57 of the time of a slice and a
    product a tap for 16 channels of 32x32, 0.82 for 32 and 64 channels of 16x16.
    """
    outputs, inputs, high, wide = (fixed(length) for length in shape)
    height, width = fixed(x.shape[2]), fixed(gradient.shape[3])
    down, right = (
        [place * spread - pad for place in range(size)]
        for size, spread, pad in zip((high, wide), geometry.dilation, geometry.padding, strict=True)
    )
    stacked = _neighbours(b, gradient, down, height, rows_last=True)
    left = b.reshape(stacked, (x.shape[0], outputs * high, height * width))
    products = []
    for shift in right:
        rows = b.reshape(_shifted(b, x, 3, -shift, width), (x.shape[0], inputs, height * width))
        products.append(b.reduce("ReduceSum", b.matmul(left, b.transpose(rows, [0, 2, 1])), [0], keep=False))
    joined = b.reshape(b.concat(products, 0), (wide, outputs, high, inputs))
    return b.transpose(joined, [1, 3, 2, 0])


def _shifted(b: Builder, x: Value, axis: int, shift: int, length: int) -> Value:
    """Move the places along a dimension to ``shift`` in a new one of ``length``; zeros come in, what falls out is lost."""
    rest = length - fixed(x.shape[axis]) - shift
    if shift == rest == 0:
        return x
    pads = np.zeros(2 * len(x.shape), np.int64)
    pads[axis], pads[axis + len(x.shape)] = shift, rest
    shape = (*x.shape[:axis], length, *x.shape[axis + 1 :])
    return b.node("Pad", [x, b.constant(pads)], shape, x.dtype)


def fits_row_products(shape: tuple[Dim, ...], geometry: Geometry) -> bool:
    """Return whether a depthwise convolution over inputs of ``shape`` can and should go by products of rows."""
    return len(shape) == 4 and fixed(shape[3]) <= NARROW and fixed(shape[2]) % geometry.stride[0] == 0


def _depthwise_by_row_products(
    b: Builder, gradient: Value, x: Value, shape: tuple[Dim, ...], geometry: Geometry
) -> Value:
    """Multiply, for each channel, every input column with every gradient column over all rows; keep the pairs that meet.

    ``stride`` rows of the input count as one long row, so that a stride costs no copy; the gradient's rows are joined with
    their neighbours. Most of the products are thrown away, and it is still the fastest: 2.9 ms with 64 channels of 32x32 and
    stride 2, 2.7 with 96 channels of 16x16; the taps, k*k passes over everything, take 13 and 7.8, a grouped Conv 6.7 and 8.9.
    """
    channels, step = fixed(shape[0]), geometry.stride[0]
    rows, width, columns = fixed(x.shape[2]) // step, fixed(x.shape[3]), fixed(gradient.shape[3])
    shifts = _row_shifts(shape, geometry)
    right = _joined_rows(b, gradient, shifts, rows)
    left = b.reshape(b.transpose(x, [1, 0, 2, 3]), (channels, x.shape[0] * rows, step * width))
    pairs = b.reshape(b.matmul(b.transpose(left, [0, 2, 1]), right), (channels, step * width * len(shifts) * columns))
    places, inside = _meeting(shape, shifts, width, columns, geometry)
    met = b.node("Gather", [pairs, b.constant(places)], (channels, *places.shape), x.dtype, axis=1)
    if not inside.all():
        met = b.binary("Mul", met, b.constant(inside.astype(np.float32)))
    return b.reshape(b.reduce("ReduceSum", met, [2], keep=False), shape)


def depthwise_input_gradient(
    b: Builder, gradient: Value, weight: Value, shape: tuple[Dim, ...], geometry: Geometry
) -> Value:
    """Return the input gradient of a strided depthwise convolution: each row of the gradient times a banded matrix.

    The joined rows are those of the weight's gradient; 2.2 ms, where two ConvTranspose took 4.9.
    """
    channels, step, width = fixed(weight.shape[0]), geometry.stride[0], fixed(shape[3])
    rows, columns = fixed(shape[2]) // step, fixed(gradient.shape[3])
    shifts = _row_shifts(weight.shape, geometry)
    places, inside = _meeting(weight.shape, shifts, width, columns, geometry)
    taps = len(places)
    table = np.zeros((taps, step * width * len(shifts) * columns), np.float32)
    table[np.nonzero(inside)[0], places[inside]] = 1.0
    turned = table.reshape(taps, step * width, -1).transpose(0, 2, 1).reshape(taps, -1)
    band = b.matmul(b.reshape(weight, (channels, taps)), b.constant(turned))
    band = b.reshape(band, (channels, len(shifts) * columns, step * width))
    down = b.matmul(_joined_rows(b, gradient, shifts, rows), band)
    return b.transpose(b.reshape(down, (channels, shape[0], *shape[2:])), [1, 0, 2, 3])


def _row_shifts(shape: tuple[Dim, ...], geometry: Geometry) -> list[int]:
    spread, pad, step = geometry.dilation[0], geometry.padding[0], geometry.stride[0]
    return sorted({(place * spread - pad) // step for place in range(fixed(shape[2]))})


def _joined_rows(b: Builder, gradient: Value, shifts: Sequence[int], rows: int) -> Value:
    """Return (channels, batch * rows, shifts * columns)."""
    joined = _neighbours(b, b.transpose(gradient, [1, 0, 2, 3]), shifts, rows)
    return b.reshape(joined, (gradient.shape[1], gradient.shape[0] * rows, len(shifts) * fixed(gradient.shape[3])))


def _neighbours(b: Builder, x: Value, shifts: Sequence[int], rows: int, *, rows_last: bool = False) -> Value:
    """Return (…, …, rows, shifts, columns): at each row the rows that ``shifts`` move there, zeros from outside.

    With ``rows_last`` it is (…, …, shifts, rows, columns).
    """
    before, after = max(0, shifts[-1]), max(0, rows - shifts[0] - fixed(x.shape[2]))
    height = before + fixed(x.shape[2]) + after
    if before or after:
        x = b.node(
            "Pad", [x, b.constant([0, 0, before, 0, 0, 0, after, 0])], (*x.shape[:2], height, x.shape[3]), x.dtype
        )
    places = before + np.arange(rows)[:, None] - np.array(shifts)
    places = places.T if rows_last else places
    return b.node("Gather", [x, b.constant(places)], (*x.shape[:2], *places.shape, x.shape[3]), x.dtype, axis=2)


def _meeting(
    shape: tuple[Dim, ...], shifts: Sequence[int], width: int, columns: int, geometry: Geometry
) -> tuple[np.ndarray, np.ndarray]:
    """Return for each kernel position and gradient column which pair to keep, and whether the input column exists."""
    taps = itertools.product(range(fixed(shape[2])), range(fixed(shape[3])))
    places, inside = [], []
    for row, column in taps:
        shift, phase = divmod(row * geometry.dilation[0] - geometry.padding[0], geometry.stride[0])
        met = np.arange(columns)
        source = met * geometry.stride[1] + column * geometry.dilation[1] - geometry.padding[1]
        inside.append((source >= 0) & (source < width))
        pair = ((phase * width + source) * len(shifts) + list(shifts).index(shift)) * columns + met
        places.append(np.where(inside[-1], pair, 0))
    return np.array(places), np.array(inside)


def _depthwise_by_taps(b: Builder, gradient: Value, x: Value, shape: tuple[Dim, ...], geometry: Geometry) -> Value:
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


def _is_pointwise(shape: Shape, geometry: Geometry) -> bool:
    plain = max(geometry.stride) == 1 and not any(geometry.padding)
    return geometry.groups == 1 and product(shape[2:]) == 1 and plain


def fitting(gradient: Shape, x: Shape, shape: Shape, geometry: Geometry) -> list[str]:
    """Return the formulations that fit, the one first that is known to be good where nothing is measured."""
    if _is_depthwise(shape, geometry):
        return ["row products", "depthwise taps"] if fits_row_products(x, geometry) else ["depthwise taps"]
    if geometry.groups > 1:
        return ["grouped taps"]
    places, inputs = fixed(product(gradient[2:])), fixed(x[1])
    if _is_pointwise(shape, geometry):
        return ["by samples", "at once"] if places >= LONG else ["at once", "by samples"]
    several = ["taps", "taps of samples", "columns of samples"]
    if not _fits_shifts(gradient, x, shape, geometry):
        return several
    lengths = [min(fixed(full), fixed(part)) for full, part in zip(x[2:], gradient[2:], strict=True)]
    known = inputs >= CHANNELS and lengths[0] * lengths[1] >= LONG
    return ["shifts", *several] if known else [*several, "shifts"]


EMIT = {
    "row products": _depthwise_by_row_products,
    "depthwise taps": _depthwise_by_taps,
    "grouped taps": _by_taps,
    "by samples": _pointwise_by_samples,
    "at once": _pointwise_at_once,
    "taps": _by_taps,
    "taps of samples": _by_taps_of_samples,
    "columns of samples": _by_columns_of_samples,
    "shifts": _by_shifts,
}
"""Formulations by name: from builder, gradient, input, the weight's shape and the geometry to the weight's gradient."""
