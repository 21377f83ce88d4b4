import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest

from edge.link import Connected, Disconnected, LinkError, Message
from edge.mqtt_link import TAKEN_OVER, MqttLink
from edge.wire import topics
from edge.wire.delivery import Delivery, Limits
from hub.broker import BrokerError, find_mosquitto, start_broker

pytestmark = pytest.mark.system

BROKERS = ["embedded", "mosquitto"]


def _needs(kind):
    if kind == "mosquitto" and find_mosquitto() is None:
        if os.environ.get("CI"):
            pytest.fail("mosquitto is not installed, and CI is to test it")
        pytest.skip("mosquitto is not installed")


@pytest.fixture(scope="module", params=BROKERS)
def broker(request, tmp_path_factory):
    _needs(request.param)
    with start_broker(request.param, tmp_path_factory.mktemp(request.param)) as broker:
        yield broker


@pytest.fixture
def connect(broker, request):
    links = []

    def open_link(name, **options):
        link = MqttLink(broker.url, f"{request.node.name}-{name}", **options)
        link.open(timeout=10)
        links.append(link)
        return link

    yield open_link
    for link in links:
        link.close()


def wait_for(link, wanted, seconds=10.0):
    """Poll until an event is as wanted; the network decides how long that takes."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for event in link.poll(0.2):
            if wanted(event):
                return event
    raise AssertionError("it did not come")


def payload(event):
    return event.payload if isinstance(event, Message) else None


def test_a_status_is_retained_and_the_will_comes_with_the_end(connect, request):
    fleet = "retained"
    status = topics.status(fleet, "d")
    device = connect("d", will=(status, b"offline"))
    device.publish(status, b"online", qos=1, retain=True)
    early = connect("early", subscriptions=topics.subscriptions_of_hub(fleet))
    assert wait_for(early, lambda event: payload(event) == b"online").topic == status
    device.close()
    wait_for(early, lambda event: payload(event) == b"offline")
    late = connect("late", subscriptions=topics.subscriptions_of_hub(fleet))
    wait_for(late, lambda event: payload(event) == b"offline")


CLIENT = """
import sys, time
from edge.mqtt_link import MqttLink
link = MqttLink(sys.argv[1], "killed", will=("killed/status", b"offline"))
link.open()
link.publish("killed/status", b"online", qos=1, retain=True)
time.sleep(60)
"""


def test_the_will_of_a_killed_client_is_published(connect, broker):
    hub = connect("hub", subscriptions=["killed/status"])
    client = subprocess.Popen([sys.executable, "-c", CLIENT, broker.url])
    try:
        wait_for(hub, lambda event: payload(event) == b"online")
        client.kill()
        wait_for(hub, lambda event: payload(event) == b"offline")
    finally:
        client.kill()
        client.wait()


def test_a_payload_of_a_mebibyte_passes(connect):
    hub = connect("hub", subscriptions=["big/up"])
    device = connect("device")
    data = os.urandom(1 << 20)
    device.publish("big/up", data)
    assert wait_for(hub, lambda event: payload(event) is not None).payload == data


def test_who_is_thrown_off_by_a_namesake_is_told(connect):
    first = connect("twin")
    second = connect("twin")
    event = wait_for(first, lambda event: isinstance(event, Disconnected))
    assert second.connected
    # mosquitto says why; rumqttd only closes the connection
    assert event.reason in (TAKEN_OVER, "connection lost")
    first.close()


def test_two_megabytes_arrive_whole_through_delivery_and_the_kernel_counts_them(connect):
    limits = Limits(ack_seconds=0.01)
    up, down = topics.up("bulk", "d"), topics.down("bulk", "d")
    hub = connect("hub", subscriptions=[up])
    device = connect("d", subscriptions=[down])
    a = Delivery(epoch=1, instance=1, limits=limits)
    b = Delivery(epoch=1, instance=2, limits=limits)
    messages = [os.urandom(100_000) for _ in range(20)]
    for message in messages:
        a.send(message)
    arrived = []
    deadline = time.monotonic() + 30
    while not a.idle and time.monotonic() < deadline:
        now = time.monotonic()
        for frame in a.poll(now):
            device.publish(up, frame)
        for event in hub.poll(0.005):
            for delivered in b.receive(event.payload, now) if isinstance(event, Message) else ():
                arrived.append(delivered.payload)
                b.confirm(delivered.number)
        for frame in b.poll(now):
            hub.publish(down, frame)
        for event in device.poll(0):
            if isinstance(event, Message):
                a.receive(event.payload, now)
    assert sorted(arrived) == sorted(messages)
    assert device.counters().sent > 2_000_000
    assert hub.counters().received > 2_000_000
    assert device.counters().source == "kernel TCP_INFO"


@pytest.mark.parametrize("kind", BROKERS)
def test_a_link_comes_back_with_its_broker(kind, tmp_path):
    _needs(kind)
    with start_broker(kind, tmp_path) as first:
        link = MqttLink(first.url, "d", subscriptions=["t"], reconnect_seconds=0.2)
        link.open()
        wait_for(link, lambda event: isinstance(event, Connected))
        sent = link.counters().sent
        assert sent > 0
        first.process.kill()
        wait_for(link, lambda event: event == Disconnected("connection lost"))
        with pytest.raises(LinkError, match="not connected"):
            link.publish("t", b"x")
        assert link.counters().sent >= sent
    port = int(first.url.rsplit(":", 1)[1])
    with start_broker(kind, tmp_path, port=port):
        wait_for(link, lambda event: isinstance(event, Connected))
        link.publish("t", b"back")
        wait_for(link, lambda event: payload(event) == b"back")  # it has subscribed again
        assert link.counters().sent > sent
        link.close()


PARENT = """
import sys, time
from pathlib import Path
from hub.broker import start_broker
broker = start_broker(sys.argv[1], Path(sys.argv[2]))
print(broker.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("kind", BROKERS)
def test_a_broker_ends_with_a_parent_that_is_killed(kind, tmp_path):
    _needs(kind)
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, kind, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        pid = int(parent.stdout.readline())
        broker = psutil.Process(pid)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    gone, _ = psutil.wait_procs([broker], timeout=10)
    assert gone or broker.status() == psutil.STATUS_ZOMBIE


def test_a_stopped_broker_is_gone_and_its_port_free(tmp_path):
    broker = start_broker("embedded", tmp_path)
    broker.stop()
    assert not psutil.pid_exists(broker.pid)
    with start_broker("embedded", tmp_path, port=int(broker.url.rsplit(":", 1)[1])) as again:
        assert again.url == broker.url
        assert again.name == "embedded"


def test_a_port_in_use_is_refused_in_a_sentence(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(BrokerError, match=f"^port {port} is in use: stop the program that has it"):
            start_broker("embedded", tmp_path, port=port)


def test_a_broker_we_do_not_know_is_refused(tmp_path):
    with pytest.raises(BrokerError, match="unknown broker 'rabbit': choose embedded or mosquitto"):
        start_broker("rabbit", tmp_path)


def test_the_brokers_listen_on_the_loopback_only(broker):
    addresses = {
        connection.laddr.ip for connection in psutil.Process(broker.pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }  # fmt: skip
    assert addresses == {"127.0.0.1"}


@pytest.mark.parametrize("kind", BROKERS)
def test_a_broker_listens_where_it_is_told(kind, tmp_path):
    _needs(kind)
    # All of 127.0.0.0/8 is this machine on Linux; elsewhere only the first address is.
    address = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"
    with start_broker(kind, tmp_path, address=address) as broker:
        assert broker.url == f"mqtt://{address}:{broker.port}"
        link = MqttLink(broker.url, "d")
        link.open(timeout=10)
        link.close()
        with socket.socket() as probe:
            other = ("127.0.0.1", broker.port)
            assert (probe.connect_ex(other) == 0) == (address == "127.0.0.1")


def test_an_address_that_is_not_ours_is_refused(tmp_path):
    with pytest.raises(BrokerError, match=r"^no broker can listen at 192\.0\.2\.1: cannot assign requested address$"):
        start_broker("embedded", tmp_path, address="192.0.2.1", enclosed=True)


@pytest.mark.parametrize("kind", BROKERS)
@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1", "hub.local"])  # noqa: S104
def test_a_broker_that_asks_nobody_who_he_is_listens_nowhere_else(kind, address, tmp_path):
    with pytest.raises(
        BrokerError, match=rf"^the {kind} broker of one's own asks nobody who he is.*not at {address}: "
    ):
        start_broker(kind, tmp_path / "broker", address=address)
    assert not (tmp_path / "broker").exists()
