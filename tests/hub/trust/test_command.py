"""What the commands print, and the claims they make."""

import stat
from datetime import UTC, datetime, timedelta

import pytest

from edge.enrolment import claim as claims
from edge.wire.updates import Release
from hub.__main__ import main
from hub.rollout.book import Book, Shelf
from hub.trust.command import device_lines, status_lines
from hub.trust.folder import Folder
from hub.trust.register import Member
from tests.hub.trust.conftest import FLEET

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY = timedelta(days=1)
MEMBERS = [
    Member("greenhouse-7", "pi5", NOW - DAY, NOW + 89 * DAY, None, None),
    Member("long" * 16, "generic-x86-64", NOW - 80 * DAY, NOW + 10 * DAY, None, NOW + DAY),
    Member("new", "zero2", None, None, None, NOW + DAY),
    Member("stale", "zero2", None, None, None, NOW - DAY),
    Member("thief", "pi4", NOW - 3 * DAY, NOW + 87 * DAY, NOW, None),
    Member("asleep", "pi4", NOW - 99 * DAY, NOW - 9 * DAY, None, None),
    Member("again", "pi4", NOW - 3 * DAY, NOW + 87 * DAY, NOW, NOW + DAY),
]


def test_the_table_of_devices():
    lines = device_lines(MEMBERS, NOW)
    assert max(map(len, lines)) <= 80
    assert lines[2] == "greenhouse-7              pi5             enrolled         2026-11-21 2027-02-19"
    assert [line[42:59].strip() for line in lines[2:]] == [
        "enrolled", "enrolled", "claim open", "claim expired", "revoked", "expired", "claim open",
    ]  # fmt: skip
    assert lines[4].split()[-1] == "2026-11-23"  # the claim's end
    assert device_lines([], NOW) == [
        "no devices yet: cutlayer-hub enrol --name NAME --board BOARD makes a claim for one"
    ]


def test_the_table_of_who_is_there():
    lines = status_lines(MEMBERS, {"greenhouse-7": True, "thief": False, "stranger": True}, NOW)
    assert max(map(len, lines)) <= 80
    assert lines[2] == "greenhouse-7              online    enrolled                89  2026-11-21 12:00"
    assert lines[6].split() == ["thief", "offline", "revoked", "–", "2026-11-19", "12:00"]  # noqa: RUF001
    assert lines[-2].split() == ["stranger", "online", "not", "in", "the", "register"]
    assert lines[-1] == "2 of 7 online"
    assert "is not known" in status_lines(MEMBERS, None, NOW)[-1]


@pytest.fixture
def hub_toml(tmp_path):
    path = tmp_path / "hub.toml"
    path.write_text(
        f'[fleet]\nname = "{FLEET}"\n[bundle]\npath = "b"\n[run]\nfolder = "r"\n'
        '[tls]\nnames = ["hub.example"]\nport = 1883\nenrol_port = 443\n'
    )
    return path


def test_a_claim_has_all_that_a_board_needs(hub_toml, tmp_path, capsys):
    assert main(["keys", "--config", str(hub_toml)]) == 0
    out = tmp_path / "x.claim"
    assert (
        main(["enrol", "--config", str(hub_toml), "--name", "a-1", "--board", "pi5", "--hours", "2", "--out", str(out)])
        == 0
    )
    claim = claims.read(out)
    folder = Folder.open(tmp_path / "fleet", FLEET)
    assert (claim.name, claim.board, claim.fleet) == ("a-1", "pi5", FLEET)
    assert (claim.broker, claim.enrol) == ("mqtts://hub.example:1883", "https://hub.example:443")
    assert claim.ca == folder.ca.read_text()
    assert list(claim.release_keys) == folder.release_keys()
    assert abs(claim.until - datetime.now(UTC) - timedelta(hours=2)) < timedelta(minutes=5)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    said = capsys.readouterr()
    assert claim.token not in said.out + said.err
    assert claim.token.encode() not in (tmp_path / "fleet" / "fleet.db").read_bytes()
    assert claims.Claim.parse(claim.pack()) == claim
    assert max(map(len, said.out.splitlines()[-1:])) <= 80


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--name", "hub"], "a device cannot be named 'hub'"),
        (["--name", "hub:rollout"], "is not 1 to 64 letters"),
        (["--name", "a/b"], "is not 1 to 64 letters"),
        (["--name", "+"], "is not 1 to 64 letters"),
        (["--name", ".a"], "must begin with a letter or digit"),
        (["--name", "a", "--hours", "0"], "a claim of 0 hours"),
        (["--name", "a", "--hours", "9999"], "a claim of 9999 hours"),
        (["--name", "a", "--hours", "nan"], "a claim of nan hours"),
        (["--name", "a", "--board", "pi"], "there are no releases for a board 'pi'; known are pi4, pi5,"),
        (["--name", "a", "--out", "nowhere/a.claim"], "cannot be written to nowhere/a.claim"),
    ],
)
def test_claims_that_are_not_made(hub_toml, options, words, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    main(["keys", "--config", str(hub_toml)])
    assert main(["enrol", "--config", str(hub_toml), *options]) == 2
    assert words in capsys.readouterr().err
    assert Folder.open(tmp_path / "fleet", FLEET).register.members() == []


def test_what_a_claim_and_a_revocation_do_is_said(hub_toml, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    main(["keys", "--config", str(hub_toml)])

    def said(*command):
        capsys.readouterr()
        assert main([*command, "--config", str(hub_toml)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80
        return lines

    first = said("enrol", "--name", "a", "--board", "pi5")
    assert first[0].startswith("a.claim: lets a in at https://hub.example:443 once, until ")
    assert first[-1].startswith("next: cutlayer-export flash")
    assert "the claim of a that was made before is withdrawn" not in first
    assert "the claim of a that was made before is withdrawn" in said("enrol", "--name", "a", "--board", "pi5")
    assert said("revoke", "a") == [
        "a: 1 open claim withdrawn",
        "no broker of this fleet runs: the list is read when it starts",
    ]
    assert said("revoke", "a")[0] == "a: nothing of it was good any more"


def test_without_a_configuration_there_is_a_sentence_that_helps(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["devices"]) == 2
    assert "there is no hub.toml: cutlayer-hub example > hub.toml makes one" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [["enrol", "--name", "a"], ["devices"], ["status"], ["revoke", "a"], ["rollout", "--stop"]]
)
def test_without_a_folder_there_is_a_sentence_and_no_folder(command, hub_toml, tmp_path, capsys):
    assert main([*command, "--config", str(hub_toml)]) == 2
    assert ("there is no fleet folder" if command[0] != "rollout" else "no rollout in") in capsys.readouterr().err
    assert not (tmp_path / "fleet").exists()


def test_status_tells_of_the_rollout(hub_toml, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["keys", "--config", str(hub_toml)])
    book = Book(
        Release("ab" * 32, 7, 4096, "12" * 32), "canary,all", outcome="stopped", reason="greenhouse-7 is worse off"
    )
    Shelf(tmp_path / "fleet").save(book)
    assert main(["status", "--config", str(hub_toml)]) == 0
    assert "version 7 (abababab), to canary,all: stopped: greenhouse-7 is worse off" in capsys.readouterr().out
