"""/etc/cutlayer is written once, from the claim and the user's own sections."""

import hashlib
import json
import os
import stat
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.release import settings, users
from edge.release.layout import Layout
from edge.release.manifest import ReleaseError
from tests.edge.release import board
from tests.edge.release.board import Board

CLAIM = {
    "format": 1,
    "name": "greenhouse-7",
    "board": "pi5",
    "fleet": "fleet",
    "broker": "mqtts://hub.local:8883",
    "enrol": "https://hub.local:8443",
    "ca": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    "release_keys": ["ab" * 32],
    "token": "t0ken" * 8 + "abc",
    "expires": "2026-12-22T00:00:00Z",
}
SECOND = "2" * 43
THEIRS = b"""
[device]
name = "another"
[broker]
keepalive_seconds = 30
url = "mqtt://elsewhere"
[data]
source = "sensor:read"
[run]
threads = 2
fleet = "others"
[budget]
up_per_day = "5 MB"
down_per_day = ["a \\" quote", 1.5, true]
"""


@pytest.fixture
def tmp_path():
    with board.memory() as folder:
        yield folder


@pytest.fixture
def claim(tmp_path):
    path = tmp_path / "claim.json"
    path.write_text(json.dumps(CLAIM))
    return settings.read_claim(path)


@pytest.fixture
def release(tmp_path):
    board.write(tmp_path / "a.release", 1)
    return tmp_path / "a.release"


def test_what_is_known_is_filled_in_and_the_rest_is_the_user_s(tmp_path, claim, release):
    here = Board(tmp_path / "root")
    here.install(release, claim=claim, config=THEIRS)
    assert tomllib.loads((here.layout.settings / "device.toml").read_text()) == {
        "device": {"name": "greenhouse-7", "state_directory": "/var/lib/cutlayer/state"},
        "broker": {
            "url": "mqtts://hub.local:8883",
            "keepalive_seconds": 30,
            "ca": "/etc/cutlayer/ca.pem",
            "certificate": "/var/lib/cutlayer/identity/device.pem",
            "key": "/var/lib/cutlayer/identity/device.key",
        },
        "bundle": {"path": "/opt/cutlayer/current/device.bundle"},
        "enrolment": {"url": "https://hub.local:8443", "claim": "/var/lib/cutlayer/identity/claim.json"},
        "data": {"source": "sensor:read"},
        "run": {"threads": 2, "fleet": "fleet"},
        "budget": {"up_per_day": "5 MB", "down_per_day": ['a " quote', 1.5, True]},
        "update": {"current": "/opt/cutlayer/current", "incoming": "/var/lib/cutlayer/incoming", "keys": "/etc/cutlayer/release-keys"},
        "service": {"healthy": "/var/lib/cutlayer/healthy"},
    }  # fmt: skip
    assert (here.layout.settings / "ca.pem").read_text() == CLAIM["ca"]
    kept = here.layout.state / "identity" / "claim.json"
    assert json.loads(kept.read_text()) == CLAIM
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_the_token_is_nowhere_else_and_in_no_message(tmp_path, claim, release):
    here = Board(tmp_path / "root")
    here.install(release, claim=claim, config=THEIRS)
    found = [at for at in here.layout.root.rglob("*") if at.is_file() and CLAIM["token"].encode() in at.read_bytes()]
    assert found == [here.layout.state / "identity" / "claim.json"]
    assert CLAIM["token"] not in repr(claim) + "".join(here.lines)


def test_an_update_leaves_the_configuration_alone(tmp_path, claim, release):
    here = Board(tmp_path / "root")
    here.install(release, claim=claim, config=THEIRS)
    mine = here.layout.settings / "device.toml"
    mine.write_text("# mine\n")
    board.write(release, 2)
    here.install(release, config=b"[data]\nsource='other'\n")
    assert mine.read_text() == "# mine\n"
    assert "device.toml is there and stays as it is" in here.lines[-1]


def test_a_new_claim_reaches_a_board_and_a_used_one_does_not_although_the_release_is_there(tmp_path, claim, release):
    here = Board(tmp_path / "root")
    here.install(release, claim=claim, config=THEIRS)
    kept, given = here.layout.state / "identity" / "claim.json", tmp_path / "given.json"

    def brought(token):
        given.write_text(json.dumps({**CLAIM, "token": token}))
        assert not here.install(release, claim=settings.read_claim(given)).changed
        return kept.exists() and json.loads(kept.read_text())["token"] == token

    assert brought(SECOND)
    # It enrols with that: what the agent leaves.
    kept.unlink()
    (kept.parent / "device.pem").write_text("a certificate")
    (kept.parent / "claimed").write_text(hashlib.sha256(SECOND.encode()).hexdigest())
    assert not brought(SECOND)
    assert brought("3" * 43)  # its certificate may have expired, or be revoked


def test_a_claim_for_another_board_or_fleet_is_no_claim_for_this_release(tmp_path, release):
    for name, sentence in (("board", "it is for the board pi5, this is zero2"), ("fleet", "it is for the fleet fleet, this is zero2")):  # fmt: skip
        path = tmp_path / "claim.json"
        path.write_text(json.dumps({**CLAIM, name: "zero2"}))
        with pytest.raises(ReleaseError, match=sentence):
            Board(tmp_path / "root").install(release, claim=settings.read_claim(path))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is empty: it has been used"),
        (b"[" * 50000, "it is no JSON"),
        (b"[]", "it is no claim of format 1"),
        (json.dumps({**CLAIM, "token": 5}).encode(), "its 'token' is missing or has another form"),
        (json.dumps({**CLAIM, "release_keys": "ab"}).encode(), "its 'release_keys' are no list of 64 hex digits each"),
        (b" " * 70000, "more than 65536 bytes"),
    ],
)
def test_what_is_no_claim_is_refused_without_showing_it(tmp_path, data, sentence):
    path = tmp_path / "claim.json"
    path.write_bytes(data)
    with pytest.raises(ReleaseError, match=sentence) as caught:
        settings.read_claim(path)
    assert CLAIM["token"] not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (b"[data]\nsource = 'synthetic'\n", r"no name in \[device\]: give a claim \(--claim\) or a configuration"),
        (
            b"[device]\nname = 'a'\n[broker]\nurl = 'mqtt://a'\n",
            r"no source in \[data\]: give a configuration \(--config\)",
        ),
        (b"name = 'a'\n", "'name' outside of any section"),
        (b"[data\n", "is no configuration: "),
        (b"\xff", "is no configuration: "),
        (
            b"[data]\nsource = 1979-05-27\n[device]\nname='a'\n[broker]\nurl='b'\n",
            "no text, number, switch, list or table",
        ),
    ],
)
def test_a_configuration_that_will_not_do_is_refused_before_anything_is_there(tmp_path, release, config, sentence):
    here = Board(tmp_path / "root")
    with pytest.raises(ReleaseError, match=sentence):
        here.install(release, config=config)
    assert here.current is None
    assert not (here.layout.settings / "device.toml").exists()
    assert list(here.layout.releases.iterdir()) == []


VALUES = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)


@given(st.dictionaries(NAMES, st.dictionaries(NAMES, VALUES, max_size=4), max_size=4))
def test_toml_reads_back_as_what_was_written(sections):
    assert tomllib.loads(settings.dump(sections)) == sections


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_is_the_user_s_belongs_to_the_user(tmp_path, claim, release):
    here = Board(tmp_path / "root")
    (here.layout.root / "etc").mkdir(parents=True)
    (here.layout.root / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\ncutlayer:x:4321:4322::/:/bin/false\n")
    here.install(release, claim=claim, config=THEIRS)
    theirs = {at: (at.stat().st_uid, at.stat().st_gid) for at in [here.layout.state, *here.layout.state.rglob("*")]}
    assert set(theirs.values()) == {(4321, 4322)}
    assert {at.name for at in theirs} == {"cutlayer", "state", "identity", "incoming", "claim.json"}
    others = [
        at for at in [*here.layout.home.rglob("*"), *here.layout.settings.rglob("*")] if at.lstat().st_uid == 4321
    ]
    assert others == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_folder_laid_as_a_link_gives_nothing_away(tmp_path):
    layout = Layout(tmp_path / "root")
    (layout.root / "etc").mkdir(parents=True)
    (layout.root / "etc" / "passwd").write_text("cutlayer:x:4321:4322::/:/bin/false\n")
    layout.state.mkdir(parents=True)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (layout.state / "identity").symlink_to(theirs)
    with pytest.raises(OSError, match="Not a directory"):
        users.make_folders(layout)
    assert theirs.stat().st_uid == 0
