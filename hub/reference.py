"""The two rows every table ends with: each device alone without a network, and all data in one place. Plain PyTorch loops."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  the name everybody reads
from torch import Tensor, nn

Array = npt.NDArray[Any]
Share = tuple[Array, Array, Array, Array]
"""x_train (samples, *input), y_train (samples,), x_test, y_test of one device."""


@dataclass(frozen=True)
class Training:
    """How a reference is trained: `torch.optim.Adam` with a constant learning rate."""

    rounds: int
    """A round is one local epoch of the device with the most batches; devices with fewer recycle their samples."""
    batch: int = 32
    lr: float = 1e-3
    weight_decay: float = 1e-5
    seed: int = 0
    evaluate_every: int = 1
    """Rounds between tests; the last round is always tested."""


@dataclass(frozen=True)
class Curve:
    """Accuracy of each device on its own test samples, 0 to 1, test after test."""

    accuracies: tuple[Mapping[str, float], ...]

    @property
    def means(self) -> list[float]:
        """Unweighted mean over the devices, test after test."""
        return [fmean(accuracies.values()) for accuracies in self.accuracies]

    @property
    def last(self) -> float:
        """Mean over the devices after the last round."""
        return self.means[-1]

    @property
    def max(self) -> float:
        """The largest mean of all tests."""
        return max(self.means)


def local_only(model: Callable[[], nn.Module], shares: Mapping[str, Share], training: Training) -> Curve:
    """Each device trains the whole model on its own samples and is tested on its own; nothing is ever sent.

    All start from the same weights. Devices without test samples are left out of the curve.

    Raises:
        ValueError: there is no device with training and test samples.
    """
    shares = _trained(shares)
    steps = max(-(-len(share[1]) // training.batch) for share in shares.values())
    curves = {}
    for number, (name, share) in enumerate(sorted(shares.items())):
        network = _network(model, training.seed)
        batches = _batches([share], steps, training, number)
        curves[name] = [_accuracy(network, share) for _ in _train(network, batches, training)]
    tests = range(len(next(iter(curves.values()))))
    return Curve(tuple({name: curve[test] for name, curve in curves.items()} for test in tests))


def centralised(model: Callable[[], nn.Module], shares: Mapping[str, Share], training: Training) -> Curve:
    """One model is trained on all samples of all devices, an epoch a round, and tested on each device's own.

    Raises:
        ValueError: there is no device with training and test samples.
    """
    shares = _trained(shares)
    steps = -(-sum(len(share[1]) for share in shares.values()) // training.batch)
    network = _network(model, training.seed)
    batches = _batches([shares[name] for name in sorted(shares)], steps, training, 0)
    return Curve(
        tuple(
            {name: _accuracy(network, share) for name, share in sorted(shares.items())}
            for _ in _train(network, batches, training)
        )
    )


def _trained(shares: Mapping[str, Share]) -> Mapping[str, Share]:
    found = {name: share for name, share in shares.items() if len(share[1]) and len(share[3])}
    if not found:
        raise ValueError(f"none of the {len(shares)} devices has training and test samples: nothing to compare with")
    return found


def _network(model: Callable[[], nn.Module], seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model()


def _train(network: nn.Module, rounds: Iterator[list[tuple[Tensor, Tensor]]], training: Training) -> Iterator[int]:
    """Train round by round; yields the round's number whenever it is time for a test."""
    optimizer = torch.optim.Adam(network.parameters(), lr=training.lr, weight_decay=training.weight_decay, fused=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)  # dropout
        for number, batches in enumerate(rounds, 1):
            network.train()
            for x, y in batches:
                optimizer.zero_grad()
                F.cross_entropy(network(x), y).backward()
                optimizer.step()
            if number % training.evaluate_every == 0 or number == training.rounds:
                yield number


def _batches(shares: list[Share], steps: int, training: Training, number: int) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """The batches of each round: epochs in shuffled order until the round's steps are done."""
    x = torch.from_numpy(np.concatenate([share[0] for share in shares]))
    y = torch.from_numpy(np.concatenate([share[1] for share in shares]))
    epoch = -(-len(y) // training.batch)
    for round_number in range(training.rounds):
        batches: list[tuple[Tensor, Tensor]] = []
        for start in range(0, steps, epoch):
            rng = np.random.default_rng([training.seed, number, round_number, start])
            order = torch.from_numpy(rng.permutation(len(y)))
            batches += [(x[rows], y[rows]) for rows in order.split(training.batch)]
        yield batches[:steps]


@torch.no_grad()
def _accuracy(network: nn.Module, share: Share) -> float:
    network.eval()
    predicted = network(torch.from_numpy(share[2])).argmax(1).numpy()
    return float((predicted == share[3]).mean())
