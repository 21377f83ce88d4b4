"""The certificates of a TLS link, taken anew where their files have changed."""

import logging
import ssl
from collections.abc import Sequence
from pathlib import Path

from edge.endpoint import reason_of
from edge.link import LinkError

log = logging.getLogger("cutlayer.link")


class Chain:
    """A context for TLS that follows its files.

    Args:
        url: of the broker, for messages.
        ca: PEM file of whom to trust; None: the system's authorities.
        certificate, key: PEM files of our own; None: we have none.

    Attributes:
        context: to connect with.
        certificate: as given.

    Raises:
        LinkError: a file cannot be used.
    """

    def __init__(self, url: str, ca: Path | None, certificate: Path | None, key: Path | None) -> None:
        self.certificate = certificate
        self._key = key
        self._states: object = None
        try:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            if ca is None:
                self.context.load_default_certs()
            else:
                self.context.load_verify_locations(ca)
            if certificate is not None:
                self._load(certificate)
        except (OSError, ValueError) as error:
            names = ", ".join(str(path) for path in (ca, certificate, key) if path)
            raise LinkError(f"TLS for {url} cannot be set up with {names}: {reason_of(error)}") from error

    def renew(self) -> None:
        """Take a certificate that has been renewed since the last connection."""
        certificate = self.certificate
        if certificate is None or _states((certificate, self._key)) == self._states:
            return
        try:
            self._load(certificate)
        except (OSError, ValueError) as error:
            log.warning("the new certificate %s cannot be used: %s", certificate, reason_of(error))

    def _load(self, certificate: Path) -> None:
        states = _states((certificate, self._key))
        self.context.load_cert_chain(certificate, self._key)
        self._states = states


def _states(paths: Sequence[Path | None]) -> object:
    """What changes when one of the files does."""
    found = []
    for path in paths:
        try:
            stat = path.stat() if path is not None else None
        except OSError:
            stat = None
        found.append((stat.st_mtime_ns, stat.st_ino, stat.st_size) if stat else None)
    return found
