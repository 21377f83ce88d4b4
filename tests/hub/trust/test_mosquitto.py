"""Who may do what on a real mosquitto. Delivery is what counts: mosquitto grants subscriptions it never serves."""

import socket
import ssl
import threading
import time
from contextlib import suppress
from datetime import timedelta

import pytest

from edge.link import Disconnected, LinkError
from edge.wire import topics
from hub.broker import BrokerError
from hub.trust import mosquitto, revocation
from hub.trust.authority import Authority, new_key
from hub.trust.folder import Folder
from hub.trust.register import Revoked
from tests.hub.trust.conftest import FLEET, heard

pytestmark = pytest.mark.system

BASE = f"{topics.ROOT}/{FLEET}"
LEAVES = (
    "up", "down", "status", "profile/up", "profile/mark", "update/offer", "update/want", "update/piece", "update/state", "else",
)  # fmt: skip
MAY_WRITE = {"up", "status", "profile/up", "profile/mark", "update/want", "update/state"}
MAY_READ = {"down", "profile/mark", "update/offer", "update/piece"}


def test_a_device_writes_its_own_topics_and_no_others(grounds):
    hub, pair = grounds.witness(), grounds.identity("a")
    context = _context(grounds, pair)
    everywhere = [f"{BASE}/{name}/{leaf}" for name in ("a", "b", "hub", "a/b") for leaf in LEAVES]
    everywhere += [f"{BASE}/hub/status", f"{BASE}/status", "cutlayer/g/a/up", "a", "$SYS/broker/x"]
    for topic in everywhere:
        for flags in (0x30, 0x31):  # retained, too; mosquitto ends a connection that writes where it may not
            with _entered(grounds, context) as connection:
                text = topic.encode()
                body = len(text).to_bytes(2, "big") + text + b"\0" + b"sent"
                connection.sendall(bytes([flags, len(body)]) + body + b"\xc0\x00")
                assert connection.recv(10) in (b"\xd0\x00", b"")  # a ping is answered, or it is the end
    a = grounds.link(pair)
    a.publish(f"{BASE}/a/up", b"end", qos=1)
    assert sorted(topic for topic, _ in heard(hub, b"end")) == sorted(2 * [f"{BASE}/a/{leaf}" for leaf in MAY_WRITE])


def test_a_device_hears_its_own_topics_and_the_hubs_status(grounds):
    hub = grounds.witness()
    wide = ["#", f"{BASE}/#", f"{BASE}/+/down", f"{BASE}/b/down", f"{BASE}/hub/status", "$share/g/cutlayer/f/b/down"]
    a = grounds.link(grounds.identity("a"), subscriptions=wide)
    b = grounds.link(grounds.identity("b"), subscriptions=[f"{BASE}/b/down"])
    for name in ("a", "b", "hub"):
        for leaf in LEAVES:
            hub.publish(f"{BASE}/{name}/{leaf}", name.encode(), qos=1)
    hub.publish(f"{BASE}/b/status", b"kept", qos=1, retain=True)
    hub.publish(f"{BASE}/a/down", b"end", qos=1)
    hub.publish(f"{BASE}/b/down", b"end", qos=1)
    assert {topic for topic, _ in heard(a, b"end")} == {f"{BASE}/a/{leaf}" for leaf in MAY_READ} | {
        f"{BASE}/hub/status"
    }
    assert heard(b, b"end") == [(f"{BASE}/b/down", b"b")]  # and the shared subscription has taken nothing away


def test_a_client_id_and_a_user_name_count_for_nothing(grounds):
    hub, b = grounds.witness(), grounds.link(grounds.identity("b"), "b")
    will = (f"{BASE}/b/status", b"forged")
    a = grounds.link(grounds.identity("a"), "b", username="hub", password="x", will=will)  # noqa: S106  of nobody
    a.publish(f"{BASE}/b/up", b"forged", qos=1)
    a.publish(f"{BASE}/a/up", b"first", qos=1)
    heard(hub, b"first")
    a.close()  # publishes its will, too
    b.publish(f"{BASE}/b/up", b"end", qos=1)
    assert heard(hub, b"end") == []
    assert b.connected
    assert Disconnected not in map(type, b.poll(0))


def test_a_last_will_on_anothers_topic_is_not_published(grounds):
    hub, b = grounds.witness(), grounds.link(grounds.identity("b"))
    for name, topic in (("c", f"{BASE}/b/status"), ("a", f"{BASE}/a/status")):
        with _raw(grounds, _context(grounds, grounds.identity(name))) as connection:
            text, payload = topic.encode(), b"gone"
            will = b"\0" + len(text).to_bytes(2, "big") + text + len(payload).to_bytes(2, "big") + payload
            body = b"\x00\x04MQTT\x05\x06\x00\x3c\x00\x00\x01x" + will  # clean start, and a will
            connection.sendall(b"\x10" + bytes([len(body)]) + body)
            assert connection.recv(100)[0] == 0x20
    assert heard(hub, b"gone") == []  # the first will was c's
    b.publish(f"{BASE}/b/up", b"end", qos=1)
    assert heard(hub, b"end") == []


CONNECT = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01x"
"""MQTT 5, clean start, client id x."""


def _context(grounds, pair):
    context = ssl.create_default_context(cafile=str(grounds.folder.ca))
    context.load_cert_chain(*pair)
    return context


def _raw(grounds, context, session=None):
    plain = socket.create_connection(("127.0.0.1", grounds.broker.port), timeout=10)
    try:
        return context.wrap_socket(plain, server_hostname="localhost", session=session)
    except BaseException:
        plain.close()
        raise


def _entered(grounds, context):
    connection = _raw(grounds, context)
    connection.sendall(CONNECT)
    assert connection.recv(100)[0] == 0x20
    return connection


def test_strangers_get_nothing(grounds):
    hub = grounds.witness()
    other = Authority.make(FLEET, grounds.now)
    past = grounds.now - timedelta(days=5)
    pairs = {
        "another authority": (grounds.sign("a", authority=other, stem="other"), "authority"),
        "no certificate": (None, "wants a certificate"),
        "expired": (grounds.identity("e", life=timedelta(days=2), now=past), "has expired"),
        "the broker's own": (grounds.folder.pair("broker"), "not one of a client"),
        "self-signed as the hub": (grounds.sign("hub", authority=other, stem="fake"), "authority"),
    }
    for what, (pair, words) in pairs.items():
        with pytest.raises(LinkError, match=words):
            grounds.link(pair, "a", subscriptions=[f"{BASE}/#"], will=(f"{BASE}/a/status", what.encode()), timeout=4.0)
    hub.publish(f"{BASE}/x/down", b"end", qos=1)
    assert heard(hub, b"end") == []


# paho leaves the socket of a failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_board_passes_for_the_broker(grounds):
    """A device's certificate is good for being a client only, and has no host's name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*grounds.sign("localhost"))
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection, suppress(OSError):
                context.wrap_socket(connection, server_side=True).recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        grounds.broker.url = f"mqtts://localhost:{server.getsockname()[1]}"
        with pytest.raises(LinkError, match="not trusted"):
            grounds.link(grounds.sign("a"), timeout=4.0)
        thread.join(5)
        assert not thread.is_alive()


def test_plain_mqtt_is_not_spoken(grounds):
    with socket.create_connection(("127.0.0.1", grounds.broker.port)) as connection:
        connection.sendall(CONNECT)
        connection.settimeout(10)
        try:
            answer = connection.recv(100)
        except ConnectionResetError:
            answer = b""
    assert answer[:1] != b"\x20"


def test_a_revoked_device_is_cut_and_stays_out_and_others_stay(grounds):
    hub = grounds.witness()
    will = (f"{BASE}/a/status", topics.pack_status(online=False, instance=1))
    pair = grounds.identity("a")
    a = grounds.link(pair, will=will, reconnect_seconds=0.2, subscriptions=[f"{BASE}/a/down"])
    b = grounds.link(grounds.identity("b"), subscriptions=[f"{BASE}/b/down"])
    context = _context(grounds, pair)
    sessions = [_session(grounds, context, version) for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)]
    _wait(lambda: a.connected)  # the raw connections came in its name
    a.publish(f"{BASE}/a/up", b"before", qos=1)
    heard(hub, b"before")
    found, became = revocation.revoke(grounds.folder, "a", grounds.broker.url, grounds.now)
    assert (found, became) == (Revoked(1, 0), "the broker has the list, and no connection is left")
    _wait(lambda: not a.connected)
    for version, session in sessions:  # nor by a TLS session of before
        assert _refused(grounds, context, version, session)
    with pytest.raises(LinkError, match="certificate is revoked"):
        grounds.link(pair, timeout=4.0)
    assert not a.connected
    b.publish(f"{BASE}/b/up", b"end", qos=1)
    came = heard(hub, b"end")
    assert {topic for topic, _ in came} == {f"{BASE}/a/status"}  # it is said to be gone
    assert topics.read_status(came[-1][1])[0] is False
    assert all(link.connected and Disconnected not in map(type, link.poll(0)) for link in (hub, b))
    # Who is enrolled anew is let in again.
    again = grounds.link(grounds.identity("a", stem="again"))
    again.publish(f"{BASE}/a/up", b"back", qos=1)
    heard(hub, b"back")


def _session(grounds, context, version):
    context.minimum_version = context.maximum_version = version
    with _entered(grounds, context) as connection:
        return version, connection.session


def _refused(grounds, context, version, session):
    context.minimum_version = context.maximum_version = version
    try:
        with _raw(grounds, context, session) as connection:
            connection.sendall(CONNECT)
            return connection.recv(100)[:1] != b"\x20"
    except OSError:
        return True


def _wait(condition, seconds=10.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_list_that_has_run_out_locks_everybody_out_and_the_next_one_lets_them_in(grounds):
    grounds.folder.write_revocations(grounds.now - timedelta(days=40))
    assert mosquitto.reload(grounds.folder)
    pair = grounds.identity("a")
    _wait(lambda: _out(grounds, pair))
    grounds.folder.renew_revocations(grounds.now)
    assert mosquitto.reload(grounds.folder)
    _wait(lambda: not _out(grounds, pair))


def _out(grounds, pair):
    return _refused(grounds, _context(grounds, pair), ssl.TLSVersion.TLSv1_3, None)


def test_a_link_takes_a_renewed_certificate_at_its_next_connection(grounds):
    certificate, key = grounds.identity("a")
    a = grounds.link((certificate, key), reconnect_seconds=0.1, subscriptions=[f"{BASE}/a/down"])
    fresh, fresh_key = grounds.identity("a", stem="fresh")  # with it, the former is revoked
    grounds.folder.write_revocations(grounds.now)
    fresh_key.replace(key)
    fresh.replace(certificate)
    mosquitto.reload(grounds.folder)
    revocation.cut(grounds.folder, "a", grounds.broker.url, grounds.now)
    _wait(lambda: Disconnected in map(type, a.poll(0.1)))
    _wait(lambda: a.connected)  # which the old one could not be


def test_two_with_one_certificate_leave_the_broker_to_each_other(grounds, caplog):
    pair = grounds.identity("a")
    one = grounds.link(pair, "one", subscriptions=[f"{BASE}/a/down"], reconnect_seconds=0.1)
    two = grounds.link(pair, "two", subscriptions=[f"{BASE}/a/down"], reconnect_seconds=0.1)
    _wait(lambda: any("another device uses the certificate" in record.message for record in caplog.records))
    yielded = [link for link in (one, two) if link._namesakes.evictions > 2]
    # Who has been thrown off thrice waits for more than ten seconds; the other has the broker meanwhile.
    assert len(yielded) == 1
    assert all(link._namesakes.pause > 10 for link in yielded)
    other = two if yielded == [one] else one
    _wait(lambda: other.connected)


def test_a_broker_of_another_fleet_is_not_ours(grounds, tmp_path):
    pid = mosquitto.running(grounds.folder)
    assert pid == grounds.broker.pid
    other, _ = Folder.open_or_make(tmp_path / "other", FLEET, grounds.now)
    other.broker.mkdir()
    (other.broker / "mosquitto.pid").write_text(f"{pid}\n")
    assert mosquitto.running(other) is None
    assert not mosquitto.reload(other)


def test_without_mosquitto_there_is_a_sentence(folder, monkeypatch):
    monkeypatch.setattr("hub.broker.find_mosquitto", lambda: None)
    with pytest.raises(BrokerError, match=r"^mosquitto is not installed: --tls needs it"):
        mosquitto.start(folder, "127.0.0.1", 1)


def test_the_key_that_a_cut_is_made_with_does_not_stay(grounds):
    before = sorted(path.name for path in grounds.folder.root.rglob("*"))
    revocation.cut(grounds.folder, "nobody", grounds.broker.url, grounds.now)
    assert sorted(path.name for path in grounds.folder.root.rglob("*")) == before
    assert new_key().key_size == 256
