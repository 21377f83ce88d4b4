import pytest

from edge.wire.window import Window


def test_what_is_not_known_yet_holds_nothing_back():
    assert Window(128_000, 32_000).bytes == 128_000


def test_three_of_the_shortest_round_trips_at_the_best_rate():
    window = Window(128_000, 1000)
    window.landed(0.05, 5_000, now=0.0)  # 100 kB/s
    assert window.bytes == pytest.approx(15_000, abs=1)
    window.landed(0.2, 40_000, now=1.0)  # 200 kB/s, in a longer time
    assert window.bytes == pytest.approx(30_000, abs=1)


def test_a_stall_shrinks_nothing_for_ten_seconds():
    window = Window(128_000, 1000)
    window.landed(0.05, 5_000, now=0.0)
    for second in range(1, 10):
        window.landed(1.0, 5_000, now=float(second))
        assert window.bytes == pytest.approx(15_000, abs=1)
    window.landed(1.0, 5_000, now=10.0)
    assert window.bytes == 1000  # 5 kB/s would be 750


def test_it_stays_between_its_bounds():
    window = Window(128_000, 32_000)
    window.landed(0.05, 1_000, now=0.0)
    assert window.bytes == 32_000
    window.landed(0.05, 1_000_000, now=0.1)
    assert window.bytes == 128_000


def test_a_new_path_is_felt_out_anew():
    window = Window(128_000, 1000)
    window.landed(0.05, 5_000, now=0.0)
    window.restart()
    assert window.bytes == 128_000
