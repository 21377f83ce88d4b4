"""A board behind a real ssh server; programs of the test say which machine it is, and a folder is its disk."""

import hashlib
import json
import os
import platform
import stat
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edge.mqtt_link import MqttLink
from edge.wire import topics
from export.__main__ import main
from export.flash import board
from export.flash.parcel import read_parcel
from hub.broker import BrokerError, start_broker
from tests import sshd
from tests.edge.release import board as installed
from tests.export.flash import parcels

pytestmark = pytest.mark.system

HERE = {"architecture": platform.machine(), "python": f"{sys.version_info.major}.{sys.version_info.minor}"}

# Stands in for the installer: takes note of what it was given, and makes the link.
INSTALLER = """
import hashlib, json, os, pathlib, stat, sys
arguments = sys.argv[1:]
root = pathlib.Path(arguments[arguments.index("--root") + 1])
files = {path.name: [hashlib.sha256(path.read_bytes()).hexdigest(), stat.S_IMODE(path.stat().st_mode)] for path in pathlib.Path().iterdir()}
(root / "ran.json").write_text(json.dumps([arguments, files, os.getcwd(), stat.S_IMODE(os.stat(".").st_mode)]))
print("the installer's own words")
if (root / "refuse").exists():
    sys.exit(2)
(root / "opt/cutlayer").mkdir(parents=True, exist_ok=True)
link = root / "opt/cutlayer/current"
link.unlink(missing_ok=True)
link.symlink_to("releases/" + (root / "id").read_text())
"""


class Board:
    """The board of a test: its disk, its programs, and how to get there."""

    def __init__(self, tmp_path):
        self.root, self.programs = tmp_path / "root of it", tmp_path / "programs"
        self.root.mkdir()
        self.programs.mkdir()
        self.keys = tmp_path / "ssh"
        self.keys.mkdir()
        self.temporary = tmp_path / "temporary"
        self.temporary.mkdir()
        release, claim, self.id = parcels.write_parcel(tmp_path, installer=parcels.program(INSTALLER), **HERE)
        (self.root / "id").write_text(self.id)
        self.release, self.claim = release, claim
        self.files = ["--release", str(release), "--claim", str(claim), "--config", str(tmp_path / "device.toml")]
        self.environment = {"PATH": f"{self.programs}:/usr/bin:/bin", "TMPDIR": str(self.temporary)}

    def answer(self, name, lines):
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{lines}\n")
        path.chmod(0o755)

    def flash(self, config, *more):
        given = [*self.files, f"--ssh-option=-F{config}", "--python", sys.executable, "--root", str(self.root)]
        return main(["flash", "ssh", "board", *given, *more])

    def visit(self, config):
        return board.Visit("board", (f"-F{config}",), sys.executable, str(self.root))

    @property
    def leftovers(self):
        return list(self.temporary.iterdir())


@pytest.fixture
def here(tmp_path):
    one = Board(tmp_path)
    yield one
    assert not one.leftovers  # whatever happens, nothing is left on the board


@pytest.fixture
def server(here):
    with sshd.server(here.keys, here.environment) as config:
        yield config


def ran(here):
    path = here.root / "ran.json"
    return json.loads(path.read_text()) if path.exists() else None


def test_a_release_is_installed_and_a_second_time_there_is_nothing_to_do(here, server, tmp_path, capfd):
    assert here.flash(server) == 0
    said = capfd.readouterr()
    assert f"board: release {here.id[:16]} (version 7) is installed as greenhouse-7" in said.out
    assert "the installer's own words" in said.err
    assert parcels.TOKEN not in said.out + said.err
    arguments, files, folder, mode = ran(here)
    assert arguments == [
        "install", "board.release", "--keys", "release-keys", "--claim", "claim.json", "--root", str(here.root), "--no-start",
        "--config", "device.toml",
    ]  # fmt: skip
    assert mode == 0o700
    assert folder.startswith(f"{here.temporary}/cutlayer-flash.")
    assert files["board.release"] == [hashlib.sha256(here.release.read_bytes()).hexdigest(), 0o600]
    assert files["claim.json"] == [hashlib.sha256(here.claim.read_bytes()).hexdigest(), 0o600]
    (here.root / "ran.json").unlink()
    assert here.flash(server) == 0
    assert f"board has release {here.id[:16]} already: nothing was sent" in capfd.readouterr().out
    assert ran(here) is None


def test_who_is_not_root_installs_through_sudo(here, server, tmp_path):
    here.answer("id", "echo 1000")
    here.answer("sudo", f'echo "$*" >> "{tmp_path}/sudo.log"; test "$1" = -n && shift && exec "$@"')
    assert here.flash(server) == 0
    first, second = (tmp_path / "sudo.log").read_text().splitlines()
    assert first == "-n true"
    assert second.startswith(f"-n {sys.executable} -I installer.pyz install board.release ")
    assert parcels.TOKEN not in second


@pytest.mark.parametrize(
    ("name", "lines", "sentence"),
    [
        ("sudo", "exit 1", "installing needs root, and sudo wants a password there: log in as root, or allow this user"),
        ("uname", "echo armv7l", f"board is armv7l, and the release is for {platform.machine()} (pi5): build it for this board"),
        ("python", "echo 3.9", "board has Python 3.9, and cutlayer needs 3.11 or later"),
        ("python", 'case "$*" in *maxsize*) echo True ;; *) echo 3.99 ;; esac', "board has Python 3.99, and the release is for"),
        ("python", 'case "$*" in *maxsize*) echo False ;; *) echo ' + HERE["python"] + " ;; esac", "runs a 32-bit system on its 64-bit kernel"),
        ("df", "echo Filesystem; echo /dev/x 100 90 10 90% /", "board has 0 MiB of room in "),
    ],
)  # fmt: skip
def test_a_board_that_cannot_take_it_is_told_so_before_anything_is_sent(here, server, capfd, name, lines, sentence):
    if name == "sudo":
        here.answer("id", "echo 1000")
    here.answer(name, lines)
    more = ["--python", str(here.programs / "python")] if name == "python" else []
    assert here.flash(server, *more) == 2
    assert sentence in capfd.readouterr().err
    assert ran(here) is None


def test_a_board_without_sudo_or_python_or_systemd_is_told_so(here, server, capfd):
    assert here.flash(server, "--python", "/opt/none/python3") == 2
    assert "board has no /opt/none/python3: install python3 there" in capfd.readouterr().err
    if not Path("/run/systemd/system").is_dir():
        assert here.flash(server, "--root", "/") == 2
        assert "does not run systemd" in capfd.readouterr().err
    seen = replace(board.look(here.visit(server)), root=False, sudo="none")
    parcel = read_parcel(here.release, here.claim, None, datetime.now(UTC))
    with pytest.raises(board.FlashError, match="there is no sudo there"):
        board.check(here.visit(server), seen, parcel, datetime.now(UTC))


def test_a_board_that_is_another_device_is_left_alone(here, server, capfd):
    (here.root / "etc/cutlayer").mkdir(parents=True)
    (here.root / "etc/cutlayer/device.toml").write_text('[device]\nname = "greenhouse-3"\n')
    assert here.flash(server) == 2
    assert "board is the device greenhouse-3 already, and the claim is for greenhouse-7" in capfd.readouterr().err
    assert ran(here) is None


def test_a_changed_host_key_stops_it(here, server, capfd):
    key = (here.keys / "user.pub").read_text().split()[:2]
    port = server.read_text().split("Port ")[1].split()[0]
    (here.keys / "known").write_text(f"[127.0.0.1]:{port} {' '.join(key)}\n")
    assert here.flash(server) == 2
    said = capfd.readouterr().err
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in said  # ssh's own words
    assert "cutlayer-export: ssh does not trust board: it has another host key than before" in said
    assert ran(here) is None


@pytest.mark.parametrize("option", ["PubkeyAuthentication=no", "-p1"])
def test_a_host_that_refuses_is_said(here, server, capfd, option):
    assert here.flash(server, f"--ssh-option={option}") == 2
    assert "ssh did not reach board, or was not let in; its own words stand above" in capfd.readouterr().err


def test_an_installer_that_refuses_is_said_and_nothing_is_left(here, server, capfd):
    (here.root / "refuse").touch()
    assert here.flash(server) == 2
    said = capfd.readouterr().err
    assert "the installer's own words" in said
    assert "board refused to install; why stands above" in said


def test_what_arrives_damaged_is_never_run(here, server, capfd, monkeypatch):
    monkeypatch.setattr(board, "digest_of", lambda source: "0" * 64)
    assert here.flash(server) == 2
    said = capfd.readouterr().err
    assert "cutlayer: board.release did not arrive as it was sent" in said
    assert "board has not received everything" in said
    assert ran(here) is None


def test_a_connection_lost_while_sending_leaves_nothing(here, server, capfd, monkeypatch):
    started = []
    real = board.start

    def watched(*arguments, **more):
        started.append(real(*arguments, **more))
        return started[-1]

    def half(source):
        if started[1:]:
            yield b"x" * 100
            until = time.monotonic() + 20
            while not here.leftovers and time.monotonic() < until:
                time.sleep(0.01)
            assert here.leftovers
            started[-1].kill()
            started[-1].wait()
        yield b"y" * (1 << 20)

    monkeypatch.setattr(board, "start", watched)
    monkeypatch.setattr(board, "pieces", half)
    assert here.flash(server) == 2
    assert "the connection to board was lost while sending; nothing is left there" in capfd.readouterr().err
    assert ran(here) is None
    until = time.monotonic() + 20
    while here.leftovers and time.monotonic() < until:  # the board's side notices a little later
        time.sleep(0.01)


def test_the_watch_says_what_the_board_says(here, server):
    visit = here.visit(server)
    seen = board.look(visit)
    (here.root / "opt/cutlayer").mkdir(parents=True)
    (here.root / "var/lib/cutlayer").mkdir(parents=True)
    link = here.root / "opt/cutlayer/current"
    link.symlink_to(f"releases/{here.id}")
    assert not board.watch(visit, seen, here.id, 0).healthy
    (here.root / "var/lib/cutlayer/healthy").write_text(here.id + "\n")
    assert board.watch(visit, seen, here.id, 30) == board.Seen(
        True, board.watch(visit, seen, here.id, 0).state, here.id
    )
    link.unlink()
    link.symlink_to(f"releases/{'a' * 64}")
    gone_back = board.watch(visit, seen, here.id, 30)
    assert (gone_back.healthy, gone_back.current) == (False, "a" * 64)


def test_a_target_that_is_an_option_is_refused(here, capsys):
    assert main(["flash", "ssh", *here.files, "--", "-oProxyCommand=touch pwned"]) == 2
    assert "is no board: ssh takes user@host" in capsys.readouterr().err


def test_the_scripts_pass_any_login_shell_unchanged():
    for script in (board.LOOK, board.INSTALL, board.WATCH, board.RECEIVE):
        assert not set("'\\") & set(script)
        assert script.isascii()


def real(here, tmp_path, **manifest):
    """Gives the board's visitor a release with the real installer in it."""
    folder = tmp_path / f"release {manifest.get('version', 7)}"
    folder.mkdir()
    release, claim, name = parcels.write_parcel(folder, contents=installed.contents(1), **{**HERE, **manifest})
    here.files = ["--release", str(release), "--claim", str(claim), "--config", str(folder / "device.toml")]
    return name


def test_the_real_installer_installs_over_ssh(here, server, tmp_path, capfd):
    name = real(here, tmp_path)
    assert here.flash(server) == 0, capfd.readouterr().err
    assert str((here.root / "opt/cutlayer/current").readlink()) == f"releases/{name}"
    identity = here.root / "var/lib/cutlayer/identity/claim.json"
    assert parcels.TOKEN in identity.read_text()
    assert stat.S_IMODE(identity.stat().st_mode) == 0o600
    assert 'name = "greenhouse-7"' in (here.root / "etc/cutlayer/device.toml").read_text()
    said = capfd.readouterr()
    assert parcels.TOKEN not in said.out + said.err
    assert here.flash(server) == 0
    assert "already: nothing was sent" in capfd.readouterr().out
    before = real(here, tmp_path, version=6)
    assert here.flash(server) == 2
    said = capfd.readouterr().err
    assert "it has version 6, this board has had 7: it does not go back" in said
    assert "board refused to install; why stands above, and everything there is as it was" in said
    assert not (here.root / "opt/cutlayer/releases" / before).exists()


def test_it_waits_for_the_hello_at_the_hub(here, server, tmp_path, capfd):
    try:
        broker = start_broker("mosquitto", tmp_path / "broker")
    except BrokerError as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))
    device = MqttLink(broker.url, "greenhouse-7")
    hello = topics.pack_status(online=True, instance=5)
    try:
        device.open()
        device.publish(topics.status("fleet", "greenhouse-7"), hello, qos=1, retain=True)
        assert here.flash(server, "--broker", broker.url, "--wait", "1") == 1  # that was the process of before
        assert "not seen at the hub: greenhouse-7 has not said hello" in capfd.readouterr().err
        assert (
            here.flash(server, "--broker", broker.url, "--wait", "5") == 0
        )  # nothing was installed: it is the right one
        assert "seen at the hub: greenhouse-7 is online" in capfd.readouterr().out
    finally:
        device.close()
        broker.stop()


def test_an_expired_claim_is_good_enough_for_a_board_that_has_enrolled(here, server, capfd, tmp_path):
    expired = json.dumps(parcels.claim_fields() | {"expires": "2020-01-01T00:00:00Z"}, indent=1) + "\n"
    here.claim.write_text(expired)
    assert here.flash(server) == 2
    assert "expired at 2020-01-01 00:00 UTC: make a new one with `cutlayer-hub enrol" in capfd.readouterr().err
    assert ran(here) is None
    (here.root / "etc/cutlayer").mkdir(parents=True)
    (here.root / "etc/cutlayer/device.toml").write_text('[device]\nname = "greenhouse-7"\n')
    assert here.flash(server) == 0
