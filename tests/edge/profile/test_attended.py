"""A pipe stands in for standard input; the process that is ended is one of the test's."""

import io
import os
import subprocess
import sys

import pytest

from edge.profile import attended
from edge.refusal import RefusalError

WAITS = """
import sys, threading, time
from edge.profile import attended
heard = threading.Event()
def told(text):
    print(text, file=sys.stderr, flush=True)
    heard.set()
try:
    attended.watch(told, silence={silence})
    time.sleep({sleep})
    print("measured")
except KeyboardInterrupt:
    heard.wait(30)  # its last words come from another thread
    print("cleared up")
"""


def waiting(sleep, silence=60.0):
    command = [sys.executable, "-c", WAITS.format(sleep=sleep, silence=silence)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


@pytest.fixture
def ends():
    read, write = os.pipe()
    yield read, write
    os.close(read)


def test_the_bundle_is_copied_and_what_follows_is_left(ends):
    read, write = ends
    os.write(write, b"bundle\n\n")
    os.close(write)
    found = io.BytesIO()
    attended.copy(6, found, read)
    assert (found.getvalue(), os.read(read, 10)) == (b"bundle", b"\n\n")


def test_a_bundle_that_breaks_off_is_refused(ends):
    read, write = ends
    os.write(write, b"bun")
    os.close(write)
    said = "^of the bundle on standard input 3 of 6 bytes came: standard input has ended$"
    with pytest.raises(RefusalError, match=said):
        attended.copy(6, io.BytesIO(), read)


def test_a_bundle_that_stops_coming_is_refused(ends):
    read, write = ends
    with pytest.raises(RefusalError, match=r"0 of 6 bytes came: standard input was silent for 0\.01 s$"):
        attended.copy(6, io.BytesIO(), read, silence=0.01)
    os.close(write)


def test_it_ends_as_by_ctrl_c_when_nobody_waits_any_more():
    with waiting(sleep=600) as process:
        out, said = process.communicate(timeout=60)
    assert (out, process.returncode) == ("cleared up\n", 0)
    assert said == "nobody waits for this profile any more: standard input has ended\n"


def test_it_ends_when_who_waits_falls_silent():
    with waiting(sleep=600, silence=0.05) as process:
        out = process.stdout.read()  # while its standard input is open
        process.stdin.close()
    assert out == "cleared up\n"


def test_while_somebody_waits_it_measures():
    with waiting(sleep=0.5) as process:
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.read() == "measured\n"
