"""Every strategy with real processes over the real broker; one device is killed in mid-round and comes back."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from hub.strategies import STRATEGIES
from tests.system.processes import wait_for
from tests.system.trial import Material, Trial

ROUNDS = 6


@dataclass(frozen=True)
class Case:
    """What a strategy is told, and what must be true of every device in the end."""

    options: dict[str, Any] = field(default_factory=lambda: {"lr": 0.01})
    sends: bool = True
    """Whether smashed data are uploaded in training."""
    learns: float | None = 0.3
    """Accuracy to be passed after the last round (chance is 0.1); None: what the devices minimise is to fall."""


CASES = {name: Case() for name in STRATEGIES} | {
    "adasplit": Case({"kappa": 0.0, "masks": False, "lr": 0.01}),
    "frozen": Case({"masks": False, "lr": 0.01}),
    "fedavg": Case(sends=False),
    "fedprox": Case(sends=False),
    "scaffold": Case({"lr": 0.1}, sends=False, learns=None),
    "fednova": Case({"lr": 0.1}, sends=False),
}


@pytest.fixture
def strategy(request):
    return request.param


@pytest.fixture
def material(make_bundle, digits, strategy):
    method = STRATEGIES[strategy]
    made = method(method.options(**CASES[strategy].options))
    bundle = make_bundle(objective=made.objective, optimizer=made.optimizer)
    return Material(bundle.id, bundle.device, bundle.hub, digits)


@pytest.mark.parametrize("strategy", STRATEGIES, indirect=True)
def test_every_strategy_goes_on_without_a_device_and_takes_it_back(trial: Trial, strategy):
    case = CASES[strategy]
    trial.write_hub(
        run={"strategy": strategy, "rounds": ROUNDS}, strategy={"kappa": None, "masks": None, **case.options}
    )
    hub = trial.start_hub()
    devices = trial.start_devices()
    trial.wait_round(1)

    # The hub is in the middle of a round by now, unless it has just ended one.
    devices["device-02"].kill()
    wait_for(lambda: trial.records("round")[-1]["present"] == 2, "a round without the device is over")
    with hub.paused():
        back = devices["device-02"] = trial.start_device("device-02")
        wait_for(lambda: "device-02: bundle" in back.stderr(), "the device is connected again")
    trial.finish()

    assert trial.rounds() == list(range(1, ROUNDS + 1))
    for name, device in devices.items():
        assert device.wait(20) == 0, f"{name}:\n{device.said()}"
        assert "Traceback" not in device.stderr(), device.said()
    last = trial.records("round")[-1]
    assert sorted(last["accuracies"]) == trial.names, "the device takes part again"
    losses = [record["loss"] for record in trial.records("device") if record["device"] == "device-01"]
    assert last["accuracy"] > case.learns if case.learns is not None else losses[-1] < losses[0]
    totals = {record["device"]: record for record in trial.records("device")}
    assert all(record["elements"] > 0 for record in totals.values()) or not case.sends
    assert not any(record["refused"] for record in totals.values()), totals
