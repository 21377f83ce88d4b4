"""Starts one measured process after the other, reads what they find, and says why one died."""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import edge
from edge.mistakes import MISTAKE
from edge.profile.asked import Setting
from edge.refusal import RefusalError

SILENCE_SECONDS = 900.0
"""A process that says nothing for so long, stage by stage, is ended."""
WORDS = 400
"""Most bytes of what it said last on standard error."""
LOOK_SECONDS = 1.0
"""Between two looks at the temperature while a process measures."""
SIGNALS = {
    signal.SIGILL: "onnxruntime's wheel uses an instruction that this processor does not have: install another release",
    signal.SIGKILL: "most likely there was not enough memory",
}


class ChildError(Exception):
    """A measured process ended before it had measured all; the text says why."""


def measured(
    setting: Setting,
    hear: Callable[[Mapping[str, Any]], None],
    look: Callable[[], object],
    program: str = "edge.profile.child",
) -> None:
    """Measure one setting in a process of its own.

    Args:
        setting: what.
        hear: hears each line that it prints, as an object.
        look: called about once a second meanwhile.
        program: the module that is started.

    Raises:
        ChildError: it died, or fell silent.
        RefusalError: it found something that the user can mend.
    """
    root = str(Path(edge.__path__[0]).parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environ = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-P", "-m", program]
    with subprocess.Popen(  # noqa: S603  our own program
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ
    ) as process:
        try:
            done, words = _converse(process, setting, hear, look)
        finally:
            if process.poll() is None:
                process.kill()
            code = process.wait()
    if code == 0 and done:
        return
    if code == MISTAKE:
        raise RefusalError(words or "the measured process refused without a word")
    if code < 0:
        cause = SIGNALS.get(signal.Signals(-code), words)
        raise ChildError(f"the measured process ended by {signal.Signals(-code).name}{f': {cause}' if cause else ''}")
    raise ChildError(f"the measured process ended with code {code}: {words or 'without a word'}")


def _converse(
    process: subprocess.Popen[bytes],
    setting: Setting,
    hear: Callable[[Mapping[str, Any]], None],
    look: Callable[[], object],
) -> tuple[bool, str]:
    """Whether it came to its end, and its last words."""
    assert process.stdin  # noqa: S101  for mypy: all three are pipes
    assert process.stdout  # noqa: S101
    assert process.stderr  # noqa: S101
    try:
        process.stdin.write(json.dumps(setting.to_json()).encode() + b"\n")
        process.stdin.close()
    except BrokenPipeError:
        pass  # it died before it could read: its code says how
    streams = {process.stdout: bytearray(), process.stderr: bytearray()}
    done, heard = False, time.monotonic()
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select(LOOK_SECONDS):
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fileobj)
                    continue
                streams[key.fileobj] += data  # type: ignore[index]  # one of the two
            *lines, rest = bytes(streams[process.stdout]).split(b"\n")
            streams[process.stdout][:] = rest
            for line in lines:
                heard = time.monotonic()
                fields = json.loads(line)
                done = done or "done" in fields
                hear(fields)
            del streams[process.stderr][:-WORDS]
            look()
            if time.monotonic() - heard > SILENCE_SECONDS:
                process.kill()
                return False, f"it said nothing for {SILENCE_SECONDS:g} s and was ended"
    return done, _last_line(bytes(streams[process.stderr]))


def _last_line(data: bytes) -> str:
    lines = data.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else ""
