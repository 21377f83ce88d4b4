"""What came over the air lies in a folder where an unprivileged user may put anything; the installer is root."""

import json
import os
import shutil

import pytest

from edge.release import install
from edge.release.__main__ import main
from edge.release.incoming import install_incoming
from edge.release.manifest import ReleaseError
from tests.edge.release import board, killer, make
from tests.edge.release.board import Board

SECRET = b"root:$6$secret:19000:0:99999:7:::\n"


@pytest.fixture
def tmp_path():
    with board.memory() as folder:
        yield folder


@pytest.fixture
def here(tmp_path):
    here = Board(tmp_path / "root")
    path = tmp_path / "1.release"
    board.write(path, 1)
    here.install(path)
    here.start()
    here.healthy()
    here.start()
    here.lines.clear()
    return here


@pytest.fixture
def incoming(here):
    return here.layout.state / "incoming"


@pytest.fixture
def shadow(tmp_path):
    """A file that only root may read or change."""
    path = tmp_path / "shadow"
    path.write_bytes(SECRET)
    path.chmod(0o600)
    yield path
    assert path.read_bytes() == SECRET
    assert path.stat().st_mode & 0o777 == 0o600


def hand_over(incoming, version=2, **how):
    """What the agent does; returns the id."""
    part = incoming / "a.part"
    name = board.write(part, version, **how).id
    part.rename(incoming / f"{name}.release")
    (incoming / "ready").write_text(f"{name}\n")
    return name


def take(here, trusted=lambda: ([make.KEY], board.KEYS), **how):
    return install_incoming(here.layout, trusted, board.world(here.lines, **how), install.Wanted(wait_seconds=0))


def result(incoming):
    return json.loads((incoming / "result.json").read_text())


def left(incoming):
    return sorted(at.name for at in incoming.iterdir())


def test_a_release_that_came_over_the_air_is_installed_and_its_file_removed(here, incoming):
    name = hand_over(incoming)
    assert take(here).changed
    assert result(incoming) == {"format": 1, "release": name, "outcome": "installed", "reason": "", "again": False}
    assert left(incoming) == ["result.json"]
    assert here.start() == name
    here.assert_whole(name)


def test_nothing_waits(here, incoming):
    assert take(here) is None
    assert left(incoming) == []


def test_what_was_installed_before_the_power_went_is_said_again(here, incoming):
    name = hand_over(incoming)
    take(here)
    (incoming / "result.json").unlink()
    (incoming / "ready").write_text(f"{name}\n")
    assert take(here).changed  # nobody may have restarted the agent of the release before
    assert result(incoming)["outcome"] == "installed"
    assert left(incoming) == ["result.json"]
    here.start()
    (incoming / "ready").write_text(f"{name}\n")
    assert not take(here).changed


def test_what_the_board_stood_against_may_be_offered_again(here, incoming):
    hand_over(incoming)
    with pytest.raises(ReleaseError, match="is too full"):
        take(here, room=lambda _path: 1000)
    assert result(incoming)["again"] is True
    assert left(incoming) == ["result.json"]


def test_keys_that_cannot_be_read_leave_nothing_for_systemd_to_start_the_installer_for(here, incoming, capsys):
    hand_over(incoming)
    (here.layout.settings / "release-keys").write_text("no key\n")
    assert main(["install", "--incoming", "--no-start", "--root", str(here.layout.root)]) == 2
    assert "release-keys: line 1 is not a public key" in capsys.readouterr().err
    assert result(incoming)["again"] is True
    assert left(incoming) == ["result.json"]


def test_an_installer_that_cannot_go_on_says_so_too(here, incoming, monkeypatch):
    def broken(*_):
        raise KeyError("RECORD")

    hand_over(incoming)
    monkeypatch.setattr(install.wheels, "unpacked_bytes", broken)
    monkeypatch.setattr(install.environment, "starts", lambda *_: False)
    with pytest.raises(KeyError):
        take(here)
    assert result(incoming)["reason"] == "the installer cannot go on: KeyError: 'RECORD'"
    assert left(incoming) == ["result.json"]


def test_a_refused_release_is_removed_and_the_reason_told(here, incoming):
    name = hand_over(incoming, 2, seed=bytes(32))
    with pytest.raises(ReleaseError, match="it is signed by the key"):
        take(here)
    assert result(incoming)["outcome"] == "refused"
    assert result(incoming)["reason"].startswith(f"{name[:12]}….release: it is signed by the key")
    assert left(incoming) == ["result.json"]


def test_an_update_that_needs_a_newer_agent_is_refused_over_the_air(here, incoming):
    hand_over(incoming, 2, minimum_agent="0.2.0")
    with pytest.raises(ReleaseError, match=r"it needs a running agent of cutlayer 0\.2\.0 or later, this is 0\.1\.0"):
        take(here)


def test_a_release_under_another_s_name_is_refused(here, incoming):
    name = hand_over(incoming)
    (incoming / f"{name}.release").rename(incoming / f"{'0' * 64}.release")
    (incoming / "ready").write_text("0" * 64)
    with pytest.raises(ReleaseError, match=f"is release {name[:12]}, not 000000000000 as it was called"):
        take(here)


LAID = {
    "a link to root's file": lambda at, shadow: at.symlink_to(shadow),
    "a second name of root's file": lambda at, shadow: at.hardlink_to(shadow),
    "a pipe": lambda at, shadow: os.mkfifo(at),
    "a folder": lambda at, shadow: (at.mkdir(), (at / "x").symlink_to(shadow)),
    "a link to nowhere": lambda at, shadow: at.symlink_to(at.parent / "nothing"),
    "a link to a folder": lambda at, shadow: at.symlink_to(shadow.parent),
}


@pytest.mark.parametrize("how", LAID)
@pytest.mark.parametrize("name", ["ready", "0" * 64 + ".release", "result.json", ".result.json.part"])
def test_nothing_in_the_folder_is_followed(here, incoming, shadow, how, name):
    (incoming / "ready").write_text("0" * 64)
    (incoming / name).unlink(missing_ok=True)
    LAID[how](incoming / name, shadow)
    if (incoming / "result.json").is_dir():
        here.lines.append("a folder in the way of result.json")
    with pytest.raises(ReleaseError) as caught:
        take(here)
    assert "secret" not in str(caught.value)
    assert "ready" not in left(incoming)
    if "a folder in the way of result.json" not in here.lines:
        assert result(incoming)["outcome"] == "refused"
        assert left(incoming) == ["result.json"]
    assert take(here) is None
    assert here.current == here.start()


def test_a_folder_that_is_a_link_is_not_entered(here, incoming, tmp_path):
    shutil.rmtree(incoming)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "ready").write_text("0" * 64)
    incoming.symlink_to(elsewhere)
    with pytest.raises(OSError, match="Not a directory"):
        take(here)
    assert left(elsewhere) == ["ready"]


def test_a_ready_that_names_no_release_is_thrown_away(here, incoming, shadow):
    for text in (b"", b"../../../etc/shadow", b"0" * 63, b"0" * 64 + b"\n/", b"\xff" * 64, b"0" * 4096):
        (incoming / "ready").write_bytes(text)
        with pytest.raises(ReleaseError, match=r"incoming/ready (names no release|is not what the agent writes)"):
            take(here)
        assert left(incoming) == ["result.json"]


def test_a_file_exchanged_after_it_was_checked_is_found_out(here, incoming):
    """The signature is right when it is looked at; then, while the disk's room is asked for, the contents change."""
    wheels = {"a-1-py3-none-any.whl": board.wheel("a", "1", {"a.py": b"qqright"})}
    name = hand_over(incoming, 2, files=board.contents(2, wheels=wheels))

    def exchange(_):
        data = (incoming / f"{name}.release").read_bytes()
        with (incoming / f"{name}.release").open("r+b") as file:
            file.write(data.replace(b"qqright", b"qqwrong"))
        return 1 << 40

    with pytest.raises(ReleaseError, match="are damaged"):
        take(here, room=exchange)
    assert here.rubbish() == []
    assert here.start() == here.current


def test_an_installation_over_the_air_cut_off_at_what_it_writes_there_is_done_again(here, incoming, tmp_path):
    if shutil.which("strace") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("strace is not installed")
    name = hand_over(incoming)
    (tmp_path / "i.pyz").write_bytes(board.installer())
    before, root = tmp_path / "before", tmp_path / "root"
    board.copy_tree(root, before)
    program = killer.command(tmp_path / "i.pyz", "install", "--incoming", "--no-start", "--root", root)
    calls = killer.calls(program, tmp_path / "log")
    at = next(number for number, call in enumerate(calls) if call.name == "rename" and "trial.json" in call.text)
    assert len(calls[at:]) > 15
    for call in calls[at:]:
        board.copy_tree(before, root)
        assert killer.killed(program, call, tmp_path / "log")
        assert here.start() is not None
        waits = (incoming / "ready").exists()
        if waits:  # then systemd starts the installer again
            take(here)
        assert result(incoming) == {"format": 1, "release": name, "outcome": "installed", "reason": "", "again": False}
        assert here.start() == name
        here.assert_whole(name)
        assert not (incoming / "ready").exists()
