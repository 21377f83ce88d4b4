import numpy as np

from hub.strategies.averaging import mean, moved, shares
from hub.strategies.base import Fleet, Member

THREE = Fleet((Member("a", 10, 1), Member("b", 30, 3), Member("c", 60, 6)))


def lower(*values, dtype=np.float32):
    return {"w": np.array(values, dtype)}


def test_shares_are_by_samples_among_those_named():
    assert shares(THREE, dict.fromkeys("abc")) == {"a": 0.1, "b": 0.3, "c": 0.6}
    assert shares(THREE, {"b": lower(0), "a": lower(0)}) == {"a": 0.25, "b": 0.75}


def test_a_mean_by_hand():
    average = mean({"a": lower(1, 8), "b": lower(5, 0)}, {"a": 0.25, "b": 0.75})
    assert average["w"].tolist() == [4, 2]


def test_a_mean_has_the_type_and_shape_of_its_tensors_and_sums_without_loss():
    values = {"a": 1e9, "b": 1.0, "c": -1e9}
    states = {name: {"w": np.float32([value]), "s": np.array(value)} for name, value in values.items()}
    average = mean(states, dict.fromkeys("abc", 1.0))
    assert (average["w"].dtype, average["w"].tolist()) == (np.float32, [1.0])  # in float32 the 1 would be lost
    assert (average["s"].dtype, average["s"].shape) == (np.float64, ())


def test_a_step_beyond_the_mean_spares_running_statistics():
    def state(value):
        return {"bn.weight": np.float32([value]), "bn.running_var": np.float32([value])}

    weights, rates = {"a": 0.25, "b": 0.75}, {"a": 0.5, "b": 1.5}
    after = moved(state(3), {"a": state(1), "b": state(1)}, weights, rates)
    assert after["bn.weight"].tolist() == [-1]  # 3 + 0.5 · (1 - 3) + 1.5 · (1 - 3)
    assert after["bn.running_var"].tolist() == [1]


def test_steps_that_sum_to_one_are_the_mean():
    states, weights = {"a": lower(1.1, 2), "b": lower(-0.3, 7)}, {"a": 0.25, "b": 0.75}
    after = moved(lower(100, 100), states, weights, weights)
    assert after["w"].tolist() == mean(states, weights)["w"].tolist()


def test_who_came_first_does_not_show_in_the_mean():
    rng = np.random.default_rng(0)
    states = {name: {"w": rng.standard_normal(50) * 10.0**power} for power, name in enumerate("abc")}
    weights = {"a": 0.2, "b": 0.3, "c": 0.5}
    backwards = dict(reversed(states.items()))
    assert mean(states, weights)["w"].tobytes() == mean(backwards, weights)["w"].tobytes()
