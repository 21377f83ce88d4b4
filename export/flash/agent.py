"""What a release has from the installed `edge` package: the agent, the installer that needs only a python3, the units.

Nothing is packed: the same release has to come out on another machine, whose zlib may be another. It costs 0.7 MB of 42.
"""

import io
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from export import archive
from export.flash.errors import FlashError

OF_THE_INSTALLER = ("release", "enrolment")
"""Packages of the device that import the standard library only."""

UNITS = Path("release") / "units"
SUFFIXES = (".py", ".typed", ".json", ".toml")
"""What the agent is made of; whatever else lies in the folder stays there."""

_START = b"#!/usr/bin/env python3\n"
# Read by any python3, however old, so that an old one is a sentence.
_MAIN = b"""import sys
if sys.version_info < (3, 11):
    sys.exit("installer.pyz: this needs Python 3.11 or newer; this is %d.%d" % sys.version_info[:2])
from edge.release.__main__ import main
sys.exit(main())
"""


def package() -> Path:
    """Return the folder of the device's package."""
    spec = find_spec("edge")
    if spec is None or not spec.submodule_search_locations:
        raise FlashError("the package edge is not installed")
    return Path(spec.submodule_search_locations[0])


def agent_version() -> str:
    """Return the version of cutlayer that is installed here.

    Raises:
        FlashError: it runs from a folder that was never installed.
    """
    try:
        return version("cutlayer")
    except PackageNotFoundError:
        raise FlashError("cutlayer is not installed here, so its version is unknown: pip install -e .") from None


def agent_zip(edge: Path, number: str) -> bytes:
    """Return agent.zip: the package below `edge/`, and what importlib.metadata needs to tell its version."""
    members = {f"edge/{path.relative_to(edge)}": path.read_bytes() for path in _sources(edge)}
    members[f"cutlayer-{number}.dist-info/METADATA"] = f"Metadata-Version: 2.1\nName: cutlayer\nVersion: {number}\n".encode()  # fmt: skip
    file = io.BytesIO()
    archive.write(file, members, packed=False)
    return file.getvalue()


def installer_pyz(edge: Path) -> bytes:
    """Return installer.pyz: a zipapp of the packages that need no library."""
    members = {"__main__.py": _MAIN, "edge/__init__.py": (edge / "__init__.py").read_bytes()}
    for name in OF_THE_INSTALLER:
        members |= {f"edge/{path.relative_to(edge)}": path.read_bytes() for path in _sources(edge / name)}
    file = io.BytesIO(_START)
    file.seek(len(_START))
    archive.write(file, members, packed=False)
    return file.getvalue()


def units(edge: Path) -> dict[str, bytes]:
    """Return systemd's units by name."""
    found = sorted((edge / UNITS).glob("*")) if (edge / UNITS).is_dir() else []
    return {path.name: path.read_bytes() for path in found if path.suffix in {".service", ".timer", ".path"}}


def _sources(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (
            path
            for path in sorted(folder.rglob("*"))
            if path.suffix in SUFFIXES and path.is_file() and not {"__pycache__", "tests"} & set(path.parts)
        )
