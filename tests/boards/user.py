"""Programs of an arm64 tree run under qemu-user: their system calls are this machine's, their processor is emulated."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.boards.root import EMULATOR, PYTHON

# An emulated program that starts `sys.executable` would start an arm64 file, which this kernel does not know.
_SITE = """import os, sys
sys.executable = os.environ["EMULATED_PYTHON"]
"""


@dataclass(frozen=True)
class EmulatedPython:
    """A Python of an arm64 tree, to be started like one of this machine."""

    executable: Path
    environ: Mapping[str, str]


def emulated_python(tree: Path, folder: Path) -> EmulatedPython:
    """A script in `folder` that runs what is installed in the tree on a Cortex-A72, and what that starts, too.

    Args:
        tree: root of the emulated programs, with a release; what is not in it is looked for on this machine.
        folder: where the script goes.
    """
    emulator = shutil.which(EMULATOR) or EMULATOR
    folder.mkdir(parents=True, exist_ok=True)
    script, site = folder / "python", folder / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(_SITE)
    # Python looks for pyvenv.cfg beside the name it is started by.
    name = "/opt/cutlayer/current/environment/bin/python"
    program = tree / f"usr/bin/python{PYTHON}"
    script.write_text(f'#!/bin/sh\nexec {emulator} -cpu cortex-a72 -L {tree} -0 {name} {program} "$@"\n')
    script.chmod(0o755)
    current, state = "/opt/cutlayer/current", tree / "var/lib/cutlayer"
    environ = {
        # The emulator looks into the tree for what is there only: new files would be made on this machine.
        "CUTLAYER_DEVICE_STATE_DIRECTORY": str(state / "state"),
        "CUTLAYER_BROKER_CERTIFICATE": str(state / "identity/device.pem"),
        "CUTLAYER_BROKER_KEY": str(state / "identity/device.key"),
        "CUTLAYER_ENROLMENT_CLAIM": str(state / "identity/claim.json"),
        "CUTLAYER_UPDATE_INCOMING": str(state / "incoming"),
        "CUTLAYER_SERVICE_HEALTHY": str(state / "healthy"),
        "EMULATED_PYTHON": str(script),
        "PYTHONPATH": f"{site}:{current}/agent",
        "CUTLAYER_BUNDLE_PATH": f"{current}/device.bundle",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONSAFEPATH": "1",
        "ORT_DISABLE_TELEMETRY": "1",
    }
    return EmulatedPython(script, environ)
