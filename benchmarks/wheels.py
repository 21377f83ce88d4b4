"""The base install as pip resolves it: what is downloaded, and what lies on the disk afterwards."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from benchmarks.machine import ROOT
from benchmarks.options import BenchmarkError

CONSTRAINTS = ROOT / "constraints.txt"
AARCH64 = (
    *("--platform", "manylinux_2_28_aarch64", "--platform", "manylinux_2_27_aarch64"),
    *("--platform", "manylinux_2_17_aarch64", "--platform", "manylinux2014_aarch64"),
    *("--python-version", "3.11"),
)
"""pip's words for a 64-bit Raspberry Pi OS; without the older platforms it misses wheels that say so."""


def dependencies() -> list[str]:
    """What the base install asks for, as in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return list(project["dependencies"])


def download(folder: Path, platform: Sequence[str] = ()) -> None:
    """Put the wheels of the base install and of what it pulls into `folder`, with our own.

    Raises:
        BenchmarkError: pip could not; the message has its last line.
    """
    folder.mkdir(parents=True)
    pip("download", "--only-binary=:all:", *platform, "--dest", str(folder), *dependencies())
    pip("wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT))


def install(wheels: Path, venv: Path) -> Path:
    """Make a venv without pip, install our wheel and its dependencies from `wheels`; returns its interpreter."""
    _run([sys.executable, "-m", "venv", "--without-pip", str(venv)])
    python = venv / "bin" / "python"
    own = next(wheels.glob("cutlayer-*.whl"))
    pip("--python", str(python), "install", "--no-index", "--find-links", str(wheels), str(own))
    return python


def install_foreign(wheels: Path, folder: Path) -> None:
    """Install another platform's wheels into `folder` as pip would there, bytecode included; nothing in it can run here."""
    files = [str(path) for path in wheels.glob("*.whl")]
    pip("install", "--no-deps", "--only-binary=:all:", *AARCH64, "--target", str(folder), *files)


def sizes(wheels: Path) -> dict[str, int]:
    """Bytes of each wheel by the project's name."""
    return {path.name.split("-")[0]: path.stat().st_size for path in sorted(wheels.glob("*.whl"))}


def occupied(folder: Path, pattern: str = "*") -> int:
    """Bytes that the files below a folder take on the disk, in whole blocks."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob(pattern) if not path.is_dir())


def pip(*arguments: str) -> None:
    """Run our own pip under the project's constraints, build environments included.

    Raises:
        BenchmarkError: it failed.
    """
    _run([sys.executable, "-m", "pip", *arguments])


def _run(command: list[str]) -> None:
    environ = {**os.environ, "PIP_CONSTRAINT": str(CONSTRAINTS), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environ)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise BenchmarkError(f"{' '.join(command[2:4])} failed: {''.join(last)}")
