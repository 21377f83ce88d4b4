"""Units of systemd: those of a release that has proven itself, since the guard itself is started by them."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from edge.release import disk
from edge.release.layout import Layout

SERVICE, PATH = "cutlayer.service", "cutlayer-install.path"


def place(layout: Layout, release: Path) -> bool:
    """Copies the units of a release to where systemd reads them, and enables those that want to be; returns whether any changed."""
    changed = False
    disk.make_folders(layout.units)
    for source in sorted((release / "units").iterdir()):
        target = layout.units / source.name
        if not (target.is_file() and target.read_bytes() == source.read_bytes()):
            disk.copy(source, target)
            changed = True
        for wanted in re.findall(r"(?m)^WantedBy=([a-z0-9.-]+)\s*$", source.read_text("utf-8")):
            disk.make_folders(layout.units / f"{wanted}.wants")
            disk.link(layout.units / f"{wanted}.wants" / source.name, f"../{source.name}")
    return changed


def start(say: Callable[[str], None]) -> None:
    """Has systemd read the units and start the agent and what watches for releases; it does not wait for them."""
    for command in (["daemon-reload"], ["start", PATH], ["--no-block", "restart", SERVICE]):
        _systemctl(command, say)


def reload(say: Callable[[str], None]) -> None:
    """Has systemd read changed units."""
    _systemctl(["daemon-reload"], say)


def _systemctl(command: list[str], say: Callable[[str], None]) -> None:
    program = program_of("systemctl")
    try:
        if program is None:
            raise FileNotFoundError("there is no systemctl")
        done = subprocess.run([program, *command], check=False, capture_output=True, text=True, timeout=120)  # noqa: S603 - of the system
    except (OSError, subprocess.TimeoutExpired) as error:
        say(f"systemctl {' '.join(command)}: {error}")
    else:
        if done.returncode:
            say(f"systemctl {' '.join(command)}: {done.stderr.strip()}")


def program_of(name: str) -> str | None:
    """Returns the system's own program, wherever PATH points."""
    return shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
