from math import cos, pi, sin

import pytest

from edge.energy import Energy, Files, Integrator, find
from edge.energy.rapl import COUNTER_SECONDS
from tests.edge.energy.trees import (
    CAP,
    HWMON,
    NO_BATTERY,
    NO_HWMON,
    NO_RAPL,
    SUPPLY,
    batteries,
    ina226,
    ina3221,
    window,
    zone,
)  # fmt: skip

# RAPL -----------------------------------------------------------------------------------------------------------


def test_rapl_sums_packages_and_leaves_out_parts_the_platform_and_the_second_door_to_package_0(board):
    def counters(t: float) -> dict[str, object]:
        names = {"intel-rapl:0": "package-0", "intel-rapl:1": "package-1", "intel-rapl:2": "psys"}
        names |= {"intel-rapl:0:0": "core", "intel-rapl:0:1": "dram", "intel-rapl-mmio:0": "package-0"}
        rate = {"intel-rapl:0": 20, "intel-rapl:1": 15}
        return {
            k: v
            for name, label in names.items()
            for k, v in zone(name, label, int(1e6 * t * rate.get(name, 90))).items()
        }

    board.put(counters(0))
    energy = window(board, 4, counters, step=1)
    assert energy.joules == pytest.approx(4 * (20 + 15))
    assert (energy.kind, energy.source) == ("sensor", "RAPL package-0, package-1 (CPU only, not the board)")
    assert (energy.reason, energy.resolution) == (None, "5 readings in 4 s")


def test_rapl_goes_on_where_its_counter_starts_over(board):
    most = 65_532_610_987  # a 32-bit counter at 2^-16 J

    def counter(t: float) -> dict[str, object]:
        return zone("intel-rapl:0", "package-0", (most - 30_000_000 + int(10e6 * t)) % most, most)

    board.put(counter(0))
    assert window(board, 20, counter, step=4).joules == pytest.approx(200)


def test_rapl_says_when_it_may_have_wrapped_twice_unseen(board):
    def counter(t: float) -> dict[str, object]:
        return zone("intel-rapl:0", "package-0", int(10e6 * t), 65_532_610_987)

    board.put(counter(0))
    energy = window(board, 70, counter, step=70)
    assert (energy.joules, energy.kind) == (None, None)
    assert energy.reason == f"/{CAP}/intel-rapl:0/energy_uj was not read for 70 s and may have wrapped more than once"
    assert window(board, 70, counter, step=COUNTER_SECONDS).joules == pytest.approx(700)


def test_rapl_that_jumps_back_is_a_fault_and_not_a_wrap(board):
    def counter(t: float) -> dict[str, object]:
        return zone("intel-rapl:0", "package-0", 50_000_000 if t < 1 else 0)

    board.put(counter(0))
    energy = window(board, 2, counter, step=1)
    assert energy.joules is None
    assert energy.reason == f"/{CAP}/intel-rapl:0/energy_uj jumped by 262093 J in 1 s"


def test_a_counter_that_stands_still_is_missing_and_not_zero(board):
    board.put(zone("intel-rapl:0", "package-0", 0))
    energy = window(board, 3, lambda _: {}, step=1)
    assert energy.joules is None
    assert energy.reason == (
        "RAPL package-0 (CPU only, not the board) did not move in 3 s: the window is too short, or the sensor is not live"
    )


def test_denied_permission_names_the_file_and_what_it_wants(board):
    board.put(zone("intel-rapl:0", "package-0", 1))
    board.refusing[f"{CAP}/intel-rapl:0/energy_uj"] = PermissionError(13, "Permission denied")
    integrator = board.integrator()
    energy = integrator.between(integrator.advance(0), integrator.advance(1))
    wanted = f"/{CAP}/intel-rapl:0/energy_uj wants read permission (it is often root's alone; a udev rule can grant it)"
    assert energy == Energy(reason=f"no meter: {wanted}, {NO_HWMON}, {NO_BATTERY}")


def test_a_folder_that_is_closed_to_us_is_not_taken_for_a_board_without_the_sensor():
    class Closed:
        def __truediv__(self, path):
            return self

        def exists(self):
            raise PermissionError(13, "Permission denied")

    assert Files(Closed()).exists("sys/class/hwmon/hwmon0/name")


def test_where_rapl_is_denied_the_next_source_is_taken(board):
    board.put(zone("intel-rapl:0", "package-0", 1) | ina226("hwmon0", 1_000_000, "VIN"))
    board.refusing[f"{CAP}/intel-rapl:0/energy_uj"] = PermissionError(13, "Permission denied")
    assert window(board, 1, lambda _: {}).source == "hwmon VIN"


# hwmon ----------------------------------------------------------------------------------------------------------


def test_a_constant_power_gives_watts_times_seconds(board):
    board.put(ina226("hwmon3", 2_500_000, "5V"))
    energy = window(board, 4, lambda _: {})
    assert energy.joules == pytest.approx(10)
    assert (energy.kind, energy.source, energy.reason) == ("sensor", "hwmon 5V", None)
    assert (energy.resolution, energy.hertz, energy.seconds) == (
        "41 readings in 4 s",
        pytest.approx(10),
        pytest.approx(4),
    )


def test_a_swinging_power_integrates_within_half_a_percent(board):
    def power(t: float) -> dict[str, object]:
        return {f"{HWMON}/hwmon0/power1_input": round(1e6 * (3 + 2 * sin(2 * pi * t / 1.7)))}

    board.put(ina226("hwmon0", 0))
    known = 3 * 5 + 2 * 1.7 / (2 * pi) * (1 - cos(2 * pi * 5 / 1.7))
    assert window(board, 5, power).joules == pytest.approx(known, rel=0.005)


def test_a_ramp_read_at_uneven_times_is_exact(board):
    board.put(ina226("hwmon0", 0))
    integrator = board.integrator()
    marks = []
    for t in (0.0, 0.3, 1.0, 1.1, 4.0):
        board.put({f"{HWMON}/hwmon0/power1_input": round(2e6 * t)})
        marks.append(integrator.advance(t))
    assert integrator.between(marks[0], marks[-1]).joules == pytest.approx(16)  # ∫ 2t dt from 0 to 4
    assert integrator.between(marks[1], marks[2]).joules == pytest.approx(1 - 0.09)


def test_volts_times_amperes_of_the_channels_that_are_on(board):
    board.put(ina3221("hwmon1", ("VDD_GPU", 5000, 400), ("VDD_CPU", 5000, 600), ("NC", 5000, 9000)))
    board.put({f"{HWMON}/hwmon1/in3_enable": 0})
    energy = window(board, 2, lambda _: {})
    assert energy.joules == pytest.approx(2 * (2 + 3))
    assert energy.source == "hwmon VDD_GPU, VDD_CPU"


def test_the_rail_that_feeds_the_others_is_not_added_to_them(board):
    board.put(ina3221("hwmon1", ("VDD_IN", 5000, 1000), ("VDD_CPU_GPU_CV", 5000, 400), ("VDD_SOC", 5000, 300)))
    energy = window(board, 2, lambda _: {})
    assert (energy.joules, energy.source) == (pytest.approx(10), "hwmon VDD_IN")


def test_a_missing_rail_leaves_the_others(board):
    board.put(ina3221("hwmon1", ("A", 5000, 400), ("B", 5000, 600)))
    (board.root / f"{HWMON}/hwmon1/curr1_input").unlink()
    energy = window(board, 2, lambda _: {})
    assert (energy.joules, energy.source) == (pytest.approx(6), "hwmon B")


def test_chips_are_summed_and_named_by_channel_where_they_have_no_label(board):
    board.put(ina226("hwmon2", 1_000_000) | ina226("hwmon10", 2_000_000, "radio"))
    energy = window(board, 1, lambda _: {})
    assert (energy.joules, energy.source) == (pytest.approx(3), "hwmon ina226 hwmon2 channel 1, radio")


@pytest.mark.parametrize("chip", ["nvme", "amdgpu", "BAT0", "cpu_thermal", "rpi_volt"])
def test_other_chips_of_hwmon_are_not_the_boards_supply(board, chip):
    board.put({f"{HWMON}/hwmon0/name": chip, f"{HWMON}/hwmon0/power1_input": 1000000})
    board.put({f"{HWMON}/hwmon0/in1_input": 5000, f"{HWMON}/hwmon0/curr1_input": 500})
    assert find(Files(board.root)) == (None, f"no meter: {NO_RAPL}, {NO_HWMON}, {NO_BATTERY}")


def test_a_sensor_that_dies_in_mid_run_voids_the_windows_around_it_and_no_other(board):
    board.put(ina226("hwmon0", 2_000_000, "5V"))
    integrator = board.integrator()
    path = f"{HWMON}/hwmon0/power1_input"
    marks = [integrator.advance(0.0), integrator.advance(1.0)]
    board.refusing[path] = OSError(121, "Remote I/O error")
    marks.append(integrator.advance(2.0))
    del board.refusing[path]
    marks += [integrator.advance(3.0), integrator.advance(4.0), integrator.advance(5.0)]
    dead = integrator.between(marks[0], marks[5])
    assert (dead.joules, dead.kind, dead.source) == (None, None, "hwmon 5V")
    assert dead.reason == f"/{path} cannot be read: Remote I/O error"
    assert integrator.between(marks[2], marks[5]).joules is None  # it began with the failure
    assert integrator.between(marks[0], marks[1]).joules == pytest.approx(2)
    assert integrator.between(marks[3], marks[5]).joules == pytest.approx(4)


def test_a_sensor_that_is_unplugged_or_talks_nonsense_says_so(board):
    board.put(ina226("hwmon0", 2_000_000, "5V"))
    path = f"{HWMON}/hwmon0/power1_input"
    assert (
        window(board, 1, lambda t: {path: "" if t > 0.5 else 2_000_000}).reason
        == f"/{path} holds '', not a whole number"
    )
    board.put({path: 2_000_000})
    jump = window(board, 1, lambda t: {path: 4_294_967_295_000 if t > 0.5 else 2_000_000})
    assert jump.reason == "hwmon 5V reads 4.29497e+06 W, beyond the 1000 W that are credible"
    board.put({path: 2_000_000})
    integrator = board.integrator()
    begin = integrator.advance(0)
    (board.root / path).unlink()
    assert (
        integrator.between(begin, integrator.advance(1)).reason == f"/{path} cannot be read: No such file or directory"
    )


def test_a_window_shorter_than_the_sensor_can_tell_says_so(board):
    board.put(ina226("hwmon0", 2_000_000, "5V"))
    short = window(board, 0.05, lambda _: {}, step=0.05)
    assert short.joules == pytest.approx(0.1)
    assert short.resolution == ("2 readings in 0.05 s; shorter than two samples of the sensor, which are 0.036 s apart")


def test_a_sensor_that_reads_zero_all_along_is_missing_and_not_zero(board):
    board.put(ina226("hwmon0", 0, "5V"))
    energy = window(board, 1, lambda _: {})
    assert energy.joules is None
    assert energy.reason == "hwmon 5V did not move in 1 s: the window is too short, or the sensor is not live"


# Batteries ------------------------------------------------------------------------------------------------------


def test_a_discharging_battery_shows_the_board_by_power_or_by_volts_and_amperes(board):
    board.put(batteries("BAT0", power_now=4_000_000))
    board.put(batteries("BAT1", voltage_now=3_700_000, current_now=-1_000_000))
    board.put(batteries("mouse", scope="Device", power_now=900_000_000))
    board.put({f"{SUPPLY}/AC/type": "Mains", f"{SUPPLY}/AC/online": 0})
    energy = window(board, 30, lambda _: {}, step=1)
    assert energy.joules == pytest.approx(30 * (4 + 3.7))
    assert (energy.source, energy.resolution) == ("battery BAT0, BAT1", "31 readings in 30 s")


def test_a_battery_that_charges_shows_the_charger_and_is_not_taken_for_the_board(board):
    board.put(batteries(status="Charging", power_now=20_000_000))
    energy = window(board, 30, lambda _: {}, step=1)
    assert energy.joules is None
    assert energy.reason == "a battery's gauge shows the board only while it discharges: BAT0 is Charging"
    assert window(board, 30, lambda _: batteries(power_now=20_000_000), step=1).joules == pytest.approx(600)


def test_a_battery_that_charges_beside_one_that_discharges_voids_the_reading(board):
    board.put(batteries("BAT0", power_now=4_000_000) | batteries("BAT1", "Charging", power_now=9_000_000))
    reason = window(board, 30, lambda _: {}, step=1).reason
    assert reason == (
        "a battery's gauge shows the board only while it discharges: BAT0 is Discharging, BAT1 is Charging"
    )
    assert window(board, 30, lambda _: batteries("BAT1", "Full", power_now=0), 1).joules == pytest.approx(120)


def test_a_charger_plugged_in_mid_run_voids_the_window(board):
    board.put(batteries(power_now=4_000_000))
    path = f"{SUPPLY}/BAT0/status"
    energy = window(board, 30, lambda t: {path: "Charging" if 10 < t < 12 else "Discharging"}, step=1)
    assert energy.joules is None


def test_a_battery_is_slow_and_says_so(board):
    board.put(batteries(power_now=4_000_000))
    assert "shorter than two samples of the sensor, which are 10 s apart" in str(
        window(board, 5, lambda _: {}, 1).resolution
    )


def test_a_battery_without_a_gauge_is_none(board):
    board.put(batteries(capacity=80))
    assert find(Files(board.root))[1].endswith(NO_BATTERY)


def test_without_any_sensor_the_reason_says_what_was_looked_for(tmp_path):
    integrator = Integrator(*find(Files(tmp_path)))
    energy = integrator.between(integrator.advance(0), integrator.advance(9))
    assert energy == Energy(reason=f"no meter: {NO_RAPL}, {NO_HWMON}, {NO_BATTERY}")
    assert energy.to_record()["joules"] is None
