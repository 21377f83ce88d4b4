"""Two hundred kills -9 of devices, hubs and brokers at moments that chance picks: the runs end as if there had been none.

`python -m benchmarks power_cuts` does the same for as long as one likes.
"""

from collections import Counter
from dataclasses import replace

import pytest

from benchmarks.campaign import Campaign, Plan, bundles
from tests.system.conftest import need_mosquitto

pytestmark = pytest.mark.long

KILLS = 50

KNOWN = {"skip_below": 0.3, "refresh_rounds": 6}

PLANS = {
    "sequential split learning": Plan("split_learning", rounds=50, broker="mosquitto"),
    "AdaSplit": Plan("adasplit", {"kappa": 0.3, "replay": 2, "eta": 0.5, "select_every": 2}, known=KNOWN),
    "SplitFed, weights coded": Plan("splitfed", rounds=50, weights_codec="entropy:1"),
    "SCAFFOLD": Plan("scaffold", rounds=80, broker="mosquitto"),
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", PLANS)
def test_a_run_that_was_killed_fifty_times_ends_with_the_weights_of_one_that_nobody_disturbed(name, tmp_path):
    plan = PLANS[name]
    if plan.broker == "mosquitto":
        need_mosquitto()
    built = bundles(plan.strategy, plan.options, tmp_path)
    undisturbed = Campaign(plan, tmp_path / "undisturbed", built).run()
    assert undisturbed.rounds == tuple(range(1, plan.rounds + 1))

    kills = []
    for seed in range(1, 5):
        cut = replace(plan, kills=KILLS - len(kills), seed=seed)
        outcome = Campaign(cut, tmp_path / f"cut-{seed}", built).run()
        kills += outcome.kills
        assert outcome.rounds == undisturbed.rounds
        assert outcome.learned == undisturbed.learned, "the hub"
        assert outcome.devices == undisturbed.devices
        if len(kills) >= KILLS:
            break
    assert len(kills) >= KILLS  # a power cut for the whole house is several at once
    victims = Counter(kill.process.partition("-")[0] for kill in kills)
    assert set(victims) == {"device", "hub", "broker"}
