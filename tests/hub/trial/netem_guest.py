"""Runs under a kernel that has netem: opens links by it and measures them; one line of JSON for each scenario."""

import json
import sys
import tempfile
import time
import traceback
from pathlib import Path

from hub.trial.net import HUB, open_net
from hub.trial.outages import Outages
from hub.trial.scenario import Course, Link, Links, Scenario

ECHO = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
    server.bind((sys.argv[1], 4009))
    print("up", flush=True)
    while True:
        packet, peer = server.recvfrom(2000)
        print(int.from_bytes(packet[:4], "big"), flush=True)
        server.sendto(packet[:4], peer)
"""

PING = """
import select, socket, sys, time
host, count, size, pause, wait = sys.argv[1], *map(float, sys.argv[2:])
sent, trips = {}, {}
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
    way.connect((host, 4009))
    way.setblocking(False)
    def listen(until):
        while (left := until - time.monotonic()) > 0 and len(trips) < count:
            if select.select([way], [], [], left)[0]:
                number = int.from_bytes(way.recv(100), "big")
                trips.setdefault(number, time.monotonic() - sent[number])
    for number in range(int(count)):
        sent[number] = time.monotonic()
        way.send(number.to_bytes(4, "big") + bytes(int(size) - 4))
        if pause:
            listen(time.monotonic() + pause)
    listen(time.monotonic() + wait)
print({n: round(t, 4) for n, t in trips.items()})
"""

SINK = """
import socket, sys, time
with socket.create_server((sys.argv[1], 4010)) as server:
    print("up", flush=True)
    connection, _ = server.accept()
    got = 0
    while part := connection.recv(65536):
        got += len(part)
        print(time.monotonic(), got, flush=True)
"""

SEND = """
import socket, sys, time
with socket.create_connection((sys.argv[1], 4010), timeout=60) as way:
    while time.monotonic() < float(sys.argv[2]):
        way.sendall(bytes(10_000))
"""


def net(folder, link, outages=Outages(), later=()):  # noqa: B008  frozen
    course = Course(((0.0, link), *later))
    return open_net(Scenario("s", "ours", links=Links(course, course, outages)), ["pi-1", "pi-2"], folder)


def start(links, code):
    log = links.folder / f"server-{abs(hash(code))}.log"
    links.popen(HUB, [sys.executable, "-c", code, links.address(HUB)], log=log)
    for _ in range(600):
        if log.exists() and log.read_text().startswith("up"):
            return log
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def run(links, code, *arguments):
    log = links.folder / "client.log"
    child = links.popen("pi-1", [sys.executable, "-c", code, links.address(HUB), *map(str, arguments)], log=log)
    assert child.wait(90) == 0, log.read_text()
    return log.read_text().splitlines()[-1] if log.read_text() else ""


def pings(links, *arguments):
    """Round trips by number, and the numbers that came to the hub."""
    log = start(links, ECHO)
    trips = eval(run(links, PING, *arguments))  # noqa: S307  of our own program
    return trips, {int(line) for line in log.read_text().split()[1:]}


def counted(links):
    ups = links.counters()["pi-1"]["up"]
    return {name: getattr(ups, name) for name in ups.__dataclass_fields__}


def delay(folder):
    with net(folder, Link(delay_seconds=0.1)) as links:
        trips, _ = pings(links, 20, 100, 0.05, 2)
        ordered = sorted(trips.values())
        return {"how": links.how, "median": ordered[len(ordered) // 2], "least": ordered[0], "back": len(trips)}


def jitter(folder):
    with net(folder, Link(delay_seconds=0.1, jitter_seconds=0.1)) as links:
        trips, _ = pings(links, 100, 100, 0.01, 2)
        log = next(folder.glob("server-*"))
        order = list(map(int, log.read_text().split()[1:]))
        return {
            "in_order": order == sorted(order),
            "back": len(trips),
            "spread": max(trips.values()) - min(trips.values()),
        }


def loss(folder):
    with net(folder, Link(loss=0.2, delay_seconds=0.01)) as links:
        _, arrived = pings(links, 500, 100, 0.002, 2)
        return {"sent": 500, "arrived": len(arrived), **counted(links)}


def bursts(folder):
    # A third of the time in the bad state, of which half is lost: a sixth.
    with net(folder, Link(p_enter=0.1, p_leave=0.2, loss_bad=0.5)) as links:
        _, arrived = pings(links, 900, 100, 0.002, 2)
        return {"sent": 900, "arrived": len(arrived), **counted(links)}


def queue(folder):
    # 100 packets of 1000 bytes at once into a queue of 20,000, at 40 of them a second.
    with net(folder, Link(rate=320_000, queue_bytes=20_000)) as links:
        _, arrived = pings(links, 100, 972, 0, 2)
        return {"sent": 100, "arrived": len(arrived), **counted(links)}


def rate(folder):
    # 2 Mbit/s both ways, from 12 s on a fourth of it.
    fast, slow = Link(rate=2e6, delay_seconds=0.02), Link(rate=5e5, delay_seconds=0.02)
    with net(folder, fast, later=((12.0, slow),)) as links:
        opened = time.monotonic()
        log = start(links, SINK)
        run(links, SEND, opened + 21)
        seen = [tuple(map(float, line.split())) for line in log.read_text().splitlines()[1:]]
        seen = [(at - opened, got) for at, got in seen]
        return {"seen": seen[:: max(1, len(seen) // 80)] + seen[-1:], **counted(links)}


def outage(folder):
    with net(folder, Link(delay_seconds=0.05), Outages(times=((5.0, 2.0),))) as links:
        _, arrived = pings(links, 160, 100, 0.05, 1)
        lost = sorted(set(range(160)) - arrived)
        lines = [json.loads(line) for line in links.timeline.read_text().splitlines()[1:]]
        gone = [line["seconds"] for line in lines if line["device"] == "pi-1" and line["outage"]]
        return {
            "lost": len(lost),
            "in_a_row": lost == list(range(lost[0], lost[-1] + 1)),
            "gone": gone,
            **counted(links),
        }


SCENARIOS = (delay, jitter, loss, bursts, queue, rate, outage)

if __name__ == "__main__":
    wanted = sys.argv[1:]
    for scenario in SCENARIOS:
        if wanted and scenario.__name__ not in wanted:
            continue
        with tempfile.TemporaryDirectory(prefix="trial-") as made:
            try:
                found = scenario(Path(made))
            except Exception:  # noqa: BLE001  told, and the others go on
                found = {"error": traceback.format_exc()[-1500:]}
        print(json.dumps({"scenario": scenario.__name__, **found}), flush=True)
