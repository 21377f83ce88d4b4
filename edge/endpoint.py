"""Where a broker is, and why it cannot be reached, in words."""

import errno
import socket
import ssl
from urllib.parse import urlsplit

from edge.link import LinkError

TLS = "mqtts"
PORTS = {"mqtt": 1883, TLS: 8883}
"""Where brokers listen, by the scheme of their URL."""


def endpoint(url: str) -> tuple[str, int, str]:
    """Host, port and scheme of a broker's URL.

    Raises:
        LinkError: it is none.
    """
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError as error:
        raise LinkError(f"{url!r} is no broker's address: {error}") from error
    if parts.scheme not in PORTS or not parts.hostname:
        raise LinkError(f"{url!r} is no broker's address: write mqtt://host:port or mqtts://host:port")
    try:
        parts.hostname.encode("idna")  # as a socket does, but there it would end paho's thread
    except UnicodeError as error:
        raise LinkError(f"{url!r} is no broker's address: {parts.hostname!r} cannot be the name of a host") from error
    return parts.hostname, port or PORTS[parts.scheme], parts.scheme


def unreachable(error: BaseException | None) -> bool:
    """Whether nobody has answered: no broker that is overloaded, restarting or unwilling."""
    silent = (
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        socket.EAI_AGAIN,
    )  # the last: no name server answers
    return isinstance(error, TimeoutError) or (isinstance(error, OSError) and error.errno in silent)


def reason_of(error: BaseException | None) -> str:
    """An error in the words of a sentence."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError) and (words := _alert(error)):
        return words
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error)


_ALERTS = {
    "CERTIFICATE_REVOKED": "this device's certificate is revoked",
    "CERTIFICATE_EXPIRED": "this device's certificate, or the broker's list of revoked ones, has expired",
    "UNKNOWN_CA": "it does not know the authority of this device's certificate",
    "CERTIFICATE_REQUIRED": "it wants a certificate",
    "UNSUPPORTED_CERTIFICATE": "this device's certificate is not one of a client",
    "BAD_CERTIFICATE": "it does not take this device's certificate",
}


def _alert(error: ssl.SSLError) -> str:
    """What the other side has said about our certificate."""
    reason = error.reason or ""
    return next((words for alert, words in _ALERTS.items() if reason.endswith(f"ALERT_{alert}")), "")
