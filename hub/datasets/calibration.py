"""The demo's data as `cutlayer-export cuts --data hub.datasets.calibration:wearables` wants them: one device's samples and labels."""

from hub.datasets.digits import digits as all_digits
from hub.datasets.federation import Federation, Labels, Request, Samples
from hub.datasets.wearables import wearables as all_wearables


def wearables() -> tuple[Samples, Labels]:
    """One wearer's windows `(n, 6, 100)` and exercises."""
    return _first(all_wearables(Request("wearables", 10, "all", 0)))


def digits() -> tuple[Samples, Labels]:
    """Digits `(n, 1, 8, 8)` of one device among four."""
    return _first(all_digits(Request("digits", 4, "all", 0)))


def _first(federation: Federation) -> tuple[Samples, Labels]:
    data = next(iter(federation.values()))
    return data.x_train, data.y_train
