"""Stages of a rollout: `canary,10%,all`."""

import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

CANARY, ALL = "canary", "all"


class RolloutError(RuntimeError):
    """A rollout cannot begin or go on as asked; the message says why."""


@dataclass(frozen=True)
class Stage:
    """A part of the fleet that has the release when the stage is over."""

    name: str
    """`canary`, `10%` or `all`."""
    share: float
    """Of the fleet, above 0 and up to 1; 0: the canaries, one device unless some are named."""

    def count(self, devices: int) -> int:
        """How many of so many devices it covers, with all stages before it."""
        return math.ceil(self.share * devices) if self.share else 1


def parse(text: str) -> tuple[Stage, ...]:
    """The stages in a text like `canary,10%,all`.

    Raises:
        RolloutError: it has none, or one that is no larger than the one before.
    """
    stages = tuple(_stage(part.strip()) for part in text.split(","))
    for before, stage in pairwise(stages):
        if stage.share <= before.share:
            raise RolloutError(f"--to {text}: {stage.name} is not more than {before.name}, which comes before it")
    return stages


def _stage(text: str) -> Stage:
    if text == CANARY:
        return Stage(text, 0.0)
    if text == ALL:
        return Stage(text, 1.0)
    found = re.fullmatch(r"(\d+(?:\.\d+)?)%", text)
    if found is None or not 0 < float(found[1]) <= 100:
        raise RolloutError(f"--to names {text!r}: a stage is canary, a share like 10%, or all")
    return Stage(text, float(found[1]) / 100)


def ranked(names: Iterable[str], release: str) -> Sequence[str]:
    """The names in an order of chance that is the same whenever it is asked for, and another one for another release."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{release} {name}".encode()).digest())
