import math
from dataclasses import replace

from hub.trial.outages import Outages
from hub.trial.scenario import Course, Link
from hub.trial.stream import HELD_BYTES, PIECE_BYTES, TRIES, Stream

PIECE = bytes(PIECE_BYTES)  # 1500 bytes with what is around it
SLOW = Link(rate=12_000.0)  # a second each


def stream(link=SLOW, *, back=None, outages=Outages(), steps=()):  # noqa: B008  frozen
    course = Course(((0.0, link), *steps))
    return Stream(course, Course(((0.0, back or link),)), outages, "0")


def arrivals(stream):
    found = []
    while (at := stream.next_due) is not None:
        found += [(at, connection, len(piece)) for connection, piece in stream.due(at)]
    return found


def test_pieces_leave_one_after_the_other_and_arrive_after_the_delay():
    link = stream(replace(SLOW, delay_seconds=0.5))
    link.offer("a", PIECE, 0.0)
    link.offer("b", PIECE[: 750 - 52], 0.25)
    assert arrivals(link) == [(1.5, "a", 1448), (2.0, "b", 698)]
    assert (link.counters.offered_bytes, link.counters.delivered_bytes) == (1448 + 698, 1448 + 698)


def test_the_end_of_a_connection_keeps_its_place():
    link = stream()
    link.offer("a", PIECE, 0.0)
    link.offer("a", b"", 0.0)
    assert arrivals(link) == [(1.0, "a", 1448), (1.0 + 52 / 1500, "a", 0)]


def test_there_is_room_again_when_a_piece_has_left():
    link = stream(replace(SLOW, queue_bytes=3000, delay_seconds=9.0))
    assert link.room(0.0)
    link.offer("a", PIECE, 0.0)
    assert link.room(0.0)
    link.offer("a", PIECE, 0.0)
    assert not link.room(0.9)
    assert link.next_room == 1.0
    assert link.room(1.0)


def test_what_is_under_way_is_bounded_where_nothing_else_bounds_it():
    link = stream(Link(delay_seconds=1.0))
    pieces = 0
    while link.room(0.0):
        link.offer("a", PIECE, 0.0)
        pieces += 1
    assert pieces == math.ceil(HELD_BYTES / PIECE_BYTES)
    assert link.next_room == 1.0
    link.due(1.0)
    assert link.room(1.0)


def lossy_at_first(delay):
    """A link that loses all of the first second and nothing after it."""
    return stream(Link(12_000.0, loss=1.0, delay_seconds=delay), steps=((1.5, Link(12_000.0, delay_seconds=delay)),))


def test_a_lost_piece_comes_a_round_trip_later_and_takes_its_time_twice():
    link = lossy_at_first(delay=0.25)
    link.offer("a", PIECE, 0.0)  # leaves at 1, lost; again at 2, and the round trip of 0.5 makes it late
    link.offer("a", PIECE, 0.0)  # leaves at 3
    assert arrivals(link) == [(2.75, "a", 1448), (3.25, "a", 1448)]
    assert (link.counters.lost_loss, link.counters.lost_bytes, link.counters.delivered) == (1, 1448, 2)


def test_what_is_behind_a_lost_piece_waits_but_not_on_other_connections():
    link = lossy_at_first(delay=2.0)
    link.offer("a", PIECE, 0.0)  # as above: 2, and late by 4, and 2 on its way
    link.offer("a", PIECE, 0.0)
    link.offer("b", PIECE, 0.0)
    assert arrivals(link) == [(6.0, "b", 1448), (8.0, "a", 1448), (8.0, "a", 1448)]


def test_a_retransmission_waits_for_a_fifth_of_a_second_at_least():
    link = lossy_at_first(delay=0.0)
    link.offer("a", PIECE, 0.0)
    assert arrivals(link) == [(2.2, "a", 1448)]


def test_corruption_is_loss_here():
    link = stream(replace(SLOW, corrupt=1.0), steps=((1.5, SLOW),))
    link.offer("a", PIECE, 0.0)
    assert arrivals(link) == [(2.2, "a", 1448)]


def test_a_link_that_loses_all_passes_after_so_many_tries():
    link = stream(Link(loss=1.0))
    link.offer("a", PIECE, 0.0)
    ((at, _, _),) = arrivals(link)
    assert math.isclose(at, TRIES * 0.2)
    assert link.counters.lost_loss == TRIES


def test_an_outage_stalls_what_is_sent_and_what_arrives():
    link = stream(outages=Outages(times=((1.5, 10.0),)))
    link.offer("a", PIECE, 0.0)
    link.offer("a", PIECE, 0.0)  # would leave from 1 to 2: again after the outage
    assert arrivals(link) == [(1.0, "a", 1448), (12.5, "a", 1448)]
    assert link.counters.lost == 0

    link = stream(Link(delay_seconds=2.0), outages=Outages(times=((1.0, 10.0),)))
    link.offer("a", PIECE, 0.0)
    assert arrivals(link) == [(11.0, "a", 1448)]


def test_what_was_under_way_for_a_broken_connection_is_lost():
    link = stream()
    link.offer("a", PIECE, 0.0)
    link.offer("b", PIECE, 0.0)
    link.forget("a")
    assert arrivals(link) == [(2.0, "b", 1448)]
    assert (link.counters.lost_outage, link.counters.lost_bytes) == (1, 1448)


def test_nothing_arrives_where_the_rate_is_nothing():
    link = stream(Link(rate=0.0))
    link.offer("a", PIECE, 0.0)
    assert link.next_due is None
    assert link.next_room is None
