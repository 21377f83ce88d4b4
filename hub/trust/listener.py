"""HTTPS for boards that enrol: `POST /enrol` and `POST /renew`, and nothing else.

    POST /enrol {"token": …, "csr": PEM}  ->  200 {"certificate": PEM, "ca": PEM}
    POST /renew {"csr": PEM}, with the device's certificate as the client's of TLS  ->  the same
    what goes wrong  ->  400, 403, 404, 413, 429 {"error": a sentence}

Anybody on the network may knock here, so everything is bounded: connections at once, seconds of each, bytes of a request,
failed claims of an address. TLS is negotiated in the connection's own thread: who says nothing keeps nobody waiting.
"""

import json
import logging
import socket
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, cast

from cryptography import x509

from hub.broker import BrokerError
from hub.trust.authority import Request, read_request
from hub.trust.errors import ClaimError, TrustError
from hub.trust.folder import Folder
from hub.trust.register import Issued

log = logging.getLogger("cutlayer.hub")

BODY_BYTES = 8192
"""Of a request: a certificate request has some 400."""
CONNECTIONS = 32
"""At once; who comes then is sent away."""
SECONDS = 15.0
"""Of a connection, from its beginning to its end."""
FAILURES, FAILURES_SECONDS = 10, 600.0
"""So many failed claims of one address in so many seconds; then it is not listened to."""
ADDRESSES = 4096
"""Of which failures are remembered."""

Replaced = Callable[[str], None]
"""Told the name whose former certificates have just been revoked, since it was enrolled anew."""


class Failures:
    """How often an address has failed lately. A network of IPv6 counts as one address.

    Args:
        now: monotonic seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._times: OrderedDict[str, list[float]] = OrderedDict()
        self._lock = threading.Lock()

    def too_many(self, address: str) -> bool:
        """Whether not to listen to it."""
        with self._lock:
            return len(self._recent(_network(address))) >= FAILURES

    def failed(self, address: str) -> None:
        """Note one."""
        with self._lock:
            network = _network(address)
            self._times[network] = [*self._recent(network), self._now()]
            self._times.move_to_end(network)
            while len(self._times) > ADDRESSES:
                self._times.popitem(last=False)

    def _recent(self, network: str) -> list[float]:
        since = self._now() - FAILURES_SECONDS
        return [when for when in self._times.get(network, []) if when > since]


class Desk:
    """What is done about a request, apart from how it came.

    Args:
        folder: of the fleet.
        days: of a device's certificate.
        replaced: see `Replaced`.
        clock: the time, aware.
        failures: of addresses.
    """

    def __init__(
        self,
        folder: Folder,
        days: int,
        replaced: Replaced = lambda _name: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        failures: Failures | None = None,
    ) -> None:
        self._folder = folder
        self._life = timedelta(days=days)
        self._replaced = replaced
        self._clock = clock
        self._failures = failures or Failures()
        self._ca = folder.ca.read_text("ascii")

    def enrol(self, body: dict[str, Any], address: str, _peer: x509.Certificate | None) -> tuple[int, dict[str, str]]:
        """A claim for a certificate."""
        if self._failures.too_many(address):
            return 429, {"error": f"too many claims from {address} have failed: wait ten minutes"}
        now = self._clock()
        try:
            token, request = _text(body, "token"), read_request(_text(body, "csr"))
            register = self._folder.register
            issued = register.redeem(token, request.name, request.public, self._signer(request, now), now)
        except ClaimError as error:
            self._failures.failed(address)
            log.warning("a claim from %s is refused: %s", address, error)
            return 403, {"error": str(error)}
        log.info("%s is enrolled%s, from %s", issued.name, " (told again)" if issued.again else "", address)
        if issued.replaced:
            self._replaced(issued.name)
        return self._given(issued)

    def renew(self, body: dict[str, Any], address: str, peer: x509.Certificate | None) -> tuple[int, dict[str, str]]:
        """A certificate for one that ends soon."""
        if peer is None:
            return 403, {"error": "renewal wants the device's certificate"}
        now = self._clock()
        try:
            request = read_request(_text(body, "csr"))
            issued = self._folder.register.renew(peer.serial_number, request.public, self._signer(request, now), now)
        except ClaimError as error:
            log.warning("a renewal from %s is refused: %s", address, error)
            return 403, {"error": str(error)}
        log.info("%s has a new certificate, from %s", issued.name, address)
        return self._given(issued)

    def _signer(self, request: Request, now: datetime) -> Callable[[str], x509.Certificate]:
        def sign(name: str) -> x509.Certificate:
            return self._folder.authority.sign(name, request.key, "client", self._life, now)

        return sign

    def _given(self, issued: Issued) -> tuple[int, dict[str, str]]:
        return 200, {"certificate": issued.pem, "ca": self._ca}


class Listener(ThreadingMixIn, TCPServer):
    """Listens in threads of its own until it is closed.

    Args:
        desk: answers.
        address, port: where; port 0 takes a free one.
        certificate, key: the server's own, PEM.
        ca: the fleet's authority, PEM: clients may have a certificate of it, and none of another.

    Raises:
        BrokerError: it cannot listen there.
    """

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, desk: Desk, address: str, port: int, certificate: Path, key: Path, ca: Path) -> None:
        self.desk = desk
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._pair = certificate, key
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
        self._context.num_tickets = 0
        self._context.verify_mode = ssl.CERT_OPTIONAL
        self._context.load_verify_locations(ca)
        self.reload()
        self._room = threading.BoundedSemaphore(CONNECTIONS)
        self._open: dict[socket.socket, float] = {}
        try:
            super().__init__((address, port), _Handler)
        except OSError as error:
            raise BrokerError(
                f"boards cannot enrol at {address}, port {port}: {(error.strerror or str(error)).lower()}; "
                "choose another in [tls]"
            ) from error
        self._thread = threading.Thread(target=self.serve_forever, args=(0.1,), name="enrolment", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    def reload(self) -> None:
        """Take a new certificate of ours for connections that begin from now on."""
        self._context.load_cert_chain(*self._pair)

    def close(self) -> None:
        """Listen no more."""
        self.shutdown()
        self.server_close()
        self._thread.join(5)

    # Of socketserver ---------------------------------------------------------------------------------------------------

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection a thread, if there is room."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._room.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """In that thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Negotiate TLS, then answer one request."""
        watched = request.dup()  # TLS takes the socket over; this one can end it from outside
        self._open[watched] = time.monotonic() + SECONDS
        try:
            request.settimeout(SECONDS)
            with self._context.wrap_socket(request, server_side=True) as secured:
                super().finish_request(secured, client_address)
        except (OSError, ValueError) as error:
            log.debug("a connection from %s came to nothing: %s", client_address[0], error)
        finally:
            del self._open[watched]
            watched.close()

    def service_actions(self) -> None:
        """Between two looks: end connections that have had their time."""
        now = time.monotonic()
        for watched, until in list(self._open.items()):
            if now > until:
                with suppress(OSError):  # ended meanwhile
                    watched.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002  socketserver's names
        """A fault of ours in answering: it is written down, and the next is served."""
        log.error("answering %s failed", client_address[0], exc_info=True)  # noqa: LOG014  socketserver is handling one


class _Handler(BaseHTTPRequestHandler):
    """One request, then the connection ends."""

    server_version = "cutlayer"
    sys_version = ""

    def do_POST(self) -> None:
        """Answer the two there are."""
        desk = cast("Listener", self.server).desk
        act = {"/enrol": desk.enrol, "/renew": desk.renew}.get(self.path)
        if act is None:
            self._answer(404, {"error": "there is nothing here"})
            return
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            self._answer(400, {"error": "the request has no length"})
            return
        if len(length) > 6 or int(length) > BODY_BYTES:
            self._answer(413, {"error": f"the request has {length[:20]} bytes, {BODY_BYTES} are the most"})
            return
        try:
            body = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            self._answer(400, {"error": "the request is no JSON object"})
            return
        try:
            self._answer(*act(body, str(self.client_address[0]), self._peer()))
        except TrustError as error:
            log.warning("a request cannot be answered: %s", error)
            self._answer(500, {"error": "the hub cannot answer now: its log says why"})

    def _peer(self) -> x509.Certificate | None:
        """The client's certificate, which TLS has checked."""
        found = self.connection.getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(found) if found else None

    def _answer(self, code: int, content: dict[str, str]) -> None:
        data = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Of http.server, for what it refuses by itself."""
        self.close_connection = True
        self._answer(code, {"error": "there is nothing here"})

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  http.server's names
        """Say nothing of what strangers send; the desk says what matters."""


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        raise ClaimError(f"the request has no text {name!r}")
    return value


def _network(address: str) -> str:
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return str(ip_network((found, 64), strict=False)) if isinstance(found, IPv6Address) else address
