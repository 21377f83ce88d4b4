"""What a certificate says. Nothing is verified here: TLS does that, on both ends."""

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from edge.enrolment import der
from edge.enrolment.csr import COMMON_NAME
from edge.enrolment.errors import EnrolmentError

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")


@dataclass(frozen=True)
class Certificate:
    """The first certificate of a PEM text."""

    name: str
    """CN of its subject."""
    since: datetime
    until: datetime
    key: bytes
    """SubjectPublicKeyInfo, DER."""

    @classmethod
    def parse(cls, text: str) -> "Certificate":
        """Read a PEM text.

        Raises:
            EnrolmentError: there is no certificate in it.
        """
        found = _PEM.search(text)
        if found is None:
            raise EnrolmentError("there is no certificate in it")
        try:
            data = base64.b64decode("".join(found[1].split()), validate=True)
            signed = der.take(data)[0].children()[0].children()
            parts = signed[1:] if signed[0].tag == 0xA0 else signed  # a version stands before all else
            _serial, _algorithm, _issuer, validity, subject, key = parts[:6]
            since, until = map(_time, validity.children())
            return cls(_common_name(subject), since, until, key.whole)
        except (binascii.Error, IndexError, ValueError) as error:
            raise EnrolmentError(f"there is no certificate in it: {error}") from None

    def left(self, now: datetime) -> timedelta:
        """How much longer it is good."""
        return self.until - now

    def renew_at(self) -> datetime:
        """When a third of its life is left."""
        return self.until - (self.until - self.since) / 3


def _time(element: der.Element) -> datetime:
    text = element.content.decode("ascii")
    if element.tag == der.UTC_TIME:
        text = ("19" if int(text[:2]) >= 50 else "20") + text  # RFC 5280
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _common_name(subject: der.Element) -> str:
    for part in subject.children():
        for attribute in part.children():
            kind, value = attribute.children()
            if kind.whole == COMMON_NAME:
                return value.content.decode()
    return ""
