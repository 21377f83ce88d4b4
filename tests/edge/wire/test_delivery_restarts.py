from edge.wire.delivery import Delivery, Ledger
from edge.wire.frames import Data, parse
from tests.edge.wire.conversation import LIMITS, Conversation, chunk, everything


def chunks(frames):
    return [(frame.number, frame.index) for frame in map(parse, frames) if isinstance(frame, Data)]


def test_a_receiver_that_restarts_before_it_confirmed_gets_the_message_again():
    talk = Conversation(confirms=False)
    talk.a.send(b"x" * 300)
    talk.settle()
    talk.b = Delivery(epoch=1, instance=22, received=talk.b.received, limits=LIMITS)
    talk.confirms = True
    talk.settle()
    assert talk.arrived == [b"x" * 300] * 2  # the first was never confirmed: its effect is gone
    assert talk.a.acknowledged() == [1]


def test_a_late_ack_of_a_former_process_is_not_believed():
    talk = Conversation(confirms=False)
    talk.a.send(b"x")
    talk.up()
    late = talk.b.poll(talk.now)
    talk.b = Delivery(epoch=1, instance=22, limits=LIMITS)
    talk.down()
    talk.up(drop=everything)  # the question for what the new process has
    talk.down(frames=late)
    assert talk.a.timer() == talk.now + 1  # still unknown; had it been believed, it would be a minute
    talk.finish_with_confirmations()
    assert talk.a.acknowledged() == [1]


def test_who_answers_is_there_though_frames_of_a_former_process_came_late():
    talk = Conversation(confirms=False)
    early = talk.b.poll(talk.now)
    talk.b = Delivery(epoch=1, instance=22, limits=LIMITS)
    early += Delivery(epoch=1, instance=21, limits=LIMITS).poll(talk.now)
    talk.down()
    talk.down(frames=early)
    talk.a.send(b"x")
    talk.finish_with_confirmations()
    assert talk.arrived == [b"x"]


def test_a_confirmed_message_stays_done_when_its_receiver_restarts():
    talk = Conversation()
    talk.a.send(b"x")
    talk.up()
    ledger = Ledger.from_json(talk.b.received.to_json())
    talk.b = Delivery(epoch=1, instance=22, received=ledger, limits=LIMITS)
    talk.wait()
    talk.settle()
    assert talk.arrived == [b"x"]
    assert talk.a.acknowledged() == [1]


def test_a_sender_that_restarts_asks_before_it_repeats_its_outbox():
    talk = Conversation(confirms=False)
    for number in (1, 2, 3):
        talk.a.send(b"%d" % number)
    talk.up(drop=chunk(2))
    talk.b.confirm(1)
    talk.a = Delivery(epoch=1, instance=12, next_number=4, limits=LIMITS)
    for number in (1, 2, 3):
        talk.a.restore(number, b"%d" % number)
    assert talk.a.next_number == 4
    assert chunks(talk.up()) == []
    talk.down()
    assert chunks(talk.up()) == [(2, 0)]
    talk.b.confirm(2)
    talk.b.confirm(3)
    talk.settle()
    assert talk.arrived == [b"1", b"3", b"2"]
    assert sorted(talk.a.acknowledged()) == [1, 2, 3]


def test_a_sender_without_memory_starts_a_higher_epoch_and_is_heard_at_once():
    talk = Conversation()
    talk.a.send(b"old")
    talk.settle()
    talk.a = Delivery(epoch=2, instance=12, limits=LIMITS)
    talk.a.send(b"new")
    talk.settle()
    assert talk.arrived == [b"old", b"new"]
    assert talk.b.received == Ledger(2, 1)


def test_a_sender_that_forgot_its_epoch_learns_it_and_renumbers():
    talk = Conversation()
    talk.b = Delivery(epoch=1, instance=21, received=Ledger(7, 40), limits=LIMITS)
    talk.a.send(b"one")
    talk.a.send(b"two", urgent=True)
    talk.up()
    talk.down()
    assert talk.a.epoch == 1  # an ack may be late; it asks
    talk.up()
    talk.down()
    assert talk.arrived == []
    assert talk.b.statistics.to_record()["refused_old_epoch"] == 2
    assert talk.a.epoch == 8
    assert talk.a.renumbered
    talk.a.send(b"three")
    assert chunks(talk.a.poll(talk.now)) == []  # not before the outbox has followed
    renumbered = [tuple(message) for message in talk.a.take_renumbered()]
    assert renumbered == [(1, b"one", False), (2, b"two", True), (3, b"three", False)]
    talk.settle()
    assert sorted(talk.arrived) == [b"one", b"three", b"two"]
    assert talk.a.next_number == 4


def test_a_stale_frame_of_an_old_epoch_is_refused():
    talk = Conversation()
    talk.a.send(b"old")
    stale = talk.up()
    talk.a = Delivery(epoch=2, instance=12, limits=LIMITS)
    talk.a.send(b"new")
    talk.settle()
    talk.up(frames=stale)
    assert talk.arrived == [b"old", b"new"]
    assert talk.b.statistics.refused == {"old epoch": 1}


def test_a_confirmation_for_a_stream_that_is_over_does_nothing():
    talk = Conversation(confirms=False)
    talk.a.send(b"old")
    talk.up()
    talk.a = Delivery(epoch=2, instance=12, limits=LIMITS)
    talk.a.send(b"new")
    talk.up()
    talk.b.confirm(1, epoch=1)
    assert 1 not in talk.b.received
    talk.b.confirm(1, epoch=2)
    assert 1 in talk.b.received


def test_a_receiver_whose_ledger_is_lost_takes_up_the_stream_where_it_is():
    talk = Conversation()
    for _ in range(5):
        talk.a.send(b"x")
        talk.settle()
    talk.b = Delivery(epoch=1, instance=22, limits=LIMITS)
    talk.a.send(b"six")
    talk.settle()
    assert talk.arrived[-1] == b"six"
    assert talk.b.received == Ledger(1, 6)
