"""The units that a release brings: read by systemd, and what they start is the agent of one release."""

import os
import re
import shutil
import subprocess

import pytest

from tests.edge.release import board
from tests.edge.release.board import REPOSITORY, Board

UNITS = REPOSITORY / "edge" / "release" / "units"


def setting(unit, name):
    text = (UNITS / unit).read_text().replace("\\\n", " ")
    return re.findall(rf"(?m)^{name}=(.*)$", text)


def environment():
    pairs = " ".join(setting("cutlayer.service", "Environment")).split()
    return dict(pair.split("=", 1) for pair in pairs)


def test_systemd_reads_them(tmp_path):
    if shutil.which("systemd-analyze") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("systemd is not installed")
    names = sorted(at.name for at in UNITS.iterdir())
    assert names == ["cutlayer-install.path", "cutlayer-install.service", "cutlayer.service"]
    done = subprocess.run(
        ["systemd-analyze", "verify", *(str(UNITS / name) for name in names)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert [line for line in done.stderr.splitlines() if "cutlayer" in line and "installer.pyz" not in line] == []


def test_the_agent_is_started_from_one_release_and_says_where_nothing_goes(tmp_path):
    here = Board(tmp_path / "root")
    source = b"import os, sys\nprint(*sys.argv[1:], os.environ['CUTLAYER_BUNDLE_PATH'], os.environ['CUTLAYER_UPDATE_CURRENT'])\n"
    manifest = board.write(tmp_path / "a.release", 1, files=board.contents(1, agent=source))
    here.install(tmp_path / "a.release")
    (command,) = setting("cutlayer.service", "ExecStart")
    shell = (
        re.fullmatch(r"/bin/sh -c '(.*)'", command)[1]
        .replace("$$", "$")
        .replace("/opt/cutlayer", str(here.layout.home))
    )
    given = {**environment(), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        ["/bin/sh", "-c", shell], env=given, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    folder = here.layout.release(manifest.id).resolve()
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "1 1",
        f"run --config /etc/cutlayer/device.toml {folder}/device.bundle {folder}",
    ]
    assert given["ORT_DISABLE_TELEMETRY"] == "1"


def test_the_guard_runs_as_root_before_every_start_and_never_stands_in_its_way():
    assert setting("cutlayer.service", "ExecStartPre") == ["-+/usr/bin/python3 -I /opt/cutlayer/installer.pyz guard"]
    assert setting("cutlayer.service", "User") == ["cutlayer"]
    # Were systemd to give up after a few starts, nobody would ask the guard for the way back.
    assert setting("cutlayer.service", "StartLimitIntervalSec") == ["0"]
    assert setting("cutlayer.service", "Restart") == ["always"]
    assert setting("cutlayer-install.path", "PathExists") == ["/var/lib/cutlayer/incoming/ready"]
