"""Before every start of the agent: which release is it to be?

It brings the links to what the journal says (an update that a power cut has interrupted), counts the starts of a release on
trial, goes back to the previous one after too many, and ends the trial of one that the agent has called healthy. Every step may
be cut off and is done again by the next call.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from edge.release import disk, environment, result, trial, units
from edge.release.layout import ID, Layout, linked
from edge.release.manifest import INSTALLER, ReleaseError, ReleaseManifest
from edge.release.trial import STARTS, Trial

HEALTHY = "healthy"
"""File in the folder of state: the id of the release that the agent has found well."""

Say = Callable[[str], None]


def guard(layout: Layout, say: Say, *, starts: int = STARTS, boot: str | None = None) -> bool:
    """Decides what is started now; returns whether there is anything to start.

    Args:
        layout: of the board.
        say: takes lines for the log.
        starts: how many a release on trial has.
        boot: names the time since the machine was switched on; None: as the kernel has it.
    """
    if layout.home.is_dir():
        with _goes_on(say), disk.lock(layout.lock) as ours:
            if ours:
                with _goes_on(say):  # what cannot be settled must not keep a broken release from being counted
                    settle(layout, say)
                _count(layout, say, starts, _boot() if boot is None else boot)
            else:
                say("an installation is under way; what is current is started")
    there = whole(layout, linked(layout.current))
    if not there:
        say("no complete release is installed: install one with installer.pyz install FILE --keys FILE")
    return there


@contextlib.contextmanager
def _goes_on(say: Say) -> Iterator[None]:
    """A disk that takes nothing more must not keep the agent from starting."""
    try:
        yield
    except (OSError, ValueError) as error:
        say(f"the guard could not finish: {error}")


def settle(layout: Layout, say: Say) -> None:
    """Finishes what was interrupted, ends the trial of a healthy release and removes what nothing needs any more.

    The lock must be held.
    """
    follow(layout, say)
    there = trial.load(layout)
    if there is not None and healthy(layout) == there.release:
        say(f"release {there.release[:12]} is healthy: its trial is over")
        if units.place(layout, layout.release(there.release)) and layout.root == Path("/"):
            units.reload(say)
        place_installer(layout, layout.release(there.release))
        trial.end(layout)
    if linked(layout.current) is not None:
        collect(layout)


def follow(layout: Layout, say: Say) -> None:
    """Brings links and version to what the journal says."""
    there = trial.load(layout)
    current, previous = linked(layout.current), linked(layout.previous)
    if there is None:
        if layout.trial.exists():
            trial.end(layout)
        if not whole(layout, current) and whole(layout, previous):
            say(f"release {str(current)[:12]} is not complete: back to {str(previous)[:12]}")
            _point(layout, layout.current, previous)
    elif there.previous is not None and (there.failed or not whole(layout, there.release)):
        _go_back(layout, there, say)
    elif whole(layout, there.release):
        if there.previous is not None:
            _point(layout, layout.previous, there.previous)
        _point(layout, layout.current, there.release)
        raise_version(layout, manifest(layout, there.release).version)


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def _count(layout: Layout, say: Say, starts: int, boot: str) -> None:
    there = trial.load(layout)
    if there is None or healthy(layout) == there.release:
        return
    there = there.resumed(boot)
    if there.starts >= starts and whole(layout, there.previous):
        say(f"release {there.release[:12]} was started {there.starts} times and did not become healthy")
        _go_back(layout, there, say)
        collect(layout)
        return
    if there.starts >= starts:
        say(f"release {there.release[:12]} was started {there.starts} times and did not become healthy; there is none to go back to")  # fmt: skip
        return  # counted enough: no further writes on the card at each start
    trial.save(layout, there.started(boot))
    say(f"release {there.release[:12]} is on trial: start {there.starts + 1} of {starts}")


def _go_back(layout: Layout, there: Trial, say: Say) -> None:
    """Makes the previous release the current one. The journal says so first, so that a power cut cannot leave it half done."""
    if not there.failed:
        trial.save(layout, there.lost())
    _point(layout, layout.current, there.previous)
    text = (
        f"back to release {str(there.previous)[:12]}; {there.release[:12]} was not healthy after {there.starts} starts"
    )
    with contextlib.suppress(OSError):
        result.write(layout, there.release, result.ROLLED_BACK, text)
    trial.end(layout)
    say(text)


def collect(layout: Layout) -> None:
    """Removes releases and environments that neither a link nor the journal names, and everything unfinished."""
    there = trial.load(layout)
    links = (linked(layout.current), linked(layout.previous))
    kept = {name for name in (*links, *((there.release, there.previous) if there else ())) if name is not None}
    environments = set()
    for name in kept:
        with contextlib.suppress(ReleaseError, OSError):
            environments.add(manifest(layout, name).environment)
        with contextlib.suppress(OSError):  # a manifest that cannot be read now must not cost a release its environment
            environments.add((layout.release(name) / "environment").readlink().name)
    for folder, wanted in ((layout.releases, kept), (layout.environments, environments)):
        for entry in _entries(folder):
            if entry.name not in wanted:
                disk.remove(entry)
    for folder in (layout.home, layout.settings, layout.units):
        for entry in _entries(folder):
            if disk.is_part(entry.name) and (folder != layout.units or ".cutlayer" in entry.name):
                disk.remove(entry)


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def whole(layout: Layout, name: str | None) -> bool:
    """Whether a release can be started: its folder, manifest, agent, environment and the board's Python are there."""
    if name is None:
        return False
    folder = layout.release(name)
    try:
        wheels = layout.environment(manifest(layout, name).environment)
    except (OSError, ReleaseError):
        return False
    return (folder / "agent" / "edge").is_dir() and environment.starts(layout, wheels)


def manifest(layout: Layout, name: str) -> ReleaseManifest:
    """Reads the manifest of an installed release."""
    return ReleaseManifest.parse((layout.release(name) / "manifest.json").read_bytes())


def place_installer(layout: Layout, folder: Path) -> None:
    """Makes the installer of a release the one in use."""
    disk.copy(folder / INSTALLER, layout.installer)


def healthy(layout: Layout) -> str | None:
    """Returns the id in the agent's file, which an unprivileged user writes; None for anything else."""
    try:
        with disk.folder_of(layout.state, ours=layout.state) as folder:
            text = disk.read_within(folder, HEALTHY, 100).decode("ascii").strip()
    except (OSError, ValueError):
        return None
    return text if ID.fullmatch(text) else None


def version(layout: Layout) -> int:
    """Returns the highest version this board has accepted; 0 on a new one."""
    try:
        return int(layout.version.read_text("ascii"))
    except (FileNotFoundError, ValueError):
        return 0


def raise_version(layout: Layout, number: int) -> None:
    """Remembers a version, if it is the highest so far."""
    if number > version(layout):
        disk.write(layout.version, b"%d\n" % number)


def _point(layout: Layout, link: Path, name: str | None) -> None:
    disk.link(link, os.path.relpath(layout.release(str(name)), layout.home))
