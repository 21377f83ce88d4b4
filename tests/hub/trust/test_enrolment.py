"""A board and the hub's listener, over real TLS on the loopback."""

import hashlib
import itertools
import json
import socket
import ssl
import stat
import subprocess
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge.enrolment import client, csr
from edge.enrolment import key as keys
from edge.enrolment.certificate import Certificate
from edge.enrolment.claim import Claim
from edge.enrolment.enrolling import Enrolment, Place, Renewal
from edge.enrolment.errors import EnrolmentError, RefusedError, UnreachableError
from hub.trust import files, listener
from hub.trust.authority import Authority, private_pem, read_request
from hub.trust.errors import ClaimError
from hub.trust.listener import Desk, Failures, Listener
from tests.hub.trust.conftest import FLEET, NAMES, need

DAYS = 90


class Hub:
    """A listener whose clock a test may set."""

    def __init__(self, folder, now):
        self.folder, self.now = folder, now
        self.replaced = []
        self.seconds = 0.0
        certificate, key = folder.server(NAMES, now)
        desk = Desk(folder, DAYS, self.replaced.append, lambda: self.now, Failures(lambda: self.seconds))
        self.listener = Listener(desk, "127.0.0.1", 0, certificate, key, folder.ca)
        self.url = f"https://localhost:{self.listener.port}"

    def claim(self, name, life=timedelta(hours=24)):
        """A claim file's content."""
        token = self.folder.register.claim(name, "pi5", life, self.now)
        until = f"{self.now + life:%Y-%m-%dT%H:%M:%SZ}"
        ca = self.folder.ca.read_text()
        return Claim(name, "pi5", FLEET, "mqtts://localhost:8883", self.url, ca, ("0" * 64,), token, until)

    def members(self):
        return {member.name: member.state(self.now) for member in self.folder.register.members()}


@pytest.fixture
def hub(folder):
    made = Hub(folder, folder.authority.certificate.not_valid_before_utc + timedelta(days=2))
    yield made
    made.listener.close()


def board(root, claim, hub, name=None, **options):
    """A board with a claim on its disk."""
    root.mkdir(exist_ok=True)
    if claim is not None:
        files.write(root / "x.claim", claim.pack(), files.PRIVATE)
    place = Place(
        name or claim.name,
        hub.url,
        root / "x.claim",
        root / "ca.pem",
        root / "id" / "device.pem",
        root / "id" / "device.key",
    )
    return Enrolment(place, **{"clock": lambda: hub.now, "pause": lambda _seconds: None, **options})


def never():
    return False


def test_a_board_comes_to_a_certificate(hub, tmp_path, caplog):
    claim = hub.claim("a")
    enrolment = board(tmp_path / "a", claim, hub)
    place = enrolment.place
    assert enrolment.until_enrolled(never)
    signed = x509.load_pem_x509_certificate(place.certificate.read_bytes())
    signed.verify_directly_issued_by(hub.folder.authority.certificate)
    assert signed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "a"
    assert list(signed.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.CLIENT_AUTH
    ]
    assert signed.not_valid_after_utc - hub.now == timedelta(days=DAYS)
    assert not signed.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert stat.S_IMODE(place.key.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.key.parent.stat().st_mode) == 0o700
    assert not place.claim.exists()
    assert place.ca.read_text() == claim.ca
    assert hub.members() == {"a": "enrolled"}
    on_the_hub = b"".join(path.read_bytes() for path in hub.folder.root.rglob("*") if path.is_file())
    secret = keys.read_or_make(place.key)
    for one in (claim.token.encode(), secret, place.key.read_bytes().splitlines()[1]):
        assert one not in on_the_hub
    assert claim.token not in caplog.text
    assert claim.token not in repr(claim)


def test_the_key_is_on_the_disk_before_anything_is_sent(hub, tmp_path):
    seen = []

    def post(url, path, body, trust):
        seen.append((enrolment.place.key.read_bytes(), read_request(body["csr"]).public))
        raise UnreachableError("the power is gone")

    enrolment = board(tmp_path / "a", hub.claim("a"), hub, post=post)
    with pytest.raises(UnreachableError):
        enrolment.use_claim()
    with pytest.raises(UnreachableError):
        enrolment.use_claim()
    assert seen[0] == seen[1]
    assert enrolment.place.claim.exists()


def test_a_board_that_has_not_heard_the_answer_hears_it_again(hub, tmp_path):
    claim = hub.claim("a")
    answers = []

    def post(*asked):
        answers.append(client.post(*asked))
        if len(answers) == 1:
            raise UnreachableError("the answer is lost")
        return answers[-1]

    enrolment = board(tmp_path / "a", claim, hub, post=post)
    assert enrolment.until_enrolled(never)
    assert len(answers) == 2
    assert answers[0] == answers[1]
    assert enrolment.certificate() is not None
    # And a power cut between the certificate and the claim's end leaves a claim that does no harm.
    files.write(enrolment.place.claim, claim.pack(), files.PRIVATE)
    enrolment.use_claim()
    assert not enrolment.place.claim.exists()


def test_a_claim_lets_one_board_in(hub, tmp_path):
    claim = hub.claim("a")
    assert board(tmp_path / "a", claim, hub).until_enrolled(never)
    second = board(tmp_path / "thief", claim, hub)
    with pytest.raises(RefusedError, match=r"has been used already, by another board: .*cutlayer-hub revoke a"):
        second.use_claim()
    assert second.certificate() is None
    assert second.place.claim.exists()


def test_of_boards_that_race_with_one_claim_one_wins(hub, tmp_path):
    claim = hub.claim("a")
    racers = [board(tmp_path / str(number), claim, hub) for number in range(8)]
    barrier, refused = threading.Barrier(len(racers)), []

    def race(enrolment):
        barrier.wait()
        try:
            enrolment.use_claim()
        except RefusedError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=race, args=(racer,)) for racer in racers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sum(racer.certificate() is not None for racer in racers) == 1
    assert len(refused) == 7


def test_claims_that_are_not_good(hub, tmp_path):
    late = hub.claim("a", timedelta(hours=1))
    hub.now += timedelta(hours=1)
    with pytest.raises(RefusedError, match=r"the claim of a expired at \d{4}-"):
        board(tmp_path / "a", late, hub).use_claim()
    old, new = hub.claim("b"), hub.claim("b")
    with pytest.raises(RefusedError, match="has been withdrawn: use the newest one"):
        board(tmp_path / "b", old, hub).use_claim()
    board(tmp_path / "b", new, hub).use_claim()
    other = Claim(**{**vars(hub.claim("c")), "name": "d"})
    with pytest.raises(RefusedError, match="the claim is for c, not for d"):
        board(tmp_path / "d", other, hub).use_claim()
    with pytest.raises(RefusedError, match=r"x.claim is for d, and this is e"):
        board(tmp_path / "e", other, hub, name="e").use_claim()
    wrong = Claim(**{**vars(other), "token": "x" * 43})
    with pytest.raises(RefusedError, match="token is not known here"):
        board(tmp_path / "d", wrong, hub).use_claim()
    assert hub.members() == {"a": "claim expired", "b": "enrolled", "c": "claim open"}


def test_a_board_goes_on_asking_and_takes_a_new_claim(hub, tmp_path, caplog):
    """A wrong claim, then none, then one that is good: each is said once, and nothing ends the board."""
    wrong = Claim(**{**vars(hub.claim("a")), "token": "x" * 43})
    enrolment = board(tmp_path / "a", wrong, hub)
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 100:
            enrolment.place.claim.unlink()
        if len(pauses) == 200:
            files.write(enrolment.place.claim, hub.claim("a").pack(), files.PRIVATE)

    enrolment.pause = pause
    assert enrolment.until_enrolled(never)
    assert len(pauses) == 200  # at once, when it was there
    said = [
        record.message
        for record in caplog.records
        if record.name == "cutlayer.enrolment" and record.levelname == "WARNING"
    ]
    assert len(said) == 2
    assert "token is not known here" in said[0]
    assert "cannot be read: no such file" in said[1]


def test_a_clock_of_1970_waits_for_the_time(hub, tmp_path, caplog):
    times = iter(range(30))
    start = hub.now
    enrolment = board(tmp_path / "a", hub.claim("a"), hub)
    enrolment.clock = lambda: start if next(times) > 10 else start.replace(year=1970)
    assert enrolment.until_enrolled(never)
    said = [record.message for record in caplog.records if "clock" in record.message and record.levelname == "WARNING"]
    assert len(said) == 1
    assert said[0].startswith("the clock says 1970-")


def test_a_hub_that_is_away_is_asked_with_growing_pauses(hub, tmp_path):
    tries, pauses = [], []

    def post(*_asked):
        tries.append(len(pauses))
        raise UnreachableError("nobody answers")

    enrolment = board(tmp_path / "a", hub.claim("a"), hub, post=post, pause=pauses.append)
    assert not enrolment.until_enrolled(lambda: len(tries) == 10)
    waits = [round((b - a) * 0.2) for a, b in itertools.pairwise(tries)]
    assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 300]


def test_a_hub_of_another_fleet_is_not_told_the_token(hub, tmp_path):
    other = Authority.make(FLEET, hub.now)
    claim = Claim(**{**vars(hub.claim("a")), "ca": other.certificate.public_bytes(Encoding.PEM).decode()})
    with pytest.raises(UnreachableError, match="is not trusted"):
        board(tmp_path / "a", claim, hub).use_claim()
    assert hub.members() == {"a": "claim open"}


def test_renewal_when_a_third_is_left(hub, tmp_path):
    enrolment = board(tmp_path / "a", hub.claim("a"), hub)
    enrolment.until_enrolled(never)
    first = enrolment.certificate()
    key = enrolment.place.key.read_bytes()
    assert first.renew_at() == first.until - (timedelta(days=DAYS + 1)) / 3  # it is valid since a day before
    hub.now = first.renew_at() - timedelta(seconds=1)
    assert not enrolment.renew()
    hub.now = first.renew_at()
    assert enrolment.renew()
    second = enrolment.certificate()
    assert second.until - hub.now == timedelta(days=DAYS)
    assert (second.name, second.key) == (first.name, first.key)
    assert enrolment.place.key.read_bytes() == key
    assert not enrolment.renew()


def test_a_claim_that_was_used_and_stayed_does_not_keep_the_certificate_from_renewal(hub, tmp_path):
    enrolment = board(tmp_path / "a", hub.claim("a"), hub)
    used = enrolment.place.claim.read_bytes()
    enrolment.until_enrolled(never)
    token = json.loads(used)["token"]
    assert (enrolment.place.certificate.parent / "claimed").read_text() == hashlib.sha256(token.encode()).hexdigest()
    enrolment.place.claim.write_bytes(used)  # such as one on a disk that nobody may write to
    enrolment.place.ca.write_text(f"# für {FLEET}\n{enrolment.place.ca.read_text()}", "utf-8")
    assert enrolment.look_after()  # hears the same answer
    enrolment.place.claim.write_bytes(used)
    first = enrolment.certificate()
    hub.now = first.renew_at()
    assert enrolment.look_after()
    assert enrolment.certificate().until > first.until


def test_what_keeps_a_certificate_from_renewal_is_said_once_a_day_and_never_ends_the_thread(hub, tmp_path, caplog):
    enrolment = board(tmp_path / "a", hub.claim("a"), hub)
    enrolment.until_enrolled(never)
    hub.now = enrolment.certificate().renew_at()
    enrolment.post = lambda *_: (_ for _ in ()).throw(UnicodeError("label too long"))
    caplog.set_level("WARNING", "cutlayer.enrolment")
    caplog.clear()
    renewal = Renewal(enrolment, seconds=0.0)
    renewal.close()
    for _ in range(5):
        renewal._look()
    until = enrolment.certificate().until
    sentence = f"the certificate, good until {until:%Y-%m-%d}, is not renewed: label too long"
    assert caplog.messages == [sentence]
    hub.now += timedelta(days=1)
    renewal._look()
    assert caplog.messages == [sentence] * 2


@pytest.mark.parametrize("url", ["https://localhost:99999", f"https://{'x' * 70}.local"])
def test_an_address_that_is_none_is_a_sentence(hub, url):
    with pytest.raises(EnrolmentError, match="is no address"):
        client.post(url, "/enrol", {}, client.Trust(hub.folder.ca.read_text()))


def test_who_gets_no_renewal(hub, tmp_path):
    def due(name):
        enrolment = board(tmp_path / name, hub.claim(name), hub)
        enrolment.until_enrolled(never)
        return enrolment

    revoked, expired = due("revoked"), due("expired")
    own = hub.folder.client("", hub.now)
    until = expired.certificate().until
    hub.folder.register.revoke("revoked", hub.now)
    hub.now = until - timedelta(days=10)
    with pytest.raises(RefusedError, match="the certificate of revoked is revoked"):
        revoked.renew()
    hub.now = until
    with pytest.raises(RefusedError, match=r"certificate of expired expired on .* a new claim is needed"):
        expired.renew()
    trust = client.Trust(hub.folder.ca.read_text())
    with pytest.raises(RefusedError, match="renewal wants the device's certificate"):
        client.post(hub.url, "/renew", {"csr": csr.request(bytes(32), "a")}, trust)
    # The hub's own certificate is of the same authority, and of no device.
    with pytest.raises(RefusedError, match="this certificate is of no device"):
        client.post(hub.url, "/renew", {"csr": csr.request(bytes(32), "a")}, client.Trust(trust.ca, *own))


def test_a_renewal_is_for_the_same_key(hub, tmp_path):
    a = board(tmp_path / "a", hub.claim("a"), hub)
    a.until_enrolled(never)
    trust = client.Trust(hub.folder.ca.read_text(), a.place.certificate, a.place.key)
    with pytest.raises(RefusedError, match="for another key than its certificate's"):
        client.post(hub.url, "/renew", {"csr": csr.request(bytes(32), "a")}, trust)


def test_who_is_enrolled_anew_replaces_what_was_there(hub, tmp_path):
    first = board(tmp_path / "first", hub.claim("a"), hub)
    first.until_enrolled(never)
    second = board(tmp_path / "second", hub.claim("a"), hub)
    second.until_enrolled(never)
    assert hub.replaced == ["a"]
    hub.now = first.certificate().renew_at()
    with pytest.raises(RefusedError, match="is revoked"):
        first.renew()
    assert second.renew()


def test_failed_claims_of_an_address_are_counted(hub, tmp_path):
    good = hub.claim("a")
    wrong = board(tmp_path / "w", Claim(**{**vars(good), "token": "x" * 43}), hub)
    for _ in range(listener.FAILURES):
        with pytest.raises(RefusedError):
            wrong.use_claim()
    right = board(tmp_path / "a", good, hub)
    with pytest.raises(UnreachableError, match=r"too many claims from 127\.0\.0\.1 have failed"):
        right.use_claim()
    hub.seconds += listener.FAILURES_SECONDS
    right.use_claim()


def test_failures_are_of_an_address_or_of_a_network_of_ipv6_and_bounded():
    failures = Failures(lambda: 0.0)
    for number in range(listener.FAILURES):
        failures.failed(f"2001:db8::{number}")
        failures.failed("192.0.2.1")
    assert failures.too_many("2001:db8::ffff")
    assert failures.too_many("192.0.2.1")
    assert not failures.too_many("192.0.2.2")
    assert not failures.too_many("2001:db8:0:1::1")
    for number in range(listener.ADDRESSES):
        failures.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert not failures.too_many("192.0.2.1")


def ask(hub, data):
    """Bytes over TLS; the status of the answer, and whether the body is one JSON object."""
    context = ssl.create_default_context(cafile=str(hub.folder.ca))
    with context.wrap_socket(
        socket.create_connection(("127.0.0.1", hub.listener.port), timeout=10), server_hostname="localhost"
    ) as connection:
        connection.sendall(data)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", 501),
        (b"GET /enrol HTTP/1.0\r\n\r\n", 501),
        (b"POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}", 404),
        (b"POST /enrol/../ca.key HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}", 404),
        (b"POST /enrol HTTP/1.0\r\n\r\n", 400),
        (b"POST /enrol HTTP/1.0\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /enrol HTTP/1.0\r\nContent-Length: 8193\r\n\r\n", 413),
        (b"POST /enrol HTTP/1.0\r\nContent-Length: 99999999999999999999\r\n\r\n", 413),
        (b"POST /enrol HTTP/1.0\r\nContent-Length: 2\r\n\r\n[]", 400),
        (b"POST /enrol HTTP/1.0\r\nContent-Length: 8000\r\n\r\n" + b"[" * 8000, 400),
        (b"POST /enrol HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}", 403),
        (b'POST /enrol HTTP/1.0\r\nContent-Length: 20\r\n\r\n{"token":1,"csr":""}', 403),
        (b'POST /enrol HTTP/1.0\r\nContent-Length: 28\r\n\r\n{"token":"\\ud800","csr":"x"}', 403),
        (b"POST /renew HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}", 403),
        (b"nonsense x HTTP/1.0\r\n\r\n", 501),
    ],
)
def test_the_listener_speaks_of_nothing_else(hub, request_bytes, status):
    assert ask(hub, request_bytes)[0] == status


def test_who_says_nothing_keeps_nobody_waiting(hub, tmp_path):
    silent = [socket.create_connection(("127.0.0.1", hub.listener.port)) for _ in range(listener.CONNECTIONS - 2)]
    try:
        assert board(tmp_path / "a", hub.claim("a"), hub).until_enrolled(never)
    finally:
        for connection in silent:
            connection.close()


def test_a_stranger_with_a_certificate_of_his_own_is_not_let_in(hub, tmp_path):
    other = Authority.make(FLEET, hub.now)
    key = ed25519.Ed25519PrivateKey.generate()
    signed = other.sign("a", key.public_key(), "client", timedelta(days=1), hub.now)
    (tmp_path / "pem").write_bytes(signed.public_bytes(Encoding.PEM))
    (tmp_path / "key").write_bytes(private_pem(key))
    trust = client.Trust(hub.folder.ca.read_text(), tmp_path / "pem", tmp_path / "key")
    with pytest.raises(UnreachableError, match="does not answer"):
        client.post(hub.url, "/renew", {"csr": csr.request(bytes(32), "a")}, trust)


def test_our_request_is_what_others_read(tmp_path):
    """The same request read by cryptography and by openssl."""
    need("openssl")
    seed = bytes(range(32))
    text = csr.request(seed, "greenhouse-7")
    found = x509.load_pem_x509_csr(text.encode())
    assert found.is_signature_valid
    assert found.subject.rfc4514_string() == "CN=greenhouse-7"
    assert (
        found.public_key().public_bytes_raw()
        == ed25519.Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    )
    (tmp_path / "csr.pem").write_text(text)
    done = subprocess.run(
        ["openssl", "req", "-in", tmp_path / "csr.pem", "-noout", "-verify", "-subject", "-text"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "verify OK" in done.stdout + done.stderr
    assert "CN = greenhouse-7" in done.stdout
    assert "ED25519" in done.stdout


def _foreign(name, key, digest):
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(name))
    return builder.sign(key, digest).public_bytes(Encoding.PEM).decode()


def test_requests_that_are_not_signed_for_or_of_a_weak_key_are_refused():
    name = [x509.NameAttribute(NameOID.COMMON_NAME, "a")]
    good = read_request(_foreign(name, ec.generate_private_key(ec.SECP256R1()), SHA256()))
    assert good.name == "a"
    assert read_request(_foreign([], ec.generate_private_key(ec.SECP256R1()), SHA256())).name == ""
    for key in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())):
        with pytest.raises(ClaimError, match="neither Ed25519 nor EC P-256"):
            read_request(_foreign(name, key, SHA256()))
    data = bytearray(x509.load_pem_x509_csr(csr.request(bytes(32), "a").encode()).public_bytes(Encoding.DER))
    data[-1] ^= 1
    with pytest.raises(ClaimError, match="not signed by its own key"):
        read_request(csr.pem("CERTIFICATE REQUEST", bytes(data)))
    with pytest.raises(ClaimError, match="more than one name"):
        read_request(_foreign(name * 2, ec.generate_private_key(ec.SECP256R1()), SHA256()))
    with pytest.raises(ClaimError, match="cannot be read"):
        read_request("nonsense")


def test_a_boards_certificate_says_what_cryptography_says(folder):
    made = folder.authority.certificate
    text = Path(folder.ca).read_text()
    found = Certificate.parse(text)
    assert (found.since, found.until) == (made.not_valid_before_utc, made.not_valid_after_utc)
    assert found.name == "cutlayer fleet f"
