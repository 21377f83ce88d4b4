"""The manifest is read in one spelling only, and states nothing that cannot be."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.release.manifest import (
    MAXIMUM_MANIFEST_BYTES,
    ReleaseError,
    ReleaseFile,
    ReleaseManifest,
    environment_of,
    numbers,
)
from tests.edge.release.make import manifest_of

GOOD = manifest_of()
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PLAIN = json.loads(GOOD.pack())


def packed(plain):
    return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()


hashes = st.binary(min_size=1, max_size=4).map(lambda data: sha256(data).hexdigest())
moments = st.integers(-62_000_000_000, 250_000_000_000).map(lambda second: EPOCH + timedelta(seconds=second))


@st.composite
def manifests(draw):
    wheels = draw(st.lists(st.from_regex(r"wheels/[a-z]{1,5}-[0-9]\.whl", fullmatch=True), max_size=4))
    paths = ["device.bundle", "agent.zip", "installer.pyz", "units/cutlayer.service", *wheels]
    files = {path: ReleaseFile(draw(hashes), 0) for path in paths}
    files = {path: replace(file, bytes=int(file.sha256[:5], 16)) for path, file in files.items()}
    issued = draw(moments)
    return ReleaseManifest(
        fleet=draw(st.from_regex(r"[A-Za-z0-9_.-]{1,64}", fullmatch=True)),
        version=draw(st.integers(1, 2**53 - 1)),
        issued=issued,
        expires=issued + timedelta(seconds=draw(st.integers(1, 10**8))),
        board="pi5",
        architecture=draw(st.sampled_from(["aarch64", "x86_64"])),
        python=f"3.{draw(st.integers(11, 20))}",
        minimum_agent=draw(st.sampled_from(["", "0.1.0"])),
        cutlayer="0.1.0",
        bundle=draw(hashes),
        environment=environment_of(files),
        files=files,
    )


@given(manifests())
def test_what_is_written_is_read(manifest):
    assert ReleaseManifest.parse(manifest.pack()) == manifest
    assert manifest.id == sha256(manifest.pack()).hexdigest()


@given(manifests(), st.data())
def test_a_changed_byte_is_refused_or_another_release(manifest, data):
    packed = bytearray(manifest.pack())
    place = data.draw(st.integers(0, len(packed) - 1))
    packed[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != packed[place]))
    try:
        other = ReleaseManifest.parse(bytes(packed))
    except ReleaseError:
        return
    assert other.id != manifest.id
    assert other.pack() == bytes(packed)


@given(st.binary(max_size=200) | st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_anything_else_is_a_sentence(data):
    with pytest.raises(ReleaseError):
        ReleaseManifest.parse(data)


@given(st.sampled_from(sorted(PLAIN)), st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers()) | st.dictionaries(st.text(), st.integers()))  # fmt: skip
def test_a_value_of_another_kind_is_a_sentence_or_another_release(key, value):
    try:
        manifest = ReleaseManifest.parse(packed({**PLAIN, key: value}))
    except ReleaseError:
        return
    assert (manifest.id != GOOD.id) == (type(value) is not type(PLAIN[key]) or value != PLAIN[key])


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "a JSON list"),
        (b"9" * 5000, "not JSON"),
        (GOOD.pack() + b"\n", "canonical"),
        (GOOD.pack() + b"{}", "not JSON"),
        (json.dumps(PLAIN).encode(), "canonical"),
        (GOOD.pack().replace(b'"board":"pi5"', b'"board":"pi5","board":"pi5"'), "twice"),
        (GOOD.pack().replace(b'"pi5"', b'"p\\u00695"'), "canonical"),
        (GOOD.pack().replace(b'"pi5"', '"pí5"'.encode()), "not JSON"),
        (GOOD.pack().replace(b'"version":7', b'"version":NaN'), "NaN is not a whole number"),
        (GOOD.pack().replace(b'"version":7', b'"version":7.0'), "7.0 is not a whole number"),
        (GOOD.pack().replace(b'"version":7', b'"version":1e99'), "1e99 is not a whole number"),
        (GOOD.pack().replace(b'"version":7', b'"version":true'), "version is True"),
        (GOOD.pack().replace(b'"version":7', b'"version":0'), "version is 0"),
        (GOOD.pack().replace(b'"version":7', b'"version":-1'), "version is -1"),
        (GOOD.pack().replace(b'"format":1', b'"format":2'), "format 2; this version of cutlayer reads format 1"),
        (GOOD.pack().replace(b'"format":1', b'"format":true'), "format True"),
        (packed({**PLAIN, "extra": 1}), "has extra"),
        (packed({key: value for key, value in PLAIN.items() if key != "python"}), "has no python"),
        (b" " * (MAXIMUM_MANIFEST_BYTES + 1), f"{MAXIMUM_MANIFEST_BYTES + 1} bytes; the limit is {MAXIMUM_MANIFEST_BYTES}"),
        (packed({**PLAIN, "expires": PLAIN["issued"]}), "before it was issued"),
        (packed({**PLAIN, "issued": "2026-11-22T00:00:00"}), "issued is '2026-11-22T00:00:00', not a moment"),
        (packed({**PLAIN, "issued": "2026-02-30T00:00:00Z"}), "not a moment"),
        (packed({**PLAIN, "environment": "0" * 64}), "its wheels make"),
        (packed({**PLAIN, "fleet": "a/b"}), "fleet is 'a/b'"),
        (packed({**PLAIN, "fleet": "a\n"}), "fleet is"),
        (packed({**PLAIN, "files": []}), "files is a JSON list"),
    ],
)  # fmt: skip
def test_a_manifest_that_is_refused(data, sentence):
    with pytest.raises(ReleaseError, match=sentence):
        ReleaseManifest.parse(data)


@pytest.mark.parametrize(
    "path",
    ["../etc/passwd", "/etc/passwd", "wheels/../agent.zip", "wheels/a/b.whl", "wheels/.whl", "wheels/a.whl\n", "wheels/-a.py",
     "units/cutlayer.socket", "units/.service", "units/a..service", "units/a@.service", "agent.zip/x", "AGENT.ZIP", "manifest.json", "", ".", "wheels/", "wheels/ä.whl",
     "wheels/" + "a" * 200 + ".whl"],
)  # fmt: skip
def test_a_path_that_no_release_has(path):
    files = {**GOOD.files, path: ReleaseFile("a" * 64, 1)}
    with pytest.raises(ReleaseError, match="which no release has"):
        replace(GOOD, files=files, environment=environment_of(files))


@pytest.mark.parametrize("path", ["device.bundle", "agent.zip", "installer.pyz"])
def test_a_path_that_every_release_has(path):
    with pytest.raises(ReleaseError, match=f"{path} is not among its files"):
        replace(GOOD, files={name: file for name, file in GOOD.files.items() if name != path})


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        (ReleaseFile("A" * 64, 1), "not 64 hexadecimal digits"),
        (ReleaseFile("a" * 64 + "\n", 1), "not 64 hexadecimal digits"),
        (ReleaseFile("a" * 64, -1), "-1 bytes"),
        (ReleaseFile("a" * 64, True), "True bytes"),
        (ReleaseFile("a" * 64, (256 << 20) + 1), "268435457 bytes"),
        (ReleaseFile(GOOD.files["device.bundle"].sha256, 1), "two sizes"),
    ],
)
def test_a_file_that_cannot_be(file, sentence):
    with pytest.raises(ReleaseError, match=sentence):
        replace(GOOD, files={**GOOD.files, "agent.zip": file})


def test_many_or_large_files_are_refused():
    many = {f"units/u{number}.service": ReleaseFile("a" * 64, 1) for number in range(260)}
    with pytest.raises(ReleaseError, match="it names 266 files; the limit is 256"):
        replace(GOOD, files={**GOOD.files, **many})
    large = {f"units/u{number}.service": ReleaseFile(str(number) * 64, 200 << 20) for number in range(3)}
    with pytest.raises(ReleaseError, match="the limit is 536870912"):
        replace(GOOD, files={**GOOD.files, **large})


def test_an_environment_is_the_hash_of_sorted_lines():
    files = {"wheels/b.whl": ReleaseFile("2" * 64, 1), "wheels/a.whl": ReleaseFile("1" * 64, 1), "agent.zip": ReleaseFile("3" * 64, 1)}  # fmt: skip
    assert environment_of(files) == sha256(b"a.whl " + b"1" * 64 + b"\nb.whl " + b"2" * 64 + b"\n").hexdigest()


def test_versions_are_compared_by_their_numbers():
    assert numbers("0.10.1") > numbers("0.9.9")
    assert numbers("0.2.0") == numbers("0.2") > numbers("0.1.9.dev3")
    assert numbers("0.10.1.dev3+local") == (0, 10, 1)
    assert numbers("") == ()
