"""The power goes at every call that changes the disk; afterwards the board starts the old release or the new one, complete."""

import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edge.release import guard, trial
from edge.release.layout import linked
from tests.edge.release import board, killer
from tests.edge.release.board import Board

pytestmark = pytest.mark.long

FEW = {"small-1.0-py3-none-any.whl": board.wheel("small", "1.0", {"small/__init__.py": b"VALUE = 1\n"})}
OTHERS = {"small-1.1-py3-none-any.whl": board.wheel("small", "1.1", {"small/__init__.py": b"VALUE = 3\n"})}


@pytest.fixture(scope="module", autouse=True)
def strace():
    if shutil.which("strace") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("strace is not installed")


@pytest.fixture(scope="module")
def place():
    with board.memory() as folder:
        yield folder


class Story:
    """Three releases, boards that run some of them, and the programs that are killed."""

    def __init__(self, place):
        self.place = place
        (place / "keys").write_bytes(board.KEYS)
        (place / "device.toml").write_bytes(board.CONFIG)
        (place / "installer.pyz").write_bytes(board.installer())
        first = self._release(1, wheels=FEW)
        self.ids = {1: first.id, 2: self._release(2).id, 3: self._release(3, wheels=OTHERS).id}
        Board(self.base("empty")).layout.root.mkdir()
        proven = Board(self.base("proven"))
        for number in (1, 2):
            proven.install(self.file(number))
            proven.start()
            proven.healthy()
            proven.start()
        assert (proven.current, proven.previous) == (self.ids[2], self.ids[1])
        updated = self.board("updated", "proven")
        updated.install(self.file(3))
        well = self.board("well", "updated")
        well.healthy()
        ill = self.board("ill", "updated")
        for _ in range(3):
            assert ill.start() == self.ids[3]

    def _release(self, number, **how):
        return board.write(self.file(number), number, files=board.contents(number, **how))

    def file(self, number):
        return self.place / f"{number}.release"

    def base(self, name):
        return self.place / name

    def board(self, name, source):
        board.copy_tree(self.base(source), self.base(name))
        return Board(self.base(name))

    def install(self, root, number):
        return killer.command(
            self.place / "installer.pyz", "install", self.file(number), "--keys", self.place / "keys",
            "--config", self.place / "device.toml", "--root", root,
        )  # fmt: skip

    def guard(self, root):
        return killer.command(self.place / "installer.pyz", "guard", "--root", root)

    def at_every_call(self, source, program, afterwards, fewest):
        """Runs a program on copies of a board, ended before each of its changes, and hands each board to `afterwards`."""

        def one(at):
            number, call = at
            here = self.board(f"{source}-{number % 2}-{call.name}-{call.number}", source)
            try:
                assert killer.killed(program(here.layout.root), call, self.place / f"log-{call.name}-{call.number}")
                with killer.GATE:
                    afterwards(here)
            except Exception as error:
                error.add_note(f"killed before {call.name}({call.text}")
                raise
            finally:
                shutil.rmtree(here.layout.root)

        here = self.board("whole", source)
        # The names have one length each, so that every run makes the same calls.
        calls = killer.calls(program(here.layout.root), self.place / "log")
        assert len(calls) >= fewest
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(one, enumerate(calls)))
        return calls


@pytest.fixture(scope="module")
def story(place):
    return Story(place)


def settled(here, name, previous):
    """It becomes healthy, and then the disk has exactly what is needed."""
    here.healthy(name)
    assert here.start() == name
    here.assert_whole(name)
    assert (here.current, here.previous, trial.load(here.layout)) == (name, previous, None)
    assert here.rubbish() == []
    assert here.layout.installer.read_bytes() == (here.layout.release(name) / "installer.pyz").read_bytes()
    unit = "cutlayer.service"
    assert (here.layout.units / unit).read_bytes() == (here.layout.release(name) / "units" / unit).read_bytes()


def test_an_update_cut_off_anywhere_leaves_the_old_release_or_the_new_one(story):
    seen = set()

    def afterwards(here):
        started = here.start()  # the board comes up
        assert started in {story.ids[2], story.ids[3]}
        here.assert_whole(started)
        seen.add(started)
        here.install(story.file(3))  # whoever wanted the update tries again
        assert here.start() == story.ids[3]
        settled(here, story.ids[3], story.ids[2])
        assert guard.version(here.layout) == 3

    calls = story.at_every_call("proven", lambda root: story.install(root, 3), afterwards, fewest=100)
    assert seen == {story.ids[2], story.ids[3]}
    assert {"write", "fsync", "rename", "symlink", "openat", "mkdir"} <= {call.name for call in calls}


def test_a_first_installation_cut_off_anywhere_can_be_done_again(story):
    seen = set()

    def afterwards(here):
        started = here.start()
        assert started in {None, story.ids[1]}
        seen.add(started)
        if started:
            here.assert_whole(started)
        here.install(story.file(1))
        assert here.start() == story.ids[1]
        settled(here, story.ids[1], None)
        assert (here.layout.settings / "device.toml").read_text().count("greenhouse-7") == 1
        assert (here.layout.units / "multi-user.target.wants" / "cutlayer.service").is_file()

    story.at_every_call("empty", lambda root: story.install(root, 1), afterwards, fewest=100)
    assert seen == {None, story.ids[1]}


def test_a_guard_cut_off_while_it_goes_back_goes_back_the_next_time(story):
    def afterwards(here):
        assert here.start() == story.ids[2]
        here.assert_whole(story.ids[2])
        assert '"outcome": "rolled back"' in (here.layout.state / "incoming" / "result.json").read_text()
        assert here.rubbish() == []
        assert guard.version(here.layout) == 3

    story.at_every_call("ill", story.guard, afterwards, fewest=20)


def test_a_guard_cut_off_while_it_ends_a_trial_ends_it_the_next_time(story):
    def afterwards(here):
        assert here.start() == story.ids[3]
        settled(here, story.ids[3], story.ids[2])

    story.at_every_call("well", story.guard, afterwards, fewest=20)


def test_a_guard_cut_off_while_it_counts_never_counts_twice_and_loses_one_start_at_most(story):
    def afterwards(here):
        starts = trial.load(here.layout).starts
        assert starts in {0, 1}
        for number in range(starts, 3):
            assert here.start() == story.ids[3]
            assert trial.load(here.layout).starts == number + 1
        assert here.start() == story.ids[2]

    story.at_every_call("updated", story.guard, afterwards, fewest=6)


def test_nothing_is_renamed_before_all_of_it_is_on_the_disk(story):
    """A kill leaves what was written in the kernel's memory; a loss of power does not: so the order of fsync is looked at."""
    here = story.board("ordered", "proven")
    unsynced, checked = {}, 0
    for call in killer.calls(story.install(here.layout.root, 3), story.place / "log"):
        paths = re.findall(r'<(/[^>]*)>|"(/[^"]*)"', call.text)
        first = next(one or other for one, other in paths) if paths else ""
        if call.name == "openat":
            path = call.text.rsplit("<", 1)[-1].rstrip(">")
            unsynced |= {path: call, str(Path(path).parent): call}
        elif call.name in {"write", "fchmod"}:
            unsynced[first] = call
        elif call.name in {"mkdir", "symlink", "link", "unlink", "rmdir"}:
            named = re.findall(r'"([^"]*)"', call.text)[-1]
            unsynced[str(Path(named).parent)] = call
            if call.name == "mkdir":
                unsynced[named] = call
            if call.name in {"unlink", "rmdir"}:
                unsynced.pop(named, None)
        elif call.name == "fsync":
            unsynced.pop(first, None)
        elif call.name == "rename":
            old, new = re.findall(r'"(/[^"]*)"', call.text)
            # What is renamed, and all that was renamed before it, is on the disk by now.
            late = [path for path in unsynced if Path(path).is_relative_to(old) or path.startswith("renamed ")]
            assert not late, f"{call.text}: {late}"
            unsynced[str(Path(new).parent)] = unsynced[f"{Path(new).parent}"] = call
            checked += 1
    assert checked >= 6
    assert not [path for path in unsynced if str(here.layout.releases) in path or str(here.layout.environments) in path]
    assert str(here.layout.home) not in unsynced


@pytest.mark.parametrize("error", ["ENOSPC"])
def test_a_disk_that_fills_up_at_any_call_leaves_everything_as_it_was(story, error):
    growing = {"openat", "write", "mkdir", "symlink", "rename", "link"}
    seen = set()

    def one(call):
        here = story.board(f"full-{call.name}-{call.number}", "proven")
        program = story.install(here.layout.root, 3)
        code, text = killer.failed(program, call, error, story.place / f"log-{call.name}-{call.number}")
        before_commit = trial.load(here.layout) is None
        seen.add(before_commit)
        try:
            if before_commit:
                assert code == 2, (code, text)
                assert "No space left on device" in text
                assert "Traceback" not in text
                assert here.current == story.ids[2]
                assert here.rubbish() == []
            with killer.GATE:
                assert here.start() == story.ids[2 if before_commit else 3]
            here.assert_whole(here.current)
        except Exception as problem:
            problem.add_note(f"{call.name}({call.text}: {text}")
            raise
        finally:
            shutil.rmtree(here.layout.root)

    calls = killer.calls(story.install(story.board("whole", "proven").layout.root, 3), story.place / "log")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, [call for call in calls if call.name in growing]))
    assert seen == {True, False}
    assert linked(story.board("still", "proven").layout.current) == story.ids[2]
