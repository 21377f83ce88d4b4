"""The two ends of a link that is measured, the link between them and the broker beside it: `links` starts and ends them."""

import json
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Any

from benchmarks.child import PROGRAMS
from benchmarks.machine import ROOT
from benchmarks.options import BenchmarkError
from benchmarks.results import Row
from hub.broker import find_mosquitto
from hub.trial.net import HUB, Net
from hub.trial.outages import Outages
from hub.trial.scenario import Course, Link, Links, Scenario

BYTES = 65536
RATE, DELAY, QUEUE = 10e6, 0.025, 128 << 10
ROUND_TRIP = 2 * DELAY
CONGESTION = ("cubic", "bbr")
WAYS = ("ours", "tcp", "paho")
IDLE = "idle"
"""A turn of control messages alone: what the link itself makes of them."""
AHEAD = 16
"""Messages a sender has handed over and not seen acknowledged: 1 MiB, eight times what the link holds."""
PORT = 1883
FLEET, DEVICE = "bench", "pi"
BUNDLE = "ab" * 32

_MOSQUITTO = """\
listener {port} 0.0.0.0
allow_anonymous true
persistence false
max_packet_size 2097152
max_queued_messages 0
max_queued_bytes 67108864
max_inflight_messages 0
set_tcp_nodelay true
log_dest stderr
log_type error
log_type warning
"""


@dataclass
class Heard:
    """What a receiver has noted so far."""

    path: Path
    ready: bool = False
    arrived: list[float] = field(default_factory=list)
    """When each message was whole."""
    took: list[float] = field(default_factory=list)
    """Seconds of each order that was acknowledged."""
    asked: float | None = None
    """When the order was told that is not acknowledged yet."""
    _read: int = 0
    _answered: float | None = None

    @property
    def begun(self) -> float | None:
        """When the first message was whole, or the first order was answered."""
        return self.arrived[0] if self.arrived else self._answered

    def look(self) -> None:
        """Read what is new."""
        if not self.path.exists():
            return
        with self.path.open(encoding="utf-8") as file:
            file.seek(self._read)
            while (line := file.readline()).endswith("\n"):
                self._read = file.tell()
                self._take(json.loads(line))

    def _take(self, note: Mapping[str, Any]) -> None:
        self.ready = self.ready or "ready" in note
        if "at" in note:
            self.arrived.append(note["at"])
        if "asked" in note:
            self.asked = None if "took" in note else note["asked"]
        if "took" in note:
            self.took.append(note["took"])
            self._answered = self._answered or note["asked"] + note["took"]


def scenario(loss: float, outages: Outages | None = None) -> Scenario:
    """The link that is asked for: 10 Mbit/s, 50 ms, a queue of 128 KiB, loss both ways."""
    course = Course(((0.0, Link(RATE, DELAY, loss=loss, queue_bytes=QUEUE)),))
    return Scenario("links", "ours: chosen, not measured", 1, Links(course, course, outages or Outages()))


def start_broker(net: Net) -> None:
    """Mosquitto beside the hub, where the hub's own ends of a link are.

    Raises:
        BenchmarkError: it is not installed or does not start.
    """
    program = find_mosquitto()
    if program is None:
        raise BenchmarkError("mosquitto is not installed: install the package mosquitto")
    text = _MOSQUITTO.format(port=PORT) + ("user root\n" if os.geteuid() == 0 else "")
    path = net.folder / "mosquitto.conf"
    path.write_text(text, encoding="utf-8")
    log = net.folder / "mosquitto.log"
    broker = net.popen(HUB, [program, "-v", "-c", str(path)], log=log)
    until = time.monotonic() + 15
    while not re.search("running|Opening ipv4", log.read_text("utf-8", "replace")):
        if broker.poll() is not None or time.monotonic() > until:
            raise BenchmarkError(f"mosquitto does not start: {log.read_text('utf-8', 'replace').strip()[-300:]}")
        time.sleep(0.05)


def start(
    net: Net, way: str, folder: Path, device: str, *, control_seconds: float = 0.0
) -> tuple[Heard, list[Popen[bytes]]]:
    """A receiver at the hub and a sender at the device, in new processes."""
    folder.mkdir(parents=True)
    # A raw stream has a port of its own for each turn: the last one's may still be kept by the kernel.
    port = PORT if way in ("ours", "paho") else 20000 + len(net.children)
    host, reached = net.endpoint(device, port)
    common = {"way": way, "fleet": FLEET, "device": device, "bundle": BUNDLE, "port": port}
    receiving = {
        **common,
        "url": f"mqtt://{net.address(HUB)}:{PORT}",
        "host": net.address(HUB),
        "out": str(folder / "heard.jsonl"),
        "control_seconds": control_seconds,
    }
    sending = {**common, "host": host, "port": reached, "folder": str(folder / "state"), "ahead": AHEAD}
    heard = Heard(folder / "heard.jsonl")
    receiver = _program(net, HUB, "links_receiver", receiving, folder)
    until = time.monotonic() + 60
    while not heard.ready:
        alive([receiver], folder)
        if time.monotonic() > until:
            raise BenchmarkError(f"the receiver of {way} is not ready after 60 s")
        time.sleep(0.05)
        heard.look()
    return heard, [_program(net, device, "links_sender", sending, folder), receiver]


def _program(net: Net, node: str, name: str, told: Row, folder: Path) -> Popen[bytes]:
    command = [sys.executable, "-P", str(PROGRAMS / f"{name}.py"), json.dumps(told)]
    return net.popen(node, command, log=folder / f"{name}.log", environ=environ())


def environ() -> dict[str, str]:
    """Of every process that is measured."""
    return {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(ROOT)}


def alive(started: Sequence[Popen[bytes]], folder: Path) -> None:
    """See that nobody has died.

    Raises:
        BenchmarkError: somebody has; with the last words of all.
    """
    for child in started:
        if child.poll() is not None:
            words = " / ".join(
                path.read_text("utf-8", "replace").strip()[-300:] for path in sorted(folder.glob("*.log"))
            )
            raise BenchmarkError(f"an end of the link ended with code {child.returncode}: {words}")
