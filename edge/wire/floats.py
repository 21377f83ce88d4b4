"""What every codec for floats asks of its input and of its output."""

from typing import Any

import numpy as np
import numpy.typing as npt

from edge.wire.frames import WireError

Array = npt.NDArray[Any]

FLOAT32_LIMIT = float(np.finfo(np.float32).max)


def finite(array: Array) -> Array:
    """The array itself.

    Raises:
        WireError: it is not of floats, or holds NaN, infinity or what float32 does not hold.
    """
    if array.dtype.kind != "f":
        raise WireError(f"a codec for floats was given {array.dtype}", "dtype")
    if not np.isfinite(array).all():
        raise WireError(f"array of shape {array.shape} holds NaN or infinity", "not finite")
    if array.itemsize > 4 and (largest := np.abs(array).max(initial=0)) > FLOAT32_LIMIT:
        raise WireError(f"float32 does not hold {largest:g}", "range")
    return array


def decoded(values: Array) -> Array:
    """The array itself.

    Raises:
        WireError: it holds NaN or infinity.
    """
    if not np.isfinite(values).all():
        raise WireError(f"tensor of {values.size} values holds NaN or infinity", "not finite")
    return values
