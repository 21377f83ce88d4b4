"""What `tc` is told, line for line, and what is made of its counters; whether a kernel does it, `make netem` measures."""

import json
import math
import os
import shutil
import sys
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest

from hub.trial import net as trial_net
from hub.trial.emulator import NetError
from hub.trial.netem import AHEAD_SECONDS, Air, Programs, ToolError, inexact
from hub.trial.outages import Outages
from hub.trial.scenario import Course, Link, Links, Scenario, load
from hub.trial.traces import PacketTrace, RateTrace
from tests.hub.trial import vm

AIR = "stab overhead -14 netem limit 1000000"
REST = "duplicate 0% corrupt 0% rate 100000000000bit"
FREE = "stab overhead -14 tbf rate 100000000000bit burst 12503000 limit 65536"


def scenario(link=Link(), *, outages=Outages(), up=None, down=None, seed=0):  # noqa: B008  frozen
    course = Course(((0.0, link),))
    return Scenario("test", "ours", seed, Links(up or course, down or course, outages))


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Has `tc` and `ip` note the lines they are given; returns a function for those since it was last called."""
    for program in ("tc", "ip"):
        script = tmp_path / "bin" / program
        script.parent.mkdir(exist_ok=True)
        script.write_text(
            f'#!/bin/sh\nif [ "$1" = -batch ]; then sed "s/^/{program} /" >> {tmp_path}/lines\n'
            f"else cat {tmp_path}/{program}.json; fi\n"
        )
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    shows(tmp_path, ["pi-1", "pi-2"])

    def lines():
        path = tmp_path / "lines"
        found = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return found

    return lines


def shows(folder, devices, **numbers):
    """Has `ip` and `tc` show these counters on every interface of so many devices."""
    names = [f"{letter}{number}" for number, _ in enumerate(devices, 1) for letter in "dxyh"]
    rx = {"packets": numbers.get("packets_in", 0), "bytes": numbers.get("bytes_in", 0)}
    (folder / "ip.json").write_text(json.dumps([{"ifname": name, "stats64": {"rx": rx}} for name in names]))
    first = {"packets": 0, "bytes": 0, "drops": 0, "backlog": 0, "qlen": 0, **numbers.get("queue", {})}
    second = {"packets": 0, "bytes": 0, "drops": 0, "backlog": 0, "qlen": 0, **numbers.get("air", {})}
    found = [{"dev": name, "root": True, **(first if name[0] in "xy" else second)} for name in names]
    (folder / "tc.json").write_text(json.dumps([{"dev": "lo", "kind": "noqueue"}, *found]))


def begun(of, devices=("pi-1",)):
    air = Air(of, devices, Programs())
    air.begin()
    return air


def edge(air):
    """Goes to the next change, past the reading before it; returns when it is."""
    air.adjust(air.next)
    at = air.next
    air.adjust(at)
    return at


def test_a_link_of_every_kind_of_fault(recorded):
    link = Link(
        rate=256_000, delay_seconds=0.0405, jitter_seconds=0.01, loss=0.125, queue_bytes=20_000,
        corrupt=0.001, duplicate=0.02, reorder=0.03,
    )  # fmt: skip
    begun(scenario(up=Course(((0.0, link),))))
    hurt = "duplicate 2% corrupt 0.1% reorder 3%"
    # What leaves at once: two packets, and what 256 kbit/s make in a millisecond.
    assert recorded() == [
        "tc qdisc add dev x1 root handle 1: stab overhead -14 tbf rate 256000bit burst 3032 limit 20000",
        f"tc qdisc add dev h1 root handle 1: {AIR} delay 40500us 10000us loss 12.5% {hurt} rate 100000000000bit",
        f"tc qdisc add dev y1 root handle 1: {FREE}",
        f"tc qdisc add dev d1 root handle 1: {AIR} delay 0us loss 0% {REST}",
    ]


def test_bursts_are_those_of_gilbert_and_elliott(recorded):
    begun(scenario(Link(loss=0.01, p_enter=0.05, p_leave=0.25, loss_bad=0.6)))
    assert recorded()[1] == f"tc qdisc add dev h1 root handle 1: {AIR} delay 0us loss gemodel 5% 25% 60% 1% {REST}"


def test_every_device_has_interfaces_of_its_own(recorded):
    begun(scenario(), ["pi-1", "pi-2"])
    assert [line.split()[4] for line in recorded()] == ["x1", "h1", "y1", "d1", "x2", "h2", "y2", "d2"]


def test_a_schedule_changes_what_is_different_when_its_time_has_come(recorded):
    slow = Link(rate=8000, loss=0.5)
    air = begun(scenario(up=Course(((0.0, Link(rate=16_000, loss=0.5)), (60.0, slow)))))
    recorded()
    assert air.next == 60 - AHEAD_SECONDS
    air.adjust(59.95)
    assert recorded() == []
    assert air.next == 60
    air.adjust(60.0)
    assert recorded() == [
        "tc qdisc change dev x1 root handle 1: stab overhead -14 tbf rate 8000bit burst 3001 limit 65536"
    ]
    assert air.next == math.inf


def test_a_rate_trace_is_followed_from_row_to_row_and_begins_again(recorded):
    trace = RateTrace((0.0, 2.0), (1e6, 2e6), (0.0, 0.1), 5.0)
    air = begun(scenario(up=Course(trace=trace)))
    moments = []
    for _ in range(4):
        recorded()
        moments.append(edge(air))
        moments += [line.split("tbf ")[-1].split("netem ")[-1].split(" ")[1] for line in recorded()]
    loss, none = "1000000", "1000000"  # the limit of netem, whose loss has changed, too
    assert moments == [2, "2000000bit", loss, 5, "1000000bit", none, 7, "2000000bit", loss, 10, "1000000bit", none]


def test_a_packet_trace_is_the_rate_of_each_second(recorded):
    # 3 packets of 1500 bytes in the first second, 1 in the next.
    air = begun(scenario(up=Course(trace=PacketTrace((100, 200, 300, 2000)))))
    assert "tbf rate 36000bit" in recorded()[0]
    recorded()
    assert edge(air) == 1
    assert ["tbf rate 12000bit" in line for line in recorded()] == [True]


def test_an_outage_takes_what_leaves_in_it_and_what_would_arrive_in_it(recorded):
    air = begun(scenario(up=Course(((0.0, Link(delay_seconds=0.5)),)), outages=Outages(times=((10.0, 3.0),))))
    changes = []
    while air.next < math.inf:
        recorded()
        at = edge(air)
        changes += [(at, line.split()[4], line.split("loss ")[1].split()[0]) for line in recorded()]
    # Up, what leaves half a second before it arrives in it.
    assert changes == [(9.5, "h1", "100%"), (10, "d1", "100%"), (13, "h1", "0%"), (13, "d1", "0%")]


def test_an_outage_comes_back_after_hours(recorded):
    air = begun(scenario(outages=Outages(every_seconds=10_000, for_seconds=1)))
    assert recorded()
    assert (edge(air), edge(air)) == (10_000, 10_001)


def test_counters_of_a_direction(recorded, tmp_path):
    air = begun(scenario(Link(loss=0.1)))
    # 100 packets of 114 bytes with their headers; 5 found the queue full, 2 wait; 9 were lost, 3 are under way.
    shows(
        tmp_path, ["pi-1"], packets_in=100, bytes_in=11_400,
        queue={"packets": 93, "drops": 5, "backlog": 200, "qlen": 2},
        air={"packets": 81, "bytes": 8100, "drops": 9, "backlog": 300, "qlen": 3},
    )  # fmt: skip
    air.read()
    up = air.links["pi-1"]["up"].counters
    assert (up.offered, up.offered_bytes, up.delivered, up.delivered_bytes) == (100, 10_000, 81, 8100)
    assert (up.lost_queue, up.lost_loss, up.lost_outage, up.lost_bytes) == (5, 9, 0, 1400)
    assert (up.duplicated, recorded() != []) == (0, True)


def test_what_an_outage_loses_is_told_from_what_chance_loses(recorded, tmp_path):
    air = begun(scenario(Link(loss=0.1), outages=Outages(times=((10.0, 3.0),))))
    for now, drops in ((9.95, 4), (10.0, 4), (12.95, 49), (13.0, 50), (20.0, 51)):
        shows(tmp_path, ["pi-1"], packets_in=100, bytes_in=11_400, air={"drops": drops})
        air.adjust(now)
    air.read()
    up = air.links["pi-1"]["up"].counters
    assert (up.lost_loss, up.lost_outage) == (4 + 1, 46)
    assert recorded()


def test_duplicates_are_what_comes_out_beyond_what_went_in(recorded, tmp_path):
    air = begun(scenario(Link(duplicate=0.1)))
    shows(tmp_path, ["pi-1"], packets_in=50, bytes_in=5700, queue={"packets": 50}, air={"packets": 54, "bytes": 5400})
    air.read()
    up = air.links["pi-1"]["up"].counters
    assert (up.delivered, up.duplicated, up.lost_bytes) == (54, 4, 0)
    assert recorded()


@pytest.mark.parametrize("name", ["perfect", "basement", "flapping", "lora-gateway", "satellite", "wifi-far"])
def test_what_netem_does_as_it_is_written(name):
    assert inexact(load(name), ["pi-1"]) == []


def test_what_netem_does_otherwise_is_told():
    of = scenario(Link(rate=0, corrupt=0.1, delay_seconds=1, reorder=0.1), down=Course(trace=PacketTrace((1, 2))))
    assert inexact(of, ["pi-1"]) == [
        "a packet trace becomes the rate of each of its seconds",
        "a rate of 0 becomes 8 bit/s",
        "corruption hits headers only and is not counted",
        "what overtakes is not counted",
    ]


def test_a_program_that_refuses_is_told_with_its_words(recorded, tmp_path):
    (tmp_path / "bin" / "tc").write_text("#!/bin/sh\necho Error: Specified qdisc kind is unknown. >&2\nexit 2\n")
    with pytest.raises(ToolError, match=r"^tc refuses: Error: Specified qdisc kind is unknown\.$"):
        begun(scenario())
    assert recorded() == []


def test_a_scenario_that_netem_only_comes_near_to_is_the_emulators(tmp_path):
    of = scenario(down=Course(trace=PacketTrace((1, 2))))
    with trial_net.open_net(of, [], tmp_path) as net:
        assert net.means != "netem"
    with trial_net.open_net(of, ["pi-1"], tmp_path) as net:
        assert net.means != "netem"
        assert "; not tc netem: with it a packet trace becomes the rate of each of its seconds" in net.how


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")
def test_without_netem_the_next_means_is_taken_and_why_is_said(tmp_path, monkeypatch):
    from hub.trial import namespaces  # noqa: PLC0415  Linux only

    monkeypatch.setattr(namespaces, "netem_available", lambda: False)
    for prefer in ("auto", "netem"):
        with trial_net.open_net(scenario(), ["pi-1"], tmp_path, prefer=prefer) as net:
            assert net.means in {"emulator", "relay"}
            assert "; not tc netem: this kernel has none, or there is no program tc" in net.how


def test_asked_for_by_name_another_means_is_not_looked_for(tmp_path, monkeypatch):
    def never(*_, **_more):
        raise NetError("never")

    monkeypatch.setattr(trial_net, "_netem", never)
    for prefer in ("emulator", "relay"):
        with trial_net.open_net(scenario(), ["pi-1"], tmp_path, prefer=prefer) as net:
            assert "netem" not in net.how


KERNEL = os.environ.get("CUTLAYER_KERNEL")
"""An unpacked kernel package, see vm.py; set by `make netem`."""


@pytest.mark.system
@pytest.mark.skipif(not KERNEL, reason="CUTLAYER_KERNEL names no unpacked kernel package: make netem does")
def test_a_kernel_with_netem_does_what_the_scenario_says():
    for program in ("qemu-system-x86_64", "busybox"):
        if not shutil.which(program):
            pytest.skip(f"there is no {program}")
    said = vm.measure(Path(KERNEL))
    lines = [json.loads(line[line.index("{") :]) for line in said.splitlines() if '{"scenario"' in line]
    found = {line["scenario"]: line for line in lines}
    assert not [line for line in lines if "error" in line], said
    assert found["delay"]["how"].startswith("tc netem in network namespaces (unprivileged); TCP uses ")
    assert 0.2 <= found["delay"]["least"] <= found["delay"]["median"] < 0.3
    assert found["delay"]["back"] == 20
    assert found["jitter"]["in_order"]
    assert 0.1 < found["jitter"]["spread"] < 0.5
    # 20 % of 500: nine of ten times within 15; here five standard deviations, for a test that does not cry wolf.
    assert abs(found["loss"]["arrived"] - 400) < 45
    # A sixth of 900 in bursts, whose deviation is about 17.
    assert abs(found["bursts"]["arrived"] - 750) < 85
    # 20 packets in the queue and 3 for the burst, and one more for each 25 ms of the sending.
    assert 20 <= found["queue"]["arrived"] < 40
    for name in ("loss", "bursts", "queue"):
        one = found[name]
        assert one["offered"] == one["sent"]
        assert one["lost_loss" if name != "queue" else "lost_queue"] == one["sent"] - one["arrived"]
        assert one["lost_bytes"] == (one["sent"] - one["arrived"]) * (128 if name != "queue" else 1000)
    for until, wanted in ((11.5, 2e6), (math.inf, 5e5)):
        paced(found["rate"], until, wanted)
    outage = found["outage"]
    assert outage["in_a_row"]
    assert (outage["lost_outage"], outage["lost_loss"]) == (outage["lost"], 0)
    # 2 s of one packet each 50 ms, and those of the 50 ms before it; `tc` takes a while to begin and to end it where the processor
    # is emulated on a busy machine.
    assert 30 <= outage["lost"] <= 60


def paced(of, until, wanted):
    """A stream keeps to a rate but for its pauses after a loss: what its packets' content may be of it, most of the time."""
    part = [(at, got) for at, got in of["seen"] if (at < until if until < math.inf else at > 16)]
    goodput = median(8 * (got - before) / (at - then) for (then, before), (at, got) in pairwise(part) if at > then)
    assert 0.8 * wanted < goodput < 1.05 * wanted * 1448 / 1500
