"""Warmth and throttling as kernel and firmware tell of them."""

from dataclasses import replace

import pytest

from edge.thermal import FIRMWARE, Temperature, Thermal, Zone, slowed, thermal
from edge.vcgencmd import Vcgencmd
from tests.edge.energy.boards import CPUS, RASPBERRY_PI_4, RASPBERRY_PI_5, warmth
from tests.edge.energy.trees import Board


@pytest.fixture
def board(tmp_path):
    return Board(tmp_path)


def test_flags_of_a_pi_are_those_of_now_and_those_since_the_start(board):
    board.put(RASPBERRY_PI_4)
    found = thermal(board.files)
    assert found.flags == ("under-voltage", "throttled")  # 0x50005
    assert found.since_start == ("under-voltage", "throttled")
    assert found.flags_source == f"/{FIRMWARE}"
    assert found.temperature.celsius == pytest.approx(48.312)
    assert found.zones == (Zone("cpu-thermal", 48.312, (("critical", 110.0),)),)


def test_flags_come_from_vcgencmd_where_the_kernel_has_no_file(board, tmp_path):
    board.put(RASPBERRY_PI_5)
    program = tmp_path / "vcgencmd"
    program.write_text("#!/bin/sh\necho throttled=0x80008\n")
    program.chmod(0o755)
    found = thermal(board.files, Vcgencmd(str(program)))
    assert (found.flags, found.since_start) == (("soft temperature limit",), ("soft temperature limit",))
    assert found.flags_source == f"{program} get_throttled"
    program.write_text("#!/bin/sh\necho nonsense\n")
    found = thermal(board.files, Vcgencmd(str(program)))
    assert (found.flags, found.flags_source) == (None, f"{program} get_throttled says 'nonsense'")


def test_a_board_without_flags_says_why_and_not_that_all_is_well(board):
    board.put(warmth(0, "x86_pkg_temp", 51000))
    found = thermal(board.files)
    assert (found.flags, found.since_start, found.flags_source) == (None, None, f"there is no /{FIRMWARE}")


def test_counters_of_x86_are_summed_over_cores_and_each_package_once(board):
    for cpu, (core, package, socket) in enumerate([(3, 10, 0), (4, 10, 0), (0, 7, 1)]):
        folder = f"{CPUS}/cpu{cpu}"
        board.put(
            {f"{folder}/thermal_throttle/core_throttle_count": core, f"{folder}/topology/physical_package_id": socket}
        )
        board.put({f"{folder}/thermal_throttle/package_throttle_count": package})
    assert thermal(board.files).throttle_count == 3 + 4 + 10 + 7


def test_trips_that_are_switched_off_and_zones_that_do_not_answer(board):
    board.put(warmth(0, "cpu-thermal", 50000, ("passive", -274000), ("critical", 105000)) | warmth(1, "gpu", 0))
    board.refusing["sys/class/thermal/thermal_zone1/temp"] = OSError(61, "No data available")
    assert thermal(board.files).zones == (Zone("cpu-thermal", 50.0, (("critical", 105.0),)), Zone("gpu", None, ()))


def test_cooling_is_told_with_its_state(board):
    folder = "sys/class/thermal/cooling_device0"
    board.put({f"{folder}/type": "cpufreq-cpu0", f"{folder}/cur_state": 2, f"{folder}/max_state": 5})
    board.put({"sys/class/thermal/cooling_device1/type": "pwm-fan"})
    assert thermal(board.files).cooling == (("cpufreq-cpu0", 2, 5),)


CALM = Thermal(Temperature(50.0), (Zone("cpu-thermal", 50.0, (("passive", 80.0),)),), (), (), "a file", (), 5)


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ({}, ""),
        ({"flags": ("under-voltage",), "since_start": ("under-voltage",)}, "under-voltage"),
        ({"since_start": ("clock capped",)}, "clock capped in between"),
        ({"throttle_count": 9}, "throttled 4 times"),
        ({"cooling": (("pwm-fan", 2, 4), ("cpufreq-cpu0", 0, 5), ("intel_powerclamp", -1, 100))}, ""),
        ({"cooling": (("pwm-fan", 4, 4), ("cpufreq-cpu0", 2, 5))}, "cpufreq-cpu0 is at 2 of 5"),
        (
            {"zones": (Zone("cpu-thermal", 81.4, (("passive", 80.0), ("critical", 110.0))),)},
            "cpu-thermal is at 81 °C, from 80 °C its clock is lowered",
        ),
    ],
)
def test_what_slowed_a_board_down_between_two_moments(after, said):
    assert slowed(CALM, replace(CALM, **after)) == said


def test_what_happened_before_is_not_put_down_to_now():
    warm = replace(CALM, since_start=("throttled",))
    assert slowed(warm, warm) == ""
