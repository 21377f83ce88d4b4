"""A board in a folder: tiny wheels, releases for this machine, and what its disk must look like."""

import base64
import hashlib
import io
import os
import platform
import shutil
import sys
import tempfile
import zipfile
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from edge.release import disk, guard, install, status
from edge.release.environment import packages
from edge.release.layout import Layout, linked
from export.flash.agent import installer_pyz
from tests.edge.release import make

REPOSITORY = Path(__file__).parents[3]
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
NOW = datetime(2026, 12, 1, tzinfo=UTC)
KEYS = make.KEY.hex().encode() + b"\n"
CONFIG = b'[device]\nname = "greenhouse-7"\n[broker]\nurl = "mqtt://127.0.0.1"\n[data]\nsource = "synthetic"\n'


@contextmanager
def memory():
    """A folder in memory where there is one: fsync on a busy disk would take most of the time."""
    where = Path("/dev/shm")  # noqa: S108 - where folders in memory are
    with tempfile.TemporaryDirectory(dir=where if os.access(where, os.W_OK) else None) as folder:
        yield Path(folder)


def archive(files, executable=()):
    """A zip of these names and bytes, always the same."""
    to = io.BytesIO()
    with zipfile.ZipFile(to, "w") as file:
        for name, data in files.items():
            member = zipfile.ZipInfo(name)
            member.external_attr = (0o755 if name in executable else 0o600) << 16
            file.writestr(member, data)
    return to.getvalue()


def wheel(name, version, files, **how):
    """A wheel with a right RECORD."""
    info = f"{name}-{version}.dist-info"
    files = {**files, f"{info}/METADATA": f"Name: {name}\nVersion: {version}\n".encode()}
    record = "".join(f"{path},{digest(data)},{len(data)}\n" for path, data in files.items()) + f"{info}/RECORD,,\n"
    return archive({**files, f"{info}/RECORD": record.encode()}, **how)


def digest(data):
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def installer():
    """The installer as a release has it, of the sources that are tested."""
    return installer_pyz(REPOSITORY / "edge")


def contents(version, *, wheels=None, agent=b""):
    """The files of a release. Its agent prints which it is and what it imports."""
    source = f"import small\nprint({version}, small.VALUE)\n".encode() + agent
    given = {
        "small-1.0-py3-none-any.whl": wheel("small", "1.0", {"small/__init__.py": b"VALUE = 1\n"}),
        "other-2.0-py3-none-any.whl": wheel(
            "other",
            "2.0",
            {"other/__init__.py": b"", "other/_fast.so": b"\x7fELF" + b"o" * 50},
            executable=["other/_fast.so"],
        ),
    }
    units = {
        "cutlayer.service": f"[Service]\nType=notify\n# {version}\n[Install]\nWantedBy=multi-user.target\n".encode()
    }
    return {
        "device.bundle": f"graphs {version}".encode() * 10,
        "agent.zip": archive(
            {"edge/__init__.py": b"", "edge/__main__.py": source, f"cutlayer-{version}.dist-info/METADATA": b"x"}
        ),
        "installer.pyz": installer() if version == 1 else zip_comment(installer(), version),
        **{f"wheels/{name}": data for name, data in (given if wheels is None else wheels).items()},
        **{f"units/{name}": data for name, data in units.items()},
    }


def zip_comment(data, version):
    """The same installer with other bytes."""
    return data.replace(b"#!/usr/bin/env python3\n", f"#!/usr/bin/env python3\n# {version}\n".encode(), 1)


def write(path, version, *, files=None, **changes):
    """Writes a release for this machine and returns its manifest."""
    changes = {"architecture": platform.machine(), "python": PYTHON, "version": version, **changes}
    return make.write(path, contents(version) if files is None else files, **changes)


def world(lines=None, *, now=lambda: NOW, sleep=None, room=disk.room):
    def nobody_sleeps(seconds):
        raise AssertionError(f"slept {seconds} s")

    return install.World(now, sleep or nobody_sleeps, ([] if lines is None else lines).append, room)


class Board:
    """A root folder with what the tests ask of it."""

    def __init__(self, root):
        self.layout = Layout(Path(root))
        self.lines = []

    def install(self, path, *, keys=(make.KEY,), config=None, claim=None, **how):
        config_file = self.layout.root.with_name(f"{self.layout.root.name}.toml")
        config_file.write_bytes(CONFIG if config is None else config)
        wanted = install.Wanted(claim, config_file, wait_seconds=how.pop("wait_seconds", 0))
        return install.install(self.layout, Path(path), keys, KEYS, world(self.lines, **how), wanted)

    def start(self, boot=None):
        """What systemd does before each start; returns the id of the release that is started, None for none."""
        return linked(self.layout.current) if guard.guard(self.layout, self.lines.append, boot=boot) else None

    def healthy(self, name=None):
        """What a healthy agent does."""
        (self.layout.state / "healthy").write_text(f"{name or self.current}\n")

    @property
    def current(self):
        return linked(self.layout.current)

    @property
    def previous(self):
        return linked(self.layout.previous)

    def assert_whole(self, name):
        """Every hash of a release that is to be started, and the agent's own start."""
        status.verify(self.layout, name)
        assert guard.whole(self.layout, name)

    def rubbish(self):
        """What is on the disk and belongs to no release that may be needed."""
        kept = {self.current, self.previous} - {None}
        environments = {guard.manifest(self.layout, name).environment for name in kept}
        found = [at for at in self.layout.root.rglob("*") if at.name.startswith(".") or at.name.endswith(".part")]
        found += [at for at in self.layout.releases.iterdir() if at.name not in kept]
        found += [at for at in self.layout.environments.iterdir() if at.name not in environments]
        wanted = {"releases", "environments", "current", "previous", "trial.json", "version", "installer.pyz", "lock"}
        return found + [at for at in self.layout.home.iterdir() if at.name not in wanted]

    def packages(self):
        return packages(self.layout.current / "environment", PYTHON)


def copy_tree(source, target):
    """Copies a board; hard links and links stay what they are as far as the tests care."""
    if os.path.lexists(target):
        shutil.rmtree(target)
    if Path(source).is_dir():
        shutil.copytree(source, target, symlinks=True)
