"""What needs no broker: addresses, refusals, a scripted peer. Real brokers are in tests/hub/test_broker.py."""

import socket
import threading

import pytest

from edge.link import Inbox, LinkError, Message, MqttLink, connect


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("127.0.0.1:1883", "write mqtt://host:port"),
        ("http://host", "write mqtt://host:port"),
        ("mqtt://", "write mqtt://host:port"),
        ("mqtt://host:port", "is no broker's address"),
        ("mqtt://host:99999", "is no broker's address"),
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
    assert link.maximum_packet_bytes == 1000
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


class Unreachable:
    """A link that opens at the so-many-th try."""

    def __init__(self, tries):
        self.tries = tries

    def open(self, timeout):
        self.tries -= 1
        if self.tries:
            raise LinkError(f"no broker answers within {timeout:g} s")


def test_a_board_in_the_field_tries_longer_and_longer_until_its_broker_is_there(caplog):
    slept = []
    connect(Unreachable(9), 4.0, lambda: False, patient=True, sleep=slept.append)
    pauses = [1, 2, 4, 8, 16, 30, 30, 30]
    assert sum(slept) == sum(pauses)
    assert [record.message for record in caplog.records][:2] == [
        "no broker answers within 4 s; next try in 1 s",
        "no broker answers within 4 s; next try in 2 s",
    ]


def test_it_leaves_off_when_it_is_asked_to():
    slept = []
    connect(Unreachable(9), 4.0, lambda: len(slept) >= 6, patient=True, sleep=slept.append)
    assert len(slept) == 6


def test_a_new_board_says_at_once_that_there_is_no_broker():
    with pytest.raises(LinkError, match="no broker answers within 4 s"):
        connect(Unreachable(2), 4.0, lambda: False, patient=False)
