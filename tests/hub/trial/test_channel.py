import math
from dataclasses import replace
from itertools import pairwise

import pytest

from hub.trial.channel import Chance, Channel, Counters
from hub.trial.outages import Outages
from hub.trial.scenario import Course, Link
from hub.trial.traces import PacketTrace, RateTrace

PACKET = bytes(1500)
SLOW = Link(rate=12_000.0)  # a packet of 1500 bytes takes a second


def channel(link=SLOW, *, outages=Outages(), seed="0", trace=None, steps=()):  # noqa: B008  frozen
    return Channel(Course(((0.0, link), *steps), trace), outages, seed)


def arrivals(channel, until=math.inf):
    """When what arrives, going from one due moment to the next."""
    found = []
    while (at := channel.next_due) is not None and at <= until:
        found += [(at, packet) for packet in channel.due(at)]
    return found


def times(channel):
    return [at for at, _ in arrivals(channel)]


def test_packets_leave_one_after_the_other_and_arrive_after_the_delay():
    link = channel(replace(SLOW, delay_seconds=10.0))
    link.offer(b"a" * 1500, 0.0)
    link.offer(b"b" * 750, 0.5)
    assert link.next_due == 11.0
    assert link.due(10.9) == []
    assert link.due(11.0) == [b"a" * 1500]
    assert link.next_due == 11.5
    assert link.due(20.0) == [b"b" * 750]
    assert link.next_due is None
    assert link.counters == Counters(offered=2, offered_bytes=2250, delivered=2, delivered_bytes=2250)


def test_without_a_rate_a_packet_takes_the_delay_only():
    link = channel(Link(delay_seconds=0.25))
    link.offer(PACKET, 3.0)
    link.offer(PACKET, 3.0)
    assert times(link) == [3.25, 3.25]
    assert link.rate(3.0) is None


def test_a_full_queue_drops_what_comes_last():
    link = channel(replace(SLOW, queue_bytes=3000))
    for _ in range(3):
        link.offer(PACKET, 0.0)  # one leaves, one waits, one does not fit
    link.offer(PACKET, 0.9)  # still none has left
    link.offer(PACKET, 1.0)  # the first has left: there is room
    assert times(link) == [1.0, 2.0, 3.0]
    assert (link.counters.lost_queue, link.counters.lost, link.counters.lost_bytes) == (2, 2, 3000)


def test_a_small_packet_still_fits_where_a_large_one_does_not():
    link = channel(replace(SLOW, queue_bytes=2000))
    link.offer(PACKET, 0.0)
    link.offer(PACKET, 0.0)
    link.offer(bytes(500), 0.0)
    assert times(link) == [1.0, 1.0 + 500 / 1500]


def test_what_leaves_during_an_outage_is_lost_and_what_waits_for_its_end_is_not():
    link = channel(outages=Outages(times=((2.5, 1.0),)))
    for name in b"abcdef":
        link.offer(bytes([name]) * 1500, 0.0)  # a leaves from 0 to 1, b from 1 to 2, c 2 to 3, d 3 to 4, e 4 to 5
    assert [(at, packet[:1]) for at, packet in arrivals(link)] == [(1, b"a"), (2, b"b"), (5, b"e"), (6, b"f")]
    assert (link.counters.lost_outage, link.counters.lost_bytes) == (2, 3000)


def test_what_would_arrive_during_an_outage_is_lost_and_what_is_on_its_way_over_it_is_not():
    link = channel(Link(delay_seconds=5.0), outages=Outages(times=((4.0, 2.0),)))
    for at in (0.0, 0.9, 1.0, 2.0):  # would arrive at 5, 5.9, 6 and 7
        link.offer(PACKET, at)
    assert times(link) == [6.0, 7.0]
    assert link.counters.lost_outage == 2


def test_what_is_lost_is_counted_when_it_is_lost():
    link = channel(replace(SLOW, loss=1.0, delay_seconds=10.0))
    link.offer(PACKET, 0.0)
    link.due(0.9)
    assert link.counters.lost == 0
    assert link.due(1.0) == []
    assert (link.counters.lost_loss, link.counters.lost_bytes) == (1, 1500)


def test_the_schedule_changes_rate_delay_and_loss():
    steps = ((10.0, Link(rate=24_000.0, delay_seconds=1.0)), (20.0, Link(loss=1.0)))
    link = channel(steps=steps)
    link.offer(PACKET, 9.5)  # half of it at 12,000 bit/s, the other half at twice that
    link.offer(PACKET, 15.0)
    link.offer(PACKET, 20.0)
    assert times(link) == [9.5 + 0.5 + 0.25 + 1.0, 16.5]
    assert link.counters.lost_loss == 1
    assert [link.rate(s) for s in (5.0, 15.0, 25.0)] == [12_000, 24_000, None]


def test_the_schedule_changes_the_queue():
    link = channel(replace(SLOW, queue_bytes=1500), steps=((0.5, replace(SLOW, queue_bytes=3000)),))
    for at in (0.0, 0.4, 0.5):
        link.offer(PACKET, at)
    assert times(link) == [1.0, 2.0]


def test_a_packet_trace_paces():
    link = channel(Link(delay_seconds=1.0), trace=PacketTrace((10, 10, 40)))
    for _ in range(4):
        link.offer(PACKET, 0.0)
    assert times(link) == [1.01, 1.01, 1.04, 1.05]


def test_a_rate_trace_paces_and_loses():
    link = channel(Link(), trace=RateTrace((0.0, 2.0), (12_000.0, 24_000.0), (0.0, 1.0), 4.0))
    for _ in range(5):
        link.offer(PACKET, 0.0)  # leave at 1, 2 (from there on lossy), 2.5, 3 and 3.5
    link.offer(PACKET, 4.0)  # and the trace begins again
    assert times(link) == [1.0, 5.0]
    assert link.counters.lost_loss == 4


def test_nothing_arrives_where_the_rate_is_nothing_and_the_queue_fills():
    link = channel(Link(rate=0.0, queue_bytes=3000))
    for _ in range(3):
        link.offer(PACKET, 0.0)
    assert link.next_due is None
    assert link.due(1e9) == []
    assert link.counters.lost_queue == 1


def test_jitter_varies_the_delay_and_keeps_the_order():
    link = channel(Link(delay_seconds=1.0, jitter_seconds=0.5))
    for number in range(2000):
        link.offer(number.to_bytes(2, "big"), number * 0.001)
    found = arrivals(link)
    assert [int.from_bytes(packet, "big") for _, packet in found] == list(range(2000))
    assert all(earlier <= later for (earlier, _), (later, _) in pairwise(found))
    delays = [at - int.from_bytes(packet, "big") * 0.001 for at, packet in found]
    assert 0.5 <= min(delays) < 1.0 < max(delays) <= 1.5


def test_jitter_alone_is_even_on_both_sides_where_packets_are_far_apart():
    link = channel(Link(delay_seconds=1.0, jitter_seconds=0.5))
    for number in range(2000):
        link.offer(PACKET, number * 10.0)
    delays = [at - number * 10.0 for number, at in enumerate(times(link))]
    # The mean of 2,000 even draws from 0.5 to 1.5 has a deviation of 0.289 / sqrt(2000) = 0.0065: five of them.
    assert abs(sum(delays) / 2000 - 1.0) < 0.032
    assert min(delays) < 0.51
    assert max(delays) > 1.49


def test_what_is_reordered_skips_the_delay():
    link = channel(Link(delay_seconds=1.0), steps=((0.5, Link(delay_seconds=1.0, reorder=1.0)),))
    link.offer(b"first", 0.0)
    link.offer(b"second", 0.6)
    assert arrivals(link) == [(0.6, b"second"), (1.0, b"first")]
    assert link.counters.reordered == 1


def test_a_duplicate_comes_with_the_first():
    link = channel(Link(duplicate=1.0))
    link.offer(b"x", 0.0)
    assert arrivals(link) == [(0.0, b"x"), (0.0, b"x")]
    assert (link.counters.offered, link.counters.delivered, link.counters.duplicated) == (1, 2, 1)


def test_corruption_flips_one_bit():
    link = channel(Link(corrupt=1.0))
    link.offer(PACKET, 0.0)
    ((_, packet),) = arrivals(link)
    assert int.from_bytes(packet, "big").bit_count() == 1
    assert link.counters.corrupted == 1


def story(seed):
    everything = Link(
        rate=80_000.0, delay_seconds=0.3, jitter_seconds=0.2, loss=0.05, p_enter=0.05, p_leave=0.2, loss_bad=0.7,
        queue_bytes=6000, corrupt=0.05, duplicate=0.05, reorder=0.1,
    )  # fmt: skip
    link = channel(everything, seed=seed, outages=Outages(every_seconds=20.0, for_seconds=2.0, jitter_seconds=3.0))
    for number in range(1000):
        link.offer(number.to_bytes(2, "big") * (1 + number * 37 % 740), number * 0.06)
    return link, arrivals(link)


def test_what_happens_is_a_function_of_the_seed_and_of_what_was_offered():
    first, again, other = story("0/pi-1/up"), story("0/pi-1/up"), story("0/pi-1/down")
    assert first[1] == again[1]
    assert first[0].counters == again[0].counters
    assert first[1] != other[1]


def test_in_the_end_every_packet_is_accounted_for():
    counters = story("0/pi-1/up")[0].counters
    assert counters.offered == 1000
    assert counters.offered + counters.duplicated == counters.delivered + counters.lost
    for count in (
        counters.lost_loss,
        counters.lost_queue,
        counters.lost_outage,
        counters.corrupted,
        counters.reordered,
    ):
        assert count > 0


def test_an_outage_does_not_change_whom_chance_takes_after_it():
    def survivors(outages):
        link = channel(Link(loss=0.5), outages=outages)
        for number in range(100):
            link.offer(bytes([number]), float(number))
        return [packet[0] for _, packet in arrivals(link)]

    whole = survivors(Outages())
    assert survivors(Outages(times=((20.0, 10.0),))) == [number for number in whole if not 20 <= number < 30]


def shares(link, packets=200_000):
    chance = Chance("seed")
    taken = [chance.takes(link) for _ in range(packets)]
    return sum(taken) / packets, taken


def test_each_packet_on_its_own_is_lost_at_its_share():
    share, taken = shares(Link(loss=0.05))
    # sqrt(0.05 * 0.95 / 200,000) = 0.0005: five deviations
    assert abs(share - 0.05) < 0.0025
    after_a_loss = [later for earlier, later in pairwise(taken) if earlier]
    # Of about 10,000 packets after a lost one as many are lost as of all others: sqrt(0.05 * 0.95 / 10,000) = 0.0022
    assert abs(sum(after_a_loss) / len(after_a_loss) - 0.05) < 0.011


def test_gilbert_elliott_loses_its_stationary_share_in_bursts():
    link = Link(p_enter=0.02, p_leave=0.1, loss=0.01, loss_bad=0.6)
    # Bad: 0.02 / (0.02 + 0.1) = 1/6 of the packets. Lost: 1 % * 5/6 + 60 % / 6 = 0.10833.
    share, taken = shares(link)
    # States of neighbours are alike by 1 - 0.12 = 0.88, which makes 200,000 packets worth about 200,000 * 0.12 / 1.88 =
    # 12,800 as far as the states go: sqrt(1/6 * 5/6 / 12,800) * 0.59 = 0.0019, and the draws add sqrt(0.1 / 200,000):
    # five deviations of both.
    assert abs(share - 0.10833) < 0.0105
    after_a_loss = [later for earlier, later in pairwise(taken) if earlier]
    # After a lost one the state is bad with 0.1 / 0.10833 = 0.923, a packet later with 0.923 * 0.9 + 0.077 * 0.02 = 0.832:
    # 0.832 * 0.6 + 0.168 * 0.01 = 0.501 of those are lost.
    assert abs(sum(after_a_loss) / len(after_a_loss) - 0.501) < 0.02


def test_gilbert_elliott_with_certain_changes_goes_to_and_fro():
    chance = Chance("any")
    link = Link(p_enter=1.0, p_leave=1.0, loss=0.0, loss_bad=1.0)
    assert [chance.takes(link) for _ in range(6)] == [True, False, True, False, True, False]


def test_bursts_end_when_the_schedule_ends_them():
    chance = Chance("any")
    assert chance.takes(Link(p_enter=1.0, p_leave=1e-9))
    assert [chance.takes(Link()) for _ in range(3)] == [False] * 3


@pytest.mark.parametrize("name", ["corrupt", "duplicate", "reorder"])
def test_shares_between_none_and_all(name):
    link = channel(Link(delay_seconds=1.0, **{name: 0.25}))
    for number in range(4000):
        link.offer(PACKET, number * 2.0)
    arrivals(link)
    count = getattr(link.counters, {"corrupt": "corrupted", "duplicate": "duplicated", "reorder": "reordered"}[name])
    # sqrt(4000 * 0.25 * 0.75) = 27: five deviations
    assert abs(count - 1000) < 137
