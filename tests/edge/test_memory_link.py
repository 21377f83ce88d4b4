import pytest

from edge.link import Connected, Disconnected, LinkError, Message
from edge.memory_link import SOURCE, MemoryBroker, MemoryLink

WILL = ("f/d/status", b"offline")


def pair(broker, **options):
    device = MemoryLink(broker, "d", will=WILL, subscriptions=["f/d/down"])
    hub = MemoryLink(broker, "h", subscriptions=["f/+/up", "f/+/status"])
    for link in (device, hub):
        link.open()
        link.poll(0)
    return device, hub


def payloads(link):
    return [event.payload for event in link.poll(0) if isinstance(event, Message)]


def test_messages_reach_who_subscribed():
    device, hub = pair(MemoryBroker())
    device.publish("f/d/up", b"1")
    hub.publish("f/d/down", b"2")
    hub.publish("f/other/down", b"3")
    assert hub.poll(0) == [Message("f/d/up", b"1")]
    assert device.poll(0) == [Message("f/d/down", b"2")]
    assert device.poll(0) == []
    assert (device.counters().sent, device.counters().received) == (1, 1)


def test_a_pattern_of_losses_repeats_itself():
    broker = MemoryBroker(loss=(0, 0, 1))
    device, hub = pair(broker)
    for number in range(7):
        device.publish("f/d/up", b"%d" % number)
    assert payloads(hub) == [b"0", b"1", b"3", b"4", b"6"]
    assert broker.lost == 2


def test_copies_and_latecomers():
    device, hub = pair(MemoryBroker(repeats=(1, 0, 0), delays=(0, 2, 0)))
    for number in range(5):
        device.publish("f/d/up", b"%d" % number)
    assert payloads(hub) == [b"0", b"0", b"2", b"3", b"3", b"1"]


def test_retained_messages_wait_for_those_who_come_later():
    broker = MemoryBroker(loss=(1,))
    device, _ = pair(broker)
    device.publish("f/d/status", b"online", retain=True)
    late = MemoryLink(broker, "late", subscriptions=["f/#"])
    late.open()
    assert late.poll(0) == [Connected(), Message("f/d/status", b"online")]


def test_who_vanishes_leaves_a_will_and_comes_back():
    device, hub = pair(MemoryBroker())
    device.break_off()
    assert not device.connected
    assert hub.poll(0) == [Message(*WILL)]
    with pytest.raises(LinkError, match="not connected"):
        device.publish("f/d/up", b"x")
    device.open()
    assert device.poll(0) == [Disconnected("connection lost"), Connected()]


def test_a_second_client_of_the_same_name_takes_the_session_over():
    broker = MemoryBroker()
    device, _ = pair(broker)
    MemoryLink(broker, "d").open()
    (event,) = device.poll(0)
    assert event.reason.startswith("session taken over")


def test_a_wiped_broker_forgets_everything():
    broker = MemoryBroker()
    device, hub = pair(broker)
    device.publish("f/d/status", b"online", retain=True)
    broker.wipe()
    assert not device.connected
    assert not hub.connected
    assert broker.retained == {}


def test_what_is_too_long_is_refused_at_the_link():
    device, _ = pair(MemoryBroker(maximum_packet_bytes=10))
    with pytest.raises(LinkError, match="11 bytes on f/d/up: the broker takes 10"):
        device.publish("f/d/up", bytes(11))


def test_who_comes_later_hears_what_others_have_heard_all_along_and_who_goes_no_more():
    broker = MemoryBroker()
    device, hub = pair(broker)
    device.publish("f/d/up", b"1")
    late = MemoryLink(broker, "late", subscriptions=["f/+/up"])
    late.open()
    late.poll(0)
    device.publish("f/d/up", b"2")
    hub.break_off()
    hub.poll(0)
    device.publish("f/d/up", b"3")
    assert payloads(late) == [b"2", b"3"]
    assert payloads(hub) == []


def test_one_can_see_whether_something_waits():
    device, hub = pair(MemoryBroker())
    assert not hub.waiting
    device.publish("f/d/up", b"1")
    assert hub.waiting
    hub.poll(0)
    assert not hub.waiting


def test_the_count_says_that_it_is_no_sockets():
    device, _ = pair(MemoryBroker())
    assert device.counters().source == SOURCE
