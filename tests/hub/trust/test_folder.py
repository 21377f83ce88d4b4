"""The fleet's folder: made once, kept in date, never made anew in silence."""

import shutil
import stat
import threading
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from edge.wire.updates import Release
from hub import config
from hub.rollout.book import Book, Shelf
from hub.trust import serving
from hub.trust.errors import TrustError
from hub.trust.folder import CRL_EARLY, Addresses, Folder, addresses
from hub.trust.register import Revoked
from tests.hub.trust.conftest import FLEET

NOW = datetime(2026, 11, 22, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def folder(tmp_path):
    return Folder.open_or_make(tmp_path / "fleet", FLEET, NOW)[0]


def settings(tmp_path, tls=""):
    path = tmp_path / "hub.toml"
    path.write_text(f'[fleet]\nname = "{FLEET}"\n[bundle]\npath = "b"\n[run]\nfolder = "r"\n[tls]\n{tls}')
    return config.load(path, {})


def test_it_is_made_once_and_nobody_else_may_read_the_keys(tmp_path):
    root = tmp_path / "deep" / "fleet"
    folder, made = Folder.open_or_make(root, FLEET, NOW)
    assert made
    before = {path.name: path.read_bytes() for path in root.iterdir()}
    assert {"ca.key", "ca.pem", "crl.pem", "release.key", "release.pub", "fleet.db", "lock"} == set(before)
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert all(stat.S_IMODE((root / name).stat().st_mode) == 0o600 for name in before if name.endswith(".key"))
    assert Folder.open_or_make(root, FLEET, NOW + DAY) == (folder, False)
    assert {path.name: path.read_bytes() for path in root.iterdir()} == before
    assert [path.name for path in root.parent.iterdir()] == ["fleet"]
    (key,) = folder.release_keys()
    assert len(bytes.fromhex(key)) == 32


@pytest.mark.parametrize("name", ["ca.key", "ca.pem", "release.key", "release.pub"])
def test_what_boards_trust_is_not_made_anew(folder, name):
    (folder.root / name).unlink()
    for open_it in (Folder.open, lambda root, fleet: Folder.open_or_make(root, fleet, NOW)):
        with pytest.raises(TrustError, match=rf"lacks {name}: boards trust what was there.*restore it from the backup"):
            open_it(folder.root, FLEET)
    assert not (folder.root / name).exists()


def test_a_key_of_another_authority_is_told(folder, tmp_path):
    other, _ = Folder.open_or_make(tmp_path / "other", FLEET, NOW)
    shutil.copy(other.root / "ca.key", folder.root / "ca.key")
    with pytest.raises(TrustError, match=r"the key does not belong to the certificate: restore it"):
        Folder.open(folder.root, FLEET)


def test_what_a_rollout_without_certificates_left_there_is_taken_along(tmp_path):
    shelf = Shelf(tmp_path / "fleet")
    with shelf.held():
        shelf.save(Book(Release("ab" * 32, 7, 4096, "12" * 32), "canary,all"))
    folder, made = Folder.open_or_make(tmp_path / "fleet", FLEET, NOW)
    assert made
    assert Folder.open(folder.root, FLEET).ca.is_file()
    assert shelf.load().release.version == 7
    assert folder.root.stat().st_mode & 0o077 == 0


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet" / "thesis.txt").write_text("x")
    with pytest.raises(TrustError, match=r"lacks ca\.key"):
        Folder.open_or_make(tmp_path / "fleet", FLEET, NOW)
    assert [path.name for path in (tmp_path / "fleet").iterdir()] == ["thesis.txt"]


def test_a_clock_that_is_not_set_makes_no_authority(tmp_path):
    with pytest.raises(TrustError, match="clock says 1970-01-01: set it"):
        Folder.open_or_make(tmp_path / "fleet", FLEET, datetime(1970, 1, 1, tzinfo=UTC))
    assert list(tmp_path.iterdir()) == []


def test_two_that_make_it_at_once_have_the_same(tmp_path):
    barrier, found = threading.Barrier(4), []

    def make():
        barrier.wait()
        found.append(Folder.open_or_make(tmp_path / "fleet", FLEET, NOW)[0].authority.certificate)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 4
    assert len(set(found)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["fleet"]


def test_the_authority_is_for_ten_years_and_signs_nothing_beyond_itself(folder):
    made = folder.authority.certificate
    assert made.not_valid_after_utc == NOW + 3650 * DAY
    usage = made.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert (usage.value.key_cert_sign, usage.value.crl_sign, usage.value.digital_signature) == (True, True, False)
    basic = made.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (basic.ca, basic.path_length) == (True, 0)
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    late = folder.authority.sign("a", key, "client", 90 * DAY, NOW + 3640 * DAY)
    assert late.not_valid_after_utc == NOW + 3650 * DAY
    with pytest.raises(TrustError, match=r"authority ended at 2036-11-19: every board must be enrolled in a new fleet"):
        folder.server(("localhost",), NOW + 3652 * DAY)


def test_serial_numbers_are_chance(folder):
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    serials = {folder.authority.sign("a", key, "client", DAY, NOW).serial_number for _ in range(20)}
    assert len(serials) == 20
    assert min(serial.bit_length() for serial in serials) > 100


def test_the_list_of_revoked_certificates_is_renewed_long_before_it_runs_out(folder):
    assert folder.revocations_until() == NOW + 30 * DAY
    assert not folder.renew_revocations(NOW + 30 * DAY - CRL_EARLY - timedelta(seconds=1))
    later = NOW + 30 * DAY - CRL_EARLY
    assert folder.renew_revocations(later)
    assert folder.revocations_until() == later + 30 * DAY
    found = x509.load_pem_x509_crl(folder.crl.read_bytes())
    assert found.is_signature_valid(folder.authority.certificate.public_key())


def test_a_list_that_nobody_renews_is_told_of_early(folder):
    assert folder.warnings(NOW + 23 * DAY) == []
    (sentence,) = folder.warnings(NOW + 23 * DAY + timedelta(seconds=1))
    assert "is good for 6 days more, then the broker lets nobody in" in sentence
    (sentence,) = folder.warnings(NOW + 99 * DAY)
    assert "for 0 days more" in sentence
    folder.renew_revocations(NOW + 99 * DAY)
    assert folder.warnings(NOW + 99 * DAY) == []


def test_a_list_that_is_lost_is_made_again_and_names_who_is_revoked(folder):
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    register = folder.register
    token = register.claim("a", "pi5", DAY, NOW)
    signed = []

    def sign(name):
        signed.append(folder.authority.sign(name, key, "client", 90 * DAY, NOW))
        return signed[-1]

    register.redeem(token, "a", b"key", sign, NOW)
    assert register.revoke("a", NOW) == Revoked(1, 0)
    folder.crl.unlink()
    assert folder.renew_revocations(NOW)
    listed = x509.load_pem_x509_crl(folder.crl.read_bytes())
    assert [entry.serial_number for entry in listed] == [signed[0].serial_number]
    # One who was cut off after the register has been written: the next command on the folder writes the list.
    token = register.claim("b", "pi5", DAY, NOW)
    register.redeem(token, "b", b"other", sign, NOW)
    assert not folder.renew_revocations(NOW)
    register.revoke("b", NOW)
    serving.keep(folder, Addresses(("localhost",), "", "", ""), NOW)
    assert len(x509.load_pem_x509_crl(folder.crl.read_bytes())) == 2
    # Once they have run out anyhow, the list need not name them.
    folder.write_revocations(NOW + 92 * DAY)
    assert len(x509.load_pem_x509_crl(folder.crl.read_bytes())) == 0


def test_a_list_of_before_a_revocation_does_not_come_after_it(folder, monkeypatch):
    """Two write at once: who has read the register first must not be who writes last."""
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    token = folder.register.claim("a", "pi5", DAY, NOW)
    folder.register.redeem(token, "a", b"key", lambda name: folder.authority.sign(name, key, "client", DAY, NOW), NOW)
    read, go_on = threading.Event(), threading.Event()
    sign = folder.authority.revocations

    def slow(revoked, now):
        if not revoked:
            read.set()
            go_on.wait(10)
        return sign(revoked, now)

    monkeypatch.setattr(folder.authority, "revocations", slow)
    early = threading.Thread(target=folder.write_revocations, args=(NOW,))
    early.start()
    assert read.wait(10)
    folder.register.revoke("a", NOW)
    late = threading.Thread(target=folder.write_revocations, args=(NOW,))
    late.start()
    late.join(0.2)  # it waits for the first
    go_on.set()
    early.join(10)
    late.join(10)
    assert len(x509.load_pem_x509_crl(folder.crl.read_bytes())) == 1


def test_the_brokers_certificate_follows_its_names_and_its_time(folder):
    names = ("hub.local", "192.168.1.10", "localhost")
    certificate, key = folder.server(names, NOW)
    first = x509.load_pem_x509_certificate(certificate.read_bytes())
    hosts = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert hosts.get_values_for_type(x509.DNSName) == ["hub.local", "localhost"]
    assert [str(a) for a in hosts.get_values_for_type(x509.IPAddress)] == ["192.168.1.10"]
    assert list(first.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.SERVER_AUTH
    ]

    def serial(names, now):
        folder.server(names, now)
        return x509.load_pem_x509_certificate(certificate.read_bytes()).serial_number

    assert serial(names, NOW + 200 * DAY) == first.serial_number
    assert serial(names, NOW + 270 * DAY) != first.serial_number  # a third of 397 days is left
    second = serial(names, NOW)
    assert serial((*names, "other"), NOW) != second
    key.write_bytes((folder.root / "release.key").read_bytes())  # as after a power cut between key and certificate
    third = serial(names, NOW)
    assert serial(names, NOW) == third
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_what_is_kept_without_a_broker(folder, tmp_path):
    where = addresses(settings(tmp_path))
    assert serving.keep(folder, where, NOW + 10 * DAY) == []
    assert folder.revocations_until() == NOW + 40 * DAY
    assert folder.pair("hub")[0].is_file()


def test_addresses(tmp_path):
    where = addresses(settings(tmp_path, 'names = ["hub.example", "fd00::1"]\naddress = "::"'))
    assert where.names == ("hub.example", "fd00::1", "localhost", "::1")
    assert (where.broker, where.enrol) == ("mqtts://hub.example:8883", "https://hub.example:8443")
    assert where.own == "mqtts://[::1]:8883"
    own = addresses(settings(tmp_path))
    assert own.names[0].endswith(".local")
    assert own.own == "mqtts://127.0.0.1:8883"


@pytest.mark.parametrize(
    ("tls", "words"),
    [
        ("port = 8443", "port and enrol_port are both 8443"),
        ('address = "1.2.3"', 'address = "1.2.3" is no IP address'),
        ('names = ["a b"]', 'names: "a b" is no host name or address'),
        ("certificate_days = 0", "must be a whole number from 1 to 825"),
    ],
)
def test_bad_settings(tmp_path, tls, words):
    with pytest.raises(config.ConfigError, match=words):
        settings(tmp_path, tls)
