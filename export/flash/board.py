"""Installs a release on a board that runs, over the user's own ssh.

Three visits, none of which can ask for anything: look (what is this board, and may we?), send and install, watch. What is
sent goes over standard input into a folder of its own that only the visitor can read, is hashed there before any of it is
run, and is removed whatever happens; the claim is in no argument and in no log.
"""

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import IO

from export.flash.errors import FlashError
from export.flash.parcel import CONFIG, Parcel
from export.flash.places import digest_of, pieces, size_of
from export.ssh import FORCED, MISTAKE, OWN_FAULT, SshError, argv, end, start

BATCH = (*FORCED, "-o", "BatchMode=yes")
"""Nothing may wait for an answer that nobody gives."""
SAYS = "cutlayer:"
"""How a line of ours begins: a board's .bashrc may write others."""
MOST_SAID = 64 << 10
HOST_KEY = ("REMOTE HOST IDENTIFICATION HAS CHANGED", "Host key verification failed")

# The scripts are plain POSIX sh without a single quote or a backslash, so that every login shell hands them on unchanged.
LOOK = """
root=$1; python=$2
echo "cutlayer:machine=$(uname -m)"
echo "cutlayer:uid=$(id -u)"
if [ -x "$python" ]; then
    echo "cutlayer:python=$("$python" -c "import sys; print(*sys.version_info[:2], sep=chr(46))")"
    echo "cutlayer:wide=$("$python" -c "import sys; print(sys.maxsize > 2**32)")"
fi
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo > /dev/null; then echo "cutlayer:sudo=none"
    elif sudo -n true 2> /dev/null; then echo "cutlayer:sudo=yes"
    else echo "cutlayer:sudo=no"; fi
fi
if [ -d /run/systemd/system ]; then echo "cutlayer:systemd=yes"; fi
echo "cutlayer:current=$(readlink "$root/opt/cutlayer/current" 2> /dev/null)"
echo "cutlayer:name=$(grep "^name *=" "$root/etc/cutlayer/device.toml" 2> /dev/null | head -n 1)"
if [ -e "$root/etc/cutlayer/device.toml" ]; then echo "cutlayer:config=yes"; fi
for where in "${TMPDIR:-/var/tmp}" /var/tmp /tmp; do
    if [ -d "$where" ] && [ -w "$where" ]; then
        echo "cutlayer:where=$where"
        echo "cutlayer:room=$(df -Pk "$where" | tail -n 1)"
        break
    fi
done
echo "cutlayer:looked=yes"
"""

INSTALL = """
where=$1; python=$2; receive=$3; sudo=$4; shift 4
umask 077
folder=$(mktemp -d "$where/cutlayer-flash.XXXXXXXX") || exit 90
clean() { rm -rf "$folder"; }
trap clean EXIT
trap "exit 91" HUP INT TERM
trap "" PIPE
"$python" -c "$receive" "$folder" || exit 92
cd "$folder" || exit 93
$sudo "$python" -I installer.pyz install board.release --keys release-keys --claim claim.json "$@" < /dev/null 1>&2
code=$?
if [ $code = 0 ]; then echo "cutlayer:installed=yes"; fi
exit $code
"""

RECEIVE = """
import hashlib, json, os, sys
given = sys.stdin.buffer
try:
    for name, size, wanted in json.loads(given.readline(65536) or "[]"):
        found = hashlib.sha256()
        with open(os.path.join(sys.argv[1], name), "xb") as file:
            while size:
                piece = given.read(min(size, 1 << 20))
                if not piece:
                    sys.exit("cutlayer: the connection ended before all had come")
                size -= len(piece)
                found.update(piece)
                file.write(piece)
        if found.hexdigest() != wanted:
            sys.exit("cutlayer: " + name + " did not arrive as it was sent")
except OSError as error:
    sys.exit("cutlayer: what is sent cannot be written here: " + str(error.strerror))
if not os.path.exists(os.path.join(sys.argv[1], "installer.pyz")):
    sys.exit("cutlayer: nothing has come")
print("cutlayer:received=yes", flush=True)
"""

WATCH = """
root=$1; wanted=$2; left=$3; sudo=$4
state=unknown; healthy=
while :; do
    if [ -d /run/systemd/system ]; then state=$(systemctl is-active cutlayer.service); fi
    healthy=$($sudo head -c 64 "$root/var/lib/cutlayer/healthy" 2> /dev/null)
    current=$(readlink "$root/opt/cutlayer/current")
    case $current in */$wanted) ;; *) healthy=; break ;; esac
    if [ "$healthy" = $wanted ] || [ $left -le 0 ]; then break; fi
    left=$((left - 1))
    sleep 1
done
echo "cutlayer:state=$state"
echo "cutlayer:current=$current"
if [ "$healthy" = $wanted ]; then echo "cutlayer:healthy=yes"; exit 0; fi
if [ -d /run/systemd/system ]; then $sudo journalctl --no-pager -n 8 -u cutlayer.service 1>&2; fi
exit 0
"""


@dataclass(frozen=True)
class Visit:
    """A board, and how to get there."""

    target: str
    options: tuple[str, ...] = ()
    """For ssh: what begins with a dash as it is, anything else behind `-o`."""
    python: str = "/usr/bin/python3"
    """On the board; the units use this one."""
    root: str = "/"
    """Where to install there; for another than / nothing is started."""
    ssh: str = "ssh"
    """The program here."""


@dataclass(frozen=True)
class Look:
    """What a board has said of itself."""

    machine: str
    python: str
    """Such as 3.13; empty where there is none."""
    wide: bool
    """Whether Python is a 64-bit program: a 64-bit kernel may carry a 32-bit system."""
    root: bool
    sudo: str
    """`yes`, `no` or `none`; empty for root."""
    systemd: bool
    current: str
    """Id of the release that is installed; empty without one."""
    name: str
    """Which device this is; empty where it is none yet."""
    configured: bool
    where: str
    """A folder that the visitor may write to."""
    room: int
    """Bytes free there."""


@dataclass(frozen=True)
class Seen:
    """What the board's own system says of the agent after the installation."""

    healthy: bool
    state: str
    """As `systemctl is-active` has it."""
    current: str


def look(visit: Visit) -> Look:
    """Ask a board what it is, without changing anything there.

    Raises:
        SshError: it cannot be reached; where its host key has changed, the message says so.
    """
    process, said, errors = _run(visit, _script(LOOK, visit.root.rstrip("/"), visit.python))
    _show(errors)
    if any(line in errors for line in HOST_KEY):
        raise SshError(
            f"ssh does not trust {visit.target}: it has another host key than before, or one that is not known; what to do stands above. "
            "Nothing was sent"
        )
    if process == OWN_FAULT:
        raise SshError(f"ssh did not reach {visit.target}, or was not let in; its own words stand above")
    if "looked" not in said:
        raise SshError(
            f"{visit.target} has no shell that answers (exit code {process}): flash ssh needs a POSIX sh there"
        )
    return _looked(said)


def check(visit: Visit, seen: Look, parcel: Parcel, now: datetime) -> None:
    """Raise where the board cannot take the release.

    Raises:
        FlashError: why, and what to do.
    """
    target, manifest = visit.target, parcel.manifest
    if seen.machine != manifest.architecture:
        raise FlashError(
            f"{target} is {seen.machine}, and the release is for {manifest.architecture} ({manifest.board}): build it for this board"
        )
    if not seen.python:
        raise FlashError(
            f"{target} has no {visit.python}: install python3 there (`apt install python3`), or name another with --python"
        )
    if _numbers(seen.python) < (3, 11):
        raise FlashError(
            f"{target} has Python {seen.python}, and cutlayer needs 3.11 or later: use a newer system there"
        )
    if not seen.wide:
        raise FlashError(
            f"{target} runs a 32-bit system on its 64-bit kernel, for which there is no onnxruntime: use a 64-bit system there"
        )
    if seen.python != manifest.python:
        raise FlashError(
            f"{target} has Python {seen.python}, and the release is for {manifest.python}: build one with --python {seen.python}"
        )
    if seen.sudo in {"no", "none"}:
        why = "there is no sudo there" if seen.sudo == "none" else "sudo wants a password there"
        raise FlashError(
            f"{target}: installing needs root, and {why}: log in as root, or allow this user `NOPASSWD: ALL` in a file of /etc/sudoers.d"
        )
    if not seen.systemd and visit.root == "/":
        raise FlashError(f"{target} does not run systemd, which starts cutlayer and watches it")
    if seen.name and seen.name != parcel.claim.name:
        raise FlashError(f"{target} is the device {seen.name} already, and the claim is for {parcel.claim.name}")
    if not seen.configured:
        parcel.check_new(now)
    needed = sum(size_of(source) for source in parcel.files.values()) + (1 << 20)
    if not seen.where:
        raise FlashError(f"{target} has neither /var/tmp nor /tmp to write to")
    if seen.room < needed:
        raise FlashError(
            f"{target} has {seen.room / 2**20:.0f} MiB of room in {seen.where}, and {needed / 2**20:.0f} MiB are to be sent"
        )


def install(visit: Visit, seen: Look, parcel: Parcel) -> None:
    """Send everything and have the board install it; its words are on our standard error.

    Raises:
        SshError: the connection was lost, or the board refused; nothing half-done is left there.
    """
    more = [] if visit.root == "/" else ["--root", visit.root, "--no-start"]
    more += ["--config", CONFIG] if parcel.config is not None else []
    remote = _script(INSTALL, seen.where, visit.python, RECEIVE, _sudo(seen), *more)
    rows = [[name, size_of(source), digest_of(source)] for name, source in parcel.files.items()]
    sys.stderr.flush()
    process = start(_argv(visit, remote), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None  # noqa: S101  both are pipes
    assert process.stdout is not None  # noqa: S101
    try:
        with suppress(BrokenPipeError), process.stdin as pipe:  # it has ended, and its exit code says why
            pipe.write(json.dumps(rows).encode() + b"\n")
            for source in parcel.files.values():
                for piece in pieces(source):
                    pipe.write(piece)
        with process.stdout:
            said = _said(process.stdout.read(MOST_SAID))
        process.wait()
    finally:
        end(process)
    _judge(visit, process.returncode, said)


def watch(visit: Visit, seen: Look, release: str, seconds: int) -> Seen:
    """Wait on the board until its agent has called itself well; at most so many seconds, or a little more.

    Raises:
        SshError: the connection was lost.
    """
    remote = _script(WATCH, visit.root.rstrip("/"), release, str(seconds), _sudo(seen))
    code, said, errors = _run(visit, remote)
    _show(errors)
    if code or "current" not in said:
        raise SshError(
            f"the connection to {visit.target} was lost while waiting for its agent (exit code {code}); it is installed"
        )
    return Seen("healthy" in said, said.get("state", ""), said["current"].rpartition("/")[2])


def _judge(visit: Visit, code: int, said: Mapping[str, str]) -> None:
    """Raises SshError for any end but a good one."""
    if "installed" in said and code in {0, OWN_FAULT}:
        return
    target = visit.target
    if code == OWN_FAULT and "received" in said:
        raise SshError(
            f"the connection to {target} was lost while it installed; it goes on there. Run this again to see what became of it"
        )
    if code == OWN_FAULT or code < 0:
        raise SshError(f"the connection to {target} was lost while sending; nothing is left there")
    if code == 90:
        raise SshError(f"{target} cannot make a folder to receive in; its own words stand above")
    if code in {91, 92, 93}:
        raise SshError(f"{target} has not received everything; why stands above, and nothing is left there")
    if code == MISTAKE:
        raise SshError(f"{target} refused to install; why stands above, and everything there is as it was")
    raise SshError(f"the installer on {target} failed (exit code {code}); what happened stands above")


def _argv(visit: Visit, remote: str) -> list[str]:
    return argv(visit.target, remote, visit.options, BATCH, visit.ssh)


def _script(text: str, *arguments: str) -> str:
    return " ".join(["exec", "sh", "-c", *map(shlex.quote, [text, "cutlayer-flash", *arguments])])


def _sudo(seen: Look) -> str:
    return "" if seen.root else "sudo -n"


def _run(visit: Visit, remote: str) -> tuple[int, dict[str, str], str]:
    """Run a script that is given nothing; returns exit code, what it said, and what stood on standard error."""
    sys.stderr.flush()
    errors: IO[bytes]
    with tempfile.TemporaryFile() as errors:  # no pipe: a master connection that stays behind would hold it open
        process = start(_argv(visit, remote), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
        assert process.stdout is not None  # noqa: S101  it is a pipe
        try:
            with process.stdout:
                said = _said(process.stdout.read(MOST_SAID))
            process.wait()
        finally:
            end(process)
        errors.seek(0)
        return process.returncode, said, errors.read(MOST_SAID).decode(errors="replace")


def _show(errors: str) -> None:
    text = "".join(
        one for one in errors if one.isprintable() or one in "\n\t"
    )  # a stranger's words: no escape sequences
    if text.strip():
        print(text.rstrip(), file=sys.stderr)


def _said(data: bytes) -> dict[str, str]:
    lines = [line.removeprefix(SAYS) for line in data.decode(errors="replace").splitlines() if line.startswith(SAYS)]
    return {name: value.strip() for name, equals, value in (line.partition("=") for line in lines) if equals}


def _looked(said: Mapping[str, str]) -> Look:
    room = said.get("room", "").split()
    python = said.get("python", "")
    name = said.get("name", "").partition("=")[2].strip().strip("\"'")
    return Look(
        machine=said.get("machine", ""),
        python=python if _numbers(python) else "",
        wide=said.get("wide") == "True",
        root=said.get("uid") == "0",
        sudo=said.get("sudo", ""),
        systemd="systemd" in said,
        current=said.get("current", "").rpartition("/")[2],
        name=name,
        configured="config" in said,
        where=said.get("where", ""),
        room=int(room[3]) << 10 if len(room) > 3 and room[3].isdigit() else 0,
    )


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split(".")
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else ()
