"""Joules and CPU seconds of a round, by a meter whose numbers the test says."""

import numpy as np
import pytest

from edge import config, device
from edge.effort import STILL_STEPS, Effort, Verdict, refuse_unmeasured
from edge.energy import Integrator
from edge.memory_link import MemoryBroker
from edge.meters import Meter, Used
from edge.outbox import Outbox
from edge.wire import messages
from edge.wire.budget import BudgetConfig
from edge.wire.messages import Activation, Gradient, Report
from edge.wire.toml_fields import ConfigError
from tests.edge.stage import Rows, Stage, after
from tests.tiny import write_bundle

CPU = {"cpu_seconds_per_round": 10.0}
JOULES = {"joules_per_round": 10.0}
FITS, LATER, SPENT = Verdict.FITS, Verdict.LATER, Verdict.SPENT
MISSING = "no meter: no RAPL here"


class Scripted:
    """What has been taken so far is what the test says."""

    def __init__(self, missing=""):
        self.cpu, self.joules, self.missing_energy, self.failure = 100.0, 1000.0, missing, ""

    def used(self, *, joules=False):
        reason = self.missing_energy or self.failure
        return Used(self.cpu, None if reason or not joules else self.joules, reason)


class Bench:
    """An effort and its outbox; every question is answered once its turn is committed."""

    def __init__(self, folder, amounts, gauge=None):
        self.folder, self.amounts, self.gauge = folder, amounts, gauge or Scripted()
        self.start()

    def start(self):
        self.outbox = Outbox.open(self.folder / "state")
        self.effort = Effort(self.outbox, self.gauge)

    def commit(self):
        self.outbox.commit()
        self.effort.apply()

    def begin(self, period="round"):
        self.effort.begin(period, self.amounts)
        self.effort.open(self.amounts)
        self.commit()

    def asked(self, kind="local"):
        """The verdict, after as many commits as it wants."""
        for _ in range(3):
            verdict = self.effort.bears(kind, self.amounts)
            self.commit()
            if verdict is not LATER:
                return verdict
        raise AssertionError("never below its ceiling")

    def steps(self, *costs, what="cpu", kind="local"):
        """Steps that cost so much, as long as they fit; tells how many were done."""
        for number, cost in enumerate(costs):
            if self.asked(kind) is SPENT:
                return number
            setattr(self.gauge, what, getattr(self.gauge, what) + cost)
        return len(costs)

    def taken(self, what="cpu_seconds"):
        self.effort.pause(self.amounts)
        return self.effort.account(self.amounts)[f"{what}_spent"]

    def lose_power(self):
        self.outbox.close()
        self.start()


@pytest.fixture
def bench(tmp_path):
    made = []

    def make(amounts, gauge=None):
        made.append(Bench(tmp_path, amounts, gauge))
        made[-1].begin("run")
        return made[-1]

    yield make
    for one in made:
        one.outbox.close()


def test_a_step_that_would_pass_the_budget_by_the_mean_so_far_is_not_begun(bench):
    one = bench(CPU)
    assert one.steps(3, 2, 4, 1) == 3  # 9 are taken, the mean is 3: 12 would be too much
    assert one.taken() == 9
    assert one.effort.spent == "cpu_seconds"


def test_exactly_the_budget_is_allowed(bench):
    one = bench(CPU)
    assert one.steps(2, 2, 2, 2, 2, 2) == 5
    assert one.taken() == 10


def test_joules_are_limited_in_the_same_way(bench):
    one = bench(JOULES)
    assert one.steps(4, 4, 4, what="joules") == 2
    assert one.taken("joules") == 8
    assert one.effort.spent == "joules"


def test_of_two_limits_the_tighter_one_holds(bench):
    one = bench({**CPU, **JOULES})
    one.gauge.used = lambda **_: Used(one.gauge.cpu, one.gauge.cpu * 3)  # three watts
    assert one.steps(1, 1, 1, 1) == 3
    assert (one.taken("joules"), one.taken()) == (9, 3)


def test_once_spent_nothing_more_of_the_round_is_begun_and_the_next_begins_anew(bench):
    one = bench(CPU)
    assert one.steps(3, 3, 3, 3) == 3
    assert one.steps(0.1, kind="forward") == 0  # a cheap one would fit
    one.begin()
    assert one.steps(3, 3, 3, 3) == 3


def test_an_order_of_several_rounds_has_the_means_of_all_of_them_also_after_a_power_cut(bench):
    one = bench(CPU)
    one.effort.begin("round", CPU, rounds=3)
    one.effort.open(CPU)
    one.commit()
    assert one.steps(*[4] * 5) == 5
    one.effort.close(CPU)
    one.lose_power()
    assert one.steps(*[4] * 5) == 2  # 28 of 30


def test_the_first_step_loads_its_graph_and_says_nothing_of_the_next(bench):
    one = bench(CPU)
    assert one.steps(25, 1) == 1  # it is counted
    one.begin()
    assert one.steps(3, 3, 3, 3) == 3


def test_steps_dearer_than_the_budget_are_tried_once_and_not_begun_any_more(bench):
    one = bench(CPU)
    assert one.steps(11, 11) == 1
    one.begin()
    assert one.steps(11, 11) == 1
    one.begin()
    assert one.steps(11) == 0
    one.begin("run")  # perhaps with smaller batches
    assert one.steps(3, 3) == 2


def test_what_passes_between_two_orders_is_nobodys(bench):
    one = bench(CPU)
    one.steps(2)
    one.effort.pause(CPU)
    one.gauge.cpu += 50
    one.effort.open(CPU)
    assert one.steps(2) == 1
    assert one.taken() == 4


def test_an_order_that_is_apart_is_not_counted(bench):
    one = bench({**CPU, "apart": 1.0})
    one.steps(4)
    one.effort.pause(CPU)
    one.effort.open(CPU, apart=True)
    assert one.steps(50, 50, kind="evaluate") == 2
    one.effort.pause(CPU)
    one.effort.open(CPU)
    assert one.taken() == 4


@pytest.mark.parametrize("cut_after", range(1, 12))
def test_after_a_power_cut_never_less_is_counted_than_was_taken(bench, cut_after):
    """Steps of 0.5 s; the power goes in the middle of the step, before anybody has looked what it took."""
    one = bench(CPU)
    assert one.steps(*[0.5] * cut_after) == cut_after
    one.lose_power()
    one.effort.open(CPU)
    assert 0.5 * cut_after <= one.taken() <= 10
    if cut_after in (4, 6, 8):
        assert one.taken() < 0.5 * cut_after + 2  # nor the whole round


def test_steps_after_a_power_cut_are_counted_on_top(bench):
    one = bench(CPU)
    one.steps(1, 1, 1)
    one.lose_power()
    before = one.effort.account(CPU)["cpu_seconds_spent"]
    done = one.steps(*[1] * 20)
    assert before >= 3
    assert done == int(10 - before)
    assert one.taken() == before + done


def test_a_clean_end_counts_exactly(bench):
    one = bench(CPU)
    one.steps(1, 1, 1)
    one.effort.close(CPU)
    one.lose_power()
    assert one.effort.account(CPU) == {"cpu_seconds_spent": 3, "cut": 0}


def test_what_is_spent_stays_so_after_a_power_cut(bench):
    one = bench(CPU)
    assert one.steps(4, 4, 4) == 2
    one.lose_power()
    assert one.asked() is SPENT
    assert one.effort.spent == "cpu_seconds"


def test_no_step_is_begun_above_what_is_on_the_disk(bench):
    one = bench(CPU)
    assert one.effort.bears("local", CPU) is LATER
    assert one.effort.bears("local", CPU) is LATER  # nothing was committed in between
    one.commit()
    assert one.effort.bears("local", CPU) is FITS


def test_a_sensor_that_fails_ends_the_round_and_says_why(bench):
    one = bench(JOULES)
    one.steps(1, what="joules")
    one.gauge.failure = "hwmon VDD_IN is gone"
    assert one.asked() is SPENT
    assert one.effort.spent == "joules: hwmon VDD_IN is gone"
    one.gauge.failure = ""
    one.begin()
    assert one.steps(1, what="joules") == 1


def test_a_sensor_that_stands_still_is_not_trusted(bench):
    one = bench(JOULES)
    assert one.steps(*[0] * (STILL_STEPS + 5), what="joules") == STILL_STEPS + 1
    assert one.effort.spent == f"joules: the sensor did not move in {STILL_STEPS} steps"


def test_joules_of_the_hub_without_a_meter_are_not_kept_to_and_told_as_unknown(bench, caplog):
    one = bench({**CPU, **JOULES}, Scripted(MISSING))
    assert one.steps(3, 3, 3, 3) == 3
    assert one.effort.account(one.amounts) == {"cpu_seconds_spent": 9, "joules_spent": None, "cut": 1}
    assert [r.getMessage() for r in caplog.records] == [f"joules_per_round = 10 J cannot be kept to here: {MISSING}"]


def test_without_such_limits_nothing_is_kept(bench):
    one = bench({"up_per_run": 1e6})
    assert one.steps(99, 99) == 2
    assert one.outbox.fact("effort") is None
    assert one.effort.account(one.amounts) == {}


def test_joules_of_its_own_are_refused_where_nothing_measures_them(tmp_path):
    budget = BudgetConfig(joules_per_round="2 J")
    looked_for = "no RAPL under /sys/class/powercap, no power sensor under /sys/class/hwmon, no battery under"
    with pytest.raises(ConfigError, match=rf'joules_per_round = "2 J" cannot be kept to .*{looked_for}'):
        refuse_unmeasured(budget, Meter(tmp_path))
    refuse_unmeasured(BudgetConfig(cpu_seconds_per_round="3 s"), Meter(tmp_path))
    refuse_unmeasured(budget, Scripted())


def test_a_device_says_so_at_its_start_before_it_looks_for_its_hub(tmp_path, monkeypatch):
    write_bundle(tmp_path / "b")
    np.savez(tmp_path / "d.npz", x=np.zeros((4, 2), np.float32), y=np.zeros(4, np.int64))
    text = (
        '[device]\nname = "a"\n[broker]\nurl = "mqtt://127.0.0.1:1"\n[bundle]\npath = "b"\n[data]\nsource = "d.npz"\n'
    )
    (tmp_path / "device.toml").write_text(text + '[budget]\njoules_per_round = "2 J"\n')
    told = config.load(tmp_path / "device.toml", {})
    monkeypatch.setattr(device, "Meter", lambda **_: Meter(tmp_path / "sysless"))
    with pytest.raises(ConfigError, match="no RAPL under /sys/class/powercap"):
        device.run(told, lambda: False)


def test_the_meter_tells_joules_and_processor_time_between_two_moments(tmp_path):
    zone = tmp_path / "sys/class/powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    for name, text in {"name": "package-0", "max_energy_range_uj": "1000000000000", "energy_uj": "5000000"}.items():
        (zone / name).write_text(text)
    now = iter(range(100))
    meter = Meter(tmp_path, lambda: float(next(now)))
    assert meter.missing_energy == ""
    before = meter.used(joules=True)
    (zone / "energy_uj").write_text("7500000")
    after_it = meter.used(joules=True)
    assert after_it.joules - before.joules == 2.5
    assert after_it.cpu_seconds >= before.cpu_seconds > 0
    assert meter.used().joules is None
    (zone / "energy_uj").write_text("nonsense")
    assert (failed := meter.used(joules=True)).joules is None
    assert "nonsense" in failed.reason
    (zone / "energy_uj").write_text("8000000")
    assert meter.used(joules=True).joules == after_it.joules  # what passed in the gap is not known
    assert isinstance(meter._integrator, Integrator)


# The device -----------------------------------------------------------------------------------------------------


class Costly(Rows):
    """Every batch that is taken costs two seconds of the processor, and so does every step."""

    def __init__(self):
        self.gauge = Scripted()

    def batch(self, *arguments):
        self.gauge.cpu += 2
        return super().batch(*arguments)

    def test_batch(self, *arguments):
        self.gauge.cpu += 2
        return super().test_batch(*arguments)


@pytest.fixture
def staged(tmp_path):
    stages = []

    def make(budget=CPU, **options):
        source = Costly()
        stages.append(Stage(tmp_path, MemoryBroker(), source=source, gauge=source.gauge, budget=budget, **options))
        return stages[-1]

    yield make
    for stage in stages:
        stage.kill()


def test_an_order_ends_early_and_tells_how_many_steps_it_did_and_what_will_not_come(staged):
    stage = staged()
    stage.order(steps=8, send=(1, 3, 6, 7))
    stage.run(60)
    (report,) = stage.got(Report)
    assert (report.metrics["steps"], report.metrics["cut"]) == (5, "cpu_seconds")
    assert report.metrics["expired_steps"] == {"first": 6, "last": 7, "count": 2}
    assert [message.step for message in stage.got(Activation)] == [1, 3]
    np.testing.assert_allclose(stage.weights(), after(5), rtol=1e-5)
    budget = report.metrics["budget"]
    assert (budget["cpu_seconds_per_round"], budget["cpu_seconds_spent"], budget["withheld"], budget["cut"]) == (
        10,
        10,
        2,
        1,
    )
    assert "up_spent" not in budget  # bytes are not limited
    stage.kill()
    stage.start()
    np.testing.assert_allclose(stage.weights(), after(5), rtol=1e-5)  # as the report says, also after a power cut


def test_the_next_order_of_the_round_has_no_step_and_that_of_the_next_round_has(staged):
    stage = staged()
    stage.order(1, steps=8)
    stage.run(40)
    stage.order(2, steps=2, send=(0,), kind="forward")
    stage.run(20)
    stage.order(3, steps=3, round=1)
    stage.run(40)
    assert [report.metrics["steps"] for report in stage.got(Report)] == [5, 0, 3]
    assert stage.got(Report)[1].metrics["expired_steps"] == {"first": 0, "last": 0, "count": 1}
    assert "cut" not in stage.got(Report)[2].metrics


def test_weights_that_not_one_step_has_changed_are_not_given(staged):
    stage = staged()
    stage.order(1, steps=8, give=("lower",))
    stage.run(40)
    stage.order(2, steps=8, give=("lower",))
    stage.run(40)
    first, second = stage.got(Report)
    assert first.metrics["steps"] == 5
    assert second.metrics == {"failed": "the round's means (cpu_seconds) are spent before the first step"}
    assert len([m for m in stage.inbox if isinstance(m, messages.State)]) == 1


def test_an_exchange_ends_between_two_steps_not_within_one(staged):
    stage = staged()
    stage.order(kind="exchange", steps=8, send=tuple(range(8)))
    for step in range(8):
        stage.run(12)
        if step < len(stage.got(Activation)):
            stage.tell(Gradient(bytes.fromhex(stage.id[:8]), 1, 0, step, np.ones((1, 2), np.float32), 0.5))
    stage.run(12)
    (report,) = stage.got(Report)
    assert report.metrics["steps"] == len(stage.got(Activation)) == 5
    assert report.metrics["expired_steps"] == {"first": 5, "last": 7, "count": 3}


def test_a_power_cut_in_mid_round_gives_no_new_means(staged):
    stage = staged(checkpoint_steps=1)
    stage.order(steps=8)
    while stage.source.gauge.cpu < 100 + 6:  # in the third step
        stage.run(1)
    stage.kill()
    stage.start()
    stage.run(60)
    (report,) = stage.got(Report)
    assert report.metrics["cut"] == "cpu_seconds"
    assert 3 <= report.metrics["steps"] <= 5
    assert stage.source.gauge.cpu <= 100 + 10
    np.testing.assert_allclose(stage.weights(), after(report.metrics["steps"]), rtol=1e-5)


@pytest.mark.parametrize(("steps", "told"), [(8, 5.0), (3, 3.0)])
def test_an_end_graph_hears_how_many_steps_there_were(staged, steps, told):
    """SCAFFOLD divides by them."""
    stage = staged(with_ends=True)
    heard, run = {}, stage.segment.run
    stage.segment.run = lambda kind, inputs, settings, *more, **named: (
        heard.update({kind: dict(settings)}) or run(kind, inputs, settings, *more, **named)
    )
    stage.order(steps=steps, settings={"lr": 0.01, "local_steps": float(steps)}, give=("lower",))
    stage.run(60)
    assert heard["end"] == {"lr": 0.01, "local_steps": told}
    assert heard["begin"]["local_steps"] == steps
    (state,) = stage.got(messages.State)
    np.testing.assert_allclose(state.state["change"], after(told_steps := int(told)) - [1, 2], rtol=1e-5)
    assert stage.got(Report)[0].metrics["steps"] == told_steps


@pytest.mark.parametrize(("apart", "came"), [(True, 3), (False, 1)])
def test_an_evaluation_is_counted_or_apart(staged, apart, came):
    stage = staged({**CPU, **({"apart": 1.0} if apart else {})})
    stage.order(1, steps=4)
    stage.run(40)
    stage.order(2, kind="evaluate", steps=3, send=(0, 1, 2))
    stage.run(40)
    reports = stage.got(Report)
    assert len(stage.got(Activation)) == came
    assert reports[1].metrics.get("cut") == (None if apart else "cpu_seconds")
    assert reports[1].metrics["budget"]["cpu_seconds_spent"] == (8 if apart else 10)


def test_without_the_hub_steps_beyond_the_end_take_of_the_same_means(staged):
    stage = staged()
    stage.order(steps=3, beyond=20)
    stage.run(30)
    stage.announce(7, online=False)
    stage.run(60)
    assert stage.source.gauge.cpu == 100 + 10
    np.testing.assert_allclose(stage.weights(), after(5), rtol=1e-5)
