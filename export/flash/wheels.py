"""Wheels for another machine: which ones are in a lock, the files in a folder that later builds find again.

A lock has a line for each wheel, `NAME==VERSION --hash=sha256:… # FILE BYTES`, so that pip reads it too. What the folder has
is hashed; what it lacks is asked of pip, for that machine and not for this one, and hashed as well.
"""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from export.flash.boards import PYTHONS, platforms
from export.flash.errors import FlashError

LOCKS = Path(__file__).parent / "locks"
OF_THE_DEVICE = ("numpy", "onnxruntime", "paho-mqtt", "psutil")
"""What the agent imports; a lock has these and what they ask for."""

_LINE = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+) --hash=sha256:(?P<sha256>[0-9a-f]{64})  # (?P<file>[A-Za-z0-9][A-Za-z0-9._+!-]*\.whl) (?P<bytes>[0-9]{1,10})")  # fmt: skip
_OFFLINE = (
    "NewConnectionError",
    "ConnectTimeout",
    "Max retries",
    "name resolution",
    "ConnectionError",
    "Connection to ",
)


@dataclass(frozen=True)
class Wheel:
    """One line of a lock."""

    name: str
    version: str
    sha256: str
    file: str
    bytes: int

    def line(self) -> str:
        """The line."""
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}  # {self.file} {self.bytes}"


def cache() -> Path:
    """Return the folder wheels are kept in, where none is named."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cutlayer" / "wheels"


def lock_file(architecture: str, python: str, folder: Path = LOCKS) -> Path:
    """Return where the lock for these is."""
    return folder / f"{architecture}-{python}.txt"


def read_lock(architecture: str, python: str, folder: Path = LOCKS) -> tuple[Wheel, ...]:
    """Return the wheels that a board with this processor and Python gets.

    Raises:
        FlashError: there is no lock for them, or it cannot be read.
    """
    path = lock_file(architecture, python, folder)
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise FlashError(f"there is no lock of wheels for {architecture} and Python {python}; there is one for {', '.join(PYTHONS)}") from None  # fmt: skip
    wheels = []
    for number, line in enumerate(text.splitlines(), 1):
        if line and not line.startswith("#"):
            if (found := _LINE.fullmatch(line)) is None:
                raise FlashError(f"{path}: line {number} is not a wheel with its hash")
            name, version, sha256, file, size = found.groups()
            wheels.append(Wheel(name, version, sha256, file, int(size)))
    return tuple(wheels)


def fetch(wheels: Sequence[Wheel], architecture: str, python: str, folder: Path) -> dict[str, Path]:
    """Return the wheels' files by hash, after those that the folder lacks have come into it.

    Raises:
        FlashError: the network, or the wheel, is missing, or what came is another file than the lock says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if lacking := [wheel for wheel in wheels if _digest(folder / wheel.file) != wheel.sha256]:
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as name:
            download = Path(name)
            lines = download / "lock.txt"
            lines.write_text("".join(f"{wheel.line()}\n" for wheel in lacking), "utf-8")
            _pip(["--no-deps", "--require-hashes", "-r", str(lines)], architecture, python, download)
            for wheel in lacking:
                if _digest(download / wheel.file) != wheel.sha256:
                    raise FlashError(f"pip did not bring {wheel.file} as the lock for {architecture} and Python {python} has it")  # fmt: skip
                (download / wheel.file).replace(folder / wheel.file)
    return {wheel.sha256: folder / wheel.file for wheel in wheels}


def make_lock(architecture: str, python: str, constraints: Path, download: Path) -> str:
    """Return the text of a lock: what the device's libraries ask for, in the versions that are tested.

    Args:
        architecture: of the board.
        python: of the board.
        constraints: file with `NAME==VERSION` lines.
        download: an empty folder for the wheels.

    Raises:
        FlashError: pip does not find them, or one in a version that the constraints do not name.
    """
    pins = _pins(constraints)
    _pip(["--constraint", str(constraints), *OF_THE_DEVICE], architecture, python, download)
    wheels = []
    for path in sorted(download.glob("*.whl"), key=lambda path: path.name.lower()):
        name, version = path.name.split("-")[:2]
        if pins.get(_plain(name)) != version:
            raise FlashError(f"{constraints} does not name {name}=={version}, which the device would get")
        wheels.append(Wheel(name.replace("_", "-"), version, _digest(path), path.name, path.stat().st_size))
    head = f"# {architecture}, Python {python}: wheels of the device. Made by `cutlayer-export flash lock`.\n"
    return head + "".join(f"{wheel.line()}\n" for wheel in wheels)


def command(architecture: str, python: str, folder: Path) -> list[str]:
    """Return the call of pip that downloads wheels for another machine, without saying which."""
    tags = [part for tag in platforms(architecture) for part in ("--platform", tag)]
    abis = [part for abi in (f"cp{python.replace('.', '')}", "abi3", "none") for part in ("--abi", abi)]
    return [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check", "--only-binary=:all:",
        "--implementation", "cp", "--python-version", python, *abis, *tags, "--dest", str(folder),
    ]  # fmt: skip


def reason(said: str) -> str:
    """Return what pip's complaint comes to, in one sentence."""
    if "No module named pip" in said:
        return "this Python has no pip: give --wheels a folder that has them all"
    errors = [line.removeprefix("ERROR: ").strip() for line in said.splitlines() if line.startswith("ERROR: ")]
    if any(word in said for word in _OFFLINE):
        return "the network is not there: try again, or give --wheels a folder that has them all"
    if "THESE PACKAGES DO NOT MATCH THE HASHES" in said:
        return "a wheel came with another hash than the lock has, so nothing of it was used"
    return (errors[-1] if errors else " ".join(said.split()) or "it did not say why")[:300]


def _pip(what: list[str], architecture: str, python: str, folder: Path) -> None:
    # A constraint from the environment has no hash, and with --require-hashes everything must have one.
    environment = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}
    done = subprocess.run(  # noqa: S603  no shell, and every word is ours or the lock's
        [*command(architecture, python, folder), *what],
        env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    if done.returncode:
        raise FlashError(
            f"the wheels for {architecture} and Python {python} cannot be downloaded: {reason(done.stderr)}"
        )


def _pins(path: Path) -> Mapping[str, str]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise FlashError(f"the constraints {path} cannot be read: {error.strerror}") from error
    pairs = (line.split("#")[0].strip().partition("==") for line in lines)
    return {_plain(name): version for name, equals, version in pairs if equals}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _digest(path: Path) -> str:
    """The SHA-256 of a file; empty where there is none."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ""
