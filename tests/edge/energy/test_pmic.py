import pytest

from edge.energy.pmic import PMIC_SECONDS, pmic, watts
from edge.files import UnreadableError
from edge.vcgencmd import Vcgencmd
from tests.edge.energy.boards import PMIC, PMIC_WATTS, RASPBERRY_PI_4, RASPBERRY_PI_5


def program(folder, *lines: str) -> str:
    """A stand-in for vcgencmd, which notes each question."""
    path = folder / "vcgencmd"
    path.write_text("\n".join(["#!/bin/sh", f"echo $1 >> {folder}/asked", *lines, ""]))
    path.chmod(0o755)
    return str(path)


def answering(folder, text: str) -> str:
    (folder / "answer").write_text(text)
    return program(folder, f"cat {folder}/answer")


def test_volts_times_amperes_of_the_rails_that_have_both():
    assert watts(PMIC) == pytest.approx(PMIC_WATTS)


def test_an_answer_without_rails_says_so():
    with pytest.raises(UnreadableError, match="tells of no rail with volts and amperes: 'EXT5V_V volt"):
        watts("EXT5V_V volt(24)=5.1V")


def test_a_pi_5_is_measured_through_its_own_program(board):
    board.put(RASPBERRY_PI_5)
    integrator = board.integrator(vcgencmd=answering(board.root, PMIC))
    begin = integrator.advance(0.0)
    end = integrator.advance(10.0)
    energy = integrator.between(begin, end)
    assert energy.joules == pytest.approx(10 * PMIC_WATTS)
    assert (energy.kind, energy.source) == (
        "sensor", "PMIC of the Raspberry Pi 5 (its rails, without what draws from 5 V itself)",
    )  # fmt: skip
    assert integrator.source.seconds_between == PMIC_SECONDS


def test_the_program_is_asked_once_a_second_however_often_joules_are_wanted(tmp_path):
    time = [100.0]
    gauge = pmic(Vcgencmd(answering(tmp_path, PMIC)), 0.01, lambda: time[0])
    for _ in range(40):  # ten seconds in quarters
        time[0] += 0.25
        gauge.joules_since(0.25)
    assert (tmp_path / "asked").read_text().split() == ["pmic_read_adc"] * 11


def test_a_pi_4_has_no_power_sensor_and_is_not_asked(board):
    board.put(RASPBERRY_PI_4)
    missing = board.integrator(vcgencmd=answering(board.root, PMIC)).missing
    assert missing.startswith("no meter: no RAPL under /sys/class/powercap, no power sensor under /sys/class/hwmon, ")
    assert not (board.root / "asked").exists()


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["echo 'error=1 error_msg=\"Command not registered\"'"], 'failed: error=1 error_msg="Command not registered"'),
        (["echo Can\\'t open device file: /dev/vcio >&2", "exit 255"], "failed: Can't open device file: /dev/vcio"),
        (["exec sleep 30"], "gave no answer within 0.2 s"),
    ],
)
def test_a_program_that_fails_is_told_with_its_words(tmp_path, lines, reason):
    path = program(tmp_path, *lines)
    with pytest.raises(UnreadableError) as error:
        pmic(Vcgencmd(path, seconds=0.2 if "sleep" in lines[0] else 20))
    assert str(error.value).startswith(f"{path} pmic_read_adc {reason}")


def test_without_the_program_the_reason_names_it(board):
    assert board.integrator(source="pmic", vcgencmd="no-such-vcgencmd").missing == (
        "no meter: there is no program no-such-vcgencmd on PATH"
    )


def test_a_program_that_fails_in_mid_run_voids_the_window(board):
    board.put(RASPBERRY_PI_5)
    path = answering(board.root, PMIC)
    time = [0.0]
    gauge = pmic(Vcgencmd(path), now=lambda: time[0])
    gauge.joules_since(0.0)
    (board.root / "answer").write_text('error=2 error_msg="Invalid arguments"')
    time[0] = 5.0
    with pytest.raises(UnreadableError, match="Invalid arguments"):
        gauge.joules_since(5.0)
