from edge.gate import MARGIN_BYTES, WINDOW_BYTES, Caps, Gate
from edge.tcp_info import SocketBytes


def gate(**caps):
    found = Gate()
    found.set(Caps(**caps))
    return found


def test_without_caps_everything_fits():
    assert gate().fits(SocketBytes(sent=1 << 40, waiting=1 << 30), 1 << 20)
    assert not gate().overdrawn(SocketBytes(sent=1 << 40))


def test_a_packet_fits_with_its_headers_and_all_that_is_under_way_once_more():
    # 1000 bytes are one segment: 104 of headers for it and for the acknowledgement; 3000 under way are three and 208.
    needed = 5000 + 400 + (3000 + 52 * 3) + (1000 + 104) + MARGIN_BYTES
    counted = SocketBytes(sent=5000, headers_sent=400, waiting=3000)
    assert gate(up=needed).fits(counted, 1000)
    assert not gate(up=needed - 1).fits(counted, 1000)


def test_a_connection_is_given_up_while_all_under_way_could_still_be_sent_once_more():
    counted = SocketBytes(sent=5000, waiting=3000)
    assert not gate(up=8000 + MARGIN_BYTES // 2).overdrawn(counted)
    assert gate(up=7999 + MARGIN_BYTES // 2).overdrawn(counted)


def test_what_may_be_under_way_to_here_is_kept_free():
    counted = SocketBytes(received=1000, headers_received=200)
    assert not gate(down=1200 + WINDOW_BYTES).overdrawn(counted)
    assert gate(down=1199 + WINDOW_BYTES).overdrawn(counted)
    assert gate(down=1).window == WINDOW_BYTES
    assert gate(up=1).window == 0


def test_less_is_read_at_a_time_the_nearer_a_cap_is_and_nothing_behind_it():
    counted = SocketBytes(received=1000, headers_received=200)
    assert gate(up=1).readable(counted) is None
    assert gate(down=1200 + WINDOW_BYTES + 4000).readable(counted) == 1000
    assert gate(down=1200 + WINDOW_BYTES + 100).readable(counted) == 64
    assert gate(down=1200 + WINDOW_BYTES).readable(counted) == 0


def test_a_new_connection_needs_room_both_ways():
    assert gate(up=2000 + MARGIN_BYTES).carries(SocketBytes(), 2000)
    assert not gate(up=1999 + MARGIN_BYTES).carries(SocketBytes(), 2000)
    assert not gate(up=1 << 20, down=2000).carries(SocketBytes(), 2000)


def test_a_rate_saves_up_two_seconds_and_no_more():
    slow = gate(rate=1000.0)
    assert slow.wait(2000, now=50.0) == 0.0
    assert slow.wait(500, now=50.0) == 0.5
    assert slow.wait(500, now=50.5) == 0.0
    assert slow.wait(2000, now=100.0) == 0.0
    assert slow.wait(1, now=100.0) == 0.001


def test_a_packet_longer_than_the_savings_waits_until_it_is_paid():
    slow = gate(rate=1000.0)
    assert slow.wait(5000, now=0.0) == 0.0
    assert slow.wait(5000, now=1.0) == 4.0
    assert slow.wait(5000, now=5.0) == 0.0
