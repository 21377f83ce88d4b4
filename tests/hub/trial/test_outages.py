import math
from itertools import pairwise

import pytest

from hub.trial.outages import Outages

LISTED = Outages(times=((10.0, 5.0), (20.0, 1.0)))


@pytest.mark.parametrize(
    ("since", "until", "outage"),
    [
        (0, 9.9, None),
        (0, 10, (10, 15)),
        (12, 12, (10, 15)),
        (14.9, 30, (10, 15)),  # the first of them
        (15, 19.9, None),  # an outage is over at its end
        (15, 20, (20, 21)),
        (21, 1e9, None),
        (0, math.inf, (10, 15)),
    ],
)
def test_the_first_outage_of_a_stretch_of_time(since, until, outage):
    assert LISTED.during(since, until) == outage


def test_without_outages_there_is_never_one():
    assert Outages().during(0, math.inf) is None


def test_outages_that_come_back():
    outages = Outages(every_seconds=60.0, for_seconds=5.0)
    assert [outages.at(s) for s in (0, 59.9, 65, 119)] == [None] * 4
    assert [outages.at(s) for s in (60, 64.9)] == [(60, 65)] * 2
    assert outages.at(6002) == (6000, 6005)
    assert outages.during(66, 1e6) == (120, 125)


def test_jitter_moves_each_outage_by_at_most_so_much_and_is_a_function_of_the_seeds():
    outages = Outages(every_seconds=60.0, for_seconds=5.0, jitter_seconds=20.0)

    def starts(outages, chance):
        found, now = [], 0.0
        for _ in range(200):
            start, now = outages.during(now, math.inf, chance)
            assert now == start + 5.0
            found.append(start)
        return found

    first = starts(outages, "0/pi-1")
    assert first == starts(outages, "0/pi-1")
    assert first != starts(outages, "0/pi-2")
    assert first != starts(Outages(every_seconds=60.0, for_seconds=5.0, jitter_seconds=20.0, seed=1), "0/pi-1")
    shifts = [start - 60 * number for number, start in enumerate(first, 1)]
    assert -20 <= min(shifts) < -15
    assert 15 < max(shifts) <= 20
    assert all(later > earlier + 5 for earlier, later in pairwise(first))
