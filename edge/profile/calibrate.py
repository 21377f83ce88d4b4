"""`cutlayer profile calibrate`: a model of the board's energy, fitted against its meter, for boards like it that have none."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

from edge import board
from edge.config import DeviceConfig
from edge.energy.activity import activity
from edge.energy.calibrate import CalibrationError, Sample, calibrate, collect, usual_loads
from edge.energy.model import Model
from edge.files import Files
from edge.meters import Meter
from edge.profile.sending import Sender
from edge.vcgencmd import Vcgencmd

LEAST_SECONDS, MOST_SECONDS = 1.0, 3600.0
MOST_REPEATS = 100


def run(
    config: DeviceConfig,
    *,
    seconds: float,
    repeats: int,
    send: bool,
    told: Callable[[str], None],
    at: datetime,
    root: Path = Path("/"),
) -> Model:
    """Load the board in windows and fit a model to what its meter says.

    Args:
        config: of the device: its meter, and the broker that bytes are sent to.
        seconds: of a window.
        repeats: windows of each load.
        send: whether bytes are sent; without, the model has no joules a byte.
        told: hears of each window.
        at: the date of the model.
        root: where /proc and /sys start.

    Raises:
        CalibrationError: there is no meter, it is itself a model, or the windows make no model.
        LinkError: the broker does not answer.
    """
    if not LEAST_SECONDS <= seconds <= MOST_SECONDS:
        raise CalibrationError(f"--seconds {seconds:g}: it must be from {LEAST_SECONDS:g} to {MOST_SECONDS:g}")
    if not 1 <= repeats <= MOST_REPEATS:
        raise CalibrationError(f"--repeats {repeats}: it must be from 1 to {MOST_REPEATS}")
    files = Files(root)
    with ExitStack() as down:
        meter = down.enter_context(Meter(root, config=config.energy, sample_seconds=config.run.sample_seconds))
        if meter.missing_energy:
            raise CalibrationError(f"a model is fitted against a meter, and there is none: {meter.missing_energy}")
        sender = down.enter_context(Sender(config)) if send else None
        told(f"{meter.energy_source}; windows of {seconds:g} s, each load {repeats} times")
        loads = usual_loads(sender.send if sender else None)
        samples, energy = collect(
            meter, lambda: activity(files), loads, seconds, repeats=repeats, told=lambda sample: told(_line(sample))
        )
    record = board.recognise(files, vcgencmd=Vcgencmd(config.energy.vcgencmd)).to_record()
    return calibrate(samples, energy.source or "", energy.kind, at, record)


def words(model: Model, path: Path) -> Iterator[str]:
    """What the model says, a line each."""
    yield f"idle                  {model.idle_watts:.3f} W"
    yield f"a CPU second          {model.joules_per_cpu_second:.3f} J"
    for name, value in (("sent", model.joules_per_byte_sent), ("received", model.joules_per_byte_received)):
        text = "could not be told" if value is None else f"{1e6 * value:.3g} µJ"
        yield f"a byte {name:<14} {text}"
    yield f"left over             {model.rms_watts:.3f} W ({model.residual_percent:.1f} %) of {model.windows} windows"
    yield f'{path} is written: [energy] source = "model", model = "{path}"'


def _line(sample: Sample) -> str:
    watts = sample.joules / sample.seconds
    return f"{sample.load:<14} {watts:8.3f} W {sample.cpu_seconds:7.2f} CPU s {sample.sent_bytes:>12,} B sent"
