"""The process that makes a profile: real children, which do what a line of Python says."""

import os
import sys
import time

import psutil
import pytest

from edge.profiler import Found, Profiler, options_of
from edge.wire.inquiry import TEXT_LIMIT, Inquiry

ASKED = Inquiry(1, (1, 32), (2,), ("entropy:1", "float32"), 0.5, 60.0)


@pytest.fixture
def made():
    profilers = []

    def make(code, **options):
        profilers.append(Profiler([sys.executable, "-S", "-c", code], **options))
        return profilers[-1]

    yield make
    for profiler in profilers:
        profiler.end()


def found(profiler, inquiry=ASKED, seconds=30.0):
    profiler.start(inquiry)
    until = time.monotonic() + seconds
    while (outcome := profiler.look()) is None:
        assert time.monotonic() < until
        time.sleep(0.01)
    return outcome


def test_what_is_asked_are_options_of_the_command():
    said = "--json - --seconds 0.5 --batch 1,32 --threads 2 --codec entropy:1,float32"
    assert options_of(ASKED) == said.split()
    assert options_of(Inquiry(1, (), (), (), 3.0, 60.0)) == ["--json", "-", "--seconds", "3"]


def test_what_it_prints_is_the_profile_and_what_it_says_is_not(made):
    profiler = made("import sys; print('talk', file=sys.stderr); print(sys.argv[1:])")
    assert found(profiler) == Found(f"{options_of(ASKED)}\n")


def test_a_child_that_dies_is_told_with_its_last_line(made):
    code = "import sys; print('{', end='', flush=True); print('one\\nno bundle here', file=sys.stderr); sys.exit(2)"
    assert found(made(code)) == Found(reason="the profiler ended with code 2: no bundle here")
    killed = made("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert found(killed) == Found(reason="the profiler was ended by SIGKILL")


def test_no_profile_and_no_text_are_reasons(made):
    assert found(made("")).reason == "the profiler printed no profile"
    assert (
        found(made("import sys; sys.stdout.buffer.write(b'\\xff')")).reason == "the profiler printed what is not UTF-8"
    )


def test_a_profile_without_end_is_not_waited_for(made):
    code = "import sys\nwhile True: sys.stdout.write('a' * 65536)"
    assert found(made(code)).reason == f"the profiler printed more than {TEXT_LIMIT} bytes"


def test_a_command_that_is_not_there_is_an_error_of_the_system():
    with pytest.raises(FileNotFoundError):
        Profiler(["/nowhere/cutlayer"]).start(ASKED)


def test_the_limit_ends_it_and_all_that_it_started(made, tmp_path):
    note = tmp_path / "pids"
    code = (
        "import os, subprocess, sys, time; child = subprocess.Popen(['sleep', '100']); "
        f"open({str(note)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}} '); time.sleep(100)"
    )
    now = 0.0
    profiler = made(code, now=lambda: now)
    profiler.start(ASKED)
    until = time.monotonic() + 30
    while not (note.exists() and note.read_text().endswith(" ")):
        assert time.monotonic() < until
        time.sleep(0.01)
    now = 59.0
    assert profiler.look() is None
    now = 60.0
    assert profiler.look() == Found(reason="the profiler was ended after 60 s")
    profiler.end()
    left = [int(pid) for pid in note.read_text().split()]
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in left if psutil.pid_exists(pid)], timeout=10)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


def test_it_runs_as_urgently_as_anybody(made):
    if os.nice(0) < 0:
        pytest.skip("the tests run at a higher priority themselves")
    profiler = made("import os, time; time.sleep(0.2); print(os.nice(0))")
    expected = 0 if os.geteuid() == 0 else os.nice(0)  # only root may make a process more urgent
    assert found(profiler).text == f"{expected}\n"
