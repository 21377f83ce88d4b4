"""A broker that misbehaves, played by a script: what a link makes of it. Good ones are in tests/hub/test_broker.py."""

import socket
import threading
import time
from contextlib import suppress

import pytest

from edge.link import Connected, Disconnected, LinkError, Message
from edge.mqtt_link import MqttLink

WELCOME = bytes.fromhex("2003000000")
OLD_SESSION = bytes.fromhex("2003010000")
TAKES_200 = bytes.fromhex("200800000527000000c8")
TOO_LARGE = bytes.fromhex("e00195")
PING, SUBSCRIBE, PUBLISH = 0xC0, 0x82, 0x30


def publish(topic, payload):
    body = len(topic).to_bytes(2, "big") + topic.encode() + b"\0" + payload
    return bytes([PUBLISH, len(body)]) + body


class Script:
    """One connection after the other; each answers as its entry says.

    Args:
        entries: what CONNECT, SUBSCRIBE and PINGREQ are answered with; `then` is sent behind the subscription's answer, and
            `on_publish` in answer to the first publish.
    """

    def __init__(self, *entries):
        self.server = socket.create_server(("127.0.0.1", 0))
        self.entries = entries
        self.heard = []
        """Of each connection the bytes after CONNECT."""
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def url(self):
        return f"mqtt://127.0.0.1:{self.server.getsockname()[1]}"

    def _run(self):
        for entry in self.entries:
            with suppress(OSError):
                connection, _ = self.server.accept()
                with connection:
                    connection.settimeout(30)
                    self._talk(connection, entry)

    def _talk(self, connection, entry):
        connection.recv(4096)
        connection.sendall(entry.get("connect", WELCOME))
        self.heard.append(b"")
        published = False
        while said := connection.recv(65536):
            self.heard[-1] += said
            if said[0] == SUBSCRIBE:
                threading.Event().wait(entry.get("late", 0))
                connection.sendall(bytes.fromhex("9004") + said[2:4] + bytes.fromhex("0000") + entry.get("then", b""))
            elif said[0] == PING and entry.get("pings", True):
                connection.sendall(bytes.fromhex("d000"))
            elif said[0] & 0xF0 == PUBLISH and not published and "on_publish" in entry:
                published = True
                connection.sendall(entry["on_publish"])


@pytest.fixture
def linked():
    made = []

    def link(*entries, **options):
        script = Script(*entries)
        made.append((script, MqttLink(script.url, "c", subscriptions=["t"], reconnect_seconds=0.05, **options)))
        return made[-1]

    yield link
    for script, one in made:
        one.close()
        script.server.close()


def events(link, *, until):
    """All events up to the first of a kind."""
    found, end = [], time.monotonic() + 30
    while not any(isinstance(event, until) for event in found):
        assert time.monotonic() < end, found
        found += link.poll(1)
    return found


def test_a_connection_that_is_half_open_is_given_up_and_made_again(linked):
    _, link = linked({"pings": False}, {}, keepalive=1)
    link.open(5)
    assert events(link, until=Connected)
    assert any(isinstance(event, Disconnected) for event in events(link, until=Connected))
    assert link.connected


def test_an_old_session_that_nobody_asked_for_changes_nothing_but_what_it_says(linked):
    _, link = linked({"connect": OLD_SESSION, "then": publish("t", b"old")})
    link.open(5)
    assert [event for event in events(link, until=Message) if isinstance(event, Message)] == [Message("t", b"old")]
    assert link.connected


def test_a_broker_that_throws_off_whoever_sends_too_much_is_connected_to_again(linked):
    script, link = linked({"on_publish": TOO_LARGE}, {})
    link.open(5)
    events(link, until=Connected)
    link.publish("t", bytes(5000))
    (reason,) = [event.reason for event in events(link, until=Connected) if isinstance(event, Disconnected)]
    assert reason == "Packet too large"
    link.publish("t", b"little")
    until = time.monotonic() + 30
    while b"little" not in script.heard[-1]:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_what_a_broker_takes_is_told_with_the_connection(linked):
    _, link = linked({"connect": TAKES_200})
    link.open(5)
    (connected,) = events(link, until=Connected)
    assert connected.packet_bytes == 200
    link.publish("topic", bytes(connected.room("topic")))
    with pytest.raises(LinkError, match="takes 200 a packet"):
        link.publish("topic", bytes(connected.room("topic") + 1))


def test_a_broker_that_is_slow_to_acknowledge_is_waited_for_and_nothing_else_waits_for_it(linked):
    script, link = linked({"late": 1.5})
    link.open(20)  # there is no link before the subscription is granted
    assert link.connected
    link.publish("status", b"never acknowledged", qos=1)
    link.publish("t", b"bulk", bulk=True)
    until = time.monotonic() + 30
    while b"bulk" not in script.heard[-1]:
        assert time.monotonic() < until
        time.sleep(0.01)
