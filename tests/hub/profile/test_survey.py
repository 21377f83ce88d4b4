"""A survey of real agents over a memory link; the clock moves only when the hub polls."""

import pytest

from edge.outbox import Outbox
from edge.profiler import Found
from edge.wire.messages import Report
from edge.wire.profile import Profile
from hub.devices import Arrived
from hub.profile.fleet import _ours
from hub.profile.survey import Patience, Question, Survey
from tests.hub.test_orchestrator import Everybody, Field, gathered

PROFILE = Profile({"model": "a board"}, ()).serialize()


class Bench:
    """A profiler that needs some looks, and says what the test wants."""

    def __init__(self, found=None, looks=5):
        self.found, self.looks, self.asked, self.limits = found or Found(PROFILE), looks, [], []
        self.ended = 0

    def start(self, inquiry):
        self.asked.append((tuple(inquiry.batches), tuple(inquiry.threads), tuple(inquiry.codecs), inquiry.seconds))
        self.limits.append(inquiry.limit_seconds)
        self.left = self.looks

    def look(self):
        self.left -= 1
        if self.left > 0:
            return None
        self.ended += 1
        return self.found

    def end(self):
        pass


@pytest.fixture
def field(tmp_path):
    field = Field(tmp_path, ["a", "b", "c"])
    for board in field.boards.values():
        equip(board, Bench())
    yield field
    for board in field.boards.values():
        board.kill()


def equip(board, bench):
    board.bench = board.agent._inquiries._profiler = bench


def restarted(board):
    """As after kill -9 and a new start."""
    board.kill()
    restart(board)


def restart(board):
    board.start()
    board.agent._inquiries._profiler = board.bench


def survey(field, *, question=None, come=5.0, answer=60.0, expected=3, number=1, **options):
    kept = {}
    made = Survey(
        field.devices,
        question or Question(),
        number,
        Patience(come, answer),
        expected=expected,
        keep=lambda name, text: kept.update({name: text}),
        now=lambda: field.now,
        **options,
    )
    made.run()
    made.kept = kept
    return made


def test_every_device_is_asked_once_and_its_profile_kept(field):
    question = Question((1, 32), (2,), ("entropy:1",), 0.5)
    said = []
    done = survey(field, question=question, say=lambda name, state: said.append(f"{name} {state}"))
    assert done.missing == {}
    assert {name: profile.name for name, profile in done.found.items()} == dict.fromkeys("abc", "a board")
    assert done.kept == dict.fromkeys("abc", PROFILE)
    assert [board.bench.asked for board in field.boards.values()] == [[((1, 32), (2,), ("entropy:1",), 0.5)]] * 3
    assert sorted(said) == sorted(f"{name} {state}" for name in "abc" for state in ("is asked", "has answered"))
    assert all(board.agent._mailbox.idle for board in field.boards.values())  # nothing is left for the next hub


def busy(field):
    """How many boards measure."""
    return sum(len(board.bench.asked) > board.bench.ended for board in field.boards.values())


def test_only_so_many_measure_at_a_time_and_all_have_their_turn(tmp_path):
    names = [f"device-{number:02}" for number in range(20)]
    field, most = Field(tmp_path, names), []
    try:
        for board in field.boards.values():
            equip(board, Bench(looks=10))
        field.events.append(lambda: most.append(busy(field)))
        done = survey(field, expected=20, at_once=4)
    finally:
        for board in field.boards.values():
            board.kill()
    assert (sorted(done.found), done.missing) == (names, {})
    assert max(most) == 4
    assert all(len(board.bench.asked) == 1 for board in field.boards.values())
    assert field.now < 15  # five times four, each with ten looks of a tenth of a second, and not twenty times one


def test_a_device_that_goes_offline_lets_another_have_its_turn(field):
    board = field.boards["a"]
    equip(board, Bench(looks=10**6))
    field.events.append(lambda: board.kill() if board.bench.asked and board.link.connected else None)
    done = survey(field, at_once=1, answer=30.0)
    assert (sorted(done.found), done.missing) == (["b", "c"], {"a": "no answer within 30 s"})


def test_a_device_that_hangs_keeps_the_others_from_their_turn_for_a_while_only(field):
    equip(field.boards["a"], Bench(looks=10**6))
    said = []
    done = survey(
        field, question=Question(seconds=0.1), at_once=1, answer=90.0, say=lambda *line: said.append((field.now, *line))
    )
    assert (sorted(done.found), done.missing) == (["b", "c"], {"a": "no answer within 90 s"})
    asked = {name: at for at, name, state in said if state == "is asked"}
    assert 60 <= asked["b"] - asked["a"] < 62


def test_whose_turn_did_not_come_is_told_so(field):
    equip(field.boards["a"], Bench(looks=10**6))
    done = survey(field, at_once=1, answer=20.0)
    assert done.missing == {
        "a": "no answer within 20 s",
        "b": "its turn did not come within 20 s: 1 are asked at a time",
        "c": "its turn did not come within 20 s: 1 are asked at a time",
    }
    assert field.boards["b"].bench.asked == []


def test_reasons_are_kept_and_what_is_no_profile_is_one(field):
    equip(field.boards["a"], Bench(Found(reason="the profiler ended with code 1: no memory")))
    equip(field.boards["b"], Bench(Found('{"format": 99}')))
    done = survey(field)
    assert done.missing == {
        "a": "the profiler ended with code 1: no memory",
        "b": "its profile cannot be used: it has format 99; this release reads up to 1",
    }
    assert list(done.kept) == ["c"]


def test_only_those_that_are_named_are_asked_and_waited_for(field):
    done = survey(field, names=["b", "nobody"])
    assert list(done.found) == ["b"]
    assert done.missing == {"nobody": "it did not come within 5 s"}
    assert field.boards["a"].bench.asked == []


def test_fewer_devices_than_expected_are_enough_after_a_while(field):
    done = survey(field, expected=5)
    assert (sorted(done.found), done.missing) == (["a", "b", "c"], {})
    assert 5 <= field.now < 9


def test_who_does_not_answer_in_time_is_named_and_has_ended_by_then(field):
    equip(field.boards["b"], Bench(looks=10**6))
    done = survey(field, answer=20.0)
    assert done.missing == {"b": "no answer within 20 s"}
    assert sorted(done.found) == ["a", "c"]
    assert 15 < field.boards["b"].bench.limits[0] <= 20


def test_a_device_that_was_killed_answers_once(field):
    board = field.boards["a"]
    board.bench.looks = 30
    field.events.append(lambda: restarted(board) if len(board.bench.asked) == 1 else None)
    done = survey(field)
    assert (sorted(done.found), done.missing) == (["a", "b", "c"], {})
    assert len(board.bench.asked) == 2


def test_a_device_that_lost_its_memory_is_asked_anew(field):
    board = field.boards["a"]
    board.bench.looks = 30

    def lose():
        if board.bench.asked and not (field.folder / "lost").exists():
            board.kill()
            (field.folder / "a").rename(field.folder / "lost")
            outbox = Outbox.open(field.folder / "a")
            outbox.put_fact("stream", {"epoch": 77, "next": 1})  # a new one begins with a number of its own
            outbox.commit()
            outbox.close()
            restart(board)

    field.events.append(lose)
    done = survey(field)
    assert sorted(done.found) == ["a", "b", "c"]


def test_a_hub_that_is_restarted_asks_anew(field):
    board = field.boards["a"]
    equip(board, Bench(looks=10**6))
    survey(field, answer=5.0)
    field.take_over(generation=200, instance=10)
    board.bench.looks, board.bench.left = 3, 3
    done = survey(field, number=2)
    assert sorted(done.found) == ["a", "b", "c"]


def test_an_answer_that_comes_too_late_does_not_disturb_the_run_after_it(field):
    equip(field.boards["b"], Bench(looks=80))
    assert list(survey(field, answer=5.0).missing) == ["b"]
    orchestrator, fleet = gathered(field, Everybody())
    _, learned = orchestrator.train([], fleet, 0)
    assert sorted(learned.selected) == ["a", "b", "c"]
    for _ in range(100):
        orchestrator._pump()
    assert field.boards["b"].agent._mailbox.idle
    assert sum(field.devices.known["b"].refused.values()) == 1


def test_what_belongs_to_a_run_stays_with_its_device(field):
    """A device has done its order while its hub is away; a survey comes between."""
    strategy = Everybody()
    orchestrator, fleet = gathered(field, strategy)
    orchestrator.train([], fleet, 0)
    board = field.boards["a"]
    board.agent._mailbox.send(Report(5, 0, {"loss": 1.0}))
    field.take_over(generation=200, instance=10)
    field.devices._reads = _ours
    others = []
    done = survey(field, number=2, others=others.append)
    assert sorted(done.found) == ["a", "b", "c"]
    assert others == []
    assert not board.agent._mailbox.idle
    field.take_over(generation=300, instance=11)
    came = []
    for _ in range(60):
        came += [h.message for h in field.devices.poll(0.2, field.now) if isinstance(h, Arrived)]
    assert came == [Report(5, 0, {"loss": 1.0})]


def test_a_survey_reads_hellos_and_answers_only():
    assert _ours(b"\x01{}")
    assert _ours(b"\x0b")
    assert not any(_ours(bytes([kind])) for kind in (4, 5, 7, 8, 9))
    assert not _ours(b"")
