"""β, the weight of Σ|a|, steered towards a share of activations that are not zero."""

FIRST = 1e-6
"""Where β begins when it was 0, and below which it is 0 again."""
MOST = 1e3
_QUICKEST = 4.0
"""The largest factor of one step: activations follow β with a delay of some steps."""


def steered(beta: float, share: float, target: float) -> float:
    """β for the next order: larger where too many activations are not zero, smaller where too few.

    Args:
        beta: what it was.
        share: of the elements that were not zero with it, from 0 to 1.
        target: the share that is wanted, above 0.
    """
    factor = min(_QUICKEST, max(1 / _QUICKEST, (share / target) ** 2))
    found = min(MOST, max(beta, FIRST) * factor)
    return found if found > FIRST or factor > 1 else 0.0
