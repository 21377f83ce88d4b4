"""Whether this board can run a configuration: processor, packages, bundle, data, one step of every graph."""

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from edge import processor
from edge.config import DeviceConfig
from edge.files import Files

PACKAGES = ("edge", "hub", "export")


class CheckError(ValueError):
    """Something this board cannot do; the message says what and what would help."""


def check(config: DeviceConfig, say: Callable[[str], None]) -> bool:
    """Go through every step a run would take, short of the hub; `say` gets a line for each.

    Returns:
        True when nothing stands in the way.
    """
    good = True
    for name, test in _TESTS.items():
        try:
            for line in test(config):
                say(f"ok    {name:<9} {line}")
        except ValueError as error:
            say(f"wrong {name:<9} {error}")
            good = False
            if name == "processor":
                break  # the rest would import what kills the process
    return good


def _processor(_config: DeviceConfig) -> Iterator[str]:
    yield f"onnxruntime {processor.probe()} runs"


def _packages(_config: DeviceConfig) -> Iterator[str]:
    """`hub` and `export` are taken names on the package index: say when a stranger owns them here."""
    owners = metadata.packages_distributions()
    for package in PACKAGES:
        strangers = set(owners.get(package, ())) - {"cutlayer"}
        if strangers:
            raise CheckError(
                f"the package {package!r} belongs to {', '.join(sorted(strangers))}: use a venv of its own"
            )
    yield f"{', '.join(PACKAGES)} belong to cutlayer {metadata.version('cutlayer')}"


def _bundle(config: DeviceConfig) -> Iterator[str]:
    from edge import bundle  # noqa: PLC0415  not before the processor is known to be able

    loaded = bundle.load(config.bundle.path)
    yield f"{loaded.manifest.name} {loaded.id[:8]}, cut after {loaded.manifest.cut}, graphs {', '.join(loaded.graphs)}"
    if elsewhere := bundle.measured_elsewhere(loaded.manifest, platform.machine()):
        yield elsewhere


def _memory(config: DeviceConfig) -> Iterator[str]:
    """Before any graph is loaded: what does not fit would be killed, or push out what else the board does."""
    from edge import bundle, memory  # noqa: PLC0415

    manifest, room = bundle.load(config.bundle.path).manifest, memory.room(Files(Path("/")))
    ceiling = room.ceiling()
    if not manifest.memory:
        yield "the bundle does not say what its graphs need (built by an older release)"
        return
    if ceiling is None:
        yield "neither the board's memory nor a limit can be read; nothing is refused"
        return
    yield f"{ceiling[0] / memory.MIB:.0f} MiB by {ceiling[1]}; what follows is estimated for one thread, without data and codec"
    for kind in manifest.memory:
        memory.refuse_too_large(manifest, kind, 1 if manifest.memory[kind].sample_bytes else 0, room)
        largest, least = memory.largest_batch(manifest, kind, room), memory.needed_bytes(manifest, kind, 1) or 0
        yield f"{kind}: about {least / memory.MIB:.0f} MiB" + (f", a batch of at most {largest}" if largest else "")


def _data(config: DeviceConfig) -> Iterator[str]:
    from edge import bundle, device, memory  # noqa: PLC0415

    source = device.open_source(config, bundle.load(config.bundle.path))
    held = getattr(source, "held_bytes", None)
    taken = "" if held is None else f", {held / memory.MIB:.1f} MiB in memory"
    yield f"{source.samples} samples to train on, {source.test_samples} to test{taken}"


def _budget(config: DeviceConfig) -> Iterator[str]:
    from edge import effort, meters  # noqa: PLC0415

    with closing(meters.Meter(sample_seconds=config.run.sample_seconds, config=config.energy)) as meter:
        effort.refuse_unmeasured(config.budget, meter)
    given = vars(config.budget).items()
    yield ", ".join(f"{name} = {text}" for name, text in given if text is not None and name != "evaluation") or "none"


def _energy(config: DeviceConfig) -> Iterator[str]:
    from edge import meters  # noqa: PLC0415

    with closing(meters.Meter(sample_seconds=config.run.sample_seconds, config=config.energy)) as meter:
        yield meter.energy_source or meter.missing_energy


def _steps(config: DeviceConfig) -> Iterator[str]:
    import numpy as np  # noqa: PLC0415

    from edge import bundle, device, memory, segment  # noqa: PLC0415

    loaded = bundle.load(config.bundle.path)
    source = device.open_source(config, loaded)
    manifest, room = loaded.manifest, memory.room(Files(Path("/")))
    room = replace(room, data_bytes=getattr(source, "held_bytes", 0))
    fitting = [memory.largest_batch(manifest, kind, room) for kind in manifest.graphs]
    rows = min(32, source.samples, *(size for size in fitting if size))
    batch = source.batch(0, 0, rows, 0)
    inputs = {"batch.x": batch.x, "batch.y": batch.y}
    inputs["down.gradient"] = np.zeros((rows, *manifest.smashed.shape), np.float32)
    for kind in manifest.graphs:
        # A segment for each, so that no graph keeps its memory while the next one runs.
        lower = segment.Segment(loaded, threads=config.run.threads, room=room)
        lower.run(kind, inputs, {}, np.random.default_rng(0))
        started = time.perf_counter()
        lower.run(kind, inputs, {}, np.random.default_rng(0))
        yield f"{kind}: {1000 * (time.perf_counter() - started):.1f} ms for {rows} samples"


_TESTS: dict[str, Callable[[DeviceConfig], Iterator[str]]] = {
    "processor": _processor,
    "packages": _packages,
    "bundle": _bundle,
    "memory": _memory,
    "data": _data,
    "budget": _budget,
    "energy": _energy,
    "steps": _steps,
}
