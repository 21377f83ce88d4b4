import pytest

from export.objectives import OBJECTIVES
from export.optimizers import OPTIMIZERS
from hub.strategies import STRATEGIES
from hub.strategies.base import Fleet, Member, check


def test_a_round_is_an_epoch_of_the_device_with_the_most_batches():
    fleet = Fleet((Member("a", 40, 2), Member("b", 90, 3)))
    assert (len(fleet), fleet.steps, fleet.names) == (2, 3, ("a", "b"))
    assert [fleet.index("a"), fleet.index("b")] == [0, 1]
    with pytest.raises(KeyError):
        fleet.index("c")


@pytest.mark.parametrize("names", [(), ("b", "a"), ("a", "a")])
def test_a_fleet_is_sorted_and_has_each_device_once(names):
    with pytest.raises(ValueError, match="at least one device, sorted by name and each once"):
        Fleet(tuple(Member(name, 1, 1) for name in names))


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_has_options_with_defaults_that_pass(name):
    options = STRATEGIES[name].options()
    check(options)
    strategy = STRATEGIES[name](options)
    assert strategy.objective in OBJECTIVES
    assert strategy.optimizer in OPTIMIZERS
