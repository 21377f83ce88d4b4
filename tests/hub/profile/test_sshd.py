"""A board behind a real ssh server on the loopback, with keys and configuration of its own."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge.wire.profile import Profile
from hub.__main__ import main
from tests import sshd
from tests.hub.profile import samples
from tests.tiny import write_bundle

pytestmark = pytest.mark.system

BOARD = """#!{python}
import hashlib, json, os, signal, sys
here = {folder!r}
sent = int(sys.argv[sys.argv.index("--attended") + 1])
given = hashlib.sha256(sys.stdin.buffer.read(sent)).hexdigest()
with open(here + "/ran.json", "w") as file:
    json.dump([sys.argv[1:], given], file)
print("local, batch 32: 31.2 ms", file=sys.stderr, flush=True)
text = open(here + "/sample.json").read()
if "--refuse" in sys.argv:
    sys.exit(2)
if "--die" in sys.argv:
    sys.stdout.write(text[:3000] + " " * 8_000_000)  # more than is under way at a time: some has arrived when this returns
    sys.stdout.flush()
    os.kill(os.getppid(), signal.SIGKILL)
    os._exit(0)
sys.stdout.write(text)
"""

ROOT = Path(__file__).parents[3]


@pytest.fixture
def board(tmp_path):
    """Options of ssh that lead to a server whose `cutlayer` lies below `my board`; ended by its process id."""
    place = tmp_path / "my board"
    place.mkdir()
    (place / "sample.json").write_text(samples.pi5().serialize())
    (place / "cutlayer").write_text(BOARD.format(python=sys.executable, folder=str(place)))
    (place / "cutlayer").chmod(0o755)
    with sshd.server(tmp_path) as config:
        yield [f"--ssh-option=-F{config}", "--command", str(place / "cutlayer")]


def test_a_profile_comes_over_ssh(board, tmp_path, capfd):
    bundle, out = tmp_path / "device.bundle", tmp_path / "out"
    bundle.write_bytes(os.urandom(300_000))
    strange = ["--note", "a  b; touch pwned", "$HOME", "it's", "*"]
    command = [
        "profile",
        "ssh",
        "board",
        *board,
        "--bundle",
        str(bundle),
        "--config",
        "/etc/device.toml",
        "--out",
        str(out),
    ]
    assert main([*command, "--", *strange]) == 0
    said = capfd.readouterr()
    assert f"profile: {out}/profile.json\npage: {out}/page.html\n" in said.out
    assert "local, batch 32: 31.2 ms" in said.err
    arguments, arrived = json.loads((tmp_path / "my board" / "ran.json").read_text())
    assert arguments == [
        "profile",
        "--config",
        "/etc/device.toml",
        "--bundle",
        "-",
        "--attended",
        "300000",
        "--json",
        "-",
        *strange,
    ]
    assert arrived == hashlib.sha256(bundle.read_bytes()).hexdigest()
    assert Profile.parse((out / "profile.json").read_text()) == samples.pi5()
    assert "Profile of Raspberry Pi 5 Model B" in (out / "page.html").read_text()


@pytest.mark.parametrize(
    ("target", "more", "sentence"),
    [
        ("board", ["--", "--die"], "the connection to board was lost in the middle ("),
        ("board", ["--", "--refuse"], "board refused; what is wrong stands above"),
        ("board", ["--command", "/opt/none/cutlayer"], "there is no /opt/none/cutlayer on board: say where it is with --command"),
        ("board", ["--ssh-option", "IdentityFile=/dev/null", "--ssh-option=-p1"], "ssh did not reach board, or lost it"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_said_and_leaves_nothing(board, tmp_path, capfd, target, more, sentence):
    out = tmp_path / "out"
    assert main(["profile", "ssh", target, *board, "--out", str(out), *more]) == 2
    assert f"cutlayer-hub profile: {sentence}" in capfd.readouterr().err
    assert not out.exists()


def real(tmp_path):
    """The command that profiles a bundle with the `cutlayer` of this tree, whose working directory is that of the test."""
    write_bundle(tmp_path / "device.bundle")
    program = tmp_path / "my board" / "real"
    program.write_text(f"#!/bin/sh\ncd '{tmp_path}' && PYTHONPATH='{ROOT}' exec {sys.executable} -m edge \"$@\"\n")
    program.chmod(0o755)
    return ["--command", str(program), "--bundle", str(tmp_path)]


def test_the_real_cutlayer_profile_comes_over_ssh(board, tmp_path, capfd):
    command = ["profile", "ssh", "board", *board, *real(tmp_path)]
    wanted = ["--batch", "4", "--seconds", "0.2", "--stages", "forward,send", "--synthetic"]
    assert main([*command, "--out", str(tmp_path / "out"), "--", *wanted]) == 0, capfd.readouterr().err
    found = Profile.parse((tmp_path / "out" / "profile.json").read_text())
    assert [(row.stage, row.batch) for row in found.stages] == [("forward", 4)]
    assert "missing: no configuration names a broker" in (tmp_path / "out" / "page.html").read_text()


def running(folder, program=b""):
    """Process ids of what runs on the board, or only of one program of it."""
    found = []
    for place in filter(lambda path: path.name.isdecimal(), Path("/proc").iterdir()):
        try:
            here, words = (place / "cwd").readlink(), (place / "cmdline").read_bytes()
        except OSError:
            continue  # gone meanwhile
        if here == folder and program in words:
            found.append(int(place.name))
    return found


def until(seen, seconds=60):
    """What is seen, or the last that was."""
    end = time.monotonic() + seconds
    while not (found := seen()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def child_of(pid):
    tasks = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(tasks[0])


@pytest.mark.parametrize(
    ("stopped", "number"),
    [("hub", signal.SIGINT), ("hub", signal.SIGTERM), ("hub", signal.SIGKILL), ("ssh", signal.SIGKILL)],
)
def test_whoever_is_stopped_nothing_runs_on_on_the_board(board, tmp_path, stopped, number):
    command = [
        sys.executable,
        "-m",
        "hub",
        "profile",
        "ssh",
        "board",
        *board,
        *real(tmp_path),
        "--out",
        tmp_path / "out",
    ]
    wanted = ["--", "--batch", "4", "--seconds", "600", "--precision", "0.001", "--synthetic"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([*command, *wanted], cwd=ROOT, env=environ) as hub:
        try:
            assert until(lambda: running(tmp_path, b"edge.profile.child") or hub.poll()), "it does not measure"
            assert hub.poll() is None, "it ended before it was stopped"
            os.kill(hub.pid if stopped == "hub" else child_of(hub.pid), number)
            assert until(lambda: not running(tmp_path), 20), "it measures on"
        finally:
            hub.kill()
    assert not list(tmp_path.glob("out/*"))
