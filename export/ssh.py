"""The user's own ssh: their keys, their agent, their configuration; of passwords this knows nothing."""

import subprocess
from collections.abc import Sequence
from typing import Any

from export.errors import ExportError

OWN_FAULT, NOT_EXECUTABLE, NOT_FOUND, MISTAKE = 255, 126, 127, 2
"""Exit codes of ssh itself, of the board's shell (two), and of our commands for what the user can mend."""
FORCED = ("-T", "-o", "RemoteCommand=none")
"""Whatever the user's configuration says for sessions by hand: a terminal would mix the two outputs."""
PATIENCE = 5.0
"""Seconds that ssh has to end when it is told to."""


class SshError(ExportError):
    """What was to be done on a board over ssh did not come about; the message says what to do."""


def argv(
    target: str, remote: str, options: Sequence[str] = (), forced: Sequence[str] = FORCED, ssh: str = "ssh"
) -> list[str]:
    """Return the program and its arguments.

    Args:
        target: as ssh takes it: `user@host`, a name of the user's configuration, `ssh://…`.
        remote: the line for the board's shell.
        options: for ssh: what begins with a dash as it is, anything else behind `-o`.
        forced: before them; of options that are given twice ssh takes the first.
        ssh: the program.

    Raises:
        SshError: the target is an option in disguise.
    """
    if not target or target.startswith("-") or not target.isprintable() or " " in target:
        raise SshError(f"{target!r} is no board: ssh takes user@host, or a name of its configuration")
    given = [part for one in options for part in ([one] if one.startswith("-") else ["-o", one])]
    return [ssh, *forced, *given, "--", target, remote]


def start(command: Sequence[str], **pipes: Any) -> "subprocess.Popen[bytes]":
    """Start ssh.

    Raises:
        SshError: there is none on this machine, or it does not start.
    """
    try:
        return subprocess.Popen(command, **pipes)  # noqa: S603  no shell
    except FileNotFoundError as error:
        raise SshError(f"there is no {command[0]!r} on this machine: install an OpenSSH client") from error
    except OSError as error:
        raise SshError(f"{command[0]!r} does not start: {error.strerror}") from error


def end(process: "subprocess.Popen[bytes]") -> None:
    """End ssh if it still runs; what it has started on the board ends when it writes."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
