import pytest

from edge.wire.profile import Operator
from export.cuts.operators import choose, learn, work


def op(name, inputs, outputs, seconds=0.0):
    def shapes(rows):
        return "[" + ", ".join('{"float": ' + str(list(row)) + "}" for row in rows) + "]"

    return Operator(name, shapes(inputs), shapes(outputs), seconds)


def test_work_is_multiply_adds_of_products_and_elements_of_all_else():
    # 32 rows x 6 inner x 5 columns; each of 2x4x10 outputs is a sum over 3 channels and 5 taps
    assert work(op("MatMul", [(32, 6), (6, 5)], [(32, 5)])) == pytest.approx(32 * 6 * 5)
    assert work(op("MatMul", [(7, 32, 6), (7, 6, 5)], [(7, 32, 5)])) == pytest.approx(7 * 32 * 6 * 5)
    assert work(op("Conv", [(2, 3, 10), (4, 3, 5)], [(2, 4, 10)])) == 2 * 4 * 10 * 3 * 5
    assert work(op("Add", [(10,), (10,)], [(10,)])) == 30


def test_known_operators_are_summed_and_others_lie_on_a_line_of_their_like():
    # an Add takes 1 us and 0.1 us an element; the whole step takes twice its operators
    steps = [op("Add", [(10,), (10,)], [(10,)], 4e-6), op("Add", [(20,), (20,)], [(20,)], 7e-6)]
    model = learn([(22e-6, steps)])
    assert model.factor == pytest.approx(2)
    assert model.predict(steps).seconds == pytest.approx(22e-6)
    assert model.predict(steps).known == 1
    new = model.predict([op("Add", [(30,), (30,)], [(30,)]), steps[0]])
    assert new.seconds == pytest.approx(2 * (10e-6 + 4e-6))
    assert new.known == pytest.approx(4 / 14)


def test_what_the_profiler_adds_to_each_operator_is_taken_off_again():
    # each of them takes 2 us longer under the profiler: an operator of 4 takes 2, one of 20 takes 18
    small = [op("Add", [(n,)], [(n,)], 4e-6) for n in range(1, 11)]
    large = [op("Mul", [(n,)], [(n,)], 20e-6) for n in range(1, 11)]
    model = learn([(20e-6, small), (180e-6, large), (200e-6, small + large)])
    assert model.overhead == pytest.approx(2e-6)
    assert model.factor == pytest.approx(1)
    assert model.predict(small[:1] + large[:1]).seconds == pytest.approx(20e-6)


def test_one_step_that_was_timed_in_a_busy_minute_spoils_nothing():
    steps = [[op("Add", [(n,)], [(n,)], 10e-6 * n)] for n in (1, 2, 3)]
    model = learn([(10e-6, steps[0]), (20e-6, steps[1]), (90e-6, steps[2])])
    assert model.predict(steps[2]).seconds == pytest.approx(30e-6)


def test_those_are_chosen_whose_operators_the_others_have_too():
    def of(*names):
        return [op(name, [(10,)], [(10,)], 1e-6) for name in names]

    steps = {"one": of("Add"), "two": of("Add", "Mul"), "three": of("Add", "Mul", "Exp"), "four": of("Tanh", "Sqrt")}
    # three has all of one and two: 3 steps' worth; then four, which shares nothing; then nothing more is to be had
    assert choose(steps, 2) == ("three", "four")
    assert choose(steps, 1) == ("three",)
    assert sorted(choose(steps, 9)) == sorted(steps)


def test_what_takes_long_counts_more_than_what_is_many():
    steps = {
        "many": [op(f"Small{number}", [(1,)], [(1,)], 1e-6) for number in range(5)],
        "long": [op("Large", [(1,)], [(1,)], 90e-6)],
        "both": [op("Large", [(1,)], [(1,)], 90e-6), op("Small0", [(1,)], [(1,)], 1e-6), op("Rest", [(1,)], [(1,)], 9e-6)],
    }  # fmt: skip
    assert choose(steps, 1) == ("both",)


def test_an_operator_that_was_never_seen_is_like_all_others():
    model = learn([(3e-6, [op("Add", [(10,), (10,)], [(10,)], 3e-6)])])
    assert model.predict([op("Tanh", [(30,)], [(30,)])]).seconds == pytest.approx(6e-6)


def test_its_own_time_is_not_looked_at():
    seen = op("Add", [(10,), (10,)], [(10,)], 3e-6)
    slow = op("Add", [(10,), (10,)], [(10,)], 9.0)
    assert learn([(3e-6, [seen])]).predict([slow]).seconds == pytest.approx(3e-6)


def test_nothing_to_learn_from():
    with pytest.raises(ValueError, match="no operator"):
        learn([(1.0, [])])
