from dataclasses import replace

import pytest

from edge.wire.delivery import Delivery, Ledger, RoundTrips
from edge.wire.frames import DATA_OVERHEAD, Ack, Data, Limits, WireError, parse
from tests.edge.wire.conversation import LIMITS, Conversation, chunk, everything


def acks(frames):
    return [frame for frame in map(parse, frames) if isinstance(frame, Ack)]


def chunks(frames):
    return [(frame.number, frame.index) for frame in map(parse, frames) if isinstance(frame, Data)]


def test_a_message_of_three_chunks_arrives_once_and_is_acknowledged():
    talk = Conversation()
    number = talk.a.send(b"x" * 250)
    assert number == 1
    assert not talk.a.idle
    talk.settle()
    assert talk.arrived == [b"x" * 250]
    assert talk.a.acknowledged() == [1]
    assert talk.a.acknowledged() == []
    assert talk.a.idle
    assert talk.b.idle
    assert [(frame.index, len(frame.payload)) for frame in talk.data] == [(0, 84), (1, 84), (2, 82)]


def test_an_empty_message_arrives():
    talk = Conversation()
    talk.a.send(b"")
    talk.settle()
    assert talk.arrived == [b""]
    assert talk.a.idle


def test_both_directions_at_once():
    talk = Conversation()
    talk.a.send(b"up")
    talk.b.send(b"down")
    talk.up()
    arrived = []
    for frame in talk.b.poll(talk.now):
        arrived += [delivered.payload for delivered in talk.a.receive(frame, talk.now)]
    assert talk.arrived == [b"up"]
    assert arrived == [b"down"]
    assert talk.a.acknowledged() == [1]


def test_a_lost_chunk_is_asked_for_after_the_timeout_and_only_it_is_sent_again():
    talk = Conversation()
    talk.a.send(b"x" * 500)
    talk.up(drop=chunk(1, 2))
    talk.down()
    assert talk.arrived == []
    talk.now += 0.9
    assert talk.a.poll(talk.now) == []
    talk.wait()
    assert talk.now == 101.0
    (question,) = talk.a.poll(talk.now)
    assert parse(question).asks
    talk.up(frames=[question])
    talk.down()
    assert chunks(talk.up()) == [(1, 2)]
    assert talk.arrived == [b"x" * 500]
    assert talk.a.statistics.frames_repeated == 1


def test_a_slow_pipe_gets_a_question_and_no_second_copy():
    talk = Conversation()
    talk.a.send(b"x" * 1000)
    under_way = talk.a.poll(talk.now)
    for _ in range(3):
        talk.wait()
        under_way += talk.a.poll(talk.now)
    talk.now += 10
    talk.up(frames=under_way)
    talk.settle()
    assert talk.arrived == [b"x" * 1000]
    assert talk.a.statistics.frames_repeated == 0
    assert talk.b.statistics.duplicates == 0


def test_questions_in_vain_come_ever_more_rarely():
    talk = Conversation()
    talk.a.send(b"x")
    talk.a.poll(talk.now)
    waits = []
    for _ in range(9):
        before = talk.now
        talk.wait()
        waits.append(talk.now - before)
        talk.a.poll(talk.now)
    assert waits == [1, 1, 2, 4, 8, 16, 32, 60, 60]


def test_a_lost_acknowledgement_costs_a_question_only():
    talk = Conversation()
    talk.a.send(b"x" * 300)
    talk.up()
    talk.down(drop=everything)
    talk.wait()
    talk.settle()
    assert talk.a.acknowledged() == [1]
    assert talk.arrived == [b"x" * 300]
    assert talk.a.statistics.frames_repeated == 0


def test_a_repeated_frame_has_no_second_effect():
    talk = Conversation()
    talk.a.send(b"once")
    frames = talk.up()
    talk.up(frames=frames)
    talk.settle()
    talk.up(frames=frames)
    assert talk.arrived == [b"once"]
    assert talk.b.statistics.duplicates == 2


def test_reordered_chunks_of_two_messages_are_put_together():
    talk = Conversation()
    talk.a.send(bytes(range(250)))
    talk.a.send(bytes(range(249, -1, -1)))
    talk.up(frames=talk.a.poll(talk.now)[::-1])
    assert talk.arrived == [bytes(range(249, -1, -1)), bytes(range(250))]


def test_a_frame_long_overtaken_is_sent_again_without_waiting():
    talk = Conversation(replace(LIMITS, window_bytes=40 * 128, unconfirmed_messages=100))
    for _ in range(20):
        talk.a.send(b"x")
    talk.up(drop=chunk(1))
    talk.down()
    assert chunks(talk.up()) == [(1, 0)]
    assert len(talk.arrived) == 20


def test_a_received_message_is_held_until_it_is_confirmed():
    talk = Conversation(confirms=False)
    talk.a.send(b"x")
    talk.settle()
    assert talk.arrived == [b"x"]
    assert talk.a.acknowledged() == []
    assert not talk.a.idle
    talk.b.confirm(1)
    talk.settle()
    assert talk.a.acknowledged() == [1]


def test_a_message_long_unconfirmed_is_asked_for_and_not_sent_again():
    talk = Conversation(confirms=False)
    talk.a.send(b"x")
    talk.settle()
    waits = []
    for _ in range(6):
        before = talk.now
        talk.wait()
        waits.append(talk.now - before)
        talk.settle()
    assert waits == [60, 120, 240, 480, 960, 960]
    assert talk.a.statistics.frames_repeated == 0


def test_what_was_sent_after_the_question_is_not_lost_with_the_answer():
    talk = Conversation()
    talk.a.send(b"x")
    talk.up(drop=everything)
    talk.wait()
    talk.up()
    later = talk.a.send(b"y")
    assert chunks(talk.a.poll(talk.now)) == [(later, 0)]
    talk.down()
    assert chunks(talk.a.poll(talk.now)) == [(1, 0)]


def test_what_is_given_up_leaves_no_gap():
    talk = Conversation()
    first = talk.a.send(b"one")
    talk.up(drop=everything)
    talk.a.give_up(first)
    talk.a.send(b"two")
    talk.settle()
    assert talk.b.received == Ledger(1, 2)
    assert talk.a.idle


def test_an_urgent_message_overtakes_bulk_and_passes_a_full_window():
    talk = Conversation()
    talk.a.send(b"x" * 3000)
    assert len(chunks(talk.a.poll(talk.now))) == 10
    talk.a.send(b"y" * 100)
    urgent = talk.a.send(b"now", urgent=True)
    assert chunks(talk.a.poll(talk.now)) == [(urgent, 0)]


def test_what_may_overtake_bulk_is_said_of_each_frame():
    talk = Conversation()
    talk.a.send(b"x" * 100)
    talk.a.send(b"now", urgent=True)
    urgent, bulk = talk.a.poll(talk.now)
    assert (urgent.bulk, bulk.bulk) == (False, True)
    talk.up(frames=[urgent])
    (ack,) = talk.b.poll(talk.now)
    assert not ack.bulk
    talk.now += 10
    (question,) = [frame for frame in talk.a.poll(talk.now) if not isinstance(parse(frame), Data)]
    assert question.bulk  # its answer is the truth about what was sent before it


def test_bulk_that_many_urgent_messages_overtake_is_not_taken_for_lost():
    talk = Conversation(replace(LIMITS, window_bytes=40 * 128))
    talk.a.send(b"x" * 1000)
    waiting = talk.a.poll(talk.now)
    assert all(frame.bulk for frame in waiting)
    for _ in range(40):
        talk.a.send(b"now", urgent=True)
        talk.settle()
    assert talk.arrived == [b"now"] * 40
    talk.up(frames=waiting)
    talk.settle()
    assert talk.arrived[40:] == [b"x" * 1000]
    assert talk.a.idle
    assert talk.a.statistics.frames_repeated == 0


def test_what_is_not_done_is_cut_anew_for_a_pipe_that_takes_less():
    talk = Conversation()
    number = talk.a.send(bytes(range(200)) + b"x" * 50)
    talk.up(drop=chunk(number, 1))
    assert talk.a.fit(64 + DATA_OVERHEAD)
    talk.a.reconnected(talk.now)
    talk.finish()
    assert talk.arrived == [bytes(range(200)) + b"x" * 50]
    assert max(len(frame.payload) for frame in talk.data[3:]) == 63  # 250 in four
    assert talk.a.fit(10_000)
    talk.a.send(b"y" * 90)
    talk.finish()
    assert len(talk.data[-1].payload) == 90
    assert not talk.a.fit(63 + DATA_OVERHEAD)


def test_the_window_opens_as_chunks_arrive_though_nothing_is_done():
    talk = Conversation(confirms=False)
    talk.a.send(b"x" * 2500)
    talk.settle()
    assert talk.arrived == [b"x" * 2500]
    assert talk.a.acknowledged() == []


def test_unconfirmed_messages_are_bounded():
    talk = Conversation(confirms=False)
    for _ in range(20):
        talk.a.send(b"x")
    talk.settle()
    assert len(talk.arrived) == 8
    talk.b.confirm(1)
    talk.settle()
    assert len(talk.arrived) == 9


def test_unconfirmed_bytes_are_bounded_but_one_long_message_may_go():
    talk = Conversation(replace(LIMITS, unconfirmed_bytes=500), confirms=False)
    talk.a.send(b"x" * 600)
    talk.a.send(b"x" * 300)
    talk.settle()
    assert [len(payload) for payload in talk.arrived] == [600]


def test_after_a_reconnect_what_was_under_way_is_asked_for_at_once():
    talk = Conversation()
    talk.a.send(b"x" * 300)
    talk.up(drop=chunk(1, 1))
    talk.b.poll(talk.now)
    talk.now += 0.1
    talk.a.reconnected(talk.now)
    talk.settle()
    assert talk.arrived == [b"x" * 300]
    assert talk.a.statistics.frames_repeated == 1


def test_acknowledgements_wait_for_company():
    talk = Conversation(replace(LIMITS, ack_seconds=0.05))
    talk.down()
    talk.a.send(b"x" * 300)
    talk.a.send(b"y" * 300)
    talk.up()
    assert talk.b.poll(talk.now) == []
    assert talk.b.timer() == pytest.approx(100.05)
    (ack,) = talk.b.poll(100.05)
    assert parse(ack).floor == 2
    assert parse(ack).held == ()


def test_received_bytes_hurry_an_acknowledgement():
    talk = Conversation(replace(LIMITS, ack_seconds=60.0, ack_bytes=300))
    talk.down()
    talk.a.send(b"x" * 600)
    talk.up()
    assert len(acks(talk.b.poll(talk.now))) == 1


def test_a_process_says_at_first_that_it_is_there():
    (frame,) = Delivery(epoch=1, instance=5).poll(0.0)
    assert parse(frame) == Ack(0, 5, 0)


def test_incomplete_messages_are_bounded_in_bytes_and_the_oldest_goes():
    talk = Conversation(Limits(message_bytes=1000, partial_bytes=1000, chunk_bytes=100, ack_seconds=0))
    for _ in range(3):
        talk.a.send(b"x" * 400)
    talk.up(drop=lambda frame: isinstance(frame, Data) and frame.index == 3)
    assert talk.b.statistics.partials_dropped == 0
    talk.a.send(b"y" * 400)
    talk.up(drop=chunk(4, 3))
    assert talk.b.statistics.partials_dropped == 1
    talk.down()
    talk.finish()
    assert len(talk.arrived) == 4


def test_a_message_cut_differently_after_a_restart_replaces_its_beginnings():
    talk = Conversation()
    talk.a.send(bytes(250))
    talk.up(drop=chunk(1, 0))
    talk.a = Delivery(epoch=1, instance=12, next_number=2, limits=replace(LIMITS, chunk_bytes=50))
    talk.a.restore(1, bytes(250))
    talk.finish()
    assert talk.arrived == [bytes(250)]


def test_a_device_that_floods_is_stopped_at_the_bound():
    b = Delivery(epoch=1, instance=21, limits=LIMITS)
    for number in range(1, 100):
        b.receive(Data(1, 1, number, 0, 1, 1, b"x").pack(), 0.0)
    assert b.statistics.refused == {"busy": 99 - 32}


def test_a_damaged_frame_is_counted_and_life_goes_on():
    talk = Conversation()
    talk.a.send(b"x")
    frame = talk.a.poll(talk.now)[-1]
    with pytest.raises(WireError, match="CRC"):
        talk.b.receive(frame[:-1] + b"\0", talk.now)
    assert talk.b.statistics.refused == {"crc": 1}
    talk.up(frames=[frame])
    assert talk.arrived == [b"x"]


def test_an_epoch_that_leaves_no_later_one_is_refused():
    talk = Conversation()
    with pytest.raises(WireError, match="no later"):
        talk.a.receive(Ack(2**32 - 1, 21, 0).pack(), talk.now)
    assert talk.a.epoch == 1


def test_a_message_above_the_limit_is_not_taken():
    with pytest.raises(WireError, match="1048577 bytes, the limit is 1048576"):
        Conversation().a.send(bytes((1 << 20) + 1))


def test_sixty_five_thousand_chunks_are_the_most():
    talk = Conversation(replace(LIMITS, chunk_bytes=1, window_bytes=1 << 22))
    talk.a.send(bytes(100_000))
    talk.settle()
    assert talk.arrived == [bytes(100_000)]
    assert {frame.count for frame in talk.data} == {50_000}


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"chunk_bytes": 0}, "at least 1"),
        ({"chunk_bytes": 1 << 20}, "does not fit a frame"),
        ({"message_bytes": 1 << 33}, "more than a frame can say"),
        ({"partial_bytes": 1}, "less than message_bytes"),
    ],
)
def test_limits_that_contradict_each_other_are_refused(setting, words):
    with pytest.raises(ValueError, match=words):
        Limits(**setting)


def test_the_timeout_follows_rfc_6298():
    trips = RoundTrips(1.0, 60.0)
    assert trips.timeout() == 1.0
    trips.sample(2.0)
    assert trips.timeout() == 2 + 4 * 1
    trips.sample(4.0)  # variation 3/4·1 + 1/4·2 = 1.25; mean 7/8·2 + 1/8·4 = 2.25
    assert trips.timeout() == 2.25 + 4 * 1.25
    assert trips.timeout(tries=2) == 4 * 7.25
    assert trips.timeout(tries=9) == 60
