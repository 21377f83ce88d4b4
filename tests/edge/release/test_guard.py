"""Which release is started: the story of a board, start by start."""

import json

import pytest

from edge.release import guard, trial
from tests.edge.release import board
from tests.edge.release.board import Board


@pytest.fixture
def tmp_path():
    with board.memory() as folder:
        yield folder


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("releases")
    return {
        number: (folder / f"{number}.release", board.write(folder / f"{number}.release", number).id)
        for number in range(1, 5)
    }


@pytest.fixture
def here(tmp_path, releases):
    """A board whose first release has proven itself."""
    here = Board(tmp_path / "root")
    here.install(releases[1][0])
    assert here.start() == releases[1][1]
    here.healthy()
    assert here.start() == releases[1][1]
    assert trial.load(here.layout) is None
    here.lines.clear()
    return here


def result(here):
    return json.loads((here.layout.state / "incoming" / "result.json").read_text())


def test_a_release_has_three_starts_to_become_healthy_and_then_the_previous_one_is_back(here, releases):
    (path, new), (_, old) = releases[2], releases[1]
    here.install(path)
    assert [here.start() for _ in range(4)] == [new, new, new, old]
    assert here.lines[-1] == f"back to release {old[:12]}; {new[:12]} was not healthy after 3 starts"
    assert result(here) == {
        "format": 1,
        "release": new,
        "outcome": "rolled back",
        "reason": here.lines[-1],
        "again": False,
    }
    assert here.rubbish() == []
    here.lines.clear()
    assert [here.start() for _ in range(9)] == [old] * 9
    assert here.lines == []


def test_a_release_that_is_healthy_in_time_stays(here, releases):
    path, new = releases[2]
    here.install(path)
    assert [here.start() for _ in range(3)] == [new] * 3
    here.healthy()
    assert [here.start() for _ in range(9)] == [new] * 9
    assert here.lines[-1:] == [f"release {new[:12]} is healthy: its trial is over"]
    assert here.previous == releases[1][1]


def test_a_power_that_comes_and_goes_is_not_the_release_s_fault(here, releases):
    path, new = releases[2]
    here.install(path)
    assert [here.start(f"boot {number}") for number in range(8)] == [new] * 8
    here.healthy()
    assert here.start("boot 8") == new
    assert trial.load(here.layout) is None


def test_a_release_that_takes_the_machine_down_is_replaced_all_the_same(here, releases):
    (path, new), (_, old) = releases[2], releases[1]
    here.install(path)
    started = [here.start(f"boot {number}") for number in range(14)]
    assert started == [new] * 13 + [old]


def test_starts_that_failed_before_the_power_went_count(here, releases):
    (path, new), (_, old) = releases[2], releases[1]
    here.install(path)
    assert [here.start(boot) for boot in ("a", "a", "a", "b", "b")] == [new, new, new, new, old]


def test_what_cannot_be_removed_does_not_keep_a_broken_release_running(here, releases, monkeypatch):
    (path, new), (_, old) = releases[2], releases[1]
    here.install(path)

    def stuck(_layout):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(guard, "collect", stuck)
    assert [here.start() for _ in range(4)] == [new, new, new, old]


def test_a_healthy_release_stays_although_its_units_cannot_be_placed(here, releases, monkeypatch):
    path, new = releases[2]
    here.install(path)
    here.start()
    here.healthy()
    monkeypatch.setattr(guard.units, "place", lambda *_: (_ for _ in ()).throw(OSError(30, "Read-only file system")))
    assert [here.start() for _ in range(6)] == [new] * 6


def test_a_manifest_that_cannot_be_read_now_costs_no_environment(here, releases, monkeypatch):
    def unreadable(*_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(guard, "manifest", unreadable)
        guard.collect(here.layout)
    here.assert_whole(releases[1][1])


def test_nobody_else_can_open_the_lock(here):
    assert here.layout.lock.stat().st_mode & 0o777 == 0o600


def test_another_release_s_health_is_not_its_own(here, releases):
    path, new = releases[2]
    here.install(path)
    here.healthy(releases[1][1])
    assert [here.start() for _ in range(4)] == [new, new, new, releases[1][1]]


def test_two_broken_releases_in_a_row_end_where_they_began(here, releases):
    here.install(releases[2][0])
    assert here.start() == releases[2][1]
    here.install(releases[3][0])  # the second comes while the first is on trial
    assert [here.start() for _ in range(4)] == [*[releases[3][1]] * 3, releases[1][1]]
    here.install(releases[4][0])
    assert [here.start() for _ in range(4)] == [*[releases[4][1]] * 3, releases[1][1]]
    assert guard.version(here.layout) == 4
    assert here.rubbish() == []


def test_the_installer_and_the_units_are_those_of_a_release_that_has_proven_itself(here, releases):
    path, new = releases[2]
    before = here.layout.installer.read_bytes()
    here.install(path)
    here.start()
    assert here.layout.installer.read_bytes() == before
    assert "# 1\n" in (here.layout.units / "cutlayer.service").read_text()
    here.healthy()
    here.start()
    assert here.layout.installer.read_bytes() == (here.layout.release(new) / "installer.pyz").read_bytes() != before
    assert "# 2\n" in (here.layout.units / "cutlayer.service").read_text()


def test_current_and_previous_are_kept_and_what_was_before_them_is_not(here, releases):
    for number in (2, 3):
        here.install(releases[number][0])
        here.start()
        here.healthy()
        here.start()
    assert {at.name for at in here.layout.releases.iterdir()} == {releases[2][1], releases[3][1]}
    assert here.rubbish() == []


def test_a_first_release_that_never_gets_well_is_started_on_because_there_is_no_other(tmp_path, releases):
    here = Board(tmp_path / "root")
    here.install(releases[1][0])
    assert [here.start() for _ in range(6)] == [releases[1][1]] * 6
    assert "there is none to go back to" in here.lines[-1]
    before = here.layout.trial.stat().st_mtime_ns
    here.start()
    assert here.layout.trial.stat().st_mtime_ns == before  # no write at each start, for ever


def test_before_anything_has_proven_itself_an_update_brings_its_installer_and_the_first_is_kept(tmp_path, releases):
    here = Board(tmp_path / "root")
    here.install(releases[1][0])
    here.start()
    here.install(releases[2][0])
    new = here.layout.release(releases[2][1])
    assert here.layout.installer.read_bytes() == (new / "installer.pyz").read_bytes()
    assert [here.start() for _ in range(4)] == [*[releases[2][1]] * 3, releases[1][1]]


def test_a_board_without_any_release_says_how_to_get_one(tmp_path):
    here = Board(tmp_path)
    assert here.start() is None
    assert here.lines == ["no complete release is installed: install one with installer.pyz install FILE --keys FILE"]


@pytest.mark.parametrize(
    "journal", [b"", b"{", b"[]", b'{"release": 1, "previous": null, "starts": 0, "failed": false}', b"\xff" * 9]
)
def test_a_journal_that_says_nothing_is_no_journal(here, releases, journal):
    here.layout.trial.write_bytes(journal)
    assert here.start() == releases[1][1]
    assert not here.layout.trial.exists()


def test_a_release_whose_files_are_gone_is_not_started_while_there_is_another(here, releases):
    here.install(releases[2][0])
    here.start()
    here.healthy()
    here.start()
    (here.layout.release(releases[2][1]) / "manifest.json").unlink()
    assert here.start() == releases[1][1]


def test_a_health_file_that_is_a_link_or_a_pipe_or_anything_else_says_nothing(here, releases, tmp_path):
    import os  # noqa: PLC0415 - only here

    new = releases[2][1]
    here.install(releases[2][0])
    secret = tmp_path / "secret"
    secret.write_text(new)
    healthy = here.layout.state / "healthy"
    makers = (
        lambda: healthy.symlink_to(secret),
        lambda: healthy.hardlink_to(secret),
        lambda: os.mkfifo(healthy),
        healthy.mkdir,
        lambda: healthy.write_bytes(new.encode() * 100),
        lambda: healthy.write_bytes(b"\xff" * 64),
    )
    for make in makers:
        healthy.unlink(missing_ok=True)
        make()
        assert guard.healthy(here.layout) is None
        healthy.rmdir() if healthy.is_dir() else None
    healthy.unlink(missing_ok=True)
    here.healthy(new)
    assert guard.healthy(here.layout) == new


def test_a_disk_that_takes_nothing_does_not_keep_the_agent_from_starting(here, releases, monkeypatch):
    here.install(releases[2][0])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trial, "save", full)
    assert here.start() == releases[2][1]
    assert "No space left on device" in here.lines[-1]


def test_a_guard_does_not_wait_for_an_installation(here, releases):
    from edge.release import disk  # noqa: PLC0415 - only here

    with disk.lock(here.layout.lock) as ours:
        assert ours
        assert here.start() == releases[1][1]
    assert here.lines == ["an installation is under way; what is current is started"]
