"""The fleet's own certificate authority: who signs, for how long, and for what.

EC P-256 throughout the hub; a device's key is Ed25519 (made by plain Python there) or P-256. A device's certificate is good
for being a client only, the broker's for being a server only, so that no board can pass for the broker.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hub.trust.errors import ClaimError, TrustError

CA_DAYS = 3650
SERVER_DAYS = 397
"""Of the broker's and the hub's certificate; `serve` renews them."""
CRL_DAYS = 30
BACKDATED = timedelta(days=1)
"""Clocks of boards are late: what is signed is valid since yesterday."""
EARLIEST = datetime(2025, 1, 1, tzinfo=UTC)
"""A clock before this is not set."""

PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey
Use = Literal["client", "server"]
_USES = {"client": ExtendedKeyUsageOID.CLIENT_AUTH, "server": ExtendedKeyUsageOID.SERVER_AUTH}


@dataclass(frozen=True)
class Request:
    """What a device wants signed, checked: its key is its own."""

    name: str
    """That it gives itself; empty where it gives none."""
    key: PublicKey

    @property
    def public(self) -> bytes:
        """The key as DER."""
        return public_bytes(self.key)


class Authority:
    """Signs certificates and the list of those revoked.

    Args:
        key: of the authority.
        certificate: its own.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self.certificate = certificate
        self._key = key

    @classmethod
    def make(cls, fleet: str, now: datetime) -> "Authority":
        """A new one, for ten years."""
        key = new_key()
        name = _name(f"cutlayer fleet {fleet}"[:64])
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        builder = _builder(name, name, key.public_key(), now - BACKDATED, now + timedelta(days=CA_DAYS))
        certificate = (
            builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate)

    @classmethod
    def load(cls, key: bytes, certificate: bytes) -> "Authority":
        """From their PEM files.

        Raises:
            ValueError: they are none, or do not belong together.
        """
        private = serialization.load_pem_private_key(key, None)
        own = x509.load_pem_x509_certificate(certificate)
        if not isinstance(private, ec.EllipticCurvePrivateKey) or public_bytes(private.public_key()) != public_bytes(
            own.public_key()
        ):
            raise ValueError("the key does not belong to the certificate")
        return cls(private, own)

    def key_pem(self) -> bytes:
        """The private key, for the folder."""
        return private_pem(self._key)

    def sign(
        self, name: str, key: PublicKey, use: Use, life: timedelta, now: datetime, names: Sequence[str] = ()
    ) -> x509.Certificate:
        """A certificate with a random serial number.

        Args:
            name: CN; the broker takes it for the user name.
            key: whom it is about.
            use: as a TLS client, or as a server.
            life: from now on, but not beyond the authority's own.
            now: an aware time.
            names: host names and addresses of a server.

        Raises:
            TrustError: the authority itself has ended.
        """
        end = min(now + life, self.certificate.not_valid_after_utc)
        if end <= now:
            raise TrustError(
                f"the fleet's authority ended at {end:%Y-%m-%d}: every board must be enrolled in a new fleet"
            )
        builder = (
            _builder(_name(name), self.certificate.subject, key, now - BACKDATED, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([_USES[use]]), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(list(map(_host, names))), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def revocations(self, revoked: Iterable[tuple[int, datetime]], now: datetime) -> bytes:
        """The list of revoked certificates, PEM, good for 30 days.

        Args:
            revoked: serial number and time of each.
            now: an aware time.
        """
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - BACKDATED)
            .next_update(now + timedelta(days=CRL_DAYS))
            .add_extension(x509.CRLNumber(int(now.timestamp() * 1000)), critical=False)
        )
        for serial, when in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(when).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def read_request(pem: str) -> Request:
    """Check a certificate signing request.

    Raises:
        ClaimError: it is none, its signature is wrong, or its key is of another kind.
    """
    try:
        request = x509.load_pem_x509_csr(pem.encode("ascii"))
        valid, key = request.is_signature_valid, request.public_key()
        names = [str(part.value) for part in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise ClaimError(f"the certificate request cannot be read: {error}") from None
    if not isinstance(key, ed25519.Ed25519PublicKey) and not (
        isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    ):
        raise ClaimError("the certificate request has a key that is neither Ed25519 nor EC P-256")
    if not valid:
        raise ClaimError("the certificate request is not signed by its own key")
    if len(names) > 1:
        raise ClaimError("the certificate request has more than one name")
    return Request(names[0] if names else "", key)


def new_key() -> ec.EllipticCurvePrivateKey:
    """A private key for the hub's side."""
    return ec.generate_private_key(ec.SECP256R1())


def private_pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    """A private key as PKCS8 PEM, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_bytes(key: object) -> bytes:
    """A public key as DER."""
    found: bytes = key.public_bytes(  # type: ignore[attr-defined]  # every kind of key has it
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return found


def pem_of(certificate: x509.Certificate) -> bytes:
    """A certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, since: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
