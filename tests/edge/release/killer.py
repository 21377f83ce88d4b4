"""Runs a program under strace and kills it before one of the calls by which it changes the disk."""

import os
import re
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass

CHANGES = (
    "write", "pwrite64", "writev", "mkdir", "mkdirat", "rename", "renameat", "renameat2", "symlink", "symlinkat", "link", "linkat",
    "unlink", "unlinkat", "rmdir", "fsync", "fdatasync", "sync_file_range", "chmod", "fchmod", "fchmodat", "chown", "fchown",
    "lchown", "fchownat", "truncate", "ftruncate", "sendfile", "copy_file_range", "utimensat",
)  # fmt: skip
"""Calls that change a disk; openat does where it creates."""

GATE = threading.Lock()
"""Held while a process is started, and by whoever takes the board's lock in this one: a child has it, too, until its exec."""

CALL = re.compile(r"^\d+ +(\w+)\((.*)$")


@dataclass(frozen=True)
class Call:
    """The nth call of a name."""

    name: str
    number: int
    text: str


def command(*arguments):
    """The installer's own interpreter, alone."""
    return [os.path.realpath(sys.executable), "-I", *map(str, arguments)]


def calls(program, log):
    """Runs a program to its end and returns each call that changed the disk; what goes to stdout or stderr is no change."""
    code, said = _strace(program, log, [])
    assert code == 0, said
    found, counted = [], Counter()
    for line in log.read_text(errors="replace").splitlines():
        if not (match := CALL.match(line)):
            continue
        name, rest = match[1], match[2]
        counted[name] += 1
        if name == "openat" and "O_CREAT" not in rest and "O_TRUNC" not in rest:
            continue
        if name in {"write", "writev"} and re.match(r"[12]<", rest):
            continue
        found.append(Call(name, counted[name], rest))
    return found


def killed(program, call, log):
    """Runs a program until just before this call, at which the kernel ends it; returns whether it was ended there."""
    code, said = _strace(program, log, ["-e", f"inject={call.name}:signal=KILL:when={call.number}"])
    assert code in {0, -9, 137}, said
    return code != 0


def failed(program, call, error, log):
    """Runs a program with one call failing and returns its exit code and what it said."""
    return _strace(program, log, ["-e", f"inject={call.name}:error={error}:when={call.number}"])


def _strace(program, log, more):
    names = ",".join(("openat", *CHANGES))
    strace = ["strace", "-f", "-qq", "-y", "-s", "64", "-o", str(log), "-e", f"trace={names}", *more]
    with GATE:
        process = subprocess.Popen(
            [*strace, *program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
        )  # fmt: skip
    with process:
        _, said = process.communicate(timeout=60)
    return process.returncode, said
