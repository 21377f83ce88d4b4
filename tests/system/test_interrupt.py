"""Ctrl-C, and worse, at every stage of a demo: it ends soon, says so in a line, and nobody is left behind."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.processes import Family, wait_for, within
from tests.system.trial import read_records

STAGES = {
    "imports": lambda demo, folder: "libtorch" in Path(f"/proc/{demo.pid}/maps").read_text(),
    "start-up": lambda demo, folder: "building the bundle" in demo.stdout(),
    "local phase": lambda demo, folder: "round    3/" in demo.stdout(),
    "global phase": lambda demo, folder: [r for r in read_records(folder, "round") if r["phase"] == "global"],
}
LONG = ("--devices", "3", "--dataset", "digits", "--windows", "all", "--rounds")


@pytest.fixture
def prebuilt(make_bundle):
    return ("--bundle", make_bundle().device.parent)


def start(children, folder, stage, *options):
    """A demo that would go on for minutes, in this stage."""
    rounds, kappa = ("300", "0.01") if stage == "global phase" else ("3000", "1")
    demo = children.python("-m", "hub", "demo", *LONG, rounds, "--set", f"kappa={kappa}", *options, "--out", folder)
    family = Family(demo.pid)

    def reached():
        family.look()
        assert demo.alive, demo.said()
        return STAGES[stage](demo, folder)

    wait_for(reached, stage, seconds=60)
    family.look()
    return demo, family


@pytest.mark.parametrize(
    ("stage", "number", "to"),
    [
        ("imports", signal.SIGINT, os.kill),
        ("start-up", signal.SIGINT, os.kill),
        ("local phase", signal.SIGTERM, os.kill),
        ("global phase", signal.SIGINT, os.killpg),  # as a terminal does; the children are not of the group
    ],
    ids=lambda value: getattr(value, "name", None) or getattr(value, "__name__", value),
)
def test_an_interrupt_ends_the_demo_and_everything_it_has_started(children, tmp_path, prebuilt, stage, number, to):
    demo, family = start(children, tmp_path / "run", stage, *(prebuilt if "phase" in stage else ()))
    assert family.look() >= (4 if "phase" in stage else 0)
    to(demo.pid, number)

    assert demo.wait(within(5)) == 130, demo.said()
    assert demo.stderr() == "cutlayer-hub demo: stopped\n"
    assert family.left() == []


def test_a_demo_that_is_killed_takes_its_children_with_it(children, tmp_path, prebuilt):
    demo, family = start(children, tmp_path / "run", "local phase", *prebuilt)
    assert family.look() >= 4
    demo.kill()
    wait_for(lambda: not family.left(), "broker and devices have gone", seconds=10)


# What a shell does before it starts a command: the terminal becomes the one whose Ctrl-C the command hears.
ON_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "hub", *sys.argv[1:]])
"""


def test_ctrl_c_on_a_terminal(tmp_path, prebuilt):
    folder = tmp_path / "run"
    keyboard, terminal = pty.openpty()
    demo = subprocess.Popen(
        [sys.executable, "-c", ON_TERMINAL, "demo", *LONG, "3000", "--set", "kappa=1", *prebuilt, "--out", folder],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(terminal)
    os.set_blocking(keyboard, False)
    family, said = Family(demo.pid), []

    def listen():
        family.look()
        said.append(_read(keyboard))
        return b"".join(said).decode("utf-8", "replace")

    try:
        wait_for(lambda: listen() and len(read_records(folder, "round")) > 2, "three rounds are over", seconds=60)
        os.write(keyboard, b"\x03")
        wait_for(lambda: listen() and demo.poll() is not None, "the demo has ended", seconds=within(5))
        text = listen()
    finally:
        demo.kill()
        demo.wait(10)
        os.close(keyboard)
    assert demo.returncode == 130, text
    assert "Traceback" not in text
    assert "\x1b[" in text, "the fleet is drawn in place"
    assert "device-03" in text
    assert text.rstrip().endswith("cutlayer-hub demo: stopped")
    assert family.left() == []


def _read(keyboard):
    try:
        return os.read(keyboard, 1 << 16)
    except OSError:  # nothing is there yet, or nobody is left at the other end
        return b""
