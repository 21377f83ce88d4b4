"""Budgets of joules and CPU seconds, as the hub meets them."""

import pytest

from edge.purse import Purse
from edge.wire.messages import Refusal
from hub import config, simulate
from hub.outcome import read
from hub.server import RunError, _strategy
from hub.strategies.base import Order
from tests.edge.test_effort import CPU, Scripted
from tests.hub.test_orchestrator import Everybody, Field, Signs, gathered
from tests.hub.test_simulate import bundles, wish  # noqa: F401  fixtures

HUB = '[bundle]\npath = "hub.bundle"\n[run]\nfolder = "run"\norder = "fixed"\n[budget]\n'


class Costly(Signs):
    """Four seconds of the processor a batch."""

    def __init__(self, gauge):
        self.gauge = gauge

    def batch(self, *arguments):
        self.gauge.cpu += 4
        return super().batch(*arguments)

    def test_batch(self, *arguments):
        self.gauge.cpu += 4
        return super().test_batch(*arguments)


@pytest.fixture
def field(tmp_path):
    """Three boards, of which a may take ten CPU seconds a round: two steps."""
    field = Field(tmp_path, ["a", "b", "c"])
    agent, gauge = field.boards["a"].agent, Scripted()
    purse = Purse(agent._outbox, field.boards["a"].link, CPU, gauge=gauge)
    agent._purse = agent._uploads._purse = agent._beyond._purse = purse
    agent._source = Costly(gauge)
    agent._facts = {**agent._facts, "budget.cpu_seconds_per_round": 10.0}
    yield field
    for board in field.boards.values():
        board.kill()


@pytest.mark.parametrize("kind", ["local", "exchange", "forward"])
@pytest.mark.parametrize("together", [False, True])
def test_a_turn_goes_on_without_what_a_device_has_no_means_for(field, kind, together):
    strategy = Everybody(Order(kind, 0, 4, (0, 1, 2, 3)))
    strategy.together = together
    orchestrator, fleet = gathered(field, strategy)
    began = field.now
    _, learned = orchestrator.train([], fleet, 0)
    assert learned.selected == {"a": 2, "b": 4, "c": 4}
    assert learned.late == set()
    assert {name: metrics["steps"] for name, metrics in strategy.reports.items()} == {"a": 2, "b": 4, "c": 4}
    assert field.now - began < 15  # nobody waited for a deadline
    assert field.devices.known["a"].totals["budget"]["cut"] == 1


def test_an_accuracy_of_some_of_the_test_samples_is_none(field):
    orchestrator, fleet = gathered(field, Everybody(Order("local", 0, 2, (0, 1))))
    orchestrator.train([], fleet, 0)
    assert sorted(orchestrator.evaluate([], fleet, 0)) == ["b", "c"]


def test_a_fixed_order_refuses_a_device_that_hangs_on_its_meter(field):
    field.devices._fixed = True
    agent = field.boards["a"].agent
    said = []
    agent._refusal = said.append
    gathered(field, Everybody())
    assert field.devices.online() == ["b", "c"]
    assert isinstance(said[0], Refusal)
    assert "device 'a' has a budget of cpu_seconds_per_round" in said[0].reason
    assert 'order = "fixed"' in said[0].reason


@pytest.mark.parametrize("line", ['cpu_seconds_per_round = "3 s"', 'joules_per_round = "2 J"'])
def test_a_fixed_order_refuses_a_budget_of_the_hub_that_hangs_on_meters(line, tmp_path):
    path = tmp_path / "hub.toml"
    path.write_text(HUB + line)
    with pytest.raises(RunError, match=rf'\[budget\] {line}: with \[run\] order = "fixed"'):
        _strategy(config.load(path, {}))
    path.write_text(HUB + 'up_per_run = "1 MB"')
    assert _strategy(config.load(path, {}))


def test_a_whole_run_in_which_no_step_can_be_paid_goes_on_to_its_end(wish):  # noqa: F811
    asked = wish(budget={"cpu_seconds_per_round": "0.001 ms", "evaluation": "apart"}, rounds=3, windows="scarce")
    simulate.run(asked)
    rounds = [record for record in read(asked.folder) if record["record"] == "round"]
    assert [len(record["late"]) for record in rounds] == [3, 3, 3]
    assert [record["selected"] for record in rounds] == [{}, {}, {}]
    assert rounds[-1]["accuracy"] is not None


def test_a_whole_run_with_means_enough_is_that_without_a_budget(wish):  # noqa: F811
    runs = [wish("free"), wish("rich", budget={"cpu_seconds_per_round": "100 s"})]
    for run in runs:
        simulate.run(run)
    free, rich = ([(r["loss"], r["accuracies"]) for r in read(run.folder) if r["record"] == "round"] for run in runs)
    assert free == rich
