"""Numbers that depend on the batch size, found by comparing traces instead of by symbolic tracing.

A training step is traced at three concrete batch sizes. The graphs are alike; where an integer differs between them it
is a polynomial of the batch size B, fitted on two traces and verified on the third. No tracer ever sees a symbol, so
none can specialise on one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Size:
    """The integer ``constant + linear * B + square * B**2``, with B the batch size at run time."""

    constant: int = 0
    linear: int = 0
    square: int = 0

    def at(self, batch: int) -> int:
        """Return the value for one batch size."""
        return self.constant + self.linear * batch + self.square * batch * batch

    def __mul__(self, factor: "int | Size") -> "Size":
        other = factor if isinstance(factor, Size) else Size(factor)
        if self.linear * other.square or self.square * other.linear or self.square * other.square:
            raise ValueError(f"the product of {self} and {other} is not a quadratic of the batch size")
        return Size(
            self.constant * other.constant,
            self.constant * other.linear + self.linear * other.constant,
            self.constant * other.square + self.linear * other.linear + self.square * other.constant,
        )

    __rmul__ = __mul__

    def __add__(self, other: "int | Size") -> "Size":
        more = other if isinstance(other, Size) else Size(other)
        return Size(self.constant + more.constant, self.linear + more.linear, self.square + more.square)

    __radd__ = __add__

    def __str__(self) -> str:
        terms = [(self.square, "B*B"), (self.linear, "B"), (self.constant, "1")]
        return " + ".join(f"{factor}*{name}" for factor, name in terms if factor) or "0"


@dataclass(frozen=True)
class Ratio:
    """The float ``numerator / size(B)``: what a mean over a batch turns into."""

    numerator: float
    size: Size


Dim = int | Size
Shape = tuple[Dim, ...]
BATCH = Size(linear=1)


def fit_integer(values: Sequence[int], batches: Sequence[int]) -> Dim | None:
    """Return the integer, or the polynomial of the batch size, that takes ``values`` at ``batches``; None if there is none."""
    if all(value == values[0] for value in values):
        return values[0]
    first, second = batches[:2]
    linear = Fraction(values[1] - values[0], second - first)
    square = (Fraction(values[1], second) - Fraction(values[0], first)) / (second - first)
    candidates = (
        (values[0] - linear * first, linear, Fraction(0)),
        (Fraction(0), Fraction(values[0], first) - square * first, square),
    )
    for terms in candidates:
        if any(term.denominator != 1 for term in terms):
            continue
        size = Size(*(int(term) for term in terms))
        if all(size.at(batch) == value for batch, value in zip(batches, values, strict=True)):
            return size
    return None


def fit_float(values: Sequence[float], batches: Sequence[int]) -> float | Size | Ratio | None:
    """Return the float, the polynomial, or the ratio c / polynomial that takes ``values`` at ``batches``; None if there is none."""
    if all(value == values[0] for value in values):
        return values[0]
    if all(value.is_integer() for value in values):
        found = fit_integer([int(value) for value in values], batches)
        if isinstance(found, Size):
            return found
    for size in (BATCH, BATCH * BATCH):
        numerator = values[0] * size.at(batches[0])
        if all(
            abs(value * size.at(batch) - numerator) <= 1e-12 * abs(numerator)
            for value, batch in zip(values, batches, strict=True)
        ):
            return Ratio(numerator, size)
    return None


def fixed(dim: Dim) -> int:
    """Return a dimension that must not depend on the batch size.

    Raises:
        TypeError: It does.
    """
    if isinstance(dim, Size):
        raise TypeError(f"a dimension that depends on the batch size ({dim}) where a fixed one is needed")
    return dim


def product(dims: Sequence[Dim]) -> Dim:
    """Return the product of dimensions."""
    total: Dim = 1
    for dim in dims:
        total = total * dim
    return total
