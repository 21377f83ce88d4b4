"""The service's own user: made once, without a login, and owner of the folder of state."""

import os
import subprocess
from pathlib import Path

from edge.release import disk, units
from edge.release.layout import STATE, Layout
from edge.release.manifest import ReleaseError

USER = "cutlayer"
FOLDERS = {"state": 0o750, "identity": 0o700, "incoming": 0o755}
"""Below the folder of state."""


def make_user(layout: Layout) -> None:
    """Makes the system's user on a board that runs; another root's is its builder's.

    Raises:
        ReleaseError: useradd is missing or refuses.
    """
    if layout.root != Path("/") or owner(layout) is not None:
        return
    program = units.program_of("useradd")
    if program is None:
        raise ReleaseError(f"there is no useradd here to make the user {USER}: make it by hand and install again")
    command = [program, "--system", "--user-group", "--home-dir", STATE, "--no-create-home", "--shell", "/usr/sbin/nologin", USER]  # fmt: skip
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)  # noqa: S603 - of the system
    if done.returncode and owner(layout) is None:
        raise ReleaseError(f"useradd cannot make the user {USER}: {done.stderr.strip()}")


def owner(layout: Layout) -> tuple[int, int] | None:
    """Returns user and group of the service as the root's own passwd has them; None where it has none, or we may not give away."""
    if os.geteuid() != 0:
        return None
    try:
        lines = layout.path("/etc/passwd").read_text("utf-8").splitlines()
    except OSError:
        return None
    rows = (line.split(":") for line in lines)
    return next(((int(row[2]), int(row[3])) for row in rows if len(row) > 3 and row[0] == USER), None)


def make_folders(layout: Layout) -> None:
    """Makes the folder of state and those in it, and gives them to the user; where it has them already nothing is followed."""
    disk.make_folders(layout.state)
    to = owner(layout)
    with disk.folder_of(layout.state, ours=layout.state) as folder:
        disk.own_folder(folder, 0o755, to)
        for name, mode in FOLDERS.items():
            disk.make_within(folder, name, mode, to)
