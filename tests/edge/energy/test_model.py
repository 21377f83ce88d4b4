"""A model of a board's energy: fitted against readings whose coefficients are known, stored, and used where it is named."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edge.energy import Energy, Files
from edge.energy.activity import Activity, activity
from edge.energy.calibrate import (
    CHUNK,
    CalibrationError,
    Load,
    Sample,
    busy,
    calibrate,
    collect,
    nonnegative,
    pour,
    usual_loads,
)  # fmt: skip
from edge.energy.model import Model, load
from edge.files import UnreadableError

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
IDLE, PER_CPU, PER_SENT, PER_RECEIVED = 2.5, 1.8, 3e-7, 1e-7


def sample(load: str, cpu: float, sent: int = 0, received: int = 0, seconds: float = 10.0, off: float = 0.0) -> Sample:
    joules = IDLE * seconds + PER_CPU * cpu + PER_SENT * sent + PER_RECEIVED * received
    return Sample(load, seconds, cpu, sent, received, joules + off * seconds)


LOADS = [sample("idle", 0.3), sample("one", 10.2), sample("all", 40.0), sample("sending", 4.0, 10_000_000, 300_000)]


def fit(samples, kind="metered", meter="meter at tcp://m:1") -> Model:
    return calibrate(samples, meter, kind, AT, {"model": "Raspberry Pi 4 Model B"})


def test_known_coefficients_are_found_and_leave_nothing_over():
    model = fit([*LOADS, *LOADS, sample("receiving", 4.0, 300_000, 10_000_000)])
    assert (model.idle_watts, model.joules_per_cpu_second) == (pytest.approx(IDLE), pytest.approx(PER_CPU))
    assert (model.joules_per_byte_sent, model.joules_per_byte_received) == (
        pytest.approx(PER_SENT), pytest.approx(PER_RECEIVED),
    )  # fmt: skip
    assert model.rms_watts == pytest.approx(0, abs=1e-9)
    assert (model.windows, model.date, model.meter) == (9, "2026-03-01T12:00:00+00:00", "meter at tcp://m:1 (metered)")


def test_what_is_left_over_is_told_in_watts_and_percent():
    # Idle and busy twice each, 0.1 W off to either side: four windows, two coefficients.
    samples = [sample(name, cpu, off=off) for name, cpu in (("idle", 0.0), ("busy", 10.0)) for off in (0.1, -0.1)]
    model = fit(samples)
    assert (model.idle_watts, model.joules_per_cpu_second) == (pytest.approx(IDLE), pytest.approx(PER_CPU))
    assert model.rms_watts == pytest.approx((4 * 0.1**2 / 2) ** 0.5)
    assert model.residual_percent == pytest.approx(100 * model.rms_watts / (IDLE + PER_CPU / 2))


def test_acknowledgements_that_follow_what_is_sent_are_not_fitted_apart():
    model = fit(LOADS + LOADS)
    assert model.joules_per_byte_sent == pytest.approx(PER_SENT + 0.03 * PER_RECEIVED)
    assert model.joules_per_byte_received is None


def test_without_bytes_their_joules_are_none_and_the_name_says_so():
    model = fit((LOADS[:3]) * 2)
    assert (model.joules_per_byte_sent, model.joules_per_byte_received) == (None, None)
    assert "(bytes not fitted)" in model.name


def test_no_coefficient_is_negative():
    columns = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]])
    assert nonnegative(columns, np.array([3.0, 2.0, 1.0])).tolist() == pytest.approx([2.0, 0.0])
    assert nonnegative(columns, np.array([-1.0, -2.0, -1.0])).tolist() == [0.0, 0.0]
    assert nonnegative(columns, np.array([1.0, 3.0, 5.0])).tolist() == pytest.approx([1.0, 2.0])


@pytest.mark.parametrize(
    ("samples", "kind", "reason"),
    [
        (LOADS, "modelled", "meter at tcp://m:1 is modelled: a model is fitted against a meter or a sensor only"),
        (LOADS[:3], "metered", "3 windows are too few for 2 coefficients: 4 are wanted"),
        ([LOADS[0]] * 9, "metered", "all windows have the same CPU load: an idle and a busy one are wanted"),
        ([*LOADS, replace(LOADS[0], seconds=0.5)], "sensor", "window 'idle' has 0.5 s, at least 1 are wanted"),
    ],
)
def test_what_makes_no_model_says_why(samples, kind, reason):
    with pytest.raises(CalibrationError) as error:
        fit(samples, kind)
    assert str(error.value) == reason


# Its file -------------------------------------------------------------------------------------------------------


def test_a_model_survives_its_file(tmp_path):
    model = fit(LOADS + LOADS)
    model.save(tmp_path / "model.json")
    assert load(tmp_path / "model.json") == model


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"idle_watts": -1}, "idle_watts = -1 is not a number from 0"),
        ({"rms_watts": None}, "rms_watts = None is not a number from 0"),
        ({"joules_per_byte_sent": "x"}, "joules_per_byte_sent = 'x' is neither null nor a number from 0"),
        ({"format": 9}, "has format 9; this release reads format 1: calibrate it again here"),
    ],
)
def test_a_file_that_was_changed_is_refused(tmp_path, change, reason):
    path = tmp_path / "model.json"
    fit(LOADS + LOADS).save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UnreadableError, match=f"model {path}:? {reason}"):
        load(path)


def test_files_that_are_no_models_are_refused(tmp_path):
    with pytest.raises(UnreadableError, match=r"model /.*none cannot be read: No such file or directory"):
        load(tmp_path / "none")
    (tmp_path / "text").write_text("watts")
    with pytest.raises(UnreadableError, match="is not JSON"):
        load(tmp_path / "text")
    (tmp_path / "old").write_text('{"format": 1, "idle_watts": 2}')
    with pytest.raises(UnreadableError, match="board is missing"):
        load(tmp_path / "old")


# What a board does ----------------------------------------------------------------------------------------------


def doing(cpu_ticks: int, sent: int, received: int) -> dict[str, object]:
    """/proc as the kernel's documentation has it: user nice system idle iowait irq softirq steal guest guest_nice."""
    line = "{name}: {received} 1 0 0 0 0 0 0 {sent} 1 0 0 0 0 0 0"
    return {
        "proc/stat": f"cpu  {cpu_ticks - 10} 1 2 5000 600 3 4 0 {cpu_ticks - 10} 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n",
        "proc/net/dev": "Inter-|   Receive                     |  Transmit\n face |bytes    packets\n"
        + "\n".join(
            [
                line.format(name="    lo", received=10**9, sent=10**9),
                line.format(name="  eth0", received=received, sent=sent),
                line.format(name="docker0", received=10**8, sent=10**8),
            ]
        ),
    }


def test_a_boards_activity_is_without_idling_loopback_and_bridges(board):
    board.put(doing(1000, 700, 300) | {"sys/class/net/eth0/device/uevent": ""})
    assert activity(board.files) == Activity(10.0, 700, 300)


def test_without_devices_all_but_the_loopback_counts(board):
    board.put(doing(1000, 700, 300))
    assert activity(board.files).sent_bytes == 10**8 + 700


@pytest.fixture
def fitted(board, tmp_path):
    board.put(
        doing(1000, 0, 0)
        | {"sys/class/net/eth0/device/uevent": "", "proc/device-tree/model": "Raspberry Pi 4 Model B\0"}
    )
    samples = [replace(s, joules=s.joules + 0.05 * s.seconds * (-1) ** n) for n, s in enumerate(LOADS * 3)]
    fit(samples).save(tmp_path / "model.json")
    return tmp_path / "model.json"


def test_a_model_that_is_named_gives_joules_of_its_class_with_the_residual_as_uncertainty(board, fitted):
    integrator = board.integrator(source="model", model=fitted)
    begin = integrator.advance(0.0)
    board.put(doing(1000 + 1500, 2_000_000, 60_000))
    energy = integrator.between(begin, integrator.advance(20.0))
    model = load(fitted)
    assert energy.kind == "modelled"
    assert energy.joules == pytest.approx(model.joules(20.0, 15.0, 2_000_000, 60_000))
    assert energy.joules == pytest.approx(20 * IDLE + 15 * PER_CPU + 2e6 * PER_SENT, rel=0.05)
    assert energy.uncertainty_joules == pytest.approx(2 * model.rms_watts * 20, rel=0.001)
    assert energy.source.startswith("model of 2026-03-01, residual ")


def test_a_model_is_never_used_unless_it_is_named(board, fitted):
    assert board.integrator(model=fitted).source is None


def test_a_model_of_another_board_is_refused(board, fitted):
    board.put({"proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0"})
    assert board.integrator(source="model", model=fitted).missing == (
        "no meter: the model was fitted on Raspberry Pi 4 Model B, this is Raspberry Pi 5 Model B Rev 1.0: calibrate it here"
    )


def test_an_interface_that_goes_voids_the_window(board, fitted):
    integrator = board.integrator(source="model", model=fitted)
    board.put(doing(1000, 9000, 0))
    begin = integrator.advance(0.0)
    board.put(doing(1100, 0, 0))
    assert "an interface has gone" in integrator.between(begin, integrator.advance(1.0)).reason


# The runner -----------------------------------------------------------------------------------------------------


class Bench:
    """A board that does what it is told and takes what it should, without any time."""

    def __init__(self, **energy: object) -> None:
        self.sum = Activity(100.0, 0, 0)
        self.seconds = self.joules = 0.0
        self.energy = energy

    def load(self, name: str, cores: float, sent: int = 0) -> Load:
        def run(seconds: float) -> None:
            self.sum = Activity(self.sum.cpu_seconds + cores * seconds, self.sum.sent_bytes + sent, 0)
            self.seconds, self.joules = seconds, IDLE * seconds + PER_CPU * cores * seconds + PER_SENT * sent

        return Load(name, run)

    def begin(self, window: str) -> None:
        pass

    def end(self, window: str) -> SimpleNamespace:
        said = {"kind": "metered", "source": "a meter", "joules": self.joules, "seconds": self.seconds, **self.energy}
        return SimpleNamespace(energy=Energy(**said))


def test_the_runner_takes_the_loads_in_turn_and_its_windows_make_the_model():
    bench = Bench()
    loads = [bench.load("idle", 0.01), bench.load("busy", 1.0), bench.load("sending", 0.3, 10_000_000)]
    told = []
    samples, energy = collect(bench, lambda: bench.sum, loads, 5.0, repeats=2, told=told.append)
    assert [sample.load for sample in samples] == ["idle", "busy", "sending"] * 2
    assert told == samples
    model = calibrate(samples, energy.source, energy.kind, AT)
    assert (model.idle_watts, model.joules_per_cpu_second) == (pytest.approx(IDLE), pytest.approx(PER_CPU))
    assert model.joules_per_byte_sent == pytest.approx(PER_SENT)


@pytest.mark.parametrize(
    ("energy", "reason"),
    [
        ({"joules": None, "reason": "no meter: gone"}, "window 'idle' was not measured: no meter: gone"),
        ({"too_short": True, "resolution": "2 readings"}, "window 'idle' is too short for this meter: 2 readings"),
    ],
)
def test_a_window_that_the_meter_cannot_tell_ends_the_runner(energy, reason):
    bench = Bench(**energy)
    with pytest.raises(CalibrationError) as error:
        collect(bench, lambda: bench.sum, [bench.load("idle", 0.0)], 5.0)
    assert str(error.value) == reason


def test_usual_loads_send_only_where_there_is_a_way_to():
    assert [load.name for load in usual_loads(cores=4)] == ["idle", "1 core busy", "4 cores busy"]
    assert [load.name for load in usual_loads(lambda _: None, cores=1)] == ["idle", "1 core busy", "sending"]


def test_bytes_are_poured_until_the_time_is_over():
    times, sent = iter([0.0, 0.1, 0.2, 0.9, 1.0]), []
    pour(sent.append, 1.0, lambda: next(times))
    assert sent == [CHUNK] * 3


def test_a_busy_core_shows_in_this_machines_activity():
    files = Files(Path("/"))
    before = activity(files)
    busy(0.5, 1)
    assert activity(files).cpu_seconds - before.cpu_seconds > 0.05


class Denied:
    """A file that is not ours to read; root, who runs the tests in places, is denied nothing."""

    def read_text(self, encoding):
        raise PermissionError(13, "Permission denied")

    def __str__(self):
        return "/etc/cutlayer/model.json"


def test_a_model_that_may_not_be_read_says_which_permission_it_wants():
    with pytest.raises(UnreadableError, match=r"^model /etc/cutlayer/model\.json wants read permission for the user"):
        load(Denied())
