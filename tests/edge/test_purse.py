import pytest

from edge.outbox import Outbox
from edge.purse import AHEAD, OVERHEAD, RESERVE, Purse
from edge.tcp_info import SocketBytes


class Counting:
    """A link of which a test says what it has counted."""

    def __init__(self):
        self.counted, self.caps = SocketBytes(), None

    def counters(self):
        return self.counted

    def limit(self, caps):
        self.caps = caps


@pytest.fixture
def board(tmp_path):
    found = Board(tmp_path)
    yield found
    found.outbox.close()


class Board:
    def __init__(self, folder):
        self.folder, self.now = folder, 0.0
        self.own = {}
        self.start()

    def start(self):
        self.outbox, self.link = Outbox.open(self.folder / "state"), Counting()
        self.purse = Purse(self.outbox, self.link, self.own, wall=lambda: 1.8e9 + self.now, now=lambda: self.now)

    def spend(self, up, down=0):
        self.link.counted = SocketBytes(sent=up, received=down)
        self.purse.look()
        self.outbox.commit()
        self.purse.apply()

    def lose_power(self):
        self.outbox.close()
        self.start()


def test_without_a_budget_nothing_is_limited_or_kept(board):
    board.purse.hear({})
    board.spend(10**9)
    assert board.purse.room(0) is None
    assert not board.link.caps.any
    assert board.outbox.fact("spent") is None


def test_before_a_hub_has_said_so_little_may_be_under_way_to_here(board):
    board.purse.apply()
    assert board.link.caps.unknown
    board.purse.hear({})
    board.purse.apply()
    assert not board.link.caps.unknown


def test_the_devices_own_amounts_come_before_the_hubs(board):
    board.own = {"up_per_run": 100_000.0}
    board.lose_power()
    board.purse.hear({"up_per_run": 5_000_000.0, "down_per_run": 70_000.0, "nonsense": 3.0, "rate": -1.0})
    assert board.purse.amounts == {"up_per_run": 100_000, "down_per_run": 70_000}
    assert (board.purse.left("up"), board.purse.left("down")) == (100_000, 70_000)


def test_activations_leave_a_reserve_and_what_is_unsent(board):
    board.purse.hear({"up_per_run": 100_000.0})
    board.spend(20_000)
    assert board.purse.room(3_000) == int((100_000 * (1 - RESERVE) - 20_000) / OVERHEAD) - 3_000
    board.purse.open(10_000)
    assert board.purse.room(0) == int(10_000 / OVERHEAD)
    board.spend(29_000)
    assert board.purse.room(0) == int(1_000 / OVERHEAD)


def test_the_link_goes_no_further_than_what_is_on_the_disk(board):
    board.purse.hear({"up_per_run": 1_000_000.0})
    board.spend(0)
    least, most, part = AHEAD["up"]
    assert board.link.caps.up == most == min(most, 1_000_000 // part)
    board.spend(40_000)  # more than half of the way
    assert board.link.caps.up == 40_000 + most
    board.spend(990_000)
    assert board.link.caps.up == 990_000 + least


def test_the_link_goes_no_further_than_the_budget(board):
    board.purse.hear({"up_per_run": 1_000_000.0})
    board.spend(999_000)
    assert board.link.caps.up == 1_000_000
    board.spend(1_000_500)  # cannot be, and then nothing more
    assert board.link.caps.up == 1_000_500


def test_after_a_power_cut_at_least_as_much_counts_as_was_spent(board):
    board.purse.hear({"up_per_run": 1_000_000.0})
    board.spend(300_000)
    reached = board.link.caps.up
    board.lose_power()
    assert board.purse.left("up") == 1_000_000 - reached
    board.spend(10_000)  # of the new process
    assert board.purse.left("up") == 1_000_000 - reached - 10_000


def test_a_clean_end_counts_exactly(board):
    board.purse.hear({"up_per_run": 1_000_000.0})
    board.spend(300_000)
    board.purse.close()
    board.lose_power()
    assert board.purse.left("up") == 700_000


def test_a_new_run_begins_with_all_of_its_budget_but_its_own_order(board):
    board.purse.hear({"up_per_run": 100_000.0, "down_per_run": 100_000.0})
    board.spend(60_000, 5_000)
    board.purse.account()
    board.spend(61_000, 9_000)  # acknowledgements, and the order of the next run
    board.purse.begin("run")
    assert (board.purse.left("up"), board.purse.left("down")) == (99_000, 96_000)


def test_evaluation_apart_is_not_limited_and_not_counted(board):
    board.purse.hear({"up_per_run": 100_000.0, "apart": 1.0})
    board.spend(10_000)
    board.purse.open(None, evaluation=True)
    board.spend(5_000_000)
    assert board.link.caps.up is None
    board.purse.open(None)
    board.spend(5_001_000)
    assert board.purse.left("up") == 100_000 - 11_000


def test_its_account_tells_what_was_sent_withheld_and_left(board):
    board.purse.hear({"up_per_run": 100_000.0})
    board.purse.sent(3_000, 32)
    board.purse.sent(1_000, 8)
    board.purse.withhold()
    board.spend(5_000, 700)
    told = board.purse.account()
    assert (told["messages"], told["bytes"], told["samples"], told["withheld"]) == (2, 4_000, 40, 1)
    assert (told["up_spent"], told["up_left"], told["down_spent"], told["down_left"]) == (5_000, 95_000, 700, None)
    board.lose_power()
    assert board.purse.account()["samples"] == 40
