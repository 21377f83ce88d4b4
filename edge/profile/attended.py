"""Standard input of a profile that someone waits for elsewhere: a bundle, then a sign of life every few seconds.

A program that ssh has started is told nothing when ssh dies or the network goes: it would measure on for minutes and learn of
it when it writes. What it can notice is that standard input ends, or falls silent.
"""

import os
import select
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO

from edge.refusal import RefusalError

SILENCE_SECONDS = 60.0
"""Nothing for so long, and whoever waits is held to be gone; `hub.profile.ssh` says something every ten."""
LAST_SECONDS = 10.0
"""That clearing up may take before the process is ended without."""
_PIECE = 1 << 16


class GoneError(Exception):
    """Whoever waits for the profile is gone; the text says how that was noticed."""


def copy(count: int, to: IO[bytes], descriptor: int = 0, silence: float = SILENCE_SECONDS) -> None:
    """Copy so many bytes, and not one more.

    Raises:
        RefusalError: fewer came.
    """
    left = count
    while left:
        try:
            data = _read(descriptor, min(left, _PIECE), silence)
        except GoneError as error:
            raise RefusalError(
                f"of the bundle on standard input {count - left} of {count} bytes came: {error}"
            ) from error
        to.write(data)
        left -= len(data)


def watch(told: Callable[[str], None], descriptor: int = 0, silence: float = SILENCE_SECONDS) -> None:
    """End this process as Ctrl-C does once standard input ends or falls silent; from the main thread.

    Args:
        told: hears why.
        descriptor: of what is read.
        silence: seconds without a byte.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have let it ignore that
    threading.Thread(target=_wait, args=(told, descriptor, silence), daemon=True).start()


def _wait(told: Callable[[str], None], descriptor: int, silence: float) -> None:
    try:
        while True:
            _read(descriptor, _PIECE, silence)
    except GoneError as error:
        os.kill(os.getpid(), signal.SIGINT)  # and not only a flag: it wakes whatever the main thread waits for
        with suppress(OSError):  # it may have nowhere to go
            told(f"nobody waits for this profile any more: {error}")
        time.sleep(LAST_SECONDS)  # a daemon: it does not keep the process
        os._exit(130)


def _read(descriptor: int, most: int, silence: float) -> bytes:
    """At least one byte.

    Raises:
        GoneError: there is none.
    """
    ready, _, _ = select.select([descriptor], [], [], silence)
    if not ready:
        raise GoneError(f"standard input was silent for {silence:g} s")
    try:
        data = os.read(descriptor, most)
    except OSError as error:
        raise GoneError(f"standard input cannot be read: {error.strerror}") from error
    if not data:
        raise GoneError("standard input has ended")
    return data
