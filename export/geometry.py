"""Stride, padding, dilation and groups of a convolution, and the place in a model where one of its operators stands."""

from dataclasses import dataclass
from typing import Any

from export.symbolic import Shape, Size


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

    def __str__(self) -> str:
        parts = [("stride", self.stride, 1), ("padding", self.padding, 0), ("dilation", self.dilation, 1)]
        words = [f"{name} {_by(values)}" for name, values, usual in parts if set(values) != {usual}]
        return "".join(f", {word}" for word in [*words, *([f"{self.groups} groups"] if self.groups > 1 else [])])


@dataclass(frozen=True)
class Site:
    """An operator with several formulations, at its shapes: the formulations are chosen among for each distinct site.

    Attributes:
        operator: A row of `export.lowering.convolution.FORMULATIONS`.
        left: Shape of the first operand.
        right: Shape of the second.
        out: Shape of the result.
        geometry: Of the convolution.
    """

    operator: str
    left: Shape
    right: Shape
    out: Shape
    geometry: Geometry

    @property
    def name(self) -> str:
        """In words, such as ``forward 3x32x32 by 16x3x3x3 to 16x32x32, padding 1x1``; samples are counted out."""
        left, right, out = (_by(_sample(shape)) for shape in (self.left, self.right, self.out))
        return f"{self.operator} {left} by {right} to {out}{self.geometry}"


def _sample(shape: Shape) -> Shape:
    return shape[1:] if isinstance(shape[0], Size) else shape


def _by(values: Shape) -> str:
    return "x".join(str(value) for value in values)
