"""What needs no broker: addresses, refusals, a scripted peer. Real brokers are in tests/hub/test_broker.py."""

import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from contextlib import suppress

import pytest

from edge.gate import Caps
from edge.inbox import Inbox
from edge.link import Connected, LinkError, Message
from edge.mqtt_link import MqttLink


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("127.0.0.1:1883", "write mqtt://host:port"),
        ("http://host", "write mqtt://host:port"),
        ("mqtt://", "write mqtt://host:port"),
        ("mqtt://host:port", "is no broker's address"),
        ("mqtt://host:99999", "is no broker's address"),
        (f"mqtt://{'x' * 64}.org", "cannot be the name of a host"),
    ],
)
def test_an_address_that_is_none_is_refused(url, words):
    with pytest.raises(LinkError, match=words):
        MqttLink(url, "c")


def test_a_broker_that_is_not_there_is_named():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    link = MqttLink(f"mqtt://127.0.0.1:{port}", "c")
    with pytest.raises(LinkError, match=f"^no broker answers at mqtt://127.0.0.1:{port}: connection refused$"):
        link.open(timeout=1)
    assert not link.connected
    link.close()


def test_a_host_that_does_not_exist_is_named():
    with pytest.raises(LinkError, match=r"no broker answers at mqtt://no-such-host\.invalid:"):
        MqttLink("mqtt://no-such-host.invalid", "c").open(timeout=1)


def test_tls_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(LinkError, match=r"TLS for mqtts://host cannot be set up with .*ca.pem"):
        MqttLink("mqtts://host", "c", ca=tmp_path / "ca.pem")


@pytest.fixture
def scripted():
    """A peer that answers CONNECT with given bytes."""
    servers = []

    def start(answer):
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)
        thread = threading.Thread(target=_answer, args=(server, answer), daemon=True)
        thread.start()
        return f"mqtt://127.0.0.1:{server.getsockname()[1]}"

    yield start
    for server in servers:
        server.close()


def _answer(server, answer):
    try:
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(answer)
            while connection.recv(4096):
                pass
    except OSError:
        return


def test_a_broker_that_refuses_says_why(scripted):
    link = MqttLink(scripted(bytes.fromhex("2003008700")), "c")
    with pytest.raises(LinkError, match="refuses: Not authorized"):
        link.open(timeout=5)
    link.close()


def test_a_peer_that_says_nothing_is_given_up(scripted):
    link = MqttLink(scripted(b""), "c")
    with pytest.raises(LinkError, match=r"does not answer within 0\.2 s"):
        link.open(timeout=0.2)
    link.close()


def test_the_limit_of_the_broker_is_kept_locally(scripted):
    # CONNACK with property 39, Maximum Packet Size, = 1000
    link = MqttLink(scripted(bytes.fromhex("200800000527000003e8")), "c")
    link.open(timeout=5)
    with pytest.raises(LinkError, match=r"1001 bytes on t: the broker at .* takes 1000 a packet"):
        link.publish("t", bytes(1001))
    link.publish("t", bytes(900))
    link.close()
    with pytest.raises(LinkError, match="not connected"):
        link.publish("t", b"")


def test_the_queue_is_bounded_in_bytes():
    inbox = Inbox(10)
    for payload in (b"123456", b"123456", b"1234"):
        inbox.put(Message("t", payload))
    assert [event.payload for event in inbox.take(0)] == [b"123456", b"1234"]
    assert inbox.dropped == 1
    inbox.put(Message("t", b"1234567890"))
    assert len(inbox.take(0)) == 1


def test_what_is_urgent_overtakes_bulk_that_the_network_does_not_take():
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)  # before listen, or the window is large already
    server.bind(("127.0.0.1", 0))
    server.listen()
    link = MqttLink(f"mqtt://127.0.0.1:{server.getsockname()[1]}", "c")
    opening = threading.Thread(target=link.open, daemon=True)
    opening.start()
    connection, _ = server.accept()
    connection.settimeout(30)
    with server, connection:
        connection.recv(4096)
        connection.sendall(WELCOME)
        opening.join(30)
        for _ in range(200):
            link.publish("bulk", bytes(8192), bulk=True)
        connection.recv(4096, socket.MSG_PEEK | socket.MSG_WAITALL)  # some of it is on its way
        link.publish("urgent", b"now")
        got = b""
        while len(got) < 200 * 8192:
            got += connection.recv(65536)
        assert b"urgent" in got[:65536]
        link.close()


REFUSED, WELCOME = bytes.fromhex("2003008700"), bytes.fromhex("2003000000")
SUBSCRIBED, UNHEARD = "00", "87"


class Peer:
    """A broker on a port of ours that answers each connection as told, one after the other."""

    def __init__(self, port, answers):
        self.server = socket.create_server(("127.0.0.1", port))
        self.answers, self.connections = list(answers), 0
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self):
        with suppress(OSError):
            self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()

    def _serve(self):
        for answer, granted in self.answers:
            try:
                connection, _ = self.server.accept()
                with connection:
                    self.connections += 1
                    connection.recv(4096)
                    connection.sendall(answer)
                    while said := connection.recv(4096):
                        if said[0] == 0x82:  # SUBSCRIBE; its number is in the bytes behind its length
                            connection.sendall(bytes.fromhex("9004") + said[2:4] + bytes.fromhex("00" + granted))
            except OSError:
                continue


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def started(port):
    """A link that was started, of a broker that may be there later; its pauses are short."""
    links = []

    def start():
        links.append(MqttLink(f"mqtt://127.0.0.1:{port}", "c", subscriptions=["t"], reconnect_seconds=0.05))
        links[-1].start()
        return links[-1]

    yield start
    for link in links:
        link.close()


def wait(condition):
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_a_link_that_was_started_connects_when_its_broker_comes_and_says_once_that_it_was_not_there(
    port, started, caplog
):
    caplog.set_level("DEBUG", "cutlayer.link")
    link = started()
    wait(lambda: len(caplog.records) >= 4)
    assert not link.connected
    with pytest.raises(LinkError, match="not connected"):
        link.publish("t", b"")
    peer = Peer(port, [(WELCOME, SUBSCRIBED)])
    wait(lambda: link.connected)
    peer.close()
    assert link.poll(5) == [Connected()]
    (said,) = warnings(caplog)
    assert said.startswith(
        f"the broker at mqtt://127.0.0.1:{port} does not answer: connection refused; it is tried again"
    )


def test_a_broker_that_refuses_a_link_that_was_started_is_tried_until_it_does_not(port, started, caplog):
    answers = [(REFUSED, ""), (REFUSED, ""), (WELCOME, UNHEARD), (WELCOME, SUBSCRIBED)]
    peer = Peer(port, answers)
    link = started()
    wait(lambda: link.connected)
    assert peer.connections == 4
    peer.close()
    first, second = warnings(caplog)  # and no third
    assert "refuses: Not authorized; it is tried again" in first
    assert "refuses a subscription to t: Not authorized; it is tried again" in second
    assert link.poll(5) == [Connected()]


# paho leaves the socket of a handshake that failed to be collected.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_broker_that_is_not_trusted_is_a_warning_to_a_link_that_was_started(tmp_path, caplog):
    caplog.set_level("DEBUG", "cutlayer.link")
    if shutil.which("openssl") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("openssl is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=nobody", "-days", "1"]
    subprocess.run([*make, "-keyout", key, "-out", certificate], check=True, capture_output=True, timeout=60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_handshakes, args=(context, server), daemon=True).start()
        link = MqttLink(f"mqtts://127.0.0.1:{server.getsockname()[1]}", "c", reconnect_seconds=0.05)
        link.start()
        wait(lambda: len(caplog.records) >= 3)
        link.close()
        server.shutdown(socket.SHUT_RDWR)
    (said,) = warnings(caplog)
    assert "its certificate is not trusted (self" in said  # the rest in openssl's words, which change
    assert said.endswith("; it is tried again by itself until it is there")


def _handshakes(context, server):
    for _ in range(100):
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with suppress(OSError), context.wrap_socket(connection, server_side=True):
            pass


def test_a_link_that_was_started_and_closed_stays_closed(port, started):
    link = started()
    link.close()
    peer = Peer(port, [(WELCOME, SUBSCRIBED)])
    assert link.poll(0.3) == []
    assert not link.connected
    peer.close()


# paho leaves the pair of sockets that wakes its thread to be collected, each time that is started again.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_link_whose_budget_is_spent_before_it_is_started_comes_when_there_is_room(port, caplog):
    caplog.set_level("INFO", "cutlayer.link")
    link = MqttLink(f"mqtt://127.0.0.1:{port}", "c", subscriptions=["t"], reconnect_seconds=0.05)
    peer = Peer(port, [(WELCOME, SUBSCRIBED)])
    link.limit(Caps(up=0))
    wait(lambda: "the budget is spent: offline until there is room in it again" in warnings(caplog))
    link.start()
    assert link.poll(0.5) == []
    assert peer.connections == 0
    link.limit(Caps(up=1 << 20))
    wait(lambda: link.connected)
    assert link.poll(5) == [Connected()]
    link.close()
    peer.close()


# paho leaves the pair of sockets that wakes its thread to be collected, each time that is started again.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_budget_that_is_spent_while_the_link_is_being_started_does_not_end_who_watches_it(port, caplog, monkeypatch):
    caplog.set_level("INFO", "cutlayer.link")
    link = MqttLink(f"mqtt://127.0.0.1:{port}", "c", subscriptions=["t"], reconnect_seconds=0.05)
    peer = Peer(port, 3 * [(WELCOME, SUBSCRIBED)])
    begin = threading.Thread.start

    def late(thread):
        """The machine turns to others between paho's noting its thread and starting it."""
        if thread.name.startswith("paho") and not warnings(caplog):
            link.limit(Caps(up=0))
            wait(lambda: warnings(caplog))
            time.sleep(0.2)
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", late)
    link.start()
    link.limit(Caps(up=1 << 20))
    wait(lambda: link.connected)
    link.close()
    peer.close()


def test_opening_leaves_off_when_it_is_asked_to(scripted):
    asked = []
    link = MqttLink(scripted(b""), "c")
    link.open(60, lambda: asked.append(1) or len(asked) > 3)  # while it waits for an answer
    assert not link.connected
    link.close()
