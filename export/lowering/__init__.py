"""From aten operators to nodes: one function an operator, grouped by kind, joined in one table."""

from typing import Any

from export.lowering import activations, convolution, elementwise, index, norm, pooling, reduce, shape

LOWERINGS: dict[Any, Any] = {
    **elementwise.LOWERINGS,
    **activations.LOWERINGS,
    **shape.LOWERINGS,
    **index.LOWERINGS,
    **reduce.LOWERINGS,
    **convolution.LOWERINGS,
    **pooling.LOWERINGS,
    **norm.LOWERINGS,
}
