import pytest

from edge.wire.frames import Ack, Limits
from edge.wire.outbound import Outbound
from edge.wire.window import Window


def test_what_is_not_known_yet_holds_nothing_back():
    assert Window(128_000, 32_000, 5.0).bytes == 128_000


def test_five_of_the_shortest_round_trips_at_the_best_rate():
    window = Window(128_000, 1000, 5.0)
    window.landed(0.05, 100_000, now=0.0)
    assert window.bytes == pytest.approx(25_000, abs=1)
    window.landed(0.2, 200_000, now=1.0)
    assert window.bytes == pytest.approx(50_000, abs=1)


def test_a_stall_shrinks_nothing_for_ten_seconds():
    window = Window(128_000, 1000, 5.0)
    window.landed(0.05, 100_000, now=0.0)
    for second in range(1, 10):
        window.landed(1.0, 3_000, now=float(second))
        assert window.bytes == pytest.approx(25_000, abs=1)
    window.landed(1.0, 3_000, now=10.0)
    assert window.bytes == 1000  # 3 kB/s would be 750


def test_it_stays_between_its_bounds():
    window = Window(128_000, 32_000, 5.0)
    window.landed(0.05, 20_000, now=0.0)
    assert window.bytes == 32_000
    window.landed(0.05, 20_000_000, now=0.1)
    assert window.bytes == 128_000


def test_a_new_path_is_felt_out_anew():
    window = Window(128_000, 1000, 5.0)
    window.landed(0.05, 100_000, now=0.0)
    window.restart()
    assert window.bytes == 128_000


def test_a_burst_after_a_stall_came_no_faster_than_it_was_sent():
    out = Outbound(1, 1, Limits(chunk_bytes=100))  # frames of 128 bytes
    sent = 0
    for tenth in range(6):
        out.add(sent + 1, bytes(100), urgent=False)
        sent += len(list(out.due(tenth / 10)))
        if tenth == 1:
            out.land(128, out.take_ack(Ack(1, 7, 1))[1], 0.1)
    assert sent == 6
    out.land(5 * 128, out.take_ack(Ack(1, 7, 6))[1], 0.55)
    # Best by the third, sent after the news of 0.1 s: 5 * 128 bytes in 0.45 s. The last had a flight of 0.05 s only.
    assert out.window.bytes == int(5 * 5 * 128 / 0.45 * 0.05)
