"""A link over MQTT: publish, receive, last will, reconnect.

The network thread only puts events into a queue; `poll` takes them out.
"""

import logging
import random
import select
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge import tcp_info
from edge.endpoint import TLS, endpoint, reason_of, unreachable
from edge.gate import BUFFER_BYTES, Caps, Gate
from edge.inbox import Inbox
from edge.link import PACKET_BYTES, PUBLISH_OVERHEAD, Connected, Disconnected, Event, LinkError, Message
from edge.namesakes import Namesakes
from edge.slow_lane import SlowLane
from edge.tcp_info import SocketBytes
from edge.tls_chain import Chain

__all__ = ["MqttLink", "read_password"]

log = logging.getLogger("cutlayer.link")

TAKEN_OVER = "session taken over: another client has connected with this client id"
CLOSE_SECONDS = 2.0
PATIENCE_SECONDS = 15.0
"""TCP doubles its pauses: after an outage of a minute it would wait for another. A new connection begins with short ones."""
UNSENT_BYTES = 4 << 10
"""Bulk is handed to the kernel while less than half of this waits there to be sent: what is urgent waits behind it."""
CONNECT_SECONDS = 4.0
"""Of one try to connect again: the kernel asks at 0, 1 and 3 seconds, and would ask again at 7."""
UNREACHABLE_SECONDS = 2.0
"""Most seconds between two tries where nobody answers at all, and so nobody is burdened by being asked."""

_SLICE = 0.25
_AGAIN = "; it is tried again by itself until it is there"
_SESSION_TAKEN_OVER = 142

GUARD_SECONDS = 0.05
"""How often the counters are looked at while there are caps: TCP sends nothing again within 0.2 seconds."""
ROOM_SECONDS = 1.0
"""How long bulk waits for room below a cap: caps rise as what was spent comes to the disk."""
CONNECTION_COST = {"mqtt": 2 << 10, TLS: 10 << 10}
"""Bytes each way that a new connection may need."""


def read_password(path: Path | None) -> str | None:
    """The first line of a password file; None without a file.

    Raises:
        LinkError: it cannot be read, or has no password.
    """
    if path is None:
        return None
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LinkError(f"the password file {path} cannot be read: {error}") from error
    if not lines or not lines[0]:
        raise LinkError(f"the password file {path} is empty in its first line: the password goes there")
    return lines[0]


class MqttLink:
    """MQTT 5 over TCP or TLS.

    Args:
        url: `mqtt://host:port` or `mqtts://host:port`; the port may be left out.
        client_id: unlike that of any other client of the broker.
        will: topic and payload, retained: published by the broker when we vanish, by `close` otherwise.
        subscriptions: topic filters.
        keepalive: seconds; a dead link is noticed after about twice as long.
        username, password: for brokers that ask for one.
        ca, certificate, key: PEM files for TLS; without `ca` the system's authorities are used.
        congestion: name of the kernel's congestion control for this connection, used where the kernel has it.
        queue_bytes: most bytes of messages that wait for `poll`; beyond it they are dropped, as a broker would.
        reconnect_seconds: longest time between two attempts to reconnect.
    """

    def __init__(
        self,
        url: str,
        client_id: str,
        *,
        will: tuple[str, bytes] | None = None,
        subscriptions: Sequence[str] = (),
        keepalive: int = 30,
        username: str | None = None,
        password: str | None = None,
        ca: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        congestion: str | None = None,
        queue_bytes: int = 64 << 20,
        reconnect_seconds: float = 30.0,
    ) -> None:
        self.url = url
        self._host, self._port, self._scheme = endpoint(url)
        self._will = will
        self._subscriptions = tuple(subscriptions)
        self._keepalive = keepalive
        self._congestion = congestion
        self._reconnect_seconds = reconnect_seconds
        self._inbox = Inbox(queue_bytes)
        self._gate = Gate()
        self._guard: threading.Thread | None = None
        self._closed = threading.Event()
        self._turning = threading.Lock()
        """Held while paho's thread is started or ended: paho itself takes no care of who does both at once."""
        self._started = self._dark = False
        """Whether the link is to have a connection, and whether the budget forbids it."""
        self._narrow = False
        """Whether the connection was opened with a small window."""
        self._slow_lane = SlowLane(self._writable, self._hand_over_bulk)
        self._bytes = tcp_info.Counters()
        self._ready = threading.Event()
        self._settled = threading.Event()
        self._refused = ""
        self._failures = 0
        self._lasting = False
        """Whether the link tries by itself, for ever."""
        self._told: set[str] = set()
        """Why there is no connection, as far as a warning has said so."""
        self._maximum_packet_bytes = PACKET_BYTES
        self._namesakes = Namesakes()
        self._chain: Chain | None = None
        self._client = self._make_client(client_id)
        if username is not None:
            self._client.username_pw_set(username, password)
        if self._scheme == TLS:
            self._chain = Chain(url, ca, certificate, key)
            self._client.tls_set_context(self._chain.context)

    @property
    def connected(self) -> bool:
        """Whether publishing is possible now."""
        return self._ready.is_set()

    @property
    def dropped(self) -> int:
        """Messages that arrived and found the queue full."""
        return self._inbox.dropped

    def open(self, timeout: float = 10.0, stopped: Callable[[], bool] = lambda: False) -> None:
        """Connect for the first time; afterwards the link reconnects by itself, for ever.

        Args:
            timeout: in seconds.
            stopped: whether to leave off, and return without a connection.

        Raises:
            LinkError: within `timeout` seconds there was no broker, or it refused.
        """
        # paho keeps the first connection's for all that follow.
        self._client.connect_timeout = min(timeout, CONNECT_SECONDS)
        self._connect(time.monotonic() + timeout, stopped)
        if stopped():
            return
        self._start_loop()
        until = time.monotonic() + timeout
        while not self._settled.wait(min(_SLICE, timeout)) and time.monotonic() < until and not stopped():
            pass
        if not self._ready.is_set() and not stopped():
            self._stop_loop()
            raise LinkError(f"the broker at {self.url} {self._refused or f'does not answer within {timeout:g} s'}")

    def start(self) -> None:
        """Instead of `open`, where the broker may come later: return at once, and connect by itself, for ever.

        A broker that is not there, that refuses or that is not trusted is a warning, one for each reason.
        """
        self._lasting = True
        self._client.connect_timeout = CONNECT_SECONDS
        self._start_loop(afresh=True)

    def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False, bulk: bool = False) -> None:
        """Hand a payload to the pipe, which may lose it; bulk lets everything else overtake it.

        Raises:
            LinkError: there is no connection, or the payload is longer than the broker takes.
        """
        size = len(payload) + len(topic.encode()) + PUBLISH_OVERHEAD
        if size > self._maximum_packet_bytes:
            raise LinkError(
                f"{len(payload)} bytes on {topic}: the broker at {self.url} takes {self._maximum_packet_bytes} a packet"
            )
        if not self.connected:
            raise LinkError(f"not connected to {self.url}")
        if bulk:
            self._slow_lane.put(topic, payload)
            return
        self._hand_over(topic, payload, qos, retain=retain)

    def poll(self, timeout: float) -> list[Event]:
        """All events since the last call; waits up to `timeout` seconds for the first."""
        return self._inbox.take(timeout)

    def counters(self) -> SocketBytes:
        """Bytes so far, over all connections."""
        return self._bytes.read()

    def limit(self, caps: Caps) -> None:
        """How far the counters may go from now on. What does not fit is lost; at the end the connection is given up, until there is room again."""
        self._gate.set(caps)
        self._bytes.with_repeats = caps.down is not None
        narrow = caps.down is not None or caps.unknown
        self._client.narrow = BUFFER_BYTES if narrow else None
        self._client.ask_before_reading(None if caps.down is None else self._readable)
        connection: Any = self._client.socket()
        if self._narrow and not narrow and connection is not None:
            tcp_info.widen(connection)
            self._narrow = False
        if caps.any and self._guard is None:
            self._guard = threading.Thread(target=self._watch, name="budget", daemon=True)
            self._guard.start()

    def close(self) -> None:
        """Publish the last will, disconnect cleanly, return within two seconds or so."""
        if self.connected and self._will is not None:
            topic, payload = self._will
            info = self._client.publish(topic, payload, 1, retain=True)
            if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
                info.wait_for_publish(CLOSE_SECONDS / 2)
        self._closed.set()
        self._slow_lane.close()
        self._client.disconnect()
        self._stop_loop()

    def _connect(self, until: float, stopped: Callable[[], bool]) -> None:
        while not stopped():
            try:
                self._client.connect(self._host, self._port, self._keepalive, clean_start=True)
            except (OSError, ValueError) as error:
                if isinstance(error, TimeoutError) and time.monotonic() < until:
                    continue
                raise LinkError(f"no broker answers at {self.url}: {reason_of(error)}") from error
            return

    def _new_narrow(self, connection: socket.socket) -> None:
        """For the first time there is a budget of what may come: the connection is made anew, with a small window."""
        self._bytes.closed()
        tcp_info.discard(connection)

    def _go_dark(self, connection: socket.socket | None) -> None:
        log.warning("the budget is spent: offline until there is room in it again")
        was_up = self._ready.is_set()
        self._ready.clear()
        if connection is not None:
            self._bytes.closed()
            tcp_info.discard(connection)
        self._slow_lane.clear()
        with self._turning:
            self._dark = True
            self._client.loop_stop()
        late: Any = self._client.socket()
        if late is not None and late is not connection:  # made while its thread was being ended
            self._ready.clear()
            self._bytes.closed()
            tcp_info.discard(late)
        if was_up:
            self._inbox.put(Disconnected("the budget is spent"))

    def _come_back(self) -> None:
        log.info("there is room in the budget again")
        self._dark = False
        if self._started:
            self._start_loop(afresh=True)

    def _start_loop(self, *, afresh: bool = False) -> None:
        """Have paho's thread run, unless the budget is spent: then it is started when there is room."""
        with self._turning:
            self._started = True
            if self._dark or self._closed.is_set():
                return
            if afresh:
                self._client.connect_async(self._host, self._port, self._keepalive, clean_start=True)
            self._client.loop_start()

    def _watch(self) -> None:
        """Give the connection up before it exceeds a cap, and let it come back when there is room."""
        while not self._closed.wait(GUARD_SECONDS):
            counted = self._bytes.read()
            connection: Any = self._client.socket()
            possible = self._gate.carries(counted, CONNECTION_COST[self._scheme])
            if self._dark:
                if possible:
                    self._come_back()
            elif self._gate.overdrawn(counted) if connection is not None else not possible:
                self._go_dark(connection)
            elif connection is not None and self._gate.window and not self._narrow:
                self._new_narrow(connection)

    def _hand_over(self, topic: str, payload: bytes, qos: int, *, retain: bool) -> mqtt.MQTTMessageInfo:
        if not self._fits(len(payload) + len(topic) + PUBLISH_OVERHEAD):
            raise LinkError(f"{len(payload)} bytes on {topic}: the budget has no room for them")
        info = self._client.publish(topic, payload, qos, retain)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise LinkError(f"publishing to {self.url} failed: {mqtt.error_string(info.rc)}")
        self._bytes.published(len(payload))
        return info

    def _fits(self, size: int) -> bool:
        return not self._gate.bounded or self._gate.fits(self._bytes.read(), size)

    def _readable(self) -> int | None:
        return self._gate.readable(self._bytes.read())

    def _hand_over_bulk(self, topic: str, payload: bytes, timeout: float) -> None:
        with suppress(LinkError, RuntimeError, ValueError):  # the connection is gone: it is as if the pipe had lost it
            size = len(payload) + len(topic) + PUBLISH_OVERHEAD
            until = time.monotonic() + ROOM_SECONDS
            while not self._fits(size) and time.monotonic() < until:
                if self._closed.wait(GUARD_SECONDS) or not self.connected:
                    return
            while wait := self._gate.wait(len(payload), time.monotonic()):
                if self._closed.wait(min(wait, _SLICE)) or not self.connected:
                    return
            self._hand_over(topic, payload, 0, retain=False).wait_for_publish(timeout)

    def _writable(self, timeout: float) -> bool:
        """Whether the kernel wants more; by `UNSENT_BYTES` not before nearly all is sent."""
        connection = self._client.socket()
        if connection is None or not self.connected:
            time.sleep(timeout)
            return False
        try:
            return bool(select.select([], [connection], [], timeout)[1])
        except (OSError, ValueError):
            return False  # closed just now

    def _make_client(self, client_id: str) -> "_Client":
        client = _Client(CallbackAPIVersion.VERSION2, client_id, protocol=mqtt.MQTTv5)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_pre_connect = self._on_pre_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_socket_open = self._on_socket_open
        client.on_socket_close = self._on_socket_close
        if self._will is not None:
            client.will_set(*self._will, qos=1, retain=True)
        self._back_off(client)
        return client

    def _on_pre_connect(self, _client: mqtt.Client, _data: Any) -> None:
        if self._chain is not None:
            self._chain.renew()

    def _stop_loop(self) -> None:
        # paho's loop_stop waits without limit for a thread that may be waiting for a broker.
        stopper = threading.Thread(target=self._end_loop, daemon=True)
        stopper.start()
        stopper.join(CLOSE_SECONDS / 2)
        self._ready.clear()

    def _end_loop(self) -> None:
        with self._turning:
            self._client.loop_stop()

    def _back_off(self, client: mqtt.Client, *, unreachable: bool = False) -> None:
        """Full jitter: any time up to a ceiling that doubles, so that a fleet does not come back as one."""
        ceiling = min(self._reconnect_seconds, 2.0 ** min(self._failures, 16))
        if unreachable:
            ceiling = min(ceiling, UNREACHABLE_SECONDS)
        delay: Any = random.uniform(0.0, ceiling)  # typed as whole seconds, but takes any
        client.reconnect_delay_set(delay, delay)

    def _yield(self, client: mqtt.Client, *, was_up: bool) -> None:
        """Leave the broker to a namesake for a while, where it knows us by our certificate and there seems to be one."""
        if self._chain is None or self._chain.certificate is None:
            return
        delay: Any = self._namesakes.down(time.monotonic(), was_up=was_up, by_peer=self._client.ended_by_peer)
        if delay is None:
            return
        log.warning(
            "the broker at %s has ended %d connections in a row that were hardly made: if another device uses the certificate "
            "%s, give it one of its own; the next try is in %.0f s", self.url, self._namesakes.evictions, self._chain.certificate, delay,
        )  # fmt: skip
        client.reconnect_delay_set(delay, delay)

    # Callbacks: in the network thread. They only take note: an exception here would end that thread silently -------

    def _on_connect(self, client: mqtt.Client, _data: Any, _flags: Any, reason: ReasonCode, given: Any) -> None:
        if reason.is_failure:
            self._refuse(f"refuses: {reason}")
            return
        self._maximum_packet_bytes = getattr(given, "MaximumPacketSize", PACKET_BYTES)
        if self._subscriptions:
            client.subscribe([(topic, SubscribeOptions(qos=1)) for topic in self._subscriptions])
        else:
            self._up()

    def _on_subscribe(self, client: mqtt.Client, _data: Any, _mid: int, reasons: list[ReasonCode], _given: Any) -> None:
        refused = [str(reason) for reason in reasons if reason.is_failure]
        if refused:
            self._refuse(f"refuses a subscription to {', '.join(self._subscriptions)}: {refused[0]}")
            connection: Any = client.socket()
            if self._lasting and connection is not None:
                with suppress(OSError):  # gone already
                    connection.shutdown(socket.SHUT_RDWR)  # paho would keep a connection on which nothing is heard
        else:
            self._up()

    def _up(self) -> None:
        log.info("connected to %s", self.url)
        self._lasting = True
        self._told.clear()
        self._failures = 0
        self._back_off(self._client)
        self._namesakes.up(time.monotonic())
        self._ready.set()
        self._settled.set()
        self._inbox.put(Connected(self._maximum_packet_bytes))

    def _refuse(self, reason: str) -> None:
        self._refused = reason
        self._settled.set()
        self._failed(reason)

    def _on_connect_fail(self, client: mqtt.Client, _data: Any) -> None:
        error = sys.exc_info()[1]
        self._bytes.failed()
        self._failed(f"does not answer: {reason_of(error)}")
        self._back_off(client, unreachable=unreachable(error))

    def _failed(self, reason: str) -> None:
        self._failures += 1
        level = logging.DEBUG if reason in self._told else logging.WARNING
        self._told.add(reason)
        log.log(level, "the broker at %s %s%s", self.url, reason, _AGAIN if self._lasting else "")

    def _on_disconnect(self, client: mqtt.Client, _data: Any, flags: Any, reason: ReasonCode, _given: Any) -> None:
        was_up = self._ready.is_set()
        self._ready.clear()
        self._back_off(client)
        self._yield(client, was_up=was_up)
        if not was_up:
            if (alert := self._client.alert) is not None:
                self._refuse(f"does not let us in: {reason_of(alert)}")
            return
        text = str(reason) if flags.is_disconnect_packet_from_server or reason.value == 0 else "connection lost"
        self._inbox.put(Disconnected(TAKEN_OVER if reason.value == _SESSION_TAKEN_OVER else text))

    def _on_message(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            return
        self._bytes.arrived(len(message.payload))
        self._inbox.put(Message(topic, bytes(message.payload)))

    def _on_socket_open(self, _client: mqtt.Client, _data: Any, connection: Any) -> None:
        self._client.ended_by_peer, self._client.alert = False, None
        self._bytes.opened(connection)
        tcp_info.set_patience(connection, PATIENCE_SECONDS)
        tcp_info.set_unsent(connection, UNSENT_BYTES)
        self._narrow = self._client.narrow is not None
        if self._congestion and not tcp_info.set_congestion(connection, self._congestion):
            log.debug("the kernel has no congestion control %r", self._congestion)

    def _on_socket_close(self, _client: mqtt.Client, _data: Any, _connection: Any) -> None:
        self._bytes.closed()
        self._slow_lane.clear()


class _Client(mqtt.Client):
    """paho's, which can open connections with a small window, and reads no more from them than it may."""

    narrow: int | None = None
    """Receive buffer of new connections; None: the system's."""
    ended_by_peer = False
    """Whether the last connection was closed in order from the other side."""
    alert: ssl.SSLError | None = None
    """What TLS said at its end."""
    _readable: Callable[[], int | None] | None = None
    _may_read = 0

    def ask_before_reading(self, readable: Callable[[], int | None] | None) -> None:
        """Ask how many bytes may be read, and then after so many again; None: read whatever is there."""
        self._may_read = 0
        self._readable = readable

    def _sock_recv(self, bufsize: int) -> bytes:
        ask = self._readable
        if ask is None:
            return self._received(bufsize)
        if self._may_read <= 0:
            found = ask()
            if found == 0:
                time.sleep(GUARD_SECONDS / 10)  # the guard gives the connection up, or the caps rise
                raise BlockingIOError
            self._may_read = bufsize if found is None else found
        data = self._received(min(bufsize, self._may_read))
        self._may_read -= len(data)
        return data

    def _received(self, size: int) -> bytes:
        """Notes how a connection ends, which paho does not tell: in TLS 1.3 a refused certificate shows here only."""
        try:
            data = super()._sock_recv(size)
        except ssl.SSLError as error:
            self.alert = error
            raise
        self.ended_by_peer = not data
        return data

    def _create_socket_connection(self) -> Any:
        if self.narrow is None:
            return super()._create_socket_connection()
        return tcp_info.connect_narrow(self.host, self.port, self.connect_timeout, self.narrow)
