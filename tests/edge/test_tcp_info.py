import socket
import sys

import pytest

from edge.tcp_info import KERNEL, LINK, Counters, SocketBytes, read_socket

linux = pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is Linux's")


@pytest.fixture
def connection():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        other, _ = server.accept()
        with other:
            yield client, other


def carry(sender, receiver, size):
    sender.sendall(bytes(size))
    while size:
        size -= len(receiver.recv(size))


@linux
def test_the_kernel_counts_what_was_sent_and_received(connection):
    client, other = connection
    carry(client, other, 12_345)
    carry(other, client, 678)
    mine, others = read_socket(client), read_socket(other)
    assert (mine.sent, mine.received, mine.retransmitted, mine.source) == (12_345, 678, 0, KERNEL)
    assert (others.sent, others.received, others.retransmitted, others.source) == (678, 12_345, 0, KERNEL)
    # Each segment that one has sent the other has got; each side has at least the two of its opening, 52 bytes of headers each.
    assert mine.headers_sent >= 2 * 52
    assert mine.wire_sent == 12_345 + mine.headers_sent


@linux
def test_what_nobody_has_taken_is_still_waiting():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        given = client.send(bytes(1 << 24))  # as much as the kernel takes; nobody reads
        counted = read_socket(client)
        assert 0 < counted.waiting <= given


@linux
def test_connections_add_up(connection):
    client, other = connection
    counters = Counters()
    counters.opened(client)
    carry(client, other, 100)
    assert counters.read().sent == 100
    counters.closed()
    closed = counters.read()
    assert (closed.sent, closed.received, closed.waiting) == (100, 0, 0)
    counters.opened(other)
    both = counters.read()
    assert (both.sent, both.received) == (100, 100)
    assert both.headers_sent > closed.headers_sent


def test_an_attempt_that_nobody_answers_has_its_price():
    counters = Counters()
    counters.failed()
    assert counters.read().wire_sent == 4 * 60


def test_where_the_kernel_does_not_count_the_link_does(monkeypatch):
    monkeypatch.setattr("edge.tcp_info.read_socket", lambda _: None)
    counters = Counters()
    with socket.socket() as connection:
        counters.opened(connection)
        counters.published(10)
        counters.arrived(3)
        assert counters.read() == SocketBytes(10, 3, 0, LINK)
        counters.closed()
    assert counters.read() == SocketBytes(10, 3, 0, LINK)


def test_a_closed_socket_counts_nothing():
    connection = socket.socket()
    connection.close()
    assert read_socket(connection) is None
