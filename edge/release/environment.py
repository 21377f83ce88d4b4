"""The environment of a release: a virtual environment as PEP 405 has it, made offline from wheels.

Written by hand instead of by `python3 -m venv`: it needs no package that a distribution leaves out, starts no process, and has
no scripts that would name the folder it was made in. Only `bin/python` is ever started.
"""

import json
import os
import platform
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge.release import disk, wheels
from edge.release.layout import Layout

INDEX = "wheels.json"
"""File of an environment: name of each wheel, its SHA-256 and its .dist-info folder."""

MACHINES = {62: "x86_64", 183: "aarch64", 243: "riscv64", 40: "armv7l", 3: "i686"}
"""e_machine of an ELF file, as `platform.machine()` calls it."""


@dataclass(frozen=True)
class Interpreter:
    """The board's own Python, which environments lean on."""

    path: str
    """On the board, with its version in the name, so that another Python never gets wheels that are not for it."""
    version: str
    """Such as 3.13."""
    machine: str


def interpreter(layout: Layout) -> Interpreter:
    """Returns the board's Python: the one that runs, or that of another root, read from its files without starting it."""
    theirs = layout.path("/usr/bin/python3")
    if layout.root != Path("/") and (theirs.exists() or theirs.is_symlink()):
        name = theirs.readlink().name if theirs.is_symlink() else theirs.name
        return Interpreter(f"/usr/bin/{name}", name.removeprefix("python"), _machine(theirs.with_name(name)))
    running = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    return Interpreter(running, f"{sys.version_info.major}.{sys.version_info.minor}", platform.machine())


def _machine(path: Path) -> str:
    """Returns the architecture of a program; the running one where it is none."""
    with path.open("rb") as file:
        head = file.read(20)
    if len(head) < 20 or head[:4] != b"\x7fELF":
        return platform.machine()
    return MACHINES.get(struct.unpack("<H" if head[5] == 1 else ">H", head[18:20])[0], "an unknown machine")


def starts(layout: Layout, folder: Path) -> bool:
    """Whether the Python that an environment leans on is on the board."""
    try:
        python = (folder / "bin" / "python").readlink()
    except OSError:
        return False
    theirs = layout.path("/usr/bin/python3")
    return (layout.path(str(python)) if theirs.exists() or theirs.is_symlink() else python).exists()


def packages(folder: Path, version: str) -> Path:
    """Returns the folder of packages in an environment."""
    return folder / "lib" / f"python{version}" / "site-packages"


def make(hidden: Path, python: Interpreter) -> Path:
    """Makes an empty environment and returns its folder of packages."""
    disk.make_folders(hidden / "bin", sync=False)
    (hidden / "bin" / "python").symlink_to(python.path)
    (hidden / "bin" / "python3").symlink_to("python")
    text = f"home = {Path(python.path).parent}\ninclude-system-site-packages = false\nversion = {python.version}\n"
    with disk.create(hidden / "pyvenv.cfg") as file:
        file.write(text.encode())
    (hidden / "lib64").symlink_to("lib")  # distributions differ in which of the two they look for
    found = packages(hidden, python.version)
    disk.make_folders(found, sync=False)
    return found


def index(folder: Path) -> dict[str, dict[str, str]]:
    """Returns what an environment was made of; nothing where it has no index."""
    try:
        found = json.loads((folder / INDEX).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_index(hidden: Path, entries: Mapping[str, Mapping[str, str]]) -> None:
    """Writes what an environment was made of."""
    with disk.create(hidden / INDEX) as file:
        file.write(json.dumps(entries, sort_keys=True, indent=1).encode() + b"\n")


def check(folder: Path, version: str) -> None:
    """Compares every file of an environment with the RECORD it came with.

    Raises:
        ReleaseError: one is missing or damaged.
    """
    for entry in index(folder).values():
        wheels.check(entry["info"], packages(folder, version))
