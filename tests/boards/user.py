"""Programs of an arm64 tree run under qemu-user: their system calls are this machine's, their processor is emulated."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.boards.root import EMULATOR

# An emulated program that starts `sys.executable` would start an arm64 file, which this kernel does not know.
_SITE = """import os, sys
sys.executable = os.environ["EMULATED_PYTHON"]
"""


@dataclass(frozen=True)
class EmulatedPython:
    """A Python of an arm64 tree, to be started like one of this machine."""

    executable: Path
    environ: Mapping[str, str]


def emulated_python(tree: Path, folder: Path, program: str = "usr/bin/python3.11", paths: tuple[Path, ...] = ()) -> EmulatedPython:
    """A script in `folder` that runs the tree's Python on a Cortex-A72, as its child processes do.

    Args:
        tree: root of the emulated programs; what is not in it is looked for on this machine.
        folder: where the script goes.
        program: of the tree; in a venv, its own Python.
        paths: folders to import from, before the tree's own.
    """
    emulator = shutil.which(EMULATOR) or EMULATOR
    folder.mkdir(parents=True, exist_ok=True)
    script, site = folder / "python", folder / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(_SITE)
    script.write_text(f'#!/bin/sh\nexec {emulator} -cpu cortex-a72 -L {tree} -0 /{program} {tree / program} "$@"\n')
    script.chmod(0o755)
    environ = {
        "EMULATED_PYTHON": str(script),
        "PYTHONPATH": os.pathsep.join(str(path) for path in (site, *paths)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "ORT_DISABLE_TELEMETRY": "1",
    }
    return EmulatedPython(script, environ)
