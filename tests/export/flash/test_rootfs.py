"""An arm64 tree that cannot be run here: what is written, and that nothing outside of it is."""

import json
import os
import shutil
import stat
import struct
import subprocess
from pathlib import Path

import pytest

from export.__main__ import main
from tests.edge.release import board
from tests.export.flash import parcels

ARM = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, 183) + b"no program of this machine"


@pytest.fixture
def parcel(tmp_path):
    release, claim, name = parcels.write_parcel(tmp_path, contents=board.contents(1))
    return ["--release", str(release), "--claim", str(claim), "--config", str(tmp_path / "device.toml")], name


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    for folder in ("etc/systemd/system/multi-user.target.wants", "usr/bin", "usr/lib/systemd", "opt", "var/lib"):
        (root / folder).mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    (root / "usr/bin/python3.13").write_bytes(ARM)
    (root / "usr/bin/python3").symlink_to("python3.13")
    (root / "usr/lib/systemd/systemd").write_bytes(ARM)
    (root / "etc/systemd/system/multi-user.target.wants/ssh.service").symlink_to("/lib/systemd/system/ssh.service")
    return root


def flash(parcel, tree):
    return main(["flash", "rootfs", str(tree), *parcel[0]])


def everything(root):
    """Every name below a folder with what it is: kind, mode, content."""
    found = {}
    for path in sorted(root.rglob("*")):
        mode = path.lstat().st_mode
        data = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(root))] = (stat.S_IFMT(mode), stat.S_IMODE(mode), data)
    return found


def test_a_tree_of_another_machine_has_what_a_board_of_its_own_would_have(parcel, tree, capsys):
    assert flash(parcel, tree) == 0
    name = parcel[1]
    home = tree / "opt/cutlayer"
    assert str((home / "current").readlink()) == f"releases/{name}"
    release = home / "current"
    assert (release / "device.bundle").read_bytes() == board.contents(1)["device.bundle"]
    assert (release / "agent/edge/__main__.py").exists()
    environment = release / "environment"
    assert str((environment / "bin/python").readlink()) == "/usr/bin/python3.13"
    assert (environment / "lib/python3.13/site-packages/small/__init__.py").read_text() == "VALUE = 1\n"
    assert not environment.readlink().is_absolute()
    wants = tree / "etc/systemd/system/multi-user.target.wants"
    assert str((wants / "cutlayer.service").readlink()) == "../cutlayer.service"
    assert "Type=notify" in (wants / "cutlayer.service").read_text()
    assert str((wants / "ssh.service").readlink()) == "/lib/systemd/system/ssh.service"
    assert (tree / "usr/lib/sysusers.d/cutlayer.conf").read_text().startswith("u cutlayer - ")
    assert (tree / "usr/lib/tmpfiles.d/cutlayer.conf").read_text() == "Z /var/lib/cutlayer - cutlayer cutlayer -\n"
    claim = tree / "var/lib/cutlayer/identity/claim.json"
    assert json.loads(claim.read_text())["token"] == parcels.TOKEN
    assert stat.S_IMODE(claim.stat().st_mode) == 0o600
    assert stat.S_IMODE(claim.parent.stat().st_mode) == 0o700
    config = (tree / "etc/cutlayer/device.toml").read_text()
    assert 'name = "greenhouse-7"' in config
    assert str(tree) not in config
    assert sorted(path.name for path in tree.iterdir()) == ["etc", "lib", "opt", "usr", "var"]
    said = capsys.readouterr()
    assert "starts at the first boot as greenhouse-7" in said.out
    assert parcels.TOKEN not in said.out + said.err


def test_a_second_time_nothing_is_written_and_another_release_is_refused(parcel, tree, tmp_path, capsys):
    assert flash(parcel, tree) == 0
    before = everything(tree)
    assert flash(parcel, tree) == 0
    assert "already: nothing was written" in capsys.readouterr().out
    assert everything(tree) == before
    parcels.write_parcel(tmp_path, contents=board.contents(2), version=8)
    assert flash((parcel[0], ""), tree) == 2
    assert "has another cutlayer in it: opt/cutlayer, etc/cutlayer, var/lib/cutlayer" in capsys.readouterr().err
    assert everything(tree) == before


@pytest.mark.parametrize(
    "place",
    [
        "opt",
        "opt/cutlayer",
        "etc",
        "etc/cutlayer",
        "var",
        "var/lib",
        "etc/systemd/system",
        "usr/lib/sysusers.d",
        "etc/systemd/system/cutlayer.service",
    ],
)
def test_a_link_that_leads_out_of_the_tree_is_not_followed(parcel, tree, tmp_path, capsys, place):
    outside = tmp_path / "outside"
    outside.mkdir()
    if (tree / place).is_dir():
        shutil.copytree(tree / place, outside, symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(tree / place)
    (tree / place).parent.mkdir(parents=True, exist_ok=True)
    (tree / place).symlink_to(outside)
    before = everything(tree), everything(outside)
    assert flash(parcel, tree) == 2
    said = capsys.readouterr().err
    assert (
        "a link or a file where a folder is needed" in said
        or "has another cutlayer in it" in said
        or "there is no etc" in said
    )
    assert (everything(tree), everything(outside)) == before


@pytest.mark.parametrize("stop", range(1, 8))
def test_whatever_fails_leaves_the_tree_as_it_was(parcel, tree, capsys, monkeypatch, stop):
    before, calls, real = everything(tree), [], os.rename

    def breaking(*arguments, **more):
        if "src_dir_fd" in more and arguments[0] == arguments[1]:
            calls.append(arguments)
            if len(calls) == stop:
                raise OSError(28, "No space left on device")
        return real(*arguments, **more)

    monkeypatch.setattr(os, "rename", breaking)
    assert flash(parcel, tree) == 2
    assert len(calls) == stop
    assert "cannot be written, it is as it was" in capsys.readouterr().err
    monkeypatch.undo()
    after = everything(tree)
    assert {name: row for name, row in after.items() if name in before} == before
    assert not [name for name in after if "cutlayer" in name]


def test_what_a_killed_run_has_left_is_swept(parcel, tree):
    (tree / ".cutlayer-flash-0123").mkdir()
    (tree / ".cutlayer-flash-0123" / "claim").write_text("secret")
    assert flash(parcel, tree) == 0
    assert not [path for path in tree.iterdir() if path.name.startswith(".")]


def test_what_is_no_tree_for_this_release_is_said(parcel, tree, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    assert flash(parcel, tmp_path / "photos") == 2
    assert "there is no etc and no usr/bin/python3 and no usr/lib/systemd/systemd" in capsys.readouterr().err
    assert flash(parcel, Path("/")) == 2
    assert "this is the system that runs" in capsys.readouterr().err
    (tree / "usr/bin/python3").unlink()
    (tree / "usr/bin/python3").symlink_to("python3.11")
    (tree / "usr/bin/python3.11").write_bytes(ARM)
    before = everything(tree)
    assert flash(parcel, tree) == 2
    assert "it is for Python 3.13, this board has 3.11" in capsys.readouterr().err
    assert everything(tree) == before
    (tree / "usr/bin/python3.11").write_bytes(ARM.replace(struct.pack("<HH", 2, 183), struct.pack("<HH", 2, 62)))
    assert flash(parcel, tree) == 2
    assert "it is for the architecture aarch64, this is x86_64" in capsys.readouterr().err
    (tree / "usr/bin/python3").unlink()
    (tree / "usr/bin/python3").symlink_to("/etc/passwd")
    assert flash(parcel, tree) == 2
    assert "leads to /etc/passwd, not to a program beside it" in capsys.readouterr().err


def test_a_missing_configuration_is_said_here_and_not_at_the_first_boot(parcel, tree, capsys):
    assert main(["flash", "rootfs", str(tree), *parcel[0][:4]]) == 2
    assert "the configuration has no source in [data]" in capsys.readouterr().err


def test_systemd_reads_the_user_and_the_folder_as_meant(parcel, tree):
    """The programs that a board runs at its first boot, on the tree."""
    if os.geteuid() != 0:
        pytest.skip("giving files away needs root")
    sysusers, tmpfiles = parcels.need("systemd-sysusers", "systemd-tmpfiles")
    assert flash(parcel, tree) == 0
    subprocess.run([sysusers, f"--root={tree}"], check=True, capture_output=True, timeout=60)
    subprocess.run(
        [tmpfiles, f"--root={tree}", "--create", "--prefix=/var/lib/cutlayer"],
        check=True,
        capture_output=True,
        timeout=60,
    )
    row = next(line for line in (tree / "etc/passwd").read_text().splitlines() if line.startswith("cutlayer:"))
    assert row.split(":")[5:] == ["/var/lib/cutlayer", "/usr/sbin/nologin"]
    uid = int(row.split(":")[2])
    for path in ("", "state", "identity", "incoming", "identity/claim.json"):
        assert (tree / "var/lib/cutlayer" / path).stat().st_uid == uid, path
    assert (tree / "opt/cutlayer").stat().st_uid == 0
