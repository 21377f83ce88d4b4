"""The opponent, a round on request: the same training as a plain PyTorch loop, without hub, devices, frames and files."""

import copy
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  the name everybody reads
from torch import Tensor

from benchmarks.answering import serve, told
from edge.shuffle import device_number, order_of
from export.bundle import BuildSpec, prepare
from export.objectives import nt_xent
from hub import selection
from hub.datasets import DeviceData, split
from hub.segment import Replay

SEED = 0


class Wearer:
    """A device's samples, and what it trains."""

    def __init__(self, name: str, data: DeviceData, batch: int) -> None:
        self.x, self.y, self.test_x, self.test_y = (
            torch.from_numpy(array) for array in (data.x_train, data.y_train, data.x_test, data.y_test)
        )
        self.number, self.batch = device_number(name), batch
        self.batches = -(-len(self.y) // batch)

    def round(self, number: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of a round, in the order the device's own source has them."""
        for step in range(steps):
            passed, index = divmod(step, self.batches)
            if index == 0:
                order = torch.from_numpy(order_of(len(self.y), SEED, self.number, number, passed))
            rows = order[index * self.batch : (index + 1) * self.batch]
            yield self.x[rows], self.y[rows]


class Plain:
    """What both methods share: data, the two segments, Adam in one kernel a step, the test."""

    def __init__(self, words: dict[str, Any]) -> None:
        torch.set_num_threads(1)
        prepared = prepare(BuildSpec(**words["spec"]))
        self.lower, self.upper = prepared.halves.lower.train(), prepared.halves.upper.train()
        self.head = prepared.steps.learner.head.train()
        federation = split(folder=None, seed=SEED, **words["data"])
        self.wearers = [Wearer(name, data, words["batch"]) for name, data in sorted(federation.items())]
        self.lowers = [self.lower for _ in self.wearers]
        self.evaluated, self.done = words["evaluated"], 0
        self.hub = adam(self.upper.parameters())
        self.losses: list[float] = []

    def round(self) -> dict[str, Any]:
        """One round; seconds by the clock and of the processor, the hub's mean loss and the fleet's mean accuracy."""
        wall, cpu = time.perf_counter(), time.process_time()
        self.losses = []
        self.train(self.done)
        self.done += 1
        accuracy = self.accuracy() if self.evaluated and self.losses else None
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        loss = sum(self.losses) / len(self.losses) if self.losses else None
        return {"wall": wall, "cpu": cpu, "loss": loss, "accuracy": accuracy}

    def train(self, number: int) -> None:
        """Train for a round."""
        raise NotImplementedError

    @torch.no_grad()
    def accuracy(self) -> float:
        """Mean over the devices, each on its own test samples, in batches as the devices have them."""
        shares = []
        self.upper.eval()
        for wearer, lower in zip(self.wearers, self.lowers, strict=True):
            lower.eval()
            batches = zip(wearer.test_x.split(wearer.batch), wearer.test_y.split(wearer.batch), strict=True)
            right = sum(int((self.upper(lower(x)).argmax(1) == y).sum()) for x, y in batches)
            shares.append(right / len(wearer.test_y))
            lower.train()
        self.upper.train()
        return sum(shares) / len(shares)


class SplitLearning(Plain):
    """One lower segment goes from device to device; each has Adam's moments of its own."""

    def __init__(self, words: dict[str, Any]) -> None:
        super().__init__(words)
        self.adams = [adam(self.lower.parameters()) for _ in self.wearers]

    def train(self, number: int) -> None:
        """An epoch of each device."""
        for wearer, own in zip(self.wearers, self.adams, strict=True):
            for x, y in wearer.round(number, wearer.batches):
                own.zero_grad()
                self.hub.zero_grad()
                loss = F.cross_entropy(self.upper(self.lower(x)), y)
                loss.backward()
                self.hub.step()
                own.step()
                self.losses.append(loss.item())


class AdaSplit(Plain):
    """Every device has a lower segment of its own and trains it alone; the hub learns from those it selects."""

    def __init__(self, words: dict[str, Any]) -> None:
        super().__init__(words)
        self.options, self.rounds = words["options"], words["rounds"]
        self.lowers = [copy.deepcopy(self.lower) for _ in self.wearers]
        self.heads = [copy.deepcopy(self.head) for _ in self.wearers]
        pairs = zip(self.lowers, self.heads, strict=True)
        self.adams = [adam([*lower.parameters(), *head.parameters()]) for lower, head in pairs]
        self.history, self.replay = selection.History.empty(len(self.wearers)), Replay(256_000_000)
        self.iteration = self.steps = 0

    def train(self, number: int) -> None:
        """As many steps for every device as the one with the most batches needs."""
        steps = max(wearer.batches for wearer in self.wearers)
        local = number < int(self.options["kappa"] * self.rounds + 1e-9)
        rounds = [wearer.round(number, steps) for wearer in self.wearers]
        for _ in range(steps):
            selected = set() if local else self.selected()
            heard = {}
            for place, batches in enumerate(rounds):
                x, y = next(batches)
                smashed = self.step(place, x, y)
                if place in selected:
                    heard[place] = self.learn(place, smashed, y)
            if not local:
                self.history, self.iteration = self.history.after(heard), self.iteration + 1
            self.losses += heard.values()

    def selected(self) -> set[int]:
        """Who is heard in this iteration."""
        count = max(1, round(self.options["eta"] * len(self.wearers)))
        rng = np.random.default_rng([SEED, 1, self.iteration])
        return set(selection.largest(self.history.scores(0.75), count, range(len(self.wearers)), rng))

    def step(self, place: int, x: Tensor, y: Tensor) -> Tensor:
        """A device's own step; returns the smashed data before it."""
        self.adams[place].zero_grad()
        smashed = self.lowers[place](x)
        nt_xent(self.heads[place](smashed), y, 0.07).backward()
        self.adams[place].step()
        return smashed.detach()

    def learn(self, place: int, smashed: Tensor, y: Tensor) -> float:
        """The hub's step on what came, and further ones on what came before."""
        loss = self.hub_step(smashed, y)
        for _ in range(self.options["replay"] if len(self.replay) else 0):
            _, earlier, labels = self.replay.draw(np.random.default_rng([SEED, 2, self.steps]), one_device=False)
            self.hub_step(earlier, labels)
        self.replay.add(place, smashed, y)
        return loss

    def hub_step(self, smashed: Tensor, y: Tensor) -> float:
        """Forward, backward, update of the upper segment."""
        self.hub.zero_grad()
        loss = F.cross_entropy(self.upper(smashed), y)
        loss.backward()
        self.hub.step()
        self.steps += 1
        return loss.item()


def adam(parameters: Any) -> torch.optim.Optimizer:
    """Adam as both sides of the strategies have it."""
    return torch.optim.Adam(parameters, lr=1e-3, weight_decay=1e-5, fused=True)


METHODS: dict[str, type[Plain]] = {"split_learning": SplitLearning, "adasplit": AdaSplit}


if __name__ == "__main__":
    words = told()
    plain = METHODS[words["strategy"]](words)
    serve({"round": plain.round})
