"""The base install, as it comes to a board: no torch, and all commands of the device work."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hub.demo import as_toml

ROOT = Path(__file__).parents[2]
PACKED = ("edge", "hub", "export", "README.md", "LICENSE", "pyproject.toml")
UNREACHABLE = (
    "Could not find a version",
    "No matching distribution",
    "ConnectionError",
    "Failed to establish",
    "Max retries",
)


def copy_of_the_project(folder):
    folder.mkdir()
    for name in PACKED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture
def board(tmp_path):
    """The folder of commands of a venv that has the base install and nothing else."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=60)
    constraints = ROOT / "constraints.txt"
    installed = subprocess.run(
        [sys.executable, "-m", "pip", "--python", venv / "bin" / "python", "install", "--quiet", "-c", constraints,
         copy_of_the_project(tmp_path / "project")],
        env={**os.environ, "PIP_CONSTRAINT": str(constraints), "PYTHONPATH": ""},
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    if installed.returncode and any(words in installed.stderr for words in UNREACHABLE) and not os.environ.get("CI"):
        pytest.skip("pip cannot reach a package index")
    assert installed.returncode == 0, installed.stderr
    return venv / "bin"


def test_the_base_install_trains_without_torch(trial, board, tmp_path):
    clean = {"PYTHONPATH": "", "VIRTUAL_ENV": ""}

    def command(name, *arguments):
        return trial.children.start(board / name, *arguments, environ=clean, cwd=tmp_path)

    def answer(name, *arguments):
        child = command(name, *arguments)
        assert child.wait(30) == 0, child.said()
        return child.stdout()

    absent = "import importlib.util as u; print([n for n in ('torch', 'onnx', 'sklearn', 'rich') if u.find_spec(n)])"
    assert answer("python", "-c", absent) == "[]\n"
    where = answer("python", "-c", "import edge; print(edge.__file__)").strip()
    assert Path(where).is_relative_to(board.parent), "the installed package, not the checkout"

    names = trial.names[:2]
    trial.write_hub(fleet={"devices": 2}, run={"rounds": 2})
    for name in names:
        trial.write_device(name)
    assert "[broker]" in answer("cutlayer", "example")
    first = trial.root / names[0] / "device.toml"
    checked = answer("cutlayer", "check", "--config", first)
    assert {line.split()[0] for line in checked.splitlines()} == {"ok"}, checked
    assert "192 samples to train on, 64 to test" in checked

    trial.start_hub()
    devices = [command("cutlayer", "run", "--config", trial.root / name / "device.toml") for name in names]
    trial.finish()
    assert trial.rounds() == [1, 2]
    assert trial.records("run")[0]["devices"] == names
    for device in devices:
        assert device.wait(20) == 0, device.said()
    status = dict(line.split(maxsplit=1) for line in answer("cutlayer", "status", "--config", first).splitlines())
    assert status["device"] == f"{names[0]}, not running"
    assert status["bundle"] == trial.material.bundle
    assert status["unsent"] == "0 messages, 0 bytes"

    for name, extra, *arguments in (
        ("cutlayer-hub", "hub", "demo"),
        ("cutlayer-export", "export", "cuts", "--model", "export.models:wearable"),
    ):
        other = command(name, *arguments)
        assert other.wait(20) == 2, other.said()
        assert f"pip install 'cutlayer[{extra}]'" in other.stderr()
        assert "Traceback" not in other.stderr()


def test_an_example_is_a_configuration_once_its_files_are_there(trial):
    example = trial.children.python("-m", "edge", "example")
    assert example.wait(10) == 0
    text = example.stdout()
    for name in ("path", "source", "url"):
        assert f"\n{name} = " in text, text
    values = {"bundle": {"path": trial.material.device_bundle}, "data": {"source": trial.material.data["device-01"]}}
    for line in as_toml(values).splitlines():
        key, _, value = line.partition(" = ")
        if value:
            text = "\n".join(f"{key} = {value}" if old.startswith(f"{key} = ") else old for old in text.splitlines())
    (trial.root / "device.toml").write_text(text)
    check = trial.children.python("-m", "edge", "check", "--config", trial.root / "device.toml")
    assert check.wait(20) == 0, check.said()
