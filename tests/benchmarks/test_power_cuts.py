import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import power_cuts
from benchmarks.campaign import CampaignError, Kill, Outcome
from benchmarks.options import BenchmarkError, Options
from benchmarks.results import record

NAMES = ("device-01", "device-02", "device-03")


def outcome(learned="abc", kills=(), second="s"):
    devices = dict.fromkeys(NAMES, "s") | {"device-02": second}
    return Outcome(learned, devices, tuple(range(1, 61)), tuple(kills), 0, 10.0 + len(kills))


KILLS = (Kill("hub", "learning", 1.0), Kill("device-01", "no order", 2.0), Kill("device-03", "no order", 3.0))


class Campaigns:
    """Stands in for real processes: every run with kills bears three, and comes to what is next in `ends`."""

    def __init__(self, *ends):
        self.ends, self.plans = list(ends), []

    def __call__(self, plan, folder, built):
        self.plans.append(plan)
        self.plan = plan
        return self

    def run(self):
        if not self.plan.kills:
            return outcome()
        end = self.ends.pop(0) if self.ends else outcome(kills=KILLS)
        if isinstance(end, Exception):
            raise end
        return end


@pytest.fixture
def play(tmp_path, monkeypatch):
    def run(campaigns, **options):
        monkeypatch.setattr(power_cuts, "Campaign", campaigns)
        monkeypatch.setattr(power_cuts, "bundles", lambda *_: tmp_path)
        return record(tmp_path / "power_cuts.jsonl", power_cuts.run(Options(tmp_path, **options)))

    return run


def cells(text, name):
    return [[c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith(f"| {name} ")]


def test_runs_go_on_until_there_have_been_so_many_kills_and_go_on_from_there(play, tmp_path):
    first = play(Campaigns(), kills=6)
    assert [row["kills"] for row in first.rows] == [3, 3]
    killed = benchmarks._killed(tmp_path / "power_cuts.jsonl")
    assert killed == 6
    assert [row["kills"] for row in play(Campaigns(), kills=9, killed=killed).rows] == [3]


def test_a_difference_in_one_bit_of_one_device_is_in_the_table(play):
    ends = Campaigns(outcome(kills=KILLS), outcome(kills=KILLS, second="other"), outcome("other", KILLS))
    text = power_cuts.draw([play(ends, kills=9)])
    assert cells(text, "sequential SL")[0][3:7] == ["3", "1/1", "3/3", "1/1"]
    assert cells(text, "AdaSplit")[0][3:7] == ["3", "1/1", "2/3", "1/1"]
    assert cells(text, "AdaSplit, gradient down")[0][3:7] == ["3", "0/1", "3/3", "1/1"]
    assert cells(text, "all")[0][2:] == ["3", "9", "2/3", "8/9", "3/3", "1.00"]
    assert cells(text, "device: no order") == [["device: no order", "6"]]
    assert max(map(len, text.splitlines())) <= 100


def test_a_run_that_does_not_end_is_told_and_kept(play):
    text = power_cuts.draw([play(Campaigns(CampaignError("the run has not ended\nlast words")), kills=3)])
    assert "Runs that did not end: 1." in text
    assert "* sequential SL, seed 0: `last words`" in text


def test_it_gives_up_when_too_many_do_not_end(play):
    with pytest.raises(BenchmarkError, match="5 runs did not end: the last one: no 4"):
        play(Campaigns(*(CampaignError(f"no {number}") for number in range(9))), kills=3)
