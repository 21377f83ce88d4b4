"""Every board's joules against the integral of its power, which is known."""

from math import cos, pi, sin

import pytest

from edge.energy import Energy
from tests.edge.energy.boards import TREES, Tree
from tests.edge.energy.trees import HWMON, Board, batteries, ina226, ina3221, window, zone

MEAN, SWING, PERIOD, SECONDS = 6.0, 3.0, 25.0, 60.0


def power(t: float) -> float:
    return MEAN + SWING * sin(2 * pi * t / PERIOD)


def integral(t: float) -> float:
    return MEAN * t + SWING * PERIOD / (2 * pi) * (1 - cos(2 * pi * t / PERIOD))


def measured(board: Board, tree: Tree) -> Energy:
    def change(t: float) -> dict[str, object]:
        return dict(tree.at(integral(t), power(t)))

    board.put({**tree.files, **change(0.0)})
    return window(board, SECONDS, change, tree.step)


@pytest.mark.parametrize("name", TREES)
def test_the_joules_agree_with_the_integral_and_the_uncertainty_covers_the_rest(board, name):
    energy = measured(board, TREES[name])
    assert (energy.source, energy.kind, energy.too_short) == (TREES[name].source, "sensor", False)
    assert energy.joules == pytest.approx(integral(SECONDS), rel=0.005)
    assert abs(energy.joules - integral(SECONDS)) < energy.uncertainty_joules < 0.05 * energy.joules
    assert energy.hertz == pytest.approx(1 / TREES[name].step)


def test_a_modules_input_is_not_added_to_that_of_the_board_which_carries_it(board):
    board.put(ina3221("hwmon0", ("VDD_IN", 5000, 1000)) | ina3221("hwmon1", ("VDD_MUX", 19000, 500)))
    energy = window(board, 2, lambda _: {})
    assert (energy.joules, energy.source) == (pytest.approx(19), "hwmon VDD_MUX")


def test_an_unconnected_channel_is_left_out_and_need_not_be_readable(board):
    board.put(ina3221("hwmon0", ("NC", 0, 0), ("A", 5000, 200)))
    board.refusing[f"{HWMON}/hwmon0/in1_input"] = OSError(61, "No data available")
    assert window(board, 2, lambda _: {}).source == "hwmon A"


def test_sensors_are_found_by_their_driver_where_the_class_is_hidden(board):
    chip = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
    files = ina3221("hwmon3", ("VDD_IN", 5000, 1000))
    board.put({path.replace(f"{HWMON}/hwmon3", chip): content for path, content in files.items()})
    assert window(board, 2, lambda _: {}).joules == pytest.approx(10)


def test_drivers_of_old_kernels_keep_their_files_one_folder_further_in(board):
    files = ina226("hwmon0", 3_000_000)
    board.put({path.replace("hwmon0/", "hwmon0/device/"): content for path, content in files.items()})
    energy = window(board, 2, lambda _: {})
    assert (energy.joules, energy.source) == (pytest.approx(6), "hwmon ina226 hwmon0 channel 1")


# Uncertainty ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chip", "shunt", "step_watts"),
    [("ina219", 100_000, 0.002), ("ina226", 10_000, 0.00625), ("ina260", None, 0.01), ("ina232", 2_000, 0.04)],
)
def test_steps_of_a_power_register_follow_the_drivers_scaling_and_the_shunt(board, chip, shunt, step_watts):
    board.put(ina226("hwmon0", 2_000_000) | {f"{HWMON}/hwmon0/name": chip})
    if shunt:
        board.put({f"{HWMON}/hwmon0/shunt_resistor": shunt})
    assert window(board, 5, lambda _: {}).uncertainty_joules == pytest.approx(2 * step_watts / 12**0.5 * 5)


def test_steps_of_volts_times_amperes_are_those_of_shunt_and_rail(board):
    board.put(ina3221("hwmon0", ("A", 5000, 2000)) | {f"{HWMON}/hwmon0/shunt1_resistor": 5000})
    step = ((5 * 0.008) ** 2 + (2 * 0.008) ** 2) ** 0.5  # 40 µV over 5 mΩ are 8 mA; 8 mV of the rail
    assert window(board, 4, lambda _: {}).uncertainty_joules == pytest.approx(2 * step / 12**0.5 * 4)


def test_one_step_of_power_between_two_readings_is_uncertain_by_when_it_came(board):
    board.put(ina226("hwmon0", 2_000_000))
    energy = window(board, 4, lambda t: {f"{HWMON}/hwmon0/power1_input": 2_000_000 if t < 1.9 else 8_000_000}, 1.0)
    assert energy.joules == pytest.approx(2 + 5 + 8 + 8)
    steps, swing = 0.00625 * 4, 6 * 1.0
    assert energy.uncertainty_joules == pytest.approx(2 * ((steps**2 + swing**2) / 12) ** 0.5)


def test_a_counter_is_as_sure_as_its_unit_and_its_last_refresh(board):
    unit = 2**-14
    board.put(zone("intel-rapl:0", "package-0", 0, round(unit * 2**32 * 1e6)))
    energy = window(board, 10, lambda t: {"sys/class/powercap/intel-rapl:0/energy_uj": round(20e6 * t)}, 5.0)
    assert energy.uncertainty_joules == pytest.approx(2 * ((unit**2 + (20 * 0.001) ** 2) / 6) ** 0.5)


def test_a_window_that_is_too_short_is_as_uncertain_as_it_is_large(board):
    board.put(batteries(power_now=4_000_000))
    energy = window(board, 5, lambda _: {}, 1)
    assert (energy.too_short, energy.uncertainty_joules) == (True, pytest.approx(energy.joules))


def test_a_sensor_that_dies_has_neither_joules_nor_uncertainty(board):
    board.put(ina226("hwmon0", 2_000_000))
    energy = window(board, 2, lambda t: {f"{HWMON}/hwmon0/power1_input": "" if t > 1 else 2_000_000})
    assert (energy.joules, energy.uncertainty_joules, energy.kind) == (None, None, None)
    assert energy.to_record()["unit"] == "J"


def test_a_reading_that_jumps_and_is_credible_shows_in_the_uncertainty(board):
    board.put(ina226("hwmon0", 5_000_000))
    path = f"{HWMON}/hwmon0/power1_input"
    energy = window(board, 10, lambda t: {path: 95_000_000 if 4.95 < t < 5.05 else 5_000_000})
    assert energy.joules == pytest.approx(50 + 9)
    assert energy.uncertainty_joules == pytest.approx(2 * 9 * (2 / 12) ** 0.5, rel=0.01)


# What the configuration names -----------------------------------------------------------------------------------


def test_a_source_that_is_named_is_the_only_one_looked_for(board):
    board.put(ina226("hwmon0", 1_000_000, "VIN") | batteries(power_now=4_000_000))
    integrator = board.integrator(source="battery")
    assert (integrator.source.name, integrator.missing) == ("battery BAT0", "")
    assert board.integrator(source="rapl").missing == "no meter: no RAPL under /sys/class/powercap"


def test_where_none_is_wanted_nothing_is_read(board):
    board.put(ina226("hwmon0", 1_000_000, "VIN"))
    assert board.integrator(source="none").missing == 'not measured: [energy] source = "none"'
