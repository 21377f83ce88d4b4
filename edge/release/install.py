"""Puts a release on the board: complete under a hidden name first, then one journal entry that makes it the one to start.

The order, in which a power cut at any point leaves the old release or the new one:

1. settle what was interrupted before (guard.py) and remove what nothing needs
2. signature, manifest, and whether this board takes it; the clock; the user's configuration
3. room on the disk
4. environments/.HASH.part, every hash checked, fsync, rename; left out where that environment is there
5. releases/.ID.part, the same
6. user, folders, /etc/cutlayer; where nothing has proven itself yet, units and installer.pyz
7. trial.json: from here on it is the new release, and what follows is done again by the guard if it is cut off
8. links previous and current, version
"""

import hashlib
import os
import shutil
import stat
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from edge.enrolment.claim import Claim
from edge.release import disk, environment, guard, settings, trial, units, users, wheels
from edge.release.archive import Accepts, Release, open_release
from edge.release.environment import Interpreter
from edge.release.layout import Layout, linked
from edge.release.manifest import AGENT, BUNDLE, INSTALLER, UNITS, WHEELS, BoardError, ClockError, ReleaseError
from edge.release.trial import Trial

KEPT = (BUNDLE, AGENT, INSTALLER)
"""Files that stay as they are in a release's folder, so that a partial update can take them from there."""

SLACK_BYTES = 4 << 20
BLOCK_BYTES = 4096
"""A disk gives files whole blocks."""


@dataclass(frozen=True)
class World:
    """What an installation has of the world: clock and time to wait, the disk's room, and where lines go."""

    now: Callable[[], datetime]
    sleep: Callable[[float], None]
    say: Callable[[str], None]
    room: Callable[[Path], int] = disk.room


@dataclass(frozen=True)
class Done:
    """What became of it."""

    release: str
    version: int
    changed: bool
    """False where this very release runs already."""


@dataclass(frozen=True)
class Wanted:
    """What is asked for besides the release."""

    claim: Claim | None = None
    config: Path | None = None
    over_the_air: bool = False
    release: str = ""
    """The id it has to have; empty: any."""
    wait_seconds: float = 600.0
    """How long to wait for a clock that is before the release's date."""


def install(layout: Layout, path: Path, keys: Sequence[bytes], key_file: bytes, world: World, wanted: Wanted) -> Done:
    """Installs a release, or says why not and leaves nothing behind.

    Args:
        layout: of the board.
        path: of the release file; whoever owns it may write to it meanwhile.
        keys: that may have signed it.
        key_file: what to keep as release-keys on a board that has none.
        world: clock, disk and log.
        wanted: the rest.

    Raises:
        ReleaseError: it will not be installed; the text says why.
    """
    disk.make_folders(layout.releases)
    disk.make_folders(layout.environments)
    with _locked(layout, world):
        guard.settle(layout, world.say)
        guard.collect(layout)
        try:
            return _install(layout, path, keys, key_file, world, wanted)
        except BaseException as error:
            guard.collect(layout)
            if isinstance(error, OSError | zipfile.BadZipFile):
                kind = BoardError if isinstance(error, OSError) else ReleaseError
                raise kind(f"{path} could not be installed, everything is as it was: {error}") from error
            raise


def _install(layout: Layout, path: Path, keys: Sequence[bytes], key_file: bytes, world: World, wanted: Wanted) -> Done:
    python = environment.interpreter(layout)
    current = linked(layout.current)
    accepts = _accepts(layout, python, current, wanted)
    with _open(path, keys, accepts, world, wanted.wait_seconds) as release:
        if wanted.release not in {"", release.id}:
            raise ReleaseError(f"{path} is release {release.id[:12]}, not {wanted.release[:12]} as it was called")
        if release.id == current and guard.whole(layout, current):
            world.say(
                f"release {release.id[:12]} (version {release.manifest.version}) is installed already: nothing to do"
            )
            if wanted.claim is not None:
                users.make_folders(layout)
                settings.write(layout, wanted.claim, None, key_file)
            return Done(release.id, release.manifest.version, changed=False)
        config = None
        if not (layout.settings / "device.toml").exists():
            config = settings.compose(wanted.claim, settings.read_config(wanted.config))
        elif wanted.config is not None:
            world.say(
                f"{layout.settings / 'device.toml'} is there and stays as it is; {wanted.config} is not looked at"
            )
        builder = _Builder(layout, release, python, current, world)
        builder.build_environment()
        builder.build_release()
        before = trial.load(layout)
        alone = not guard.whole(layout, current) or (before is not None and before.previous is None)
        _prepare(layout, release, config, key_file, wanted, alone=alone)
        _commit(layout, Trial(release.id, _back_to(layout, before, current)), world)
        return Done(release.id, release.manifest.version, changed=True)


def _accepts(layout: Layout, python: Interpreter, current: str | None, wanted: Wanted) -> Accepts:
    """What this board takes: what it is, and of the fleet and kind that it runs or has a claim for."""
    fleet = board = ""
    running = None
    if guard.whole(layout, current):
        manifest = guard.manifest(layout, str(current))
        fleet, board, running = manifest.fleet, manifest.board, manifest.cutlayer
    elif wanted.claim is not None:
        fleet, board = wanted.claim.fleet, wanted.claim.board
    return Accepts(
        fleet=fleet,
        board=board,
        architecture=python.machine,
        python=python.version,
        version_above=guard.version(layout),
        again=frozenset({current} if current is not None else ()),
        agent=running if wanted.over_the_air else None,
    )


def _open(path: Path, keys: Sequence[bytes], accepts: Accepts, world: World, wait_seconds: float) -> Release:
    """Opens a release, after the clock has been set if that is what is missing."""
    waited = 0.0
    while True:
        try:
            return open_release(path, keys, now=world.now(), accepts=accepts)
        except ClockError as error:
            if waited >= wait_seconds:
                raise BoardError(
                    f"{error}; waited {waited:.0f} s for that: check the network, or set it with `date`"
                ) from None
            if not waited:
                world.say(f"{error}; waiting at most {wait_seconds:.0f} s")
        world.sleep(min(2.0, wait_seconds - waited))
        waited += 2.0


class _Builder:
    """Makes environment and folder of a release under hidden names."""

    def __init__(
        self, layout: Layout, release: Release, python: Interpreter, current: str | None, world: World
    ) -> None:
        self.layout = layout
        self.release = release
        self.python = python
        self.world = world
        self._old = layout.release(current) if current is not None and guard.whole(layout, current) else None
        self._environment = layout.environment(release.manifest.environment)
        self._has_environment = environment.starts(layout, self._environment)
        lacking = [path for path in release.missing if self._carried(path) is None]
        if lacking:
            raise ReleaseError(
                f"{release.path} is partial and this board lacks {lacking[0]}"
                f"{f' and {len(lacking) - 1} more' if lacking[1:] else ''}: it needs the whole release"
            )

    def _carried(self, path: str) -> Path | dict[str, str] | None:
        """Returns where the board has a file that the release lacks: a file, or for a wheel its line in the environment's index."""
        wanted = self.release.manifest.files[path].sha256
        if path.startswith(WHEELS):
            if self._has_environment:
                return {}
            if self._old is None:
                return None
            entry = environment.index(self._old / "environment").get(path.removeprefix(WHEELS))
            return entry if entry is not None and entry["sha256"] == wanted else None
        if self._old is None:
            return None
        theirs = [self._old / name for name in KEPT] + sorted((self._old / UNITS).iterdir())
        return next((at for at in theirs if at.is_file() and _sha256(at) == wanted), None)

    def build_environment(self) -> None:
        """Makes the environment, unless it is there."""
        if self._has_environment:
            return
        files = self.release.manifest.below(WHEELS)
        brought = {name: file for name, file in files.items() if file.sha256 in self.release.present}
        self._want_room(self.layout.home, sum(file.bytes for file in brought.values()), len(brought))
        disk.remove(self._environment)  # damaged, or of a Python that is gone
        hidden = disk.part(self._environment)
        disk.make_folders(hidden, sync=False)
        unpacked = hidden / "unpack"
        disk.make_folders(unpacked, sync=False)
        needed = count = 0
        for name, file in brought.items():
            self._copy(file.sha256, unpacked / name)
            size, number = wheels.unpacked_bytes(unpacked / name)
            needed, count = needed + size, count + number
        self._want_room(self.layout.home, needed + self._own_bytes(), count)
        packages = environment.make(hidden, self.python)
        entries = {}
        for name, file in files.items():
            if name in brought:
                info = wheels.unpack(unpacked / name, packages)
                (unpacked / name).unlink()
            else:
                info = self._carry(name, packages)
            entries[name] = {"sha256": file.sha256, "info": info}
        unpacked.rmdir()
        environment.write_index(hidden, entries)
        environment.check(hidden, self.python.version)
        disk.publish(hidden, self._environment)

    def _carry(self, name: str, packages: Path) -> str:
        assert self._old is not None  # noqa: S101 - the constructor has seen to it
        old = self._old / "environment"
        info = environment.index(old)[name]["info"]
        wheels.carry(info, environment.packages(old, guard.manifest(self.layout, self._old.name).python), packages)
        return info

    def build_release(self) -> None:
        """Makes the folder of the release, unless it is there."""
        if guard.whole(self.layout, self.release.id):
            return
        self._want_room(self.layout.home, self._own_bytes(), 100)
        folder = self.layout.release(self.release.id)
        disk.remove(folder)  # damaged
        hidden = disk.part(folder)
        disk.make_folders(hidden / "units", sync=False)
        files = self.release.manifest.files
        for path in [*KEPT, *(path for path in sorted(files) if path.startswith(UNITS))]:
            self._bring(path, hidden / path)
        _unpack_agent(hidden / AGENT, hidden / "agent")
        for name, data in (("manifest.json", self.release.manifest.pack()), ("manifest.sig", self.release.signature)):
            with disk.create(hidden / name) as file:
                file.write(data)
        (hidden / "environment").symlink_to(os.path.relpath(self._environment, self.layout.releases / "id"))
        disk.publish(hidden, folder)

    def _own_bytes(self) -> int:
        """Returns what the release takes besides its wheels; the agent's sources have about four times their compressed size."""
        files = self.release.manifest.files
        return sum(file.bytes for path, file in files.items() if not path.startswith(WHEELS)) + 4 * files[AGENT].bytes

    def _bring(self, path: str, to: Path) -> None:
        file = self.release.manifest.files[path]
        if file.sha256 in self.release.present:
            self._copy(file.sha256, to)
            return
        source = self._carried(path)
        assert isinstance(source, Path)  # noqa: S101 - the constructor has seen to it
        with source.open("rb") as old, disk.create(to) as new:
            shutil.copyfileobj(old, new)
        if _sha256(to) != file.sha256:
            raise ReleaseError(f"{source} is damaged: the update wanted it as it was")

    def _copy(self, sha256: str, to: Path) -> None:
        with disk.create(to) as file:
            self.release.copy(sha256, file)

    def _want_room(self, path: Path, needed: int, files: int) -> None:
        disk.want_room(path, needed + files * BLOCK_BYTES + SLACK_BYTES, self.world.room)


def _unpack_agent(archive: Path, folder: Path) -> None:
    """Unpacks the agent; every name must stay below its folder."""
    with zipfile.ZipFile(archive) as agent:
        for member in agent.infolist():
            parts = member.filename.rstrip("/").split("/")
            if any(part in {"", ".", ".."} for part in parts) or stat.S_ISLNK(member.external_attr >> 16):
                raise ReleaseError(f"agent.zip has {member.filename!r:.100}, which has no place in a release")
            if not member.is_dir():
                disk.make_folders((folder / member.filename).parent, sync=False)
                with agent.open(member) as source, disk.create(folder / member.filename) as file:
                    shutil.copyfileobj(source, file)
    if not (folder / "edge" / "__main__.py").is_file():
        raise ReleaseError("agent.zip has no edge/__main__.py: it is no agent")


def _prepare(
    layout: Layout, release: Release, config: dict[str, Any] | None, key_file: bytes, wanted: Wanted, *, alone: bool
) -> None:
    """Makes what a first start needs and later releases find there; units and installer too where nothing has proven itself."""
    users.make_user(layout)
    users.make_folders(layout)
    settings.write(layout, wanted.claim, config, key_file)
    if alone or not layout.installer.exists():
        folder = layout.release(release.id)
        units.place(layout, folder)
        guard.place_installer(layout, folder)


def _back_to(layout: Layout, before: Trial | None, current: str | None) -> str | None:
    """Returns what to go back to: what has proven itself; one that is on trial only where there is no other."""
    if before is not None and before.previous is not None:
        return before.previous
    return current if guard.whole(layout, current) else None


def _commit(layout: Layout, wanted: Trial, world: World) -> None:
    """Writes the journal, which makes it so, and follows it."""
    trial.save(layout, wanted)
    try:
        guard.follow(layout, world.say)
    except OSError as error:
        world.say(f"release {wanted.release[:12]} is on trial; the guard switches to it at the next start, since that failed now: {error}")  # fmt: skip


@contextmanager
def _locked(layout: Layout, world: World) -> Iterator[None]:
    """Holds the board's lock, after waiting for whoever has it; a minute and no longer."""
    for attempt in range(61):
        with disk.lock(layout.lock) as ours:
            if ours:
                yield
                return
        if not attempt:
            world.say("another installation is under way: waiting for it, at most a minute")
        world.sleep(1.0)
    raise BoardError("another installation is under way, and has been for a minute")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
