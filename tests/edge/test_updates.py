"""A device fetches a release: a hub that answers as the test says, a clock that only the test moves, files on a real disk."""

import hashlib
import json
import random
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import installed, part
from edge.fetch import TIMEOUT_SECONDS
from edge.installed import Installed
from edge.link import Message
from edge.memory_link import MemoryBroker, MemoryLink
from edge.outbox import Outbox
from edge.part import Part
from edge.purse import Purse
from edge.remembered import Memory, Steps
from edge.side_link import SideLink
from edge.updates import NARROW_PIECE_BYTES, RETRY_SECONDS, LaterError, Updater
from edge.wire import topics
from edge.wire.budget import DAY_SECONDS
from edge.wire.updates import Figures, Offer, Piece, Release, State, Want

FLEET, NAME = "f", "d"
RUNS = Installed("a" * 64, 3, "0.1.0", "b" * 64)
FILE = bytes(range(256)) * 40
PIECE = 1000


def release_of(data, *, version=4, mark="c"):
    return Release(mark * 64, version, len(data), hashlib.sha256(data).hexdigest(), "b" * 64, "0.1.0")


RELEASE = release_of(FILE)


@dataclass
class Means:
    """A budget of which the test says what is left."""

    narrow: bool = False
    down: int | None = None
    up: int | None = None

    def spare(self, way, keep):
        return getattr(self, way)


class Board:
    """A device's updater, and the hub's end of it."""

    def __init__(self, folder, *, runs=RUNS, **broker):
        self.root = folder
        self.incoming = folder / "incoming"
        self.incoming.mkdir(exist_ok=True)
        self.broker = MemoryBroker(**broker)
        self.hub = MemoryLink(self.broker, "hub", subscriptions=topics.subscriptions_of_rollout(FLEET))
        self.hub.open()
        self.runs, self.now, self.boot = runs, 0.0, "first"
        self.means, self.free = Means(), 1 << 40
        self.fault = None
        self.proven = True
        self.wants, self.states = [], []
        self.serves = True
        self.begin()

    def begin(self):
        """A process of the device."""
        topics_of_updates = topics.subscriptions_of_updates(FLEET, NAME)
        link = MemoryLink(
            self.broker, "d", subscriptions=(*topics.subscriptions_of_device(FLEET, NAME), *topics_of_updates)
        )
        self.link = SideLink(link, frozenset(topics_of_updates), topics.down(FLEET, NAME))
        self.updater = Updater(
            FLEET,
            NAME,
            self.link,
            runs=self.runs,
            incoming=self.incoming if self.runs else None,
            memory=Memory(self.root / "updates.json"),
            means=self.means,
            verify=self.verify,
            proven=lambda: self.proven,
            piece_bytes=PIECE,
            free=lambda _folder: self.free,
            boot=self.boot,
        )
        self.link.open()

    def verify(self, path):
        if self.fault:
            raise self.fault

    def end(self, *, power_cut=False):
        """The process is killed."""
        self.link.close()
        if self.updater._fetch:
            self.updater._fetch.part.close()
        if power_cut:
            self.boot += "x"

    def offer(self, release=RELEASE, fleet=FLEET, **more):
        self.hub.publish(topics.update(FLEET, NAME, "offer"), Offer(fleet, release, **more).pack(), retain=True)

    def withdraw(self):
        self.hub.publish(topics.update(FLEET, NAME, "offer"), b"", retain=True)

    def turn(self, seconds=0.1, data=FILE):
        self.now += seconds
        self.link.poll(0)
        self.updater.turn(self.now)
        for event in self.hub.poll(0):
            if not isinstance(event, Message):
                continue
            leaf = event.topic.rpartition("/")[2]
            if leaf == "want":
                want = Want.parse(event.payload)
                self.wants.append(want)
                if self.serves:
                    piece = Piece(want.tag, want.offset, data[want.offset : want.offset + want.length])
                    self.hub.publish(topics.update(FLEET, NAME, "piece"), piece.pack())
            elif leaf == "state":
                self.states.append(State.parse(event.payload))

    def until(self, phase, *, turns=400, seconds=0.1, data=FILE):
        for _ in range(turns):
            self.turn(seconds, data)
            if self.states and self.states[-1].phase == phase:
                return self.states[-1]
        raise AssertionError(f"no {phase}: {self.states[-3:]}")

    @property
    def here(self):
        path = self.incoming / f"{RELEASE.id}.part"
        return path.stat().st_size if path.exists() else 0

    def arrived(self, data=FILE, release=RELEASE):
        """The installer has it."""
        assert (self.incoming / f"{release.id}.release").read_bytes() == data
        assert (self.incoming / "ready").read_text().strip() == release.id
        assert not list(self.incoming.glob("*.part"))
        return True


@pytest.fixture
def board(tmp_path):
    made = Board(tmp_path)
    yield made
    made.end()


def test_a_release_is_fetched_checked_and_handed_over(board):
    board.turn()
    assert board.states[-1] == State(
        "healthy", release=RUNS.id, version=3, cutlayer="0.1.0", bundle="b" * 64, starts=1, now=Figures(bundle="b" * 64)
    )
    board.offer()
    state = board.until("ready")
    assert (state.offered, state.release, state.size) == (RELEASE.id, RUNS.id, len(FILE))
    assert board.arrived()
    assert sorted(want.offset for want in board.wants) == list(range(0, len(FILE), PIECE))
    assert max(want.length for want in board.wants) == PIECE


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), loss=st.floats(0, 0.4), repeats=st.floats(0, 0.4), delays=st.floats(0, 0.4))
def test_loss_repeats_and_reordering_change_nothing(tmp_path_factory, seed, loss, repeats, delays):
    chance = random.Random(seed)

    def pattern(share, most):
        return [chance.randint(1, most) if chance.random() < share else 0 for _ in range(997)]

    board = Board(
        tmp_path_factory.mktemp("board"), loss=pattern(loss, 1), repeats=pattern(repeats, 2), delays=pattern(delays, 3)
    )
    board.offer()
    board.until("ready", turns=2000, seconds=TIMEOUT_SECONDS)
    assert board.arrived()
    board.end()


@pytest.mark.parametrize("power_cut", [False, True])
def test_a_restart_at_every_piece(board, power_cut, monkeypatch):
    monkeypatch.setattr(part, "SYNC_BYTES", 1500)
    board.offer()
    for _ in range(200):
        before = board.here
        board.turn()
        if (board.incoming / "ready").exists():
            break
        if board.here != before:
            board.end(power_cut=power_cut)
            board.begin()
            board.turn()
            assert board.states[-1].here <= board.here
    assert board.arrived()
    asked = sum(want.length for want in board.wants)
    # Killed, nothing is asked for again but what was under way; after a power cut at most what was not synced.
    assert asked <= len(FILE) * (4 if power_cut else 3)


def test_after_a_power_cut_what_was_not_synced_is_fetched_again(tmp_path, monkeypatch):
    monkeypatch.setattr(part, "SYNC_BYTES", 100)
    path = tmp_path / "x.part"
    path.write_bytes(bytes(250))

    def length(*, lost_power):
        found = Part(path, 1000, lost_power=lost_power)
        found.close()
        return found.length

    assert length(lost_power=False) == 250
    assert length(lost_power=True) == 200
    assert path.stat().st_size == 200
    # Just at a point of syncing the disk may know of the length alone.
    assert length(lost_power=True) == 100


def test_a_silent_hub_is_asked_ever_more_rarely_and_at_once_when_it_is_back(board):
    board.serves = False
    board.offer()
    for _ in range(3600):
        board.turn(1.0)
    # 2 pieces at 0 s, and again after 5, 10, 20, …, 900 s
    assert 2 * 8 <= len(board.wants) <= 2 * 12
    board.serves = True
    board.wants.clear()
    board.offer()
    board.turn()
    board.turn()
    assert board.wants
    board.until("ready")


@pytest.mark.parametrize(("seconds", "asked"), [(0.1, [2, 4, 6, 8, 10, 11]), (60.0, [2, 6, 11])])
def test_more_is_under_way_where_the_link_waits_for_long_steps(board, seconds, asked):
    board.offer()
    found = []
    while not (board.incoming / "ready").exists():
        board.turn(seconds)
        found.append(len(board.wants))
    assert sorted(set(found) - {0}) == asked


def test_the_budget_stops_it_and_it_goes_on_when_there_is_more(board):
    board.means.narrow, board.means.down, board.means.up = True, 5000, 100_000
    board.offer()
    for _ in range(50):
        spent = sum(want.length for want in board.wants)
        board.means.down = 5000 - 2 * spent
        board.turn()
    assert 0 < board.here < 5000
    assert max(want.length for want in board.wants) <= NARROW_PIECE_BYTES
    state = board.states[-1]
    assert (state.phase, state.reason) == ("fetching", "the budget: what is left of what may come is for training")
    asked = len(board.wants)
    for _ in range(100):
        board.turn(10)
    assert len(board.wants) == asked
    board.means.down = 1 << 30
    board.until("ready")
    assert board.arrived()


def test_a_day_brings_what_the_budget_leaves_and_no_more(tmp_path):
    board = Board(tmp_path)
    clock = SimpleNamespace(wall=21_000 * DAY_SECONDS, now=0.0)
    outbox = Outbox.open(tmp_path / "state")
    limit = 40_000
    purse = Purse(outbox, board.link, {"down_per_day": limit}, wall=lambda: clock.wall, now=lambda: clock.now)
    board.means = purse
    board.end()
    board.begin()
    purse._link = board.link
    data = bytes(range(251)) * 300
    board.offer(release_of(data))
    days, before = [], 0
    while not (board.incoming / "ready").exists():
        for _ in range(200):
            clock.now += 1
            purse.look()
            board.turn(1.0, data)
        came = board.link.counters().wire_received
        days.append(came - before)
        before = came
        assert len(days) < 20
        clock.wall += DAY_SECONDS
        clock.now += 1000
    # Of 75,300 bytes at most half of the day's 40,000, and what the next piece could have brought.
    assert max(days) <= limit // 2
    assert min(days[:-1]) > limit // 2 - 2 * NARROW_PIECE_BYTES
    assert len(days) in (4, 5)
    outbox.close()
    board.end()


def test_without_means_to_send_nothing_is_asked_for(board):
    board.means.up = 300
    board.offer()
    for _ in range(10):
        board.turn()
    assert board.wants == []


def test_a_full_disk_is_told_and_waited_for(board):
    board.free = 8 << 20
    board.offer()
    state = board.until("fetching")
    board.turn()
    state = board.states[-1]
    assert state.reason == f"{board.incoming} has 8.4 MB free, 8.4 MB are needed"
    assert board.wants == []
    board.free = 1 << 30
    board.turn()
    assert board.wants == []
    board.turn(RETRY_SECONDS)
    board.until("ready")


def test_what_came_is_not_what_was_offered(board):
    board.offer()
    wrong = FILE[:-1] + b"!"
    state = board.until("refused", data=wrong)
    assert state.reason == "what came is not the file that was offered: its hash differs"
    assert len(board.wants) == 2 * 11
    assert list(board.incoming.iterdir()) == []
    board.offer(release_of(FILE, mark="d", version=5))
    board.until("ready")


def test_a_bad_signature_is_told_once_and_remembered(board):
    board.fault = ValueError("no trusted key has signed it")
    board.offer()
    state = board.until("refused")
    assert state.reason == "no trusted key has signed it"
    assert list(board.incoming.iterdir()) == []
    for _ in range(50):
        board.turn(10)
    assert sum(state.phase == "refused" for state in board.states) == 1
    board.end()
    board.begin()
    asked = len(board.wants)
    assert board.until("refused").reason == "no trusted key has signed it"
    assert len(board.wants) == asked


def test_a_clock_that_is_not_set_is_waited_for(board):
    board.fault = LaterError("the clock says 1970")
    board.offer()
    for _ in range(20):
        board.turn()
    assert (board.states[-1].phase, board.states[-1].reason) == ("fetching", "the clock says 1970")
    board.fault = None
    board.turn(RETRY_SECONDS)
    board.until("ready")


@pytest.mark.parametrize(
    ("release", "fleet", "reason"),
    [
        (release_of(FILE, version=3), FLEET, "version 3 is not newer than version 3, which runs"),
        (release_of(FILE, version=2), FLEET, "version 2 is not newer than version 3, which runs"),
        (RELEASE, "other", "the release is of fleet 'other', this device of 'f'"),
    ],
)
def test_what_cannot_be_used_is_answered_once(board, release, fleet, reason):
    board.offer(release, fleet)
    assert board.until("refused").reason == reason
    told = len(board.states)
    for _ in range(20):
        board.turn(60)
    assert (len(board.states), board.wants) == (told, [])


def test_a_board_without_a_release_says_so_and_nothing_else(tmp_path):
    board = Board(tmp_path, runs=None)
    for _ in range(20):
        board.turn(100)
    assert board.states == []
    board.offer()
    assert "was not installed from a release" in board.until("refused").reason


def test_what_runs_already_is_nothing_to_fetch(board):
    board.offer(Release(RUNS.id, 3, 10, "e" * 64))
    for _ in range(5):
        board.turn()
    assert (board.states[-1].phase, board.states[-1].offered, board.wants) == ("healthy", RUNS.id, [])


def test_a_newer_offer_takes_the_place_of_an_older_download(board):
    board.offer()
    for _ in range(4):
        board.turn()
    assert board.here
    newer, other = release_of(FILE[::-1], version=5, mark="d"), FILE[::-1]
    board.offer(newer)
    board.until("ready", data=other)
    assert board.arrived(other, newer)


def test_another_file_of_the_same_release_begins_anew(board):
    board.offer()
    for _ in range(4):
        board.turn()
    board.end()
    shorter = FILE[:5000]
    board.hub.publish(topics.update(FLEET, NAME, "offer"), Offer(FLEET, release_of(shorter)).pack(), retain=True)
    board.begin()
    board.wants.clear()
    board.until("ready", data=shorter)
    assert min(want.offset for want in board.wants) == 0
    assert board.arrived(shorter)


def test_a_withdrawn_offer_leaves_nothing(board):
    board.offer()
    for _ in range(4):
        board.turn()
    assert board.here
    board.withdraw()
    assert board.until("healthy").offered == ""
    assert list(board.incoming.iterdir()) == []


def test_a_board_that_was_away_hears_of_it_when_it_comes_back(board):
    board.end()
    board.offer()
    board.begin()
    board.until("ready")
    assert board.arrived()


def test_the_new_release_tells_of_itself_and_of_the_one_before(board):
    board.offer()
    board.until("ready")
    for _ in range(10):
        board.updater.steps.add(0.5, 2.0)
    board.updater.close()
    board.end()
    board.runs, board.proven = Installed(RELEASE.id, 4, "0.2.0", "b" * 64), False
    board.begin()
    state = board.until("trial")
    assert (state.release, state.version, state.starts, state.cutlayer) == (RELEASE.id, 4, 1, "0.2.0")
    assert state.before == Figures(10, 0.5, 2.0, "b" * 64)
    assert state.now.steps == 0
    board.proven = True
    assert board.until("healthy").offered == RELEASE.id
    for _ in range(8):
        board.updater.steps.add(1.5, 1.0)
    board.turn(31)
    assert board.states[-1].now == Figures(8, 1.5, 1.0, "b" * 64)
    board.end()
    board.begin()
    board.turn()
    assert board.states[-1].starts == 2


def test_a_release_that_was_rolled_back_is_told_of_and_not_fetched_again(board):
    board.offer()
    board.until("ready")
    board.end()
    (board.incoming / "ready").unlink()
    said = {"release": RELEASE.id, "outcome": "rolled back", "reason": "not healthy after 3 starts"}
    (board.incoming / "result.json").write_text(json.dumps(said))
    board.begin()
    board.wants.clear()
    state = board.until("rolled back")
    assert (state.release, state.reason) == (RUNS.id, "not healthy after 3 starts")
    for _ in range(20):
        board.turn(10)
    assert board.wants == []


def test_what_the_installer_refuses_is_told_while_the_old_release_runs(board):
    board.offer()
    board.until("ready")
    said = {"release": RELEASE.id, "outcome": "refused", "reason": "the disk is full"}
    (board.incoming / "result.json").write_text(json.dumps(said))
    assert board.until("refused", seconds=1.0).reason == "the disk is full"
    board.end()
    board.begin()
    board.wants.clear()
    assert board.until("refused").reason == "the disk is full"
    assert board.wants == []


def says(board, outcome, **more):
    """The installer has looked at what it was given."""
    (board.incoming / "ready").unlink()
    (board.incoming / f"{RELEASE.id}.release").unlink()
    said = {"release": RELEASE.id, "outcome": outcome, "reason": "so", **more}
    (board.incoming / "result.json").write_text(json.dumps(said))


def test_the_whole_file_is_taken_of_a_release_whose_partial_one_was_refused(board):
    partial, whole = FILE[:3000], release_of(FILE)
    board.offer(release_of(partial))
    board.until("ready", data=partial)
    says(board, "refused")
    board.until("refused", seconds=1.0)
    board.offer(whole)
    board.until("ready")
    assert board.arrived()
    for _ in range(10):
        board.turn(1.0)
    assert board.states[-1].phase == "ready"  # what was said of the partial one is not said of this one


def test_a_reason_that_is_no_text_ends_no_loop(board):
    board.offer()
    board.until("ready")
    says(board, "refused", reason="wheel \udc80 and " + "é" * 400)
    assert board.until("refused", seconds=1.0).reason == "wheel ? and " + "é" * 288


def test_what_only_the_board_stood_against_is_tried_again_when_it_is_offered_again(board):
    board.offer()
    board.until("ready")
    says(board, "refused", again=True)
    board.until("refused", seconds=1.0)
    board.end()
    board.begin()
    board.wants.clear()
    board.until("refused")
    assert board.wants == []  # by itself it fetches nothing again
    board.withdraw()
    board.until("healthy")
    board.offer()
    board.until("ready")
    assert board.arrived()


def test_a_disk_that_takes_no_mark_is_asked_again(board, monkeypatch):
    def full(_path, _data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(installed, "write_whole", full)
        board.offer()
        for _ in range(20):
            board.turn()
        assert board.states[-1].reason == "the disk: No space left on device"
    asked = len(board.wants)
    board.turn(RETRY_SECONDS)
    board.until("ready")
    assert board.arrived()
    assert len(board.wants) == asked


def test_a_disk_that_takes_no_part_is_asked_again(board, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(installed, "clean", lambda *_: (_ for _ in ()).throw(OSError(30, "Read-only file system")))
        board.offer()
        state = board.until("fetching")
        assert state.reason == "the disk: Read-only file system"
    board.turn(RETRY_SECONDS)
    board.until("ready")


def test_a_power_cut_before_the_mark_leaves_no_release_behind_for_ever(board):
    (board.incoming / f"{'e' * 64}.release").write_bytes(b"left")
    (board.incoming / ".result.json.part").write_bytes(b"the installer's")
    board.offer()
    board.until("ready")
    names = {f"{RELEASE.id}.release", "ready", ".result.json.part"}
    assert {path.name for path in board.incoming.iterdir()} == names


@pytest.mark.parametrize("text", ["", "{", "[]", '{"release": 1, "outcome": "x"}', '{"outcome": "refused"}', "\xff"])
def test_a_result_that_cannot_be_read_is_none(tmp_path, text):
    (tmp_path / "result.json").write_text(text, "latin-1")
    assert installed.result(tmp_path) is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"figures": {"a": {"x": 1}}, "starts": {}, "closed": {}, "part": []}']
)
def test_a_damaged_memory_is_a_new_one(tmp_path, text):
    (tmp_path / "updates.json").write_text(text)
    assert Memory(tmp_path / "updates.json").figures == {}


def test_a_release_that_waits_for_the_installer_is_not_fetched_again(board):
    board.offer()
    board.until("ready")
    board.end()
    board.begin()
    board.wants.clear()
    board.until("ready")
    assert board.wants == []


def test_which_release_runs_is_asked_of_its_manifest(tmp_path):
    (tmp_path / "releases" / "x").mkdir(parents=True)
    (tmp_path / "current").symlink_to("releases/x")
    assert installed.running(tmp_path / "current", json.loads) is None
    (tmp_path / "releases" / "x" / "manifest.json").write_text('{"version": 7}')
    found = installed.running(
        tmp_path / "current",
        lambda data: SimpleNamespace(id="i", bundle="b", cutlayer="c", **json.loads(data)),
    )
    assert found == Installed("i", 7, "c", "b")


def test_figures_of_a_process_that_has_hardly_begun_are_those_of_before():
    steps = Steps(Figures(100, 0.2, 1.0, "b"))
    for _ in range(7):
        steps.add(9.0, 9.0)
    assert steps.figures() == Figures(107, 0.2, 1.0, "b")
    steps.add(9.0, None)
    assert steps.figures() == Figures(108, 9.0, 9.0, "b")


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), 1e30])
def test_a_loss_that_has_gone_astray_is_told_as_a_very_high_one(board, loss):
    for _ in range(8):
        board.updater.steps.add(0.1, loss)
    board.offer(None, state_seconds=1.0)
    board.turn()
    assert board.states[-1].now.loss == 1e9


def test_figures_alone_are_told_only_while_they_are_wanted(board):
    board.turn()
    told = len(board.states)
    for second in range(100):
        board.updater.steps.add(0.1 + second, 1.0)
        board.turn(10)
    assert len(board.states) == told
    board.offer(None, state_seconds=20.0)
    for second in range(10):
        board.updater.steps.add(0.1 + second, 1.0)
        board.turn(10)
    # Once when it was asked, and every 20 of 100 seconds.
    assert 4 <= len(board.states) - told <= 6
