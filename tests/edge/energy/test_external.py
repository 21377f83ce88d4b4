"""An external meter: lines of `time watts` on each of its ports, and what goes wrong with them."""

import os
import socket
import tty

import pytest

from edge.energy import Integrator
from edge.energy.external import AGAIN_SECONDS, SILENT_SECONDS, ExternalMeter
from edge.energy.ports import open_port
from edge.files import UnreadableError

EARLY = b"99.9 9.9\n"  # the first line that is heard may be the rest of one, and does not count


class Wire:
    """A port whose bytes the test puts there, and a clock."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = EARLY + data
        self.time = 1000.0
        self.gone = False
        self.opened = 0

    def read(self) -> bytes:
        if self.gone:
            raise UnreadableError("tcp://meter:1 has hung up")
        data, self.data = self.data, b""
        return data

    def close(self) -> None:
        pass

    def open(self, address: str) -> "Wire":
        self.opened += 1
        if self.opened > 1 and self.gone:
            raise UnreadableError(f"{address} cannot be opened: Connection refused")
        return self

    def now(self) -> float:
        return self.time

    def integrator(self) -> Integrator:
        return Integrator(ExternalMeter("tcp://meter:1", now=self.now, sleep=lambda _: None, open_port=self.open), "")

    def says(self, integrator: Integrator, seconds: float, data: bytes = b""):
        self.time += seconds
        self.data += data
        return integrator.advance(self.time)


def test_joules_are_those_of_the_meters_own_times(tmp_path):
    wire = Wire(b"5.0 2.0\n")
    integrator = wire.integrator()
    begin = integrator.advance(wire.time)
    # A ramp from 2 W to 6 W over 4 s, which comes late and all at once.
    end = wire.says(integrator, 4.0, b"6.0 3.0\n7.0 4.0\n8.0 5.0\n9.0 6.0\n")
    energy = integrator.between(begin, end)
    assert energy.joules == pytest.approx(16)
    assert (energy.kind, energy.source, energy.reason) == ("metered", "meter at tcp://meter:1", None)


def test_between_two_lines_the_last_power_holds_and_the_next_line_puts_it_right():
    wire = Wire(b"0 4.0\n")
    integrator = wire.integrator()
    marks = [integrator.advance(wire.time), wire.says(integrator, 0.5), wire.says(integrator, 0.5, b"1 8.0\n")]
    assert marks[1].joules == pytest.approx(2.0, abs=0.01)
    assert marks[2].joules == pytest.approx(6.0, abs=0.01)


def test_a_swinging_power_in_ragged_deliveries_integrates_within_half_a_percent():
    wire = Wire(b"0.0 5.0\n")
    integrator = wire.integrator()
    begin, joules, watts = integrator.advance(wire.time), 0.0, 5.0
    for tenth in range(1, 601):
        now = 5.0 + 2.0 * ((tenth // 7) % 3)
        joules, watts = joules + (watts + now) / 2 * 0.1, now
        line = f"{tenth / 10:.1f} {now}\n".encode()
        end = wire.says(integrator, 0.1, line[:3]) if tenth % 2 else wire.says(integrator, 0.1, line)
        wire.data += line[3:] if tenth % 2 else b""
    energy = integrator.between(begin, end)
    assert energy.joules == pytest.approx(joules, rel=0.005)
    assert abs(energy.joules - joules) < energy.uncertainty_joules


def test_comments_are_left_out_and_units_of_ten_set_the_step():
    wire = Wire(b"# a meter of mine\n0 2.00\n")
    integrator = wire.integrator()
    begin = integrator.advance(wire.time)
    for second in range(1, 11):
        end = wire.says(integrator, 1.0, b"# still here\r\n%d 2.00\r\n" % second)
    energy = integrator.between(begin, end)
    assert energy.joules == pytest.approx(20)
    assert energy.uncertainty_joules == pytest.approx(2 * 0.01 / 12**0.5 * 10)


def test_clocks_that_drift_apart_stay_tied():
    wire = Wire(b"0 2.0\n")
    integrator = wire.integrator()
    integrator.advance(wire.time)
    mark = None
    for n in range(1, 21600):  # a day at 100 parts in a million: 8.6 s
        mark = wire.says(integrator, 4.0, b"%.4f 2.0\n" % (4 * n * 0.9999))
        assert not mark.failed, integrator.failure
    assert mark.joules == pytest.approx(2 * 4 * 21599, rel=0.001)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"1.0 four\n", "meter at tcp://meter:1 says b'1.0 four', not `time watts`"),
        (b"1.0\n", "meter at tcp://meter:1 says b'1.0', not `time watts`"),
        (b"1.0 2 3\n", "meter at tcp://meter:1 says b'1.0 2 3', not `time watts`"),
        (b"1.0 40000\n", "meter at tcp://meter:1 reads 40000 W, beyond the 1000 W that are credible"),
        (b"1.0 nan\n", "meter at tcp://meter:1 reads nan W, beyond the 1000 W that are credible"),
        (b"nan 2\n", "meter at tcp://meter:1 jumped in time from 0 s to nan s"),
        (b"-3 2\n", "meter at tcp://meter:1 jumped in time from 0 s to -3 s"),
        (b"3600 2\n", "meter at tcp://meter:1 jumped in time from 0 s to 3600 s"),
        (b"1" * 300, "meter at tcp://meter:1 sends lines longer than 200 bytes"),
    ],
)
def test_a_line_that_makes_no_sense_voids_the_window_and_not_the_next(line, reason):
    wire = Wire(b"0 2.0\n")
    integrator = wire.integrator()
    marks = [integrator.advance(wire.time), wire.says(integrator, 1.0, line)]
    assert integrator.between(*marks).reason == reason
    wire.says(integrator, 1.0, b"\n10 3.0\n11 3.0\n")
    after = [wire.says(integrator, 1.0, b"12 3.0\n"), wire.says(integrator, 1.0, b"13 3.0\n")]
    assert integrator.between(*after).joules == pytest.approx(3)


def test_silence_is_missing_and_not_the_last_power():
    wire = Wire(b"0 2.0\n")
    integrator = wire.integrator()
    marks = [integrator.advance(wire.time), wire.says(integrator, SILENT_SECONDS + 1)]
    energy = integrator.between(*marks)
    assert (energy.joules, energy.reason) == (None, "meter at tcp://meter:1 has been silent for 6.0 s")


def test_a_meter_that_hangs_up_is_opened_again_after_a_while():
    wire = Wire(b"0 2.0\n")
    integrator = wire.integrator()
    wire.gone = True
    assert wire.says(integrator, 1.0).failed
    assert integrator.failure == "tcp://meter:1 has hung up"
    assert wire.says(integrator, 1.0).failed
    assert (integrator.failure, wire.opened) == ("meter at tcp://meter:1 has gone", 1)
    assert wire.says(integrator, AGAIN_SECONDS).failed
    assert (integrator.failure, wire.opened) == ("tcp://meter:1 cannot be opened: Connection refused", 2)
    wire.gone = False
    wire.says(integrator, AGAIN_SECONDS, EARLY + b"50 2.0\n")
    begin, end = wire.says(integrator, 1.0, b"51 2.0\n"), wire.says(integrator, 1.0, b"52 2.0\n")
    assert integrator.between(begin, end).joules == pytest.approx(2)


def test_a_meter_that_says_nothing_is_not_taken():
    with pytest.raises(UnreadableError, match="meter at tcp://meter:1 said nothing in 5 s"):
        Wire().integrator()


# Ports ----------------------------------------------------------------------------------------------------------


def heard(address: str, write) -> list[float]:
    """Opens an address, lets lines be written, and returns what the meter tells of two windows."""
    time = [0.0]

    def sleep(seconds: float) -> None:
        time[0] += seconds
        write(EARLY + b"0.0 2.0\n")

    meter = ExternalMeter(address, now=lambda: time[0], sleep=sleep)
    meter.joules_since(0.0)
    joules = []
    for second in (1, 2):
        time[0] += 1.0
        write(b"%d.0 2.0\n" % second)
        joules.append(meter.joules_since(1.0))
    meter.close()
    return joules


def test_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "power")
    ours = os.open(tmp_path / "power", os.O_RDWR)
    assert heard(f"pipe:{tmp_path}/power", lambda data: os.write(ours, data)) == pytest.approx([2, 2], abs=0.1)
    os.close(ours)


def test_a_file_that_grows_begins_at_its_end(tmp_path):
    path = tmp_path / "power.txt"
    path.write_bytes(b"1.0 900.0\n" * 100)
    with path.open("ab", buffering=0) as file:
        assert heard(f"pipe:{path}", file.write) == pytest.approx([2, 2], abs=0.1)


def test_a_serial_port():
    master, slave = os.openpty()
    tty.setraw(slave)
    assert heard(f"serial:{os.ttyname(slave)}@9600", lambda data: os.write(master, data)) == pytest.approx(
        [2, 2], abs=0.1
    )
    os.close(master)
    os.close(slave)


def test_a_tcp_address():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        links = []

        def write(data: bytes) -> None:
            if not links:
                links.append(server.accept()[0])
            links[0].sendall(data)

        # A byte on the loopback is there at once, or with the next reading, which then has both seconds.
        assert sum(heard(f"tcp://127.0.0.1:{port}", write)) == pytest.approx(4, abs=0.1)
        links[0].close()


def test_ports_that_cannot_be_opened_say_why(tmp_path):
    with pytest.raises(UnreadableError, match=r"pipe:/.*/none cannot be opened: No such file or directory"):
        open_port(f"pipe:{tmp_path}/none")
    (tmp_path / "file").write_text("")
    with pytest.raises(UnreadableError, match="cannot be opened: Inappropriate ioctl for device"):
        open_port(f"serial:{tmp_path}/file@9600")
    with pytest.raises(UnreadableError, match="this system's serial ports know no 12345 baud"):
        open_port(f"serial:{tmp_path}/file@12345")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(UnreadableError, match=f"tcp://127.0.0.1:{port} cannot be opened: Connection refused"):
        open_port(f"tcp://127.0.0.1:{port}")
