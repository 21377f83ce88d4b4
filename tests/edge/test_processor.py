"""Wheels that kill the process that imports them, found in a child."""

import sys

import pytest

from edge import __main__ as command
from edge import processor
from edge.files import Files
from edge.processor import ProcessorError, probe, probe_once

DIES = (sys.executable, "-c", "import os; os.kill(os.getpid(), 4)")
KILLED = (sys.executable, "-c", "import os; os.kill(os.getpid(), 9)")
LACKS = (sys.executable, "-c", "raise ImportError('libgomp.so.1 is missing')")
PASSES = (sys.executable, "-c", "")
CPUINFO = "processor : 0\nmodel name : Old Board\nBogoMIPS : {}\nflags : sse sse2\n"


@pytest.mark.parametrize(
    ("child", "words"),
    [
        (DIES, "dies of an illegal instruction on this processor"),
        (KILLED, "was killed while it was imported: the memory of the board or its service is too small"),
        (LACKS, "cannot be imported: ImportError: libgomp.so.1 is missing"),
    ],
)
def test_what_became_of_the_child_is_said_with_the_release(child, words):
    with pytest.raises(ProcessorError, match=r"onnxruntime \d+\.\d+.*\(numpy \d") as refused:
        probe(child)
    assert words in str(refused.value)


def test_what_is_installed_here_runs():
    assert probe()[0].isdigit()


def test_what_has_passed_is_not_tried_again_until_something_changes(tmp_path):
    files = Files(tmp_path)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(CPUINFO.format("38.40"))
    with pytest.raises(ProcessorError):
        probe_once(tmp_path / "state", files, DIES)
    probe_once(tmp_path / "state", files, PASSES)
    (tmp_path / "proc/cpuinfo").write_text(CPUINFO.format("51.20"))
    probe_once(tmp_path / "state", files, DIES)  # known, so the child is not started
    (tmp_path / "proc/cpuinfo").write_text(CPUINFO.format("51.20").replace("sse2", "sse2 avx"))
    with pytest.raises(ProcessorError):
        probe_once(tmp_path / "state", files, DIES)  # the card is in another board


def test_a_state_directory_that_cannot_be_written_remembers_nothing_and_stops_nothing(tmp_path):
    (tmp_path / "state").touch()
    probe_once(tmp_path / "state", Files(tmp_path), PASSES)
    assert (tmp_path / "state").read_bytes() == b""
    with pytest.raises(ProcessorError):  # tried again, since nothing could be remembered
        probe_once(tmp_path / "state", Files(tmp_path), DIES)


def test_a_device_says_it_in_a_sentence_and_ends_before_it_imports_them(tmp_path, monkeypatch, capsys):
    (tmp_path / "device.toml").write_text(
        f'[device]\nname = "old"\nstate_directory = "{tmp_path}/state"\n[bundle]\npath = "none"\n'
        '[data]\nsource = "none.npz"\n[broker]\nurl = "mqtt://127.0.0.1:9"\n'
    )
    monkeypatch.setattr(processor.probe_once, "__defaults__", (DIES,))
    monkeypatch.setattr(command, "mistakes", lambda: pytest.fail("imports what would kill this process"))
    assert command.main(["run", "--config", str(tmp_path / "device.toml")]) == 2
    assert "cutlayer run: onnxruntime" in (said := capsys.readouterr().err)
    assert "dies of an illegal instruction" in said
