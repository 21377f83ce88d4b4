"""What a board has done since it was switched on: seconds of its CPUs and bytes of its interfaces, from /proc."""

import os
from dataclasses import dataclass

from edge.files import Files, UnreadableError

TICKS = os.sysconf("SC_CLK_TCK")
"""Of /proc/stat in a second."""


@dataclass(frozen=True)
class Activity:
    """Running sums of a whole board, all processes together; differences mean something."""

    cpu_seconds: float
    sent_bytes: int
    received_bytes: int


def activity(files: Files) -> Activity:
    """Reads the sums; raises UnreadableError.

    Busy is all but idle and waiting for a disk. Bytes are those of interfaces with a device behind them, so that what a bridge
    or a tunnel passes on is not counted twice; without any such, of all but the loopback.
    """
    words = files.text("proc/stat").splitlines()[0].split()
    try:
        user, nice, system, _idle, _iowait, irq, softirq, steal = (int(word) for word in [*words[1:9], *"00000000"][:8])
    except ValueError:
        raise UnreadableError(f"/proc/stat begins with {words[:3]}, not with times of cpu") from None
    traffic = _traffic(files)
    real = [name for name in traffic if files.exists(f"sys/class/net/{name}/device")]
    counted = real or [name for name in traffic if name != "lo"]
    return Activity(
        (user + nice + system + irq + softirq + steal) / TICKS,
        sum(traffic[name][1] for name in counted),
        sum(traffic[name][0] for name in counted),
    )


def _traffic(files: Files) -> dict[str, tuple[int, int]]:
    """Bytes received and sent by interface."""
    found = {}
    for line in files.text("proc/net/dev").splitlines():
        name, colon, figures = line.partition(":")
        numbers = figures.split()
        if colon and len(numbers) >= 9:
            found[name.strip()] = (int(numbers[0]), int(numbers[8]))
    return found
