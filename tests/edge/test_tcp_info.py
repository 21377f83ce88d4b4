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
    assert read_socket(client) == SocketBytes(12_345, 678, 0, KERNEL)
    assert read_socket(other) == SocketBytes(678, 12_345, 0, KERNEL)


@linux
def test_connections_add_up(connection):
    client, other = connection
    counters = Counters()
    counters.opened(client)
    carry(client, other, 100)
    assert counters.read().sent == 100
    counters.closed()
    assert counters.read() == SocketBytes(100, 0, 0, KERNEL)
    counters.opened(other)
    assert counters.read() == SocketBytes(100, 100, 0, KERNEL)


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
