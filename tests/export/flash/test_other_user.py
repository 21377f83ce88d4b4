"""`flash ssh` as somebody who is not root, with a home of their own: made and removed again, where nobody else works."""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from export.__main__ import main
from tests import sshd
from tests.edge.release import board as installed
from tests.export.flash import parcels

pytestmark = pytest.mark.system

USER = f"cutlayer-t{os.getpid()}"
PYTHON = "/usr/bin/python3"


@pytest.fixture
def place():
    """A folder that everybody may enter, and in it a user's home."""
    if os.geteuid() != 0 or not os.environ.get("CI"):
        pytest.skip("makes a user on this machine: only as root, and only where CI is set")
    useradd, userdel = parcels.need("useradd", "userdel")
    if not Path(PYTHON).exists():
        pytest.fail(f"there is no {PYTHON}")
    folder = Path(tempfile.mkdtemp(prefix="cutlayer-"))
    folder.chmod(0o755)
    subprocess.run(
        [useradd, "--home-dir", folder / "home", "--create-home", "--shell", "/bin/sh", "--password", "*", USER],
        check=True,
        timeout=60,
    )
    try:
        yield folder
    finally:
        _until_gone(USER)
        subprocess.run([userdel, USER], check=True, timeout=60)
        shutil.rmtree(folder)


def _until_gone(user):
    """The server ends a session a moment after its client; userdel refuses a user who has processes."""
    for _ in range(600):
        if not any(process.info["username"] == user for process in psutil.process_iter(["username"])):
            return
        time.sleep(0.05)


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def test_a_user_without_rights_installs_with_what_sudo_allows(place, tmp_path, capfd):
    root, programs, keys = place / "root", place / "programs", place / "ssh"
    for folder in (root, programs, keys):
        folder.mkdir()
        folder.chmod(0o755)
    shutil.chown(root, USER)
    python = run(PYTHON, "-c", "import sys; print(*sys.version_info[:2], sep='.')")
    release, claim, name = parcels.write_parcel(
        tmp_path, contents=installed.contents(1), architecture=os.uname().machine, python=python
    )
    sudo = programs / "sudo"
    sudo.write_text('#!/bin/sh\ntest "$1" = -n && shift && exec "$@"\n')
    sudo.chmod(0o755)
    given = [
        "--release",
        str(release),
        "--claim",
        str(claim),
        "--config",
        str(tmp_path / "device.toml"),
        "--root",
        str(root),
    ]
    with sshd.server(keys, {"PATH": f"{programs}:/usr/bin:/bin"}, user=USER) as config:
        command = ["flash", "ssh", "board", *given, f"--ssh-option=-F{config}"]
        assert main(command) == 0, capfd.readouterr().err
        assert str((root / "opt/cutlayer/current").readlink()) == f"releases/{name}"
        assert (root / "opt/cutlayer").owner() == USER
        assert main(command) == 0
        assert "already: nothing was sent" in capfd.readouterr().out
        shutil.rmtree(root / "opt")
        sudo.write_text("#!/bin/sh\nexit 1\n")
        assert main(command) == 2
        assert "sudo wants a password there" in capfd.readouterr().err
