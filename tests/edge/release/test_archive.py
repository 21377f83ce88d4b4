"""A release file is read to the last byte or refused with a sentence, and nothing is believed before the signature."""

import io
import os
import re
import tarfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge.release import archive, signatures
from edge.release.__main__ import main
from edge.release.archive import Accepts, ClockError, open_release
from edge.release.ed25519 import public_key, sign
from edge.release.manifest import ReleaseError
from edge.release.signatures import CONTEXT, fingerprint, pack_signatures, parse_keys, signed_part
from edge.release.writer import write_release
from tests.edge.release.make import CONTENTS, KEY, LATER, NOW, SEED, manifest_of, members, signed, tar, write

OURS = Accepts(fleet="fleet", board="pi5", architecture="aarch64", python="3.13")
L = 2**252 + 27742317777372353535851937790883648493


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.release"


def opened(path, *, now=NOW, accepts=OURS, keys=(KEY,)):
    with open_release(path, keys, now=now, accepts=accepts) as release:
        release.check()
        return release


def refused(path, sentence="release", **how):
    with pytest.raises(ReleaseError, match=sentence) as caught:
        opened(path, **how)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_release_gives_back_what_was_put_into_it(path):
    manifest = write(path)
    with open_release(path, [KEY], now=NOW, accepts=OURS) as release:
        assert release.manifest == manifest
        assert release.id == sha256(manifest.pack()).hexdigest()
        assert release.missing == ()
        assert release.signature == pack_signatures(signed(manifest))
        for name, data in CONTENTS.items():
            to = io.BytesIO()
            release.copy(manifest.files[name].sha256, to)
            assert to.getvalue() == data


def test_the_same_inputs_give_the_same_bytes_that_tar_reads(path, tmp_path):
    write(path)
    write(tmp_path / "b.release", dict(reversed(CONTENTS.items())))
    assert path.read_bytes() == (tmp_path / "b.release").read_bytes() == tar(members())
    with tarfile.open(path) as tar_file:
        found = tar_file.getmembers()
    hashes = sorted(sha256(data).hexdigest() for data in CONTENTS.values())
    assert [member.name for member in found] == ["manifest.json", "manifest.sig", *(f"files/{name}" for name in hashes)]
    assert {(member.mtime, member.uid, member.gid, member.mode, member.uname) for member in found} == {(0, 0, 0, 0o644, "")}  # fmt: skip
    assert list(tmp_path.glob("*.part")) == []


def test_a_partial_release_says_what_it_lacks(path):
    manifest = write(path, leave_out=("agent.zip", "installer.pyz"))
    with open_release(path, [KEY], now=NOW, accepts=OURS) as release:
        assert release.missing == ("agent.zip", "installer.pyz")
        with pytest.raises(ReleaseError, match="are not in it"):
            release.copy(manifest.files["agent.zip"].sha256, io.BytesIO())


def test_contents_that_several_paths_share_are_there_once(path):
    manifest = write(path, {**CONTENTS, "units/b.service": CONTENTS["units/cutlayer.service"]})
    assert len(opened(path).present) == len(manifest.files) - 1


def quick_verify(public, message, signature):
    """What another implementation says: 30 times as fast, for loops over every byte."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except InvalidSignature:
        return False
    return True


@pytest.mark.parametrize(("ours", "step"), [(True, 29), (False, 1)])
def test_every_changed_byte_of_manifest_and_signature_is_refused(path, monkeypatch, ours, step):
    if not ours:
        monkeypatch.setattr(signatures, "verify", quick_verify)
    good = tar(members())
    end = 512 + 512 * -(-len(manifest_of().pack()) // 512) + 1024
    assert good[end : end + 6] == b"files/"
    for place in range(0, end, step):
        changed = bytearray(good)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(ReleaseError):
            open_release(path, [KEY], now=NOW, accepts=OURS)
    path.write_bytes(good)
    opened(path)


@pytest.fixture
def small(path, monkeypatch):
    """The least release, whose right signature is verified once."""
    monkeypatch.setattr(signatures, "verify", lru_cache(signatures.verify))
    good = tar(members(contents={"device.bundle": b"graphs", "agent.zip": b"agent", "installer.pyz": b"i" * 513}))
    path.write_bytes(good)
    opened(path)
    return good


def test_every_changed_byte_behind_them_is_refused(path, small):
    with path.open("r+b", buffering=0) as file:
        for place in range(small.index(b"files/"), len(small)):
            os.pwrite(file.fileno(), bytes([small[place] ^ 1 << place % 8]), place)
            refused(path)
            os.pwrite(file.fileno(), small[place : place + 1], place)
    opened(path)


def test_every_shortened_file_is_refused(path, small):
    for length in reversed(range(len(small))):
        os.truncate(path, length)
        refused(path)


def test_what_follows_the_end_is_refused(path):
    for more in (b"\0", b"x", bytes(512), bytes(10240), tar(members())):
        path.write_bytes(tar(members()) + more)
        refused(path)


def test_nothing_is_looked_at_before_the_signature(path, monkeypatch):
    """A manifest of a stranger is not even parsed, however it is written."""
    monkeypatch.setattr(archive.ReleaseManifest, "parse", lambda _: pytest.fail("parsed before it was verified"))
    (_, manifest), (_, signature), *rest = members()
    for data in (manifest.replace(b'"version":7', b'"version":8'), b"[" * 9000, b"\xff"):
        path.write_bytes(tar([("manifest.json", data), ("manifest.sig", signature), *rest]))
        refused(path, "signature of key .* is wrong")


def test_a_signature_in_another_form_is_refused(path):
    """S + L fits the same equation: a release would have several spellings."""
    manifest = manifest_of()
    right = signed(manifest)[KEY]
    malleable = right[:32] + (int.from_bytes(right[32:], "little") + L).to_bytes(32, "little")
    write_release(path, manifest, {KEY: malleable}, {})
    refused(path, "signature of key .* is wrong")


def test_a_signature_for_another_purpose_is_refused(path):
    manifest = manifest_of()
    assert signed_part(manifest.pack()) == b"cutlayer release 1\n" + manifest.pack()
    for message in (manifest.pack(), CONTEXT.replace(b"1", b"2") + manifest.pack()):
        write_release(path, manifest, {KEY: sign(SEED, message)}, {})
        refused(path, "is wrong")


def test_one_trusted_signature_of_several_is_enough(path):
    other = bytes(32)
    manifest = manifest_of()
    write_release(path, manifest, {**signed(manifest), public_key(other): bytes(64)}, {})
    assert opened(path).id == manifest.id
    write(path, seed=other)
    message = refused(path, "trusted here")
    assert fingerprint(public_key(other)) in str(message)
    assert fingerprint(KEY) in str(message)
    assert opened(path, keys=[KEY, public_key(other)]).id == manifest.id
    refused(path, "trusted here: none", keys=[])


@pytest.mark.parametrize(
    "signature",
    [
        b"{}",
        b'{"signatures":[]}',
        b'{"signatures":{}}',
        b'{"signatures":[1]}',
        b'{"signatures":[{"key":"","signature":""}]}',
        b'{"signatures":[{"key":"' + b"a" * 16 + b'","signature":"' + b"a" * 127 + b'"}]}',
        b'{"more":1,"signatures":[]}',
        b'{"signatures":[' + b"[" * 2000,
        b"\xff",
        b" " * 5000,
        pack_signatures({bytes([number]) * 32: bytes(64) for number in range(9)}),
    ],
)
def test_a_signature_that_cannot_be_read_is_refused(path, signature):
    path.write_bytes(tar([members()[0], ("manifest.sig", signature), *members()[2:]]))
    refused(path, "signature|limit is 4096")


def rows():
    first, second, *contents = members()
    name, data = contents[0]
    return {
        "it is no release: manifest.json is not where": [second, first, *contents],
        "it is no release: manifest.sig is not where": [first, *contents],
        "manifest.sig is not where it should be": [first, first, second, *contents],
        "a member 'manifest.json', which its manifest does not name": [first, second, *contents, first],
        "there twice, or not in its order": [first, second, *reversed(contents)],
        f"{name} is there twice": [first, second, contents[0], *contents],
        "a member 'files/000": [first, second, ("files/" + "0" * 64, b"x"), *contents],
        "a member 'wheels/a.whl'": [first, second, *contents, ("wheels/a.whl", b"x")],
        "a member '../a'": [first, second, *contents, ("../a", b"x")],
        f"{len(data) - 1} bytes; the manifest says {len(data)}": [first, second, (name, data[1:]), *contents[1:]],
        f"{len(data) + 1} bytes; the manifest says {len(data)}": [first, second, (name, data + b"x"), *contents[1:]],
        f"contents {name[6:22]}… are damaged": [first, second, (name, bytes(len(data))), *contents[1:]],
        "header": [],
    }


@pytest.mark.parametrize("sentence", rows())
def test_an_archive_that_is_put_together_wrongly_is_refused(path, sentence):
    path.write_bytes(tar(rows()[sentence]))
    refused(path, re.escape(sentence))


def test_members_that_are_no_plain_files_are_refused(path):
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_LONGNAME):
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as file:
            for name, data in members():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                file.addfile(member, io.BytesIO(data))
            link = tarfile.TarInfo("files/" + "f" * 64)
            link.type, link.linkname = kind, "/etc/passwd"
            file.addfile(link)
        refused(path, "header|bytes between|does not name")


def test_a_size_that_is_only_claimed_reads_nothing(path):
    """A manifest said to have 8 GiB, and one of a negative size."""
    path.write_bytes(archive.header("manifest.json", (8 << 30) - 1) + bytes(512))
    refused(path, "8589934591 bytes; the limit is 262144")
    path.write_bytes(archive.header("manifest.json", 0).replace(b"00000000000\0", b"-0000000001\0", 1) + bytes(512))
    refused(path, "header")


def test_other_files_are_sentences(path, tmp_path):
    refused(path, "No such file")
    refused(tmp_path, "it is no file")
    os.mkfifo(path)
    refused(path, "it is no file")
    path.unlink()
    for data in (b"", b"PK\3\4" + bytes(600), b"\x1f\x8b" + bytes(600), bytes(5000)):
        path.write_bytes(data)
        refused(path, "it is no release|ends too early")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"fleet": "other"}, "it is for the fleet other, this is fleet"),
        ({"board": "pi4"}, "it is for the board pi4, this is pi5"),
        ({"architecture": "x86_64"}, "it is for the architecture x86_64, this is aarch64"),
        ({"python": "3.11"}, "it is for Python 3.11, this board has 3.13: build it with --python 3.13"),
    ],
)
def test_a_release_for_others_is_refused(path, change, sentence):
    write(path, **change)
    refused(path, sentence)
    assert opened(path, accepts=Accepts())


def test_a_board_does_not_go_back(path):
    manifest = write(path)
    assert opened(path, accepts=replace(OURS, version_above=6)).id == manifest.id
    for above in (7, 8):
        refused(
            path, f"version 7, this board has had {above}: it does not go back", accepts=Accepts(version_above=above)
        )
    assert opened(path, accepts=Accepts(version_above=7, again=frozenset({manifest.id}))).id == manifest.id
    refused(path, "does not go back", accepts=Accepts(version_above=7, again=frozenset({"0" * 64})))


def test_an_update_may_need_a_later_agent(path):
    write(path, minimum_agent="0.2.0")
    refused(path, "needs a running agent of cutlayer 0.2.0 or later, this is 0.1.9", accepts=Accepts(agent="0.1.9"))
    for agent in ("0.2", "0.10.0", None):
        assert opened(path, accepts=Accepts(agent=agent))


def test_an_expired_release_is_refused(path):
    manifest = write(path)
    refused(path, "has expired at 2027-05-21T00:00:00Z; it is 2027-12-27T12:00:00Z", now=LATER)
    refused(path, "has expired", now=manifest.expires)
    assert opened(path, now=manifest.expires - timedelta(seconds=1))


def test_a_clock_that_is_not_set_is_an_error_of_its_own(path):
    manifest = write(path)
    error = refused(path, "this board's clock says 1970-01-01T00:00:07Z", now=datetime(1970, 1, 1, 0, 0, 7, tzinfo=UTC))
    assert isinstance(error, ClockError)
    assert opened(path, now=manifest.issued - timedelta(hours=23))


def test_a_file_that_is_exchanged_while_it_is_read_gives_no_wrong_contents(path):
    manifest = write(path)
    with open_release(path, [KEY], now=NOW, accepts=OURS) as release:
        data = path.read_bytes()
        with path.open("r+b") as file:
            file.write(bytes(len(data)))
        with pytest.raises(ReleaseError, match="damaged"):
            release.copy(manifest.files["agent.zip"].sha256, io.BytesIO())
        os.truncate(path, 100)
        with pytest.raises(ReleaseError, match="ends too early"):
            release.copy(manifest.files["device.bundle"].sha256, io.BytesIO())


def test_a_writer_writes_nothing_that_the_manifest_does_not_name(path):
    manifest = manifest_of()
    with pytest.raises(ReleaseError, match="names no contents"):
        write_release(path, manifest, signed(manifest), {"0" * 64: b"x"})
    with pytest.raises(ReleaseError, match="1 bytes; the manifest says 5"):
        write_release(path, manifest, signed(manifest), {manifest.files["agent.zip"].sha256: b"x"})
    assert list(path.parent.iterdir()) == []


def test_keys_of_a_text():
    text = f"# of the fleet\n{KEY.hex()}  # first\n\n{bytes(32).hex()}\n"
    assert parse_keys(text, "keys") == (KEY, bytes(32))
    with pytest.raises(ReleaseError, match="keys: line 2 is not a public key"):
        parse_keys(f"{KEY.hex()}\n{KEY.hex()[:-1]}\n", "keys")
    with pytest.raises(ReleaseError, match="keys: there is no public key"):
        parse_keys("# none\n", "keys")


def test_the_command_says_what_a_release_is_or_why_not(path, tmp_path, capsys):
    keys = tmp_path / "keys"
    keys.write_text(KEY.hex())
    now = datetime.now(UTC).replace(microsecond=0)
    manifest = write(path, issued=now, expires=now + timedelta(days=1), leave_out=("agent.zip",))
    assert main(["check", str(path), "--keys", str(keys)]) == 0
    shown = capsys.readouterr().out
    assert f"release {manifest.id}" in shown
    assert "for pi5, aarch64, Python 3.13; cutlayer 0.1.0" in shown
    assert "partial, without 1 of them: agent.zip" in shown
    path.write_bytes(path.read_bytes().replace(b'"pi5"', b'"pi6"'))
    assert main(["check", str(path), "--keys", str(keys)]) == 2
    assert "is wrong: the release was changed" in capsys.readouterr().err
    assert main(["check", str(path), "--keys", str(tmp_path / "none")]) == 2
    assert "No such file" in capsys.readouterr().err
