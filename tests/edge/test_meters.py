import json
import os
import threading
import time
from pathlib import Path

import pytest

from edge.energy import Files
from edge.energy.config import EnergyConfig
from edge.meters import SEEN, SINCE_BEGIN, SINCE_START, Measurement, Meter, temperature

POWER = "sys/class/hwmon/hwmon0/power1_input"
MIB = 2**20


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def put(root: Path, files: dict[str, object]) -> None:
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"{content}\n")


def sensor(root: Path, microwatts: int = 2_000_000) -> None:
    put(root, {"sys/class/hwmon/hwmon0/name": "ina219", POWER: microwatts, "sys/class/hwmon/hwmon0/label": "5V"})


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def meter(tmp_path, clock):
    sensor(tmp_path)
    return Meter(tmp_path, clock)


def test_a_window_has_the_seconds_of_the_clock_and_the_joules_of_the_sensor(meter, clock):
    meter.begin("round")
    clock.time += 5
    cost = meter.end("round")
    assert (cost.window, cost.seconds) == ("round", 5)
    assert cost.energy.joules == pytest.approx(10)
    assert (cost.energy.kind, cost.energy.source) == ("sensor", "hwmon 5V")


def test_cpu_seconds_are_those_of_this_process(clock, tmp_path):
    meter = Meter(tmp_path, clock)
    meter.begin("busy")
    before = os.times()
    while sum(os.times()[:2]) - sum(before[:2]) < 0.05:
        sum(range(10000))
    assert meter.end("busy").cpu_seconds >= 0.03  # the kernel's ticks are 10 ms


def test_nested_and_overlapping_windows_each_get_the_whole(tmp_path, meter, clock):
    meter.begin("a")
    clock.time += 1  # 2 W
    meter.begin("b")
    clock.time += 1
    sensor(tmp_path, 4_000_000)  # rises from 2 W to 4 W during this second
    a = meter.end("a")
    clock.time += 1  # 4 W
    b = meter.end("b")
    assert (a.seconds, b.seconds) == (2, 2)
    assert a.energy.joules == pytest.approx(2 + 3)
    assert b.energy.joules == pytest.approx(3 + 4)


def test_what_happens_between_windows_belongs_to_none(tmp_path, meter, clock):
    for _ in range(2):
        meter.begin("a")
        clock.time += 1
        assert meter.end("a").energy.joules == pytest.approx(2)
        clock.time += 1000


def test_a_long_pause_between_windows_does_not_void_the_next(tmp_path, clock):
    zone = "sys/class/powercap/intel-rapl:0"
    put(tmp_path, {f"{zone}/name": "package-0", f"{zone}/energy_uj": 0, f"{zone}/max_energy_range_uj": 65_532_610_987})
    meter = Meter(tmp_path, clock)
    for start in (0, 7_000_000):
        put(tmp_path, {f"{zone}/energy_uj": start})
        meter.begin("a")
        clock.time += 1
        put(tmp_path, {f"{zone}/energy_uj": start + 5_000_000})
        assert meter.end("a").energy.joules == pytest.approx(5)
        clock.time += 3600


def test_sampling_in_the_loop_sees_what_the_ends_do_not(tmp_path, meter, clock):
    meter.begin("a")
    for microwatts in (2, 10, 10, 2):
        clock.time += 1
        sensor(tmp_path, microwatts * 1_000_000)
        meter.sample()
        meter.sample()  # not due again: no second reading
    cost = meter.end("a")
    assert cost.energy.joules == pytest.approx(2 + 6 + 10 + 6)
    assert cost.energy.resolution == "6 readings in 4 s"


def test_the_thread_samples_while_the_loop_is_at_work(tmp_path):
    sensor(tmp_path)
    readings, enough = [], threading.Event()

    def read(path: Path) -> str:
        readings.append(path)
        if len(readings) > 40:
            enough.set()
        return path.read_text()

    with Meter(tmp_path, read=read, sample_seconds=0.001) as meter:
        meter.begin("a")
        assert enough.wait(30)
        cost = meter.end("a")
    assert cost.energy.joules == pytest.approx(2 * cost.seconds, rel=0.005)
    assert "meter" not in {thread.name for thread in threading.enumerate()}


def test_without_a_sensor_there_is_no_thread_and_a_reason(tmp_path, clock):
    with Meter(tmp_path, clock) as meter:
        assert "meter" not in {thread.name for thread in threading.enumerate()}
        meter.begin("a")
        energy = meter.end("a").energy
    assert (energy.joules, energy.kind) == (None, None)
    assert str(energy.reason).startswith("no meter: no RAPL under /sys/class/powercap, no power sensor under ")


def test_names_are_kept_apart(meter):
    meter.begin("a")
    with pytest.raises(ValueError, match="window 'a' is open already"):
        meter.begin("a")
    with pytest.raises(ValueError, match="window 'b' is not open; open: a"):
        meter.end("b")
    meter.end("a")
    with pytest.raises(ValueError, match="window 'a' is not open; open: none"):
        meter.end("a")


# Memory ---------------------------------------------------------------------------------------------------------


def status(root: Path, mib: int) -> None:
    put(root, {"proc/self/status": f"Name:\tpython\nVmHWM:\t{mib * 1024:8} kB\nVmRSS:\t   1 kB"})


def test_the_peak_is_reset_for_each_window_and_kept_for_those_around_it(tmp_path, clock):
    big = 1024 * 1024  # more than any real process here, so that the resident size does not interfere
    put(tmp_path, {"proc/self/clear_refs": ""})
    status(tmp_path, big + 50)
    meter = Meter(tmp_path, clock)
    status(tmp_path, big)  # the kernel's own reset, when 5 is written
    meter.begin("outer")
    assert (tmp_path / "proc/self/clear_refs").read_text().startswith("5")
    status(tmp_path, big + 90)
    meter.begin("inner")
    status(tmp_path, big + 20)
    inner, outer = meter.end("inner"), meter.end("outer")
    assert outer.peak_rss_bytes == (big + 90) * MIB
    assert inner.peak_rss_source == outer.peak_rss_source == SINCE_BEGIN


def test_where_the_reset_is_not_permitted_the_source_says_so(tmp_path, clock):
    status(tmp_path, 2**20)
    meter = Meter(tmp_path, clock)
    meter.begin("a")
    cost = meter.end("a")
    assert (cost.peak_rss_bytes, cost.peak_rss_source) == (2**20 * MIB, SINCE_START)
    assert not (tmp_path / "proc/self/clear_refs").exists()


def test_without_vmhwm_the_largest_size_seen_is_given_as_that(meter):
    meter.begin("a")
    cost = meter.end("a")
    assert cost.peak_rss_source == SEEN
    assert cost.peak_rss_bytes >= cost.rss_bytes > MIB


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="this kernel does not let VmHWM be reset")
def test_on_this_machine_a_big_allocation_is_seen_by_its_window_only():
    meter = Meter()
    meter.begin("before")
    meter.end("before")
    meter.begin("big")
    block = bytearray(os.urandom(1)) * (64 * MIB)
    size = len(block)
    del block
    big = meter.end("big")
    meter.begin("after")
    after = meter.end("after")
    assert big.peak_rss_bytes - after.peak_rss_bytes > 0.9 * size
    assert 0 < int(after.uss_bytes or 0) <= after.rss_bytes


def test_what_stays_allocated_is_the_windows_own_share():
    meter = Meter()
    meter.begin("load")
    block = bytearray(os.urandom(1)) * (64 * MIB)
    loaded = meter.end("load")
    if loaded.uss_bytes is None:
        pytest.skip("this kernel does not tell of unshared memory")
    meter.begin("free")
    del block
    assert loaded.uss_grown_bytes == pytest.approx(64 * MIB, rel=0.2)
    assert meter.end("free").uss_grown_bytes < -50 * MIB


# Temperature, reports -------------------------------------------------------------------------------------------


def thermal(root: Path, *zones: tuple[str, object]) -> None:
    for n, (kind, value) in enumerate(zones):
        put(root, {f"sys/class/thermal/thermal_zone{n}/type": kind, f"sys/class/thermal/thermal_zone{n}/temp": value})


def test_the_temperature_is_the_processors(tmp_path):
    thermal(tmp_path, ("wifi", 70000), ("cpu-thermal", 48312))
    seen = temperature(Files(tmp_path))
    assert seen.celsius == pytest.approx(48.312)
    assert seen.source == "/sys/class/thermal/thermal_zone1/temp (cpu-thermal)"


def test_without_a_processor_zone_the_temperature_is_missing_with_a_reason(tmp_path):
    assert temperature(Files(tmp_path)).reason == "no processor zone under /sys/class/thermal"
    thermal(tmp_path, ("battery", 30000))
    seen = temperature(Files(tmp_path))
    assert (seen.celsius, seen.reason) == (None, "no processor zone under /sys/class/thermal: only battery")
    thermal(tmp_path, ("cpu-thermal", "?"))
    assert temperature(Files(tmp_path)).reason == "/sys/class/thermal/thermal_zone0/temp holds '?', not a whole number"


def test_a_report_is_plain_json_with_every_figure_and_its_source(tmp_path, meter, clock):
    thermal(tmp_path, ("x86_pkg_temp", 51000))
    meter.begin("a")
    clock.time += 2
    cost = meter.end("a")
    record = json.loads(json.dumps(cost.to_record()))
    assert isinstance(cost, Measurement)
    assert record["temperature_celsius"] == cost.temperature_celsius == 51
    assert record["energy"] == {
        "joules": 4.0, "unit": "J", "kind": "sensor", "source": "hwmon 5V", "reason": None, "hertz": 0.5, "seconds": 2.0,
        "resolution": "2 readings in 2 s", "too_short": False, "idle_watts": None, "above_idle_joules": None,
        "uncertainty_joules": pytest.approx(2 * 0.02 * 2 / 12**0.5),  # an INA219 over 10 mOhm has steps of 20 mW
    }  # fmt: skip
    assert {"seconds", "cpu_seconds", "peak_rss_bytes", "peak_rss_source", "rss_bytes", "uss_bytes"} < record.keys()


# Baseline and the cost of sampling ------------------------------------------------------------------------------


def test_an_idle_baseline_stands_beside_every_later_window(meter, clock, tmp_path):
    def wait(seconds: float) -> None:
        clock.time += seconds

    assert meter.take_baseline(10, wait).joules == pytest.approx(20)
    meter.begin("a")
    sensor(tmp_path, 6_000_000)
    clock.time += 4
    energy = meter.end("a").energy
    assert (energy.idle_watts, energy.joules) == (pytest.approx(2), pytest.approx(16))
    assert energy.above_idle_joules == pytest.approx(16 - 8)


def test_a_baseline_that_is_too_short_or_not_measured_is_none(tmp_path, meter, clock):
    assert meter.take_baseline(0.0, lambda _: None).joules is None
    meter.begin("a")
    clock.time += 1
    assert meter.end("a").energy.above_idle_joules is None


def test_the_cpu_time_of_reading_is_counted_and_is_not_that_of_the_work(tmp_path, clock):
    sensor(tmp_path)

    def slow(path: Path) -> str:
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            sum(range(1000))
        return path.read_text()

    meter = Meter(tmp_path, clock, read=slow)
    meter.begin("a")
    for _ in range(5):
        clock.time += 1
        meter.sample()
    busy = time.thread_time() + 0.5
    while time.thread_time() < busy:
        sum(range(1000))
    cost = meter.end("a")
    assert 6 * 0.02 <= cost.sampling_cpu_seconds < 0.5  # at both ends and four between
    assert cost.sampling_share == pytest.approx(cost.sampling_cpu_seconds / 5)


def test_the_cpu_time_of_the_thread_is_counted(tmp_path):
    sensor(tmp_path)
    readings, enough = [], threading.Event()

    def read(path: Path) -> str:
        end = time.thread_time() + 0.005
        while time.thread_time() < end:
            sum(range(1000))
        if path.name == "power1_input" and threading.current_thread().name == "meter":
            readings.append(path)
            if len(readings) > 10:
                enough.set()
        return path.read_text()

    with Meter(tmp_path, read=read, sample_seconds=0.001) as meter:
        meter.begin("a")
        assert enough.wait(30)
        assert meter.end("a").sampling_cpu_seconds >= 10 * 0.005


def test_programs_that_a_source_starts_are_counted_too(tmp_path, clock):
    program = tmp_path / "vcgencmd"
    program.write_text(
        "#!/bin/sh\ni=0; while [ $i -lt 20000 ]; do i=$((i+1)); done\n"
        "echo 'A_A current(0)=1.0A'; echo 'A_V volt(1)=2.0V'\n"
    )
    program.chmod(0o755)
    meter = Meter(tmp_path, clock, config=EnergyConfig(source="pmic", vcgencmd=str(program)))
    meter.begin("a")
    clock.time += 10
    cost = meter.end("a")
    assert cost.energy.joules == pytest.approx(20)
    assert cost.sampling_cpu_seconds > 0.005


def test_a_meter_that_is_closed_gives_its_port_back(tmp_path):
    os.mkfifo(tmp_path / "power")
    with (tmp_path / "power").open("r+b", buffering=0) as ours:
        ours.write(b"0 2.0\n0.1 2.0\n")
        meter = Meter(tmp_path, config=EnergyConfig(source="meter", meter=f"pipe:{tmp_path}/power"))
        assert meter.missing_energy == ""
        before = len(list(Path("/proc/self/fd").iterdir()))
        meter.close()
        assert len(list(Path("/proc/self/fd").iterdir())) == before - 1
