"""A release that came over the air: taken from a folder in which an unprivileged user may put anything.

`ready` names it, `ID.release` is it. Only plain files with one name are opened, no link is followed, and what is read is
checked as it is read, so it does not matter what is written to them meanwhile. Whatever happens, `ready` is gone afterwards:
systemd starts the installer while it is there.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from edge.release import disk, guard, result, trial
from edge.release.install import Done, Wanted, World, install
from edge.release.layout import ID, Layout, linked
from edge.release.manifest import BoardError, ReleaseError

READY = "ready"


Trusted = Callable[[], tuple[Sequence[bytes], bytes]]
"""Keys that may have signed it, and the file they are from; raises ReleaseError where there are none."""


def install_incoming(layout: Layout, trusted: Trusted, world: World, wanted: Wanted) -> Done | None:
    """Installs the release that waits, writes result.json and removes what it took; returns None where none waits.

    Raises:
        ReleaseError: it was refused; result.json says so too.
    """
    with disk.folder_of(layout.state / "incoming", ours=layout.state) as folder:
        name = ""
        try:
            name = _waiting(folder)
            if not name:
                return None
            done = _from(layout, folder, name, trusted, world, wanted)
        except ReleaseError as error:
            _tell(layout, world, name, result.REFUSED, str(error), again=isinstance(error, BoardError))
            raise
        except Exception as error:
            _tell(layout, world, name, result.REFUSED, f"the installer cannot go on: {type(error).__name__}: {error}")
            raise
        else:
            _tell(layout, world, name, result.INSTALLED, "")
            return done
        finally:
            # The release last: cut off in between, `ready` would name what is no longer there.
            disk.remove_within(folder, READY)
            if name:
                disk.remove_within(folder, f"{name}.release")


def _waiting(folder: int) -> str:
    """Returns the id in `ready`, or nothing where there is no such file."""
    try:
        name = disk.read_within(folder, READY, 100).decode("ascii").strip()
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise ReleaseError(f"incoming/{READY} is not what the agent writes: {error}") from None
    if not ID.fullmatch(name):
        raise ReleaseError(f"incoming/{READY} names no release")
    return name


def _from(layout: Layout, folder: int, name: str, trusted: Trusted, world: World, wanted: Wanted) -> Done:
    if name == linked(layout.current) and guard.whole(layout, name):
        # Cut off after it was installed: the agent may still be that of the release before, which nobody has restarted.
        there = trial.load(layout)
        waits = there is not None and there.release == name and not there.starts
        return Done(name, guard.manifest(layout, name).version, changed=waits)
    try:
        keys, key_file = trusted()
    except ReleaseError as error:
        raise BoardError(str(error)) from error
    try:
        handle = disk.open_within(folder, f"{name}.release")
    except OSError as error:
        raise ReleaseError(f"incoming/{name[:12]}….release cannot be opened: {error.strerror}") from None
    try:
        # By descriptor: the name may mean something else by now.
        path = Path(f"/proc/self/fd/{handle}")
        return install(layout, path, keys, key_file, world, replace(wanted, release=name, over_the_air=True))
    except ReleaseError as error:
        raise type(error)(str(error).replace(str(path), f"{name[:12]}….release")) from error
    finally:
        os.close(handle)


def _tell(layout: Layout, world: World, name: str, outcome: str, reason: str, *, again: bool = False) -> None:
    try:
        result.write(layout, name, outcome, reason, again=again)
    except OSError as error:
        world.say(f"{result.FILE} could not be written: {error}")
