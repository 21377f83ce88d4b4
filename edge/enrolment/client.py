"""Two requests to the hub, over HTTPS."""

import http.client
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edge.enrolment.errors import EnrolmentError, RefusedError, UnreachableError

SECONDS = 20.0
"""Longest silence of the hub."""
ANSWER_BYTES = 65536
BUSY = 429
"""The hub does not listen to us for a while."""


@dataclass(frozen=True)
class Trust:
    """Whom the board believes, and as whom it comes."""

    ca: str
    """PEM of the fleet's authority."""
    certificate: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """For a connection.

        Raises:
            EnrolmentError: the files are not what they should be.
        """
        try:
            context = ssl.create_default_context(cadata=self.ca)
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except (OSError, ValueError) as error:
            raise EnrolmentError(f"TLS cannot be set up: {error}") from None
        return context


def post(url: str, path: str, body: dict[str, str], trust: Trust) -> dict[str, Any]:
    """Ask; returns the hub's answer.

    Raises:
        RefusedError: the hub says no; the message is its own.
        UnreachableError: there is no answer, or none that this hub would give.
        EnrolmentError: our own files cannot be used.
    """
    context = trust.context()
    try:
        parts = urlsplit(url)
        host, port = str(parts.hostname), parts.port or 443
        host.encode("idna")
    except ValueError as error:
        raise EnrolmentError(f"{url} is no address: {error}") from None
    # No proxy and no redirection: the hub is where the claim says.
    connection = http.client.HTTPSConnection(host, port, timeout=SECONDS, context=context)
    try:
        connection.request("POST", path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        status, data = answer.status, answer.read(ANSWER_BYTES)
    except ssl.SSLCertVerificationError as error:
        raise UnreachableError(f"{url} is not trusted: {error.verify_message}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
        raise UnreachableError(f"{url} does not answer: {reason}") from None
    finally:
        connection.close()
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UnreachableError(f"{url} answers {status}, and not as a hub does")
    if status == 200:
        return found
    error_text = str(found.get("error", f"it answers {status}"))[:300]
    if status >= 500 or status == BUSY:
        raise UnreachableError(f"{url} cannot answer now: {error_text}")
    raise RefusedError(f"{url} refuses: {error_text}")
