"""Boards by what they say of themselves."""

import json

import pytest

from edge.board import Clock, recognise, software
from tests.edge.energy.boards import AGX_ORIN, RASPBERRY_PI_4, RASPBERRY_PI_5, TREES
from tests.edge.energy.trees import Board


@pytest.fixture
def board(tmp_path):
    return Board(tmp_path)


def test_a_raspberry_pi_4(board):
    board.put(RASPBERRY_PI_4)
    found = recognise(board.files, providers=["CPUExecutionProvider"])
    assert found.model == "Raspberry Pi 4 Model B Rev 1.4"
    assert (found.soc, found.cpu, found.cores) == ("brcm,bcm2711", "Cortex-A72", 4)
    assert found.compatible == ("raspberrypi,4-model-b", "brcm,bcm2711")
    assert found.clocks == (Clock("0 1 2 3", "ondemand", None, 600_000_000, 1_500_000_000, 1_800_000_000, None),)
    assert (found.memory_bytes, found.kernel) == (3884356 * 1024, "6.6.31+rpt-rpi-v8")
    assert found.providers == ("CPUExecutionProvider",)
    assert found.thermal.flags == ("under-voltage", "throttled")


@pytest.mark.parametrize(
    ("files", "model", "soc", "cpu", "cores"),
    [
        (RASPBERRY_PI_5, "Raspberry Pi 5 Model B Rev 1.0", "brcm,bcm2712", "Cortex-A76", 4),
        (AGX_ORIN, "Jetson AGX Orin", "nvidia,tegra234", "Cortex-A78AE", 12),
        (
            TREES["Jetson Nano, kernel 4.9, by class"].files,
            "NVIDIA Jetson Nano Developer Kit", "nvidia,tegra210", "Cortex-A57", 4,
        ),
        (TREES["AMD"].files, "ASUS PN51", None, "AMD Ryzen 7", 2),
        (TREES["laptop"].files, "LENOVO 20XW", None, "Some Laptop CPU", 2),
    ],
)  # fmt: skip
def test_other_boards(board, files, model, soc, cpu, cores):
    board.put(files)
    found = recognise(board.files)
    assert (found.model, found.soc, found.cpu, found.cores) == (model, soc, cpu, cores)
    assert found.providers is None


def test_cores_that_are_off_do_not_count_and_unknown_ones_show_their_numbers(board):
    board.put({"sys/devices/system/cpu/online": "0-1,3", "proc/cpuinfo": "CPU implementer\t: 0x51\nCPU part\t: 0x802"})
    found = recognise(board.files)
    assert (found.cores, found.cpu) == (3, "implementer 0x51 part 0x802")


def test_a_board_that_says_nothing_is_none_and_not_an_error(board):
    found = recognise(board.files)
    assert (found.model, found.soc, found.compatible, found.cpu, found.clocks) == (None, None, (), None, ())
    assert found.cores >= 1


def test_a_record_is_plain_json(board):
    board.put(RASPBERRY_PI_4)
    record = json.loads(json.dumps(recognise(board.files).to_record()))
    assert record["clocks"][0]["governor"] == "ondemand"
    assert record["thermal"]["temperature"]["celsius"] == pytest.approx(48.312)
    assert record["onnxruntime"] == software()["onnxruntime"]
