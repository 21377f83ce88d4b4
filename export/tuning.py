"""Which formulation of a convolution, and of its gradients, is the fastest: measured at its shapes, on this machine.

Each distinct site of the graphs is measured once, its formulations by turns so that what else the machine does meets all
alike. What was chosen stands in the manifest; a build that is given it takes the same again and measures nothing.
"""

import json
import statistics
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.builder import Builder
from export.errors import ExportError
from export.geometry import Site
from export.lowering import blocked
from export.lowering.convolution import BY_BLOCKS, emit, formulations
from export.machine import this_machine
from export.runtime import Runner, block_of, version
from export.symbolic import Shape, Size

Clock = Callable[[], float]

MARGIN = 0.97
"""Another formulation than the first must take at most so much of its time: what is nearer is noise."""

LEAST, MOST = 4, 200
"""Turns a formulation gets, whatever the time."""


@dataclass(frozen=True)
class Effort:
    """How a tuning measures.

    Attributes:
        batch: Samples.
        threads: Of a step.
        seconds: For each distinct site, about.
    """

    batch: int = 32
    threads: int = 1
    seconds: float = 0.7


@dataclass(frozen=True)
class Choice:
    """What was chosen for one site.

    Attributes:
        site: Its name.
        formulation: The fastest.
        portable: The fastest of those that every onnxruntime has.
        usual: What is taken where nothing is measured.
        ratio: Time of `formulation` against `usual`.
        portable_ratio: Time of `portable` against `usual`.
        layers: Names of the layers whose parameters stand there.
    """

    site: str
    formulation: str
    portable: str
    usual: str
    ratio: float
    portable_ratio: float
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tuning:
    """All choices of a build, and where they hold.

    Attributes:
        choices: One for each site.
        block: Channels in a block of the onnxruntime that measured; 0 where it has none.
        measured: Machine, batch and threads.
    """

    choices: tuple[Choice, ...] = ()
    block: int = 0
    measured: Mapping[str, Any] | None = None

    @property
    def portable(self) -> dict[str, str]:
        """Formulations by site, of those that every onnxruntime has."""
        return {choice.site: choice.portable for choice in self.choices}

    @property
    def best(self) -> dict[str, str]:
        """Formulations by site."""
        return {choice.site: choice.formulation for choice in self.choices}

    @property
    def record(self) -> dict[str, Any]:
        """What stands in the manifest."""
        if not self.choices:
            return {}
        return {
            "block": self.block,
            "measured": dict(self.measured or {}),
            "choices": [asdict(choice) | {"layers": list(choice.layers)} for choice in self.choices],
        }


def tune(sites: Mapping[Site, Iterable[str]], block: int, effort: Effort, clock: Clock = time.perf_counter) -> Tuning:
    """Measure every site that has more than one formulation.

    Args:
        sites: Names of the layers at each.
        block: Channels in a block of this machine's onnxruntime; 0 for none.
        effort: How to measure.
        clock: Seconds.
    """
    choices = {}
    for site, layers in sites.items():
        fitting = formulations(site, block)
        if len(fitting) > 1 and site.name not in choices:
            choices[site.name] = _choose(site, fitting, measure(site, fitting, block, effort, clock), tuple(layers))
    measured = {"machine": this_machine(version()), "batch": effort.batch, "threads": effort.threads}
    return Tuning(tuple(choices.values()), block, measured)


def _choose(site: Site, fitting: list[str], seconds: Mapping[str, float], layers: tuple[str, ...]) -> Choice:
    usual = fitting[0]

    def best(names: list[str]) -> str:
        found = min(names, key=lambda name: seconds[name])
        return found if seconds[found] < MARGIN * seconds[usual] else usual

    formulation, portable = best(fitting), best([name for name in fitting if name != BY_BLOCKS])
    ratios = [round(seconds[name] / seconds[usual], 3) for name in (formulation, portable)]
    return Choice(site.name, formulation, portable, usual, ratios[0], ratios[1], layers)


def measure(site: Site, names: Iterable[str], block: int, effort: Effort, clock: Clock) -> dict[str, float]:
    """Seconds of each formulation at a site: the median over turns, of which each formulation has one after the other."""
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.standard_normal(_at(shape, effort.batch), np.float32)
        for name, shape in (("left", site.left), ("right", site.right))
    }
    runners = {name: Runner(graph(site, name, block, effort.batch), effort.threads) for name in names}
    times: dict[str, list[float]] = {name: [] for name in runners}
    for runner in runners.values():
        runner.run(arrays)
    start = clock()
    for turn in range(MOST):
        if turn >= LEAST and clock() - start > effort.seconds:
            break
        for name, runner in runners.items():
            before = clock()
            runner.run(arrays)
            times[name].append(clock() - before)
    return {name: statistics.median(found) for name, found in times.items()}


def graph(site: Site, formulation: str, block: int, batch: int) -> Any:
    """The operator of a site alone, in one formulation: from ``left`` and ``right`` to ``out``."""
    left_shape, right_shape, out_shape = (_at(shape, batch) for shape in (site.left, site.right, site.out))
    fixed = Site(site.operator, left_shape, right_shape, out_shape, site.geometry)
    b = Builder({fixed.name: formulation}, block)
    left, right = b.input("left", fixed.left, torch.float32), b.input("right", fixed.right, torch.float32)
    return b.finish({"out": emit(b, fixed, left, right)}, "site")


def _at(shape: Shape, batch: int) -> tuple[int, ...]:
    return tuple(dim.at(batch) if isinstance(dim, Size) else dim for dim in shape)


def block_here() -> int:
    """Channels in a block of this machine's onnxruntime; 0 where it has none."""
    return block_of(blocked.probe())


def read(path: Path) -> Tuning:
    """The choices recorded in a manifest: of a bundle, of its `manifest.json`, or of that file's `tuning` alone.

    Raises:
        ExportError: the file is missing or has no choices.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                fields = json.loads(archive.read("manifest.json"))
        else:
            fields = json.loads(path.read_text("utf-8"))
        fields = fields.get("tuning", fields)
        choices = tuple(Choice(**each | {"layers": tuple(each["layers"])}) for each in fields["choices"])
        return Tuning(choices, int(fields["block"]), fields["measured"])
    except FileNotFoundError as error:
        raise ExportError(f"there are no recorded choices at {path}") from error
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ExportError(f"{path} has no recorded choices that this release reads: {error!r}") from error
