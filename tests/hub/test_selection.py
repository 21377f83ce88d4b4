import math

import numpy as np
import pytest

from hub import selection
from hub.selection import History


def test_a_device_that_was_not_heard_gets_the_mean_of_its_last_two_losses():
    history = History.empty(2).after({0: 2.0}).after({1: 4.0})
    assert history.losses.tolist() == [[100, 100], [100, 100], [2, 100], [51, 4]]
    assert history.selected.tolist() == [[0, 0], [0, 0], [1, 0], [0, 1]]


def test_scores_worked_by_hand():
    history = History.empty(2).after({0: 2.0}).after({1: 4.0})
    # discount of the four iterations: 1/8, 1/4, 1/2, 1
    first = (12.5 + 25 + 1 + 51) / 0.5 + math.sqrt(2 * math.log(4) / 0.5)
    second = (12.5 + 25 + 50 + 4) / 1 + math.sqrt(2 * math.log(4) / 1)
    assert history.scores(0.5) == pytest.approx([first, second], rel=1e-12)


def test_everybody_is_heard_before_anybody_is_heard_twice():
    history, heard, rng = History.empty(5), [], np.random.default_rng(0)
    for _ in range(5):
        (chosen,) = selection.largest(history.scores(0.75), 1, range(5), rng)
        heard.append(chosen)
        history = history.after({chosen: 1000.0})
    assert sorted(heard) == [0, 1, 2, 3, 4]


def test_a_history_keeps_the_last_2048_iterations():
    history = History.empty(1)
    for t in range(2050):
        history = history.after({0: float(t)})
    assert history.losses.shape == history.selected.shape == (2048, 1)
    assert (history.losses[0, 0], history.losses[-1, 0]) == (2.0, 2049.0)


def test_the_largest_scores_win_among_those_present():
    scores = [5.0, 9.0, 7.0, 8.0]
    assert selection.largest(scores, 2, [0, 1, 2, 3], np.random.default_rng(0)) == [1, 3]
    assert selection.largest(scores, 2, [0, 2], np.random.default_rng(0)) == [0, 2]
    assert selection.largest(scores, 2, [2], np.random.default_rng(0)) == [2]


def test_ties_fall_to_each_and_the_same_seed_falls_the_same_way():
    def chosen(seed):
        return selection.largest([1.0, 1.0, 0.0], 1, [0, 1, 2], np.random.default_rng(seed))[0]

    found = [chosen(seed) for seed in range(20)]
    assert set(found) == {0, 1}
    assert found == [chosen(seed) for seed in range(20)]


def test_by_chance_everybody_has_a_turn_and_seeds_repeat():
    found = [tuple(selection.by_chance(2, [0, 1, 3], np.random.default_rng(seed))) for seed in range(30)]
    assert set(found) == {(0, 1), (0, 3), (1, 3)}
    assert found == [tuple(selection.by_chance(2, [3, 1, 0], np.random.default_rng(seed))) for seed in range(30)]
