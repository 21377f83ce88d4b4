"""Units of systemd: those of a release that has proven itself, since the guard itself is started by them."""

import contextlib
import re
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
        done = subprocess.run(["systemctl", *command], check=False, capture_output=True, text=True, timeout=120)
        if done.returncode:
            say(f"systemctl {' '.join(command)}: {done.stderr.strip()}")


def reload() -> None:
    """Has systemd read changed units, where there is a systemd."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(["systemctl", "daemon-reload"], check=False, capture_output=True, timeout=60)
