"""What does a simulated run cost beside a plain PyTorch loop doing the same mathematics?"""

import numpy as np

from hub.datasets import DeviceData, Federation, Request

PICTURES = 128
"""Random pictures a device trains on; it is tested on half as many."""


def pictures(request: Request) -> Federation:
    """CIFAR-shaped noise with random labels: what a step costs does not depend on what is to be seen."""
    rng = np.random.default_rng(request.seed)
    shares = {}
    for number in range(request.devices):
        x = rng.standard_normal((PICTURES + PICTURES // 2, 3, 32, 32), np.float32)
        y = rng.integers(0, 10, len(x))
        shares[f"device-{number + 1:02d}"] = DeviceData(x[:PICTURES], y[:PICTURES], x[PICTURES:], y[PICTURES:])
    return Federation(shares, tuple(map(str, range(10))), "random pictures with random labels")
