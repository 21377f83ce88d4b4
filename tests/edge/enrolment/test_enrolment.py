"""A board's side without a hub: files, and what is said of them. tests/hub/trust/test_enrolment.py has the two together."""

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import device
from edge.enrolment import claim, csr, key
from edge.enrolment.certificate import Certificate
from edge.enrolment.claim import Claim
from edge.enrolment.der import object_id, take, wrap
from edge.enrolment.errors import EnrolmentError
from edge.enrolment.files import remove, write

GOOD = {
    "format": 1,
    "name": "greenhouse-7",
    "board": "pi5",
    "fleet": "fleet",
    "broker": "mqtts://hub.local:8883",
    "enrol": "https://hub.local:8443",
    "ca": "-----BEGIN CERTIFICATE-----\n…",
    "release_keys": ["0f" * 32],
    "token": "t" * 43,
    "expires": "2026-11-23T00:00:00Z",
}


def test_the_key_is_made_once_for_its_owner_alone(tmp_path):
    path = tmp_path / "identity" / "device.key"
    seed = key.read_or_make(path, lambda count: bytes(range(count)))
    assert seed == bytes(range(32))
    assert key.read_or_make(path, lambda _count: pytest.fail("a second key")) == seed
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [child.name for child in path.parent.iterdir()] == ["device.key"]


def test_a_key_that_is_not_ours_is_left_alone(tmp_path):
    path = tmp_path / "device.key"
    for content in ("", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "ä"):
        path.write_text(content)
        with pytest.raises(EnrolmentError, match=r"the key .*device.key cannot be used"):
            key.read_or_make(path)
        assert path.read_text() == content


def test_a_power_cut_while_writing_leaves_the_old_one(tmp_path):
    path = tmp_path / "file"
    write(path, b"old", 0o600)
    (tmp_path / ".file.new").write_bytes(b"half")
    assert path.read_bytes() == b"old"
    write(path, b"new", 0o600)
    assert path.read_bytes() == b"new"
    assert [child.name for child in tmp_path.iterdir()] == ["file"]


def test_a_claim_that_is_used_is_gone(tmp_path):
    path = tmp_path / "claim"
    path.write_text("token")
    held = path.open()  # whoever holds it open reads nothing more
    assert remove(path)
    assert held.read() == ""
    held.close()
    assert not path.exists()


def test_a_claim_in_a_folder_of_somebody_else_is_emptied(tmp_path, monkeypatch):
    path = tmp_path / "claim"
    path.write_text("token")

    def forbidden(_path, missing_ok=False):
        raise PermissionError(13, "permission denied")

    monkeypatch.setattr(Path, "unlink", forbidden)
    assert remove(path)
    assert path.read_text() == ""


def test_a_claim_is_read():
    found = Claim.parse(json.dumps(GOOD).encode())
    assert (found.name, found.token, found.release_keys) == ("greenhouse-7", "t" * 43, ("0f" * 32,))
    assert found.until.isoformat() == "2026-11-23T00:00:00+00:00"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "no claim of format 1"),
        ({"name": "../a"}, "its 'name'"),
        ({"name": None}, "its 'name'"),
        ({"broker": "mqtt://hub"}, "its 'broker'"),
        ({"enrol": "http://hub"}, "its 'enrol'"),
        ({"token": "short"}, "its 'token'"),
        ({"expires": "2026-02-30T00:00:00Z"}, "its 'expires' is no time"),
        ({"ca": "x"}, "its 'ca' is no certificate"),
        ({"release_keys": ["0F" * 32]}, "its 'release_keys'"),
        ({"release_keys": "00"}, "its 'release_keys'"),
    ],
)
def test_claims_that_are_none(change, words):
    with pytest.raises(EnrolmentError, match=words) as caught:
        Claim.parse(json.dumps({**GOOD, **change}).encode())
    assert "t" * 43 not in str(caught.value)


@given(st.binary(max_size=200) | st.recursive(st.none() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.sampled_from(list(GOOD)), x)).map(lambda x: json.dumps(x).encode()))  # fmt: skip
def test_any_bytes_are_a_claim_or_a_sentence(data):
    with pytest.raises(EnrolmentError):
        Claim.parse(data)


def test_a_claim_file_that_cannot_be_used_is_named(tmp_path):
    with pytest.raises(EnrolmentError, match=r"the claim .*/x cannot be read: no such file"):
        claim.read(tmp_path / "x")
    (tmp_path / "x").write_text("")
    with pytest.raises(EnrolmentError, match=r"the claim .*/x is empty: it has been used"):
        claim.read(tmp_path / "x")
    (tmp_path / "x").write_text("{")
    with pytest.raises(EnrolmentError, match=r"the claim .*/x cannot be used: it is no JSON"):
        claim.read(tmp_path / "x")


@given(st.text(max_size=300) | st.binary(max_size=300).map(lambda data: csr.pem("CERTIFICATE", data or b"0")))
def test_any_text_is_a_certificate_or_a_sentence(text):
    with pytest.raises(EnrolmentError, match="certificate"):
        Certificate.parse(text)


def test_der_by_hand():
    assert object_id(1, 3, 101, 112) == bytes.fromhex("06032b6570")
    assert object_id(1, 2, 840, 113549) == bytes.fromhex("06062a864886f70d")
    assert wrap(0x04, bytes(200))[:3] == bytes.fromhex("0481c8")
    assert wrap(0x04, bytes(300))[:4] == bytes.fromhex("0482012c")
    element, rest = take(wrap(0x30, wrap(2, b"\1"), wrap(2, b"\2")) + b"more")
    assert [child.content for child in element.children()] == [b"\1", b"\2"]
    assert rest == b"more"
    for cut in (b"", b"\x30", b"\x30\x02\x01", b"\x30\x80", b"\x30\x84\0\0\0\1\0"):
        with pytest.raises(EnrolmentError):
            take(cut)


def test_status_says_when_a_certificate_is_no_good_any_more():
    since = datetime(2026, 1, 1, tzinfo=UTC)
    found = Certificate("a", since, since + timedelta(days=90), b"")
    assert device._validity(found, since + timedelta(days=59)) == "until 2026-04-01"
    assert device._validity(found, since + timedelta(days=60)) == "until 2026-04-01; renewal is due"
    said = device._validity(found, since + timedelta(days=90))
    assert said == "no longer: the certificate expired on 2026-04-01, a new claim is needed"
