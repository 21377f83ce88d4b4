import pytest

from export.cuts.strategies import Plan, round_of
from export.errors import ExportError

PLAN = Plan(batches=10, rounds=20, devices=10)


def test_adasplit_sends_in_four_tenths_of_the_rounds_six_tenths_of_the_batches():
    found = round_of("adasplit", PLAN)
    assert found.runs == {"local": 10}
    assert found.uploads == pytest.approx(0.4 * 0.6 * 10)
    assert (found.gradients, found.weights_up, found.weights_down) == (0, 0, 0)
    assert found.orders == pytest.approx(0.6 + 0.4 * 10)


def test_split_learning_moves_everything():
    found = round_of("split_learning", PLAN)
    assert (found.uploads, found.gradients, found.weights_up) == (10, 10, 1)
    assert found.weights_down == pytest.approx(199 / 200)
    assert found.parts == ("lower",)
    assert found.runs == {"forward": 10, "backward": 10}


def test_splitfed_is_parallel_split_learning_with_weights():
    fed, parallel = round_of("splitfed", PLAN), round_of("parallel_split_learning", PLAN)
    assert (fed.uploads, fed.gradients) == (parallel.uploads, parallel.gradients) == (10, 10)
    assert (fed.weights_up, parallel.weights_up, parallel.weights_down) == (1, 0, 0)


def test_one_shot_sends_once_in_the_run():
    assert round_of("one_shot", PLAN).uploads == pytest.approx(10 / 20)


def test_those_without_a_cut_and_those_unknown():
    with pytest.raises(ExportError, match="fedavg trains the whole model"):
        round_of("fedavg", PLAN)
    with pytest.raises(ExportError, match="no strategy 'magic'; known are adasplit"):
        round_of("magic", PLAN)
