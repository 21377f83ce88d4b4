"""An arm64 Debian and what it needs; without it these tests are skipped at home and fail in CI."""

import os
import shutil
from pathlib import Path

import pytest

from tests.boards import root
from tests.system.conftest import children, digits, make_bundle

__all__ = ["children", "digits", "make_bundle"]

HERE = Path(__file__).parent
PROGRAMS = {
    "mmdebstrap": "mmdebstrap",
    "qemu-aarch64-static": "qemu-user-static",
    "qemu-system-aarch64": "qemu-system-arm",
    "mke2fs": "e2fsprogs",
    "mosquitto": "mosquitto",
}
"""What is run, and the package that has it."""


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.system)


def missing(reason):
    """CI installs all of it: there its absence is a fault, on a developer's machine it is not."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


@pytest.fixture(scope="session")
def parts():
    """Tree, kernel and initramfs."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    if lacking := sorted(
        {package for program, package in PROGRAMS.items() if shutil.which(program, path=path) is None}
    ):
        missing(f"not installed: {', '.join(lacking)}")
    if os.geteuid() != 0:
        missing("only root can unpack a tree whose files belong to others")
    try:
        return root.parts()
    except root.PackagesError as error:
        missing(str(error))
