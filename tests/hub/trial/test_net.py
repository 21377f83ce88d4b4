"""Real processes behind emulated links: in network namespaces, and behind relays."""

import hashlib
import json
import os
import random
import re
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from edge.wire.toml_fields import ConfigError
from hub.trial import net as trial_net
from hub.trial.emulator import HUB, NetError
from hub.trial.net import open_net
from hub.trial.outages import Outages
from hub.trial.relay import RelayNet
from hub.trial.scenario import Course, Link, Links, Scenario

pytestmark = pytest.mark.system

if sys.platform != "linux":
    pytest.skip("network namespaces are Linux's", allow_module_level=True)

from hub.trial import namespaces  # noqa: E402  it imports what only Linux has

DEVICES = ["pi-1", "pi-2"]
FOREVER = Outages(times=((0.0, 1e6),))


def scenario(link=Link(), *, outages=Outages(), devices=()):  # noqa: B008  frozen
    course = Course(((0.0, link),))
    return Scenario("test", "ours", links=Links(course, course, outages), devices=dict(devices))


@pytest.fixture(scope="module")
def _namespaces(tmp_path_factory):
    try:
        namespaces.NamespaceNet(scenario(), [], tmp_path_factory.mktemp("probe")).close()
    except NetError as error:
        if os.environ.get("CI"):
            pytest.fail(f"there are no network namespaces, and CI is to test them: {error}")
        pytest.skip(f"no network namespaces: {error}")


@pytest.fixture(params=["emulator", "relay"])
def kind(request):
    if request.param == "emulator":
        request.getfixturevalue("_namespaces")
    return request.param


@pytest.fixture
def opened(kind, tmp_path):
    """Opens a net of this kind, to be closed with the test."""
    nets = []

    def opening(scenario, devices=DEVICES, **options):
        nets.append(open_net(scenario, devices, tmp_path, prefer=kind, **options))
        return nets[-1]

    yield opening
    for net in nets:
        net.close()


def until(check, tries=600):
    """Waits for a process to have done something; how long that takes is the machine's business."""
    for _ in range(tries):
        if found := check():
            return found
        select.select([], [], [], 0.05)
    raise AssertionError("it did not come to pass")


SERVER = """
import hashlib, socket, sys
with socket.create_server((sys.argv[1], 0)) as server:
    print(server.getsockname()[1], flush=True)
    connection, _ = server.accept()
    digest = hashlib.sha256()
    while part := connection.recv(65536):
        digest.update(part)
    connection.sendall(digest.hexdigest().encode() * 1000)
    connection.close()
"""

CLIENT = """
import random, socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=120) as connection:
    connection.sendall(random.Random(5).randbytes(int(sys.argv[3])))
    connection.shutdown(socket.SHUT_WR)
    got = b""
    while part := connection.recv(65536):
        got += part
print(len(got), got[:64].decode(), got == got[:64] * 1000)
"""


def python(code, *arguments):
    return [sys.executable, "-c", code, *map(str, arguments)]


def transfer(net, device, size):
    """Sends bytes from a device to the hub, and the hub's answer of 64,000 bytes back."""
    log = net.folder / f"server-{device}.log"
    net.popen(HUB, python(SERVER, net.address(HUB)), log=log)
    port = int(until(lambda: log.read_text().strip()))
    client = net.popen(device, python(CLIENT, *net.endpoint(device, port), size))
    assert client.wait(120) == 0, (net.folder / f"{device}.log").read_text()
    digest = hashlib.sha256(random.Random(5).randbytes(size)).hexdigest()
    assert (net.folder / f"{device}.log").read_text().split() == ["64000", digest, "True"]


def test_a_transfer_arrives_intact_through_a_link_that_loses_a_tenth(opened):
    net = opened(scenario(Link(rate=10e6, delay_seconds=0.005, jitter_seconds=0.003, loss=0.1)))
    transfer(net, "pi-1", 200_000)
    counters = net.counters()
    up, down = counters["pi-1"]["up"], counters["pi-1"]["down"]
    assert up.lost_loss > 0
    assert up.lost_bytes > 0
    assert up.delivered_bytes >= 200_000
    assert down.delivered_bytes >= 64_000
    assert counters["pi-2"]["up"].offered == 0


@pytest.mark.usefixtures("_namespaces")
def test_tcp_mends_what_a_link_makes_of_packets(tmp_path):
    link = Link(delay_seconds=0.005, corrupt=0.03, duplicate=0.05, reorder=0.05, queue_bytes=30_000, rate=20e6)
    with open_net(scenario(link), DEVICES, tmp_path, prefer="emulator") as net:
        transfer(net, "pi-2", 300_000)
        up = net.counters()["pi-2"]["up"]
    assert min(up.corrupted, up.duplicated, up.reordered) > 0


def test_a_relay_counts_the_bytes_of_the_content(tmp_path):
    with open_net(scenario(Link(loss=0.05)), DEVICES, tmp_path, prefer="relay") as net:
        transfer(net, "pi-1", 123_456)
        counters = net.counters()["pi-1"]
    assert (counters["up"].offered_bytes, counters["up"].delivered_bytes) == (123_456, 123_456)
    assert (counters["down"].offered_bytes, counters["down"].delivered_bytes) == (64_000, 64_000)


def test_the_timeline_sums_up_to_the_counters(opened):
    net = opened(scenario(Link(rate=1e6, loss=0.05)))
    transfer(net, "pi-1", 50_000)
    net.close()
    heading, *seconds = [json.loads(line) for line in net.timeline.read_text().splitlines()]
    assert (heading["scenario"], heading["source"], heading["seed"]) == ("test", "ours", 0)
    assert net.how.startswith(heading["how"])
    assert {record["device"] for record in seconds} == set(DEVICES)
    counters = net.counters()
    for device in DEVICES:
        records = [record for record in seconds if record["device"] == device]
        assert [record["seconds"] for record in records] == sorted(record["seconds"] for record in records)
        for direction in ("up", "down"):
            for name in ("offered_bytes", "delivered_bytes", "lost_bytes"):
                total = sum(record[direction][name] for record in records)
                assert total == getattr(counters[device][direction], name)
            assert records[-1][direction]["rate"] == 1e6
    assert counters["pi-1"]["up"].delivered_bytes >= 50_000


DATAGRAMS = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    for _ in range(5):
        sender.sendto(bytes(100), (sys.argv[1], 9))
"""


@pytest.mark.usefixtures("_namespaces")
def test_what_a_device_sends_during_an_outage_is_lost_and_another_devices_link_is_its_own(tmp_path):
    mended = {"pi-2": Links(Course(), Course(), Outages())}
    with open_net(scenario(outages=FOREVER, devices=mended.items()), DEVICES, tmp_path, prefer="emulator") as net:
        for device in DEVICES:
            assert net.popen(device, python(DATAGRAMS, net.address(HUB))).wait(60) == 0
        until(lambda: net.counters()["pi-1"]["up"].lost_outage == 5)
        assert net.counters()["pi-1"]["up"].lost_bytes == 5 * 128
        until(lambda: net.counters()["pi-2"]["up"].delivered == 5)
        assert net.counters()["pi-1"]["down"].offered == 0
    records = [json.loads(line) for line in net.timeline.read_text().splitlines()[1:]]
    assert {(record["device"], record["outage"]) for record in records} == {("pi-1", True), ("pi-2", False)}


WAYS_OUT = """
import errno, socket, sys
print([name for _, name in socket.if_nameindex()])
for host, port in (("127.0.0.1", int(sys.argv[1])), (sys.argv[2], int(sys.argv[1])), ("192.0.2.1", 80), ("10.77.0.3", 80)):
    with socket.socket() as way:
        way.settimeout(0.5)
        try:
            way.connect((host, port))
            print("open")
        except OSError as error:
            print(errno.errorcode.get(error.errno, "timeout"))
"""


@pytest.mark.usefixtures("_namespaces")
def test_nothing_reaches_outside(tmp_path):
    own = next(
        (a.address for name, all_of in psutil.net_if_addrs().items() if name != "lo"
         for a in all_of if a.family == socket.AF_INET), "192.0.2.2"
    )  # fmt: skip
    with socket.create_server(("", 0)) as server, open_net(scenario(), DEVICES, tmp_path, prefer="emulator") as net:
        assert net.popen("pi-1", python(WAYS_OUT, server.getsockname()[1], own)).wait(60) == 0
        assert select.select([server], [], [], 0)[0] == []
        assert net.popen(HUB, python(WAYS_OUT, server.getsockname()[1], own)).wait(60) == 0
        ours = dict.fromkeys(name for _, name in socket.if_nameindex())
    # In its own loopback nobody listens, there is no route to anywhere, and a device does not see another one.
    expected = ["['lo',", "'radio']", "ECONNREFUSED", "ENETUNREACH", "ENETUNREACH", "timeout"]
    assert (tmp_path / "pi-1.log").read_text().split() == expected
    assert (tmp_path / "hub.log").read_text().split()[:5] == expected[:5]
    assert "radio" not in ours


STUBBORN = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)

OWNER = """
import sys, time
from pathlib import Path
from hub.trial.net import open_net
from hub.trial.scenario import Scenario
net = open_net(Scenario("s", "ours"), ["pi-1"], Path(sys.argv[1]), prefer=sys.argv[2])
children = [net.popen(node, [sys.executable, "-c", sys.argv[3]]) for node in ("hub", "pi-1")]
print(net.emulator.pid, *(child.pid for child in children), flush=True)
time.sleep(600)
"""


def namespace_of(pid):
    return os.stat(f"/proc/{pid}/ns/net").st_ino  # noqa: PTH116  Path would follow the link no better


def all_namespaces():
    found = set()
    for process in psutil.process_iter():
        try:
            found.add(namespace_of(process.pid))
        except OSError:
            continue
    return found


def gone(processes):
    """Whether they end; a zombie whose parent was killed has ended, too."""
    _, alive = psutil.wait_procs(processes, timeout=20)
    return all(not process.is_running() or process.status() == psutil.STATUS_ZOMBIE for process in alive)


def test_killing_the_owner_leaves_no_process_and_no_namespace(kind, tmp_path):
    command = python(OWNER, tmp_path, kind, STUBBORN)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        emulator, *children = map(int, owner.stdout.readline().split())
        logs = [tmp_path / "hub.log", tmp_path / "pi-1.log"]
        until(lambda: all(log.exists() and log.read_text() for log in logs))
        inside = {namespace_of(pid) for pid in children} - {namespace_of(os.getpid())}
        assert len(inside) == (2 if kind == "emulator" else 0)
        left = [psutil.Process(pid) for pid in (emulator, *children)]
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    assert gone(left)
    assert not inside & all_namespaces()


def test_closing_ends_the_processes_and_the_emulator(opened):
    net = opened(scenario())
    child = net.popen("pi-1", python("import time; time.sleep(600)"))
    net.close()
    assert child.returncode == -signal.SIGTERM
    assert net.emulator.returncode == 0
    net.close()  # once more does no harm
    assert net.counters()["pi-1"]["up"].lost == 0


def test_an_emulator_that_has_died_is_told(opened):
    net = opened(scenario())
    net.emulator.kill()
    with pytest.raises(NetError, match=r"^the emulator of the links (has ended|does not answer): "):
        net.counters()
    if isinstance(net, namespaces.NamespaceNet):
        with pytest.raises(NetError, match="the emulator of the links has ended"):
            net.popen("pi-1", ["true"])


def test_a_program_that_is_not_there_is_told_as_python_does(opened):
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        opened(scenario()).popen("pi-1", ["no-such-program"])


def test_a_node_that_is_not_there_is_refused(opened):
    net = opened(scenario())
    with pytest.raises(ConfigError, match="there is no node 'pi-3': must be one of hub, pi-1, pi-2"):
        net.popen("pi-3", ["true"])


@pytest.mark.parametrize(
    ("devices", "sentence"),
    [
        (["a", "a"], "device 'a': must be a name of its own"),
        (["hub"], "device 'hub': must be a name of its own"),
        (["a b"], "device 'a b': must be a name of letters, digits, points, dashes"),
    ],
)
def test_names_of_devices_are_checked(tmp_path, devices, sentence):
    with pytest.raises(ConfigError, match=f"^{sentence}$"):
        open_net(scenario(), devices, tmp_path, prefer="relay")


@pytest.mark.usefixtures("_namespaces")
def test_the_congestion_control_is_the_one_asked_for_or_said_to_be_another(tmp_path):
    for name in Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split():
        with open_net(scenario(), ["pi-1"], tmp_path, prefer="emulator", congestion=name) as net:
            assert net.congestion == name
            assert net.how == f"emulator in network namespaces (unprivileged); TCP uses {name}"
    with open_net(scenario(), ["pi-1"], tmp_path, prefer="emulator", congestion="none-such") as net:
        assert net.congestion != "none-such"
        assert net.how.endswith(f"TCP uses {net.congestion}, for the kernel does not give none-such to them")


class WithoutUserNamespaces(namespaces.NamespaceNet):
    """As on a system that forbids them."""

    def _begin(self, *arguments):
        if self._unprivileged:
            raise NetError("forbidden")
        super()._begin(*arguments)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has namespaces without user namespaces")
@pytest.mark.usefixtures("_namespaces")
def test_root_does_without_user_namespaces(tmp_path):
    with WithoutUserNamespaces(scenario(), DEVICES, tmp_path) as net:
        transfer(net, "pi-1", 10_000)
        assert re.match(r"emulator in network namespaces \(as root\), .* not do here: forbidden; TCP uses ", net.how)


def test_without_namespaces_there_are_relays_and_why_is_said(tmp_path, monkeypatch):
    def forbidden(*_):
        raise NetError("forbidden")

    monkeypatch.setattr(trial_net, "_namespaces", forbidden)
    with open_net(scenario(), DEVICES, tmp_path, prefer="emulator") as net:
        assert isinstance(net, RelayNet)
        assert net.how.startswith("emulator on the loopback: ")
        assert net.how.endswith("; no namespaces: forbidden")


@pytest.fixture
def relayed(tmp_path):
    """Opens a relay to a server of this process: the device's connection, the hub's listener, the net."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        nets = []

        def opening(scenario, **options):
            nets.append(RelayNet(scenario, DEVICES, tmp_path, **options))
            endpoint = nets[-1].endpoint("pi-1", server.getsockname()[1])
            assert endpoint == nets[-1].endpoint("pi-1", server.getsockname()[1])
            return socket.create_connection(endpoint, timeout=60), server, nets[-1]

        yield opening
        for net in nets:
            net.close()


def test_a_relay_holds_a_sender_back_whose_receiver_does_not_read(relayed):
    device, server, net = relayed(scenario(Link(rate=1e9)))
    with device, server.accept()[0] as hub:
        device.setblocking(False)
        content = random.Random(1).randbytes(1 << 20)
        sent = 0
        while select.select([], [device], [], 1.0)[1] and sent < 1 << 28:
            sent += device.send(content[sent % (1 << 20) :])
        assert sent < 1 << 28
        device.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: hub.recv(65536), b""))
    assert len(received) == sent
    assert received == (content * (sent // len(content) + 1))[:sent]
    assert net.counters()["pi-1"]["up"].delivered_bytes == sent


def test_a_relay_keeps_the_bytes_of_an_outage_for_after_it(relayed):
    device, server, net = relayed(scenario(outages=Outages(times=((0.0, 1.0),))))
    with device, server.accept()[0] as hub:
        hub.settimeout(60)
        device.sendall(b"late")
        assert hub.recv(10) == b"late"
    assert net.counters()["pi-1"]["up"].lost == 0


def test_a_relay_breaks_connections_after_so_long_an_outage(relayed):
    device, server, net = relayed(scenario(outages=FOREVER), break_seconds=0.2)
    with device, server.accept()[0] as hub:
        hub.settimeout(60)
        for end in (device, hub):
            with pytest.raises(ConnectionResetError):
                end.recv(10)
    assert "connections break after an outage of 0.2 s" in net.how


def test_a_relay_ends_the_devices_connection_where_nobody_listens(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with (
        RelayNet(scenario(), DEVICES, tmp_path) as net,
        socket.create_connection(net.endpoint("pi-1", port), timeout=60) as device,
    ):
        assert device.recv(10) == b""


TRY_NETEM = "PATH=$PATH:/usr/sbin:/sbin; tc qdisc add dev lo root netem delay 1ms; tc qdisc show dev lo"


@pytest.mark.usefixtures("_namespaces")
def test_netem_is_available_where_it_can_be_set():
    shown = subprocess.run(["unshare", "-Urn", "sh", "-c", TRY_NETEM], check=False, capture_output=True, text=True)
    assert namespaces.netem_available() == ("netem" in shown.stdout)
