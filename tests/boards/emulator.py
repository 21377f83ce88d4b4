"""An emulated arm64 machine: its console goes into a file, a socket leads to a shell in it, and its power can be cut."""

import re
import secrets
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from hub.processes import _die_with_parent
from tests.boards.root import Parts

APPEND = (
    "console=ttyAMA0 quiet loglevel=4 panic=-1 net.ifnames=0 audit=0 "
    # An emulated processor has no use for these, and they cost a quarter of the time.
    "mitigations=off nokaslr kpti=off init_on_alloc=0 "
    "systemd.show_status=false systemd.journald.forward_to_console=1"
)
POLL_SECONDS = 0.2


class BoardError(AssertionError):
    """The board did not do in time what it was to do; the text ends with its console's last lines."""


class Board:
    """A machine that boots from an image, with the host's loopback at 10.0.2.2.

    Args:
        parts: kernel and initramfs.
        image: of its root, which it writes to.
        folder: for consoles and sockets.
        cores: of its processor.
        mebibytes: of memory.
        card: image of a disk whose first partition is its boot partition.
    """

    def __init__(
        self,
        parts: Parts,
        image: Path,
        folder: Path,
        *,
        cores: int = 2,
        mebibytes: int = 1024,
        card: Path | None = None,
    ) -> None:
        self._parts = parts
        self._image = image
        self._folder = folder
        self._cores = cores
        self._mebibytes = mebibytes
        self._card = card
        self._boots = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._shell: socket.socket | None = None

    @property
    def console(self) -> str:
        """What was written on the console since the machine was last switched on."""
        path = self._console_path()
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def switch_on(self) -> None:
        """Start the machine from what is on its disk."""
        self._boots += 1
        line = self._folder / "shell"
        line.unlink(missing_ok=True)
        self._console_path().unlink(missing_ok=True)
        # fmt: off
        command = [
            "qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a72", "-accel", "tcg,thread=multi,tb-size=512", "-smp", str(self._cores), "-m", str(self._mebibytes),
            "-display", "none", "-no-reboot", "-kernel", str(self._parts.kernel), "-initrd", str(self._parts.initramfs),
            "-append", APPEND, "-serial", f"file:{self._console_path()}",
            "-drive", f"if=none,id=disk,file={self._image},format=raw,cache=writeback", "-device", "virtio-blk-pci,drive=disk",
            "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci",
            "-device", "virtio-serial-pci", "-chardev", f"socket,id=shell,path={line},server=on,wait=off", "-device", "virtconsole,chardev=shell",
        ]
        # fmt: on
        if self._card is not None:
            command += [
                "-drive",
                f"if=none,id=card,file={self._card},format=raw",
                "-device",
                "virtio-blk-pci,drive=card",
            ]
        with (self._folder / f"qemu-{self._boots}.log").open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  only one system call
            )

    def cut_power(self) -> None:
        """As if the plug were pulled: what the board has not yet written is gone."""
        self._hang_up()
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None

    def wait_for(self, pattern: str, seconds: float) -> re.Match[str]:
        """The first match of a regular expression on the console."""
        until = time.monotonic() + seconds
        while (found := re.search(pattern, self.console)) is None:
            self._must_run(f"{pattern!r} on its console")
            if time.monotonic() > until:
                raise BoardError(f"after {seconds:g} s still not on the console: {pattern!r}\n{self.tail()}")
            time.sleep(POLL_SECONDS)
        return found

    def run(self, command: str, seconds: float = 60.0) -> str:
        """What a command line prints in the board's own shell; it must end well."""
        code, said = self.ask(command, seconds)
        if code:
            raise BoardError(f"{command!r} ended with code {code} on the board: {said}\n{self.tail()}")
        return said

    def ask(self, command: str, seconds: float = 60.0) -> tuple[int, str]:
        """Code and output of a command line in the board's own shell."""
        mark = secrets.token_hex(8)
        shell = self._line(seconds)
        # The mark is put together by the shell, so that an echo of the command does not look like its end.
        half = len(mark) // 2
        shell.sendall(f"{{ {command}\n}} 2>&1; echo {mark[:half]}''{mark[half:]}:$?:\n".encode())
        return self._read(shell, mark, seconds, command)

    def tail(self, lines: int = 60) -> str:
        """The console's last lines."""
        return "--- console\n" + "\n".join(self.console.splitlines()[-lines:])

    def _line(self, seconds: float) -> socket.socket:
        """The socket to the shell, which answers: opened once a boot."""
        if self._shell is not None:
            return self._shell
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._must_run("a shell")
            line = socket.socket(socket.AF_UNIX)
            with suppress(OSError):
                line.connect(str(self._folder / "shell"))
                while time.monotonic() < until:
                    self._must_run("a shell")
                    mark = secrets.token_hex(4)
                    line.sendall(f"stty -echo -onlcr; PS1=; PS2=; echo {mark[:4]}''{mark[4:]}:$?:\n".encode())
                    with suppress(BoardError):
                        self._read(line, mark, 3.0, "the shell")
                        self._shell = line
                        return line
            line.close()
            time.sleep(POLL_SECONDS)
        raise BoardError(f"after {seconds:g} s no shell on the board\n{self.tail()}")

    def _read(self, shell: socket.socket, mark: str, seconds: float, what: str) -> tuple[int, str]:
        until, said = time.monotonic() + seconds, ""
        while (found := re.search(rf"(?s)^(.*?){mark}:(\d+):", said)) is None:
            self._must_run(what)
            left = until - time.monotonic()
            if left <= 0:
                raise BoardError(
                    f"after {seconds:g} s still not over on the board: {what}\n{said[-2000:]}\n{self.tail()}"
                )
            shell.settimeout(min(left, 1.0))
            with suppress(TimeoutError):
                said += shell.recv(65536).decode("utf-8", "replace").replace("\r", "")
        return int(found[2]), found[1]

    def _must_run(self, what: str) -> None:
        if self._process is None or self._process.poll() is not None:
            raise BoardError(f"the board is off while a test waits for {what}\n{self.tail()}\n{self._complaint()}")

    def _complaint(self) -> str:
        path = self._folder / f"qemu-{self._boots}.log"
        return path.read_text("utf-8", "replace")[-2000:] if path.exists() else ""

    def _hang_up(self) -> None:
        if self._shell is not None:
            self._shell.close()
            self._shell = None

    def _console_path(self) -> Path:
        return self._folder / f"console-{self._boots}.log"
