"""Memory of this process and how much there is for it: peaks, the board's, and the limit of the service that it runs in.

A peak is VmHWM, which the kernel lets start over when 5 is written to /proc/self/clear_refs. Not to be mixed with ru_maxrss,
which does not start over.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edge.files import Files, UnreadableError
from edge.wire.manifest import Manifest

SINCE_BEGIN = "VmHWM, reset at the window's begin"
SINCE_START = "VmHWM since the process started: /proc/self/clear_refs does not take a reset"
SEEN = "largest resident size at the readings of the window: /proc/self/status has no VmHWM"

PROCESS_BYTES = round((60.2 + 11.3) * 2**20)
"""A device process without a graph: what `cutlayer run` imports (benchmarks/results/device.md: memory before a model), and
what of onnxruntime is touched with the first session and step."""

MIB = 2**20

UNLIMITED = 1 << 60
"""A version 1 group without limit shows a number near 2^63."""


def peak_bytes(files: Files) -> int | None:
    """Largest resident size since the last reset; None where the kernel does not tell."""
    try:
        status = files.text("proc/self/status")
    except UnreadableError:
        return None
    lines = (line.split() for line in status.splitlines())
    return next((int(words[1]) * 1024 for words in lines if words[:1] == ["VmHWM:"]), None)


def reset_peak(files: Files) -> str:
    """Lets VmHWM start over from the present size; returns what the peak from here on means."""
    if peak_bytes(files) is None:
        return SEEN
    try:
        # Neither created nor truncated: this is a file of the kernel's, and where it is missing it must stay so.
        descriptor = os.open(files.root / "proc/self/clear_refs", os.O_WRONLY)
    except OSError:
        return SINCE_START
    try:
        os.write(descriptor, b"5")
    except OSError:
        return SINCE_START
    finally:
        os.close(descriptor)
    return SINCE_BEGIN


@dataclass(frozen=True)
class Room:
    """How much memory there is; bytes, or None where that is not known."""

    total_bytes: int | None
    """Of the board."""
    available_bytes: int | None
    """Of the board, without pushing anything out to swap."""
    limit_bytes: int | None
    """The least MemoryMax on the way to the control group; None without a limit."""
    limit_source: str
    """The file of the limit, or why there is none."""
    data_bytes: int = 0
    """What the device's samples take of it; 0 where that is not known, too."""

    def headroom_bytes(self, peak_bytes: int) -> int | None:
        """What is left beside a process of such a peak: below the limit, and on the board; None where neither is known.

        A negative number says by how much it does not fit.
        """
        ceilings = [ceiling for ceiling in (self.total_bytes, self.limit_bytes) if ceiling is not None]
        return min(ceilings) - peak_bytes if ceilings else None

    def ceiling(self) -> tuple[int, str] | None:
        """The bytes that a process can have at most beside the data, and whose limit that is; None where neither limit nor board are known."""
        data = f", less {self.data_bytes / MIB:.0f} MiB of data" if self.data_bytes else ""
        known = [
            (self.limit_bytes, f"the limit in {self.limit_source}"),
            (self.total_bytes, "the board's memory"),
        ]
        return min(
            ((size - self.data_bytes, f"{name}{data}") for size, name in known if size is not None), default=None
        )

    def to_record(self) -> dict[str, int | str | None]:
        """Returns what there is as a plain dictionary."""
        return {name: value for name, value in vars(self).items() if name != "data_bytes"}


def room(files: Files, unit: str | None = None) -> Room:
    """Reads the board's memory and the limit of this process, or that of a service.

    Args:
        files: below the root.
        unit: a systemd service such as `cutlayer.service`; without one, the group this process is in. Of a service that does not
            run, the limit is that of its unit file.
    """
    meminfo = dict(_meminfo(files))
    limit, source = _limit(files, f"/system.slice/{unit}" if unit else None)
    if unit and limit is None and (written := _unit_limit(files, unit, meminfo.get("MemTotal"))):
        limit, source = written
    return Room(meminfo.get("MemTotal"), meminfo.get("MemAvailable"), limit, source)


class TooLargeError(ValueError):
    """A graph that does not fit into memory; the message has graph, batch, MiB needed and there, whose limit, and what would help."""


def needed_bytes(manifest: Manifest, kind: str, batch: int, beside: Mapping[str, int] | None = None) -> int | None:
    """Estimated peak of a device process that runs a graph on such batches; None where the bundle does not say (an older release's).

    With one thread; without the data (`Room.data_bytes`), the codec and the outbox.

    Args:
        manifest: of the bundle.
        kind: of the graph.
        batch: samples in a batch.
        beside: largest batches of other graphs that the same process has run, by kind: each keeps what it has taken.
    """
    needs = manifest.memory
    if kind not in needs:
        return None
    batches = {name: size for name, size in (beside or {}).items() if name in needs} | {kind: batch}
    fixed = max(needs[name].fixed_bytes for name in batches)  # mostly the state, which they share
    return PROCESS_BYTES + fixed + sum(needs[name].sample_bytes * size for name, size in batches.items())


def largest_batch(manifest: Manifest, kind: str, room: Room, beside: Mapping[str, int] | None = None) -> int | None:
    """The largest batch with which a graph fits, 0 where not even one sample does; None where need, room or end are not known."""
    least, ceiling = needed_bytes(manifest, kind, 0, beside), room.ceiling()
    if least is None or ceiling is None or not manifest.memory[kind].sample_bytes:
        return None
    return max(0, (ceiling[0] - least) // manifest.memory[kind].sample_bytes)


def refuse_too_large(
    manifest: Manifest, kind: str, batch: int, room: Room, beside: Mapping[str, int] | None = None
) -> None:
    """Refuse a graph that does not fit, before it is loaded. What is not known refuses nothing.

    Args:
        manifest: of the bundle.
        kind: of the graph.
        batch: samples in a batch; 0 for `begin` and `end`.
        room: the memory there is.
        beside: see `needed_bytes`.

    Raises:
        TooLargeError: it is estimated to need more than there is.
    """
    needed, ceiling = needed_bytes(manifest, kind, batch, beside), room.ceiling()
    if needed is None or ceiling is None or needed <= ceiling[0]:
        return
    largest = largest_batch(manifest, kind, room, beside)
    if largest:
        help_ = f"a batch of {largest} fits"
    elif room.limit_bytes is not None and room.limit_bytes - room.data_bytes == ceiling[0]:
        help_ = "not even a batch of 1 fits: raise the limit (MemoryMax of a systemd unit), or cut the model earlier"
    else:
        help_ = "not even a batch of 1 fits: cut the model earlier, or take a board with more memory"
    raise TooLargeError(
        f"the {kind} graph with a batch of {batch} needs about {needed / MIB:.0f} MiB (estimated for one thread, without data and codec); "
        f"there are {ceiling[0] / MIB:.0f} MiB by {ceiling[1]}; {help_}"
    )


def refuse_hopeless(manifest: Manifest, room: Room) -> list[str]:
    """Refuse a bundle of which no graph fits with even one sample; returns a sentence for each of its graphs that does not fit.

    A graph that does not fit need not be asked for: which ones are, is the hub's to say.

    Raises:
        TooLargeError: of the smallest graph.
    """
    kinds = sorted(manifest.memory, key=lambda kind: needed_bytes(manifest, kind, 1) or 0)
    refused = []
    for kind in kinds:
        try:
            refuse_too_large(manifest, kind, 1, room)
        except TooLargeError as error:
            if kind == kinds[0]:
                raise
            refused.append(str(error))
    return refused


def _meminfo(files: Files) -> Iterator[tuple[str, int]]:
    for line in (files.text_or_none("proc/meminfo") or "").splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        if words[1:] == ["kB"] and words[0].isdigit():
            yield name, int(words[0]) * 1024


def _limit(files: Files, group: str | None) -> tuple[int | None, str]:
    """The least limit of a control group and those around it, and its file; version 2, else version 1."""
    lines = (files.text_or_none("proc/self/cgroup") or "").splitlines()
    own = {words[1]: words[2] for line in lines if len(words := line.split(":", 2)) == 3}
    top = "sys/fs/cgroup"
    trees = [(top, "memory.max", own.get("")), (f"{top}/memory", "memory.limit_in_bytes", own.get("memory"))]
    limits = []
    for folder, name, place in trees:
        path = group or place
        if path is None:
            continue
        levels = [part for part in path.split("/") if part and part != ".."]
        files_of_levels = ["/".join([folder, *levels[:n], name]) for n in range(len(levels) + 1)]
        if group and not files.exists(files_of_levels[-1]):
            continue
        limits += [(size, f"/{path}") for path in files_of_levels if (size := files.number_or_none(path)) is not None]
    found = [pair for pair in limits if pair[0] < UNLIMITED]
    if found:
        return min(found)
    if group and not any(files.exists(f"{folder}{group}") for folder, _, _ in trees):
        return None, f"{group.rsplit('/', 1)[-1]} is not running, so its MemoryMax is not known"
    return None, "no control group limits it"


UNITS = ("usr/lib/systemd/system", "lib/systemd/system", "etc/systemd/system")
"""Where unit files lie; the later overrides the earlier, and drop-ins override both."""
SUFFIXES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def _unit_limit(files: Files, unit: str, total: int | None) -> tuple[int, str] | None:
    """MemoryMax of a unit file and its drop-ins, in bytes, and the file; None without one."""
    paths = [f"{folder}/{unit}" for folder in UNITS]
    paths += [
        f"{folder}/{unit}.d/{name}" for folder in UNITS for name in sorted(files.names(f"{folder}/{unit}.d", "*.conf"))
    ]
    found = None
    for path in paths:
        for value in re.findall(r"(?m)^MemoryMax=(.*)$", files.text_or_none(path) or ""):
            amount = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT%]?)", value.strip())
            if amount is None:
                found = None  # "infinity", or empty: what stood before is taken back
            elif amount[2] != "%":
                found = int(float(amount[1]) * SUFFIXES[amount[2]]), f"/{path}"
            elif total is not None:
                found = int(float(amount[1]) / 100 * total), f"/{path}"
    return found
