import math

import pytest

from edge.wire.toml_fields import ConfigError
from hub.trial.traces import PacketPace, PacketTrace, RateTrace, SteppedPace, read_trace


def test_a_constant_rate_takes_its_time_and_one_after_the_other():
    pace = SteppedPace([0.0], [12_000.0])
    assert pace.carry(1500, 0.0) == (0.0, 1.0)
    assert pace.carry(750, 0.2) == (1.0, 1.5)
    assert pace.carry(1500, 5.0) == (5.0, 6.0)
    assert pace.rate(3.0) == 12_000


def test_a_packet_that_leaves_while_the_rate_changes():
    # 2 s at 4,000 bit/s carry 8,000 of 12,000 bits; the other 4,000 take 0.5 s at 8,000 bit/s.
    assert SteppedPace([0.0, 2.0], [4000.0, 8000.0]).carry(1500, 0.0) == (0.0, 2.5)


def test_a_rate_of_nothing_holds_packets_until_it_is_over():
    pace = SteppedPace([0.0, 10.0, 20.0], [0.0, 12_000.0, 0.0])
    assert pace.carry(1500, 3.0) == (3.0, 11.0)
    assert pace.carry(1500, 19.5) == (19.5, math.inf)
    assert pace.carry(1500, 30.0) == (math.inf, math.inf)


def test_no_limit_for_a_while():
    pace = SteppedPace([0.0, 10.0], [math.inf, 12_000.0])
    assert pace.carry(10**6, 3.0) == (3.0, 3.0)
    assert pace.carry(1500, 10.0) == (10.0, 11.0)


def test_a_rate_trace_begins_again():
    # Rounds of 2 s: one second at 12,000, one at 0 bit/s.
    pace = SteppedPace([0.0, 1.0], [12_000.0, 0.0], 2.0)
    assert pace.carry(1500, 0.5) == (0.5, 2.5)  # half in this round, half in the next
    assert pace.carry(1500 * 100, 4.0) == (4.0, 203.0)  # 100 rounds, and the last one's silence is not waited for
    assert [pace.rate(s) for s in (0.9, 1.0, 200.5, 201.5)] == [12_000, 0, 12_000, 0]


def test_a_packet_trace_lets_1500_bytes_go_at_each_of_its_moments():
    pace = PacketPace(PacketTrace((10, 10, 40)))
    assert pace.carry(1500, 0.0) == (0.010, 0.010)
    assert pace.carry(1500, 0.0) == (0.010, 0.010)
    assert pace.carry(1500, 0.0) == (0.040, 0.040)
    assert pace.carry(1500, 0.0) == (0.050, 0.050)  # 40 + 10: the trace begins again at its end


def test_small_packets_share_a_moment_and_large_ones_use_several():
    pace = PacketPace(PacketTrace((10, 20, 30)))
    assert pace.carry(500, 0.0) == (0.010, 0.010)
    assert pace.carry(1000, 0.0) == (0.010, 0.010)
    assert pace.carry(1600, 0.0) == (0.020, 0.030)
    assert pace.carry(1400, 0.0) == (0.030, 0.030)  # what the one before has left over
    assert pace.carry(100, 0.0) == (0.040, 0.040)


def test_a_moment_that_nobody_waited_for_is_gone():
    pace = PacketPace(PacketTrace((10, 20, 30)))
    assert pace.carry(100, 0.0) == (0.010, 0.010)
    assert pace.carry(1500, 0.011) == (0.020, 0.020)
    assert pace.carry(1500, 0.030) == (0.030, 0.030)  # the end of a round still belongs to it
    assert pace.carry(1500, 7.0301) == (7.040, 7.040)


def test_the_rate_of_a_packet_trace_is_what_leaves_in_a_second():
    assert PacketPace(PacketTrace((10, 10, 40))).rate(0.005) == 75 * 12_000  # 25 rounds of three
    assert PacketPace(PacketTrace((2000,))).rate(0.5) == 0


def written(tmp_path, text, name="t.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_rate_trace_is_read(tmp_path):
    trace = read_trace(written(tmp_path, "# ours\n time, rate,loss\n0,1000,0\n\n0.5,2e3,0.25\n"))
    assert trace == RateTrace((0.0, 0.5), (1000.0, 2000.0), (0.0, 0.25), 1.0)
    assert [trace.loss(s) for s in (0, 0.4, 0.5, 0.9, 1.0, 7.5)] == [0, 0, 0.25, 0.25, 0, 0.25]


def test_a_packet_trace_is_read(tmp_path):
    assert read_trace(written(tmp_path, "# ours\n0\n3\n3\n7\n", "t.down")) == PacketTrace((0, 3, 3, 7))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "must begin with the header time,rate,loss"),
        ("0,1,0\n", 'line 1: "0,1,0": must begin with the header time,rate,loss'),
        ("time,rate,loss\n", "must have rows, the first at time 0"),
        ("time,rate,loss\n1,1,0\n", "must have rows, the first at time 0"),
        ("time,rate,loss\n0,1\n", 'line 2: "0,1": must be three numbers: time, rate, loss'),
        ("time,rate,loss\n0,x,0\n", 'line 2: "0,x,0": must be three numbers: time, rate, loss'),
        ("time,rate,loss\n0,1,0\n0,1,0\n", "line 3: time 0 must be above that of the row before"),
        ("time,rate,loss\n0,-1,0\n", "line 2: rate -1 must be a number of bit/s of at least 0"),
        ("time,rate,loss\n0,nan,0\n", "line 2: rate nan must be a number of bit/s of at least 0"),
        ("time,rate,loss\n0,1,1.5\n", "line 2: loss 1.5 must be a share from 0 to 1"),
        ("time,rate,loss\n0,0,0\n1,0,0\n", "every rate is 0: must have one above 0, for nothing would ever pass"),
    ],
)
def test_a_mistake_in_a_rate_trace_is_told_in_a_sentence(tmp_path, text, sentence):
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_trace(path)
    assert str(caught.value).removeprefix(str(path)).lstrip(": ") == sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("5\n1.5\n", 'line 2: "1.5": must be a whole number of milliseconds'),
        ("5\n-1\n", 'line 2: "-1": must be a whole number of milliseconds'),
        ("5\n4\n", "line 2: 4 comes after 5: milliseconds must not go back"),
        ("", "must have a line above 0, for the last one is the length of the trace"),
        ("0\n0\n", "must have a line above 0, for the last one is the length of the trace"),
    ],
)
def test_a_mistake_in_a_packet_trace_is_told_in_a_sentence(tmp_path, text, sentence):
    path = written(tmp_path, text, "t.up")
    with pytest.raises(ConfigError) as caught:
        read_trace(path)
    assert str(caught.value).removeprefix(str(path)).lstrip(": ") == sentence
