"""Which boards there are releases for: a row each."""

from dataclasses import dataclass

from export.flash.errors import FlashError

PYTHONS = ("3.11", "3.12", "3.13")
"""There is a lock for each."""

_OLDEST_GLIBC, _NEWEST_GLIBC = 17, 35
"""Minor versions of glibc 2 that a wheel may ask for; the newest is that of the oldest system below."""


@dataclass(frozen=True)
class Board:
    """A kind of board."""

    architecture: str
    """As `platform.machine()` names it."""
    python: str
    """Of its usual system."""
    text: str


BOARDS = {
    "pi4": Board("aarch64", "3.13", "Raspberry Pi 4, Raspberry Pi OS Trixie, 64 bit"),
    "pi5": Board("aarch64", "3.13", "Raspberry Pi 5, Raspberry Pi OS Trixie, 64 bit"),
    "zero2": Board("aarch64", "3.13", "Raspberry Pi Zero 2 W, Raspberry Pi OS Trixie, 64 bit"),
    "jetson-orin": Board("aarch64", "3.12", "Jetson Orin with a python3.12, which Ubuntu 22.04 (JetPack 6) has not by itself"),
    "generic-arm64": Board("aarch64", "3.13", "any 64-bit ARM board with a glibc of 2.35 or later"),
    "generic-x86-64": Board("x86_64", "3.13", "any PC with a glibc of 2.35 or later"),
}  # fmt: skip


def board(name: str) -> Board:
    """Return a board by its name.

    Raises:
        FlashError: there is none of that name.
    """
    if name not in BOARDS:
        raise FlashError(f"there is no board {name!r}; known are {', '.join(BOARDS)}")
    return BOARDS[name]


def platforms(architecture: str) -> tuple[str, ...]:
    """Return the platform tags of wheels that run on these boards, the newest first."""
    modern = [f"manylinux_2_{minor}_{architecture}" for minor in range(_NEWEST_GLIBC, _OLDEST_GLIBC - 1, -1)]
    return (*modern, f"manylinux2014_{architecture}", f"linux_{architecture}")
