"""The promise that nothing is reported to anybody: onnxruntime's Linux wheels would, unless they are told in time.

Every program here runs with an empty HOME and an environment in which nothing forbids reporting. The wheel's way to
report begins with files under HOME, so HOME must stay empty; and no socket may be opened to anywhere but this machine.
"""

import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from export.bundle import BuildSpec, build
from hub.demo import as_toml

ROOT = Path(__file__).parents[1]
STRACE = shutil.which("strace")
if STRACE and subprocess.run([STRACE, "-qq", "-o", os.devnull, "true"], check=False, capture_output=True).returncode:
    STRACE = None  # a container may forbid it; what lies under HOME is looked at in any case
ADDRESS = re.compile(r'sin_addr=inet_addr\("([\d.]+)"\)|inet_pton\(AF_INET6, "([^"]+)"')


@pytest.fixture
def alone(tmp_path):
    """Runs a program of this Python with an empty HOME; gives the process and the addresses it connected to."""
    home, trace = tmp_path / "home", tmp_path / "trace"
    home.mkdir()

    def run(*arguments):
        watched = [STRACE, "-f", "-qq", "-e", "trace=connect,sendto,sendmsg", "-o", trace] if STRACE else []
        done = subprocess.run(
            [*map(str, watched), sys.executable, *map(str, arguments)],
            env={"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
            cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        called = ADDRESS.findall(trace.read_text("utf-8", "replace")) if STRACE else []
        return done, {old or new for old, new in called}

    run.home = home
    return run


def kept_to_itself(alone, addresses):
    assert sorted(str(path.relative_to(alone.home)) for path in alone.home.rglob("*")) == []
    assert addresses <= {"127.0.0.1", "::1"}


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """A device's configuration, with a bundle and made-up data."""
    logging.getLogger("torch").setLevel(logging.WARNING)  # pytest would keep thousands of its debug lines
    folder = tmp_path_factory.mktemp("board")
    spec = BuildSpec("export.models:Digits", "pool1", arguments={"classes": 10})
    build(spec, folder, checked=False)
    sections = {
        "device": {"name": "board"},
        "broker": {"url": "mqtt://127.0.0.1:9", "connect_seconds": 1.0},
        "bundle": {"path": "device.bundle"},
        "data": {"source": "synthetic:64"},
    }
    (folder / "device.toml").write_text(as_toml(sections), "utf-8")
    return folder / "device.toml"


def test_without_our_word_the_wheel_would_report(alone):
    done, _ = alone("-c", "import onnxruntime")
    assert done.returncode == 0, done.stderr
    if not list(alone.home.rglob("*")):
        pytest.skip("this release of onnxruntime leaves no trace under HOME: the tests below could not fail")


@pytest.mark.parametrize(
    "module", ["edge.segment", "edge.device", "edge.agent", "export.runtime", "export.check", "hub.server"]
)
def test_importing_any_entry_reports_nothing(alone, module):
    done, addresses = alone("-c", f"import {module}")
    assert done.returncode == 0, done.stderr
    kept_to_itself(alone, addresses)


def test_check_runs_every_graph_and_reports_nothing(alone, board):
    done, addresses = alone("-m", "edge", "check", "--config", board)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "local:" in done.stdout
    kept_to_itself(alone, addresses)


def test_run_reports_nothing(alone, board):
    done, addresses = alone("-m", "edge", "run", "--config", board)
    assert done.returncode == 2, done.stderr
    assert "no broker answers at mqtt://127.0.0.1:9" in done.stderr
    kept_to_itself(alone, addresses)
    assert addresses == ({"127.0.0.1"} if STRACE else set()), "the broker's was the only address"


def test_the_exporter_reports_nothing(alone, tmp_path):
    done, addresses = alone("-m", "export", "build", "--model", "export.models:Digits", "--out", tmp_path / "bundle")
    assert done.returncode == 0, done.stderr
    kept_to_itself(alone, addresses)


def test_the_hub_reports_nothing(alone, board):
    """And neither do the devices that a demo starts."""
    done, addresses = alone(
        "-m", "hub", "demo", "--devices", "2", "--rounds", "1", "--dataset", "digits", "--no-references",
        "--bundle", board.parent, "--out", "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # Matplotlib keeps a list of fonts; whatever else there were would be onnxruntime's.
    fonts = {".cache", ".cache/matplotlib", ".config", ".config/matplotlib"}
    found = {str(path.relative_to(alone.home)) for path in alone.home.rglob("*")}
    assert {name for name in found - fonts if not name.startswith(".cache/matplotlib/fontlist")} == set()
    assert addresses <= {"127.0.0.1", "::1"}
