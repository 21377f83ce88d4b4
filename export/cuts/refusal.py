"""`build --max-leak`: no bundle of a cut that gives away more than it may."""

from export.bundle import BuildSpec, prepare
from export.cuts.calibration import read
from export.cuts.candidates import vocabulary_of
from export.cuts.coded import check_codec
from export.cuts.leak import Leak, leak
from export.cuts.smashed import train
from export.errors import ExportError


def refuse_leak(spec: BuildSpec, data: str | None, codec: str, limit: float, seconds: float) -> Leak:
    """Measure what the cut of a bundle gives away, after a few steps of training.

    Args:
        spec: the bundle.
        data: calibration data, as `calibration.read` takes them.
        codec: what the smashed data go through.
        limit: the most that the larger of distance correlation and reconstruction may be.
        seconds: that the decoder trains.

    Raises:
        ExportError: it gives away more, there are no data, or the model trains uncut and sends no smashed data.
    """
    if data is None:
        raise ExportError(f"--max-leak {limit:g} needs calibration data to measure with: give --data")
    check_codec(codec)
    prepared = prepare(spec)
    if prepared.steps.objective.whole:
        raise ExportError(
            f"--max-leak {limit:g}: the objective '{spec.objective}' trains the whole model; it sends no smashed data"
        )
    x = prepared.steps.x
    found = read(data, tuple(x.shape[1:]), str(x.dtype).removeprefix("torch."), prepared.classes)
    trained = train(prepared, found)
    seen = leak(trained.lower, found, codec, seconds=seconds, vocabulary=vocabulary_of(prepared, found))
    what, number = seen.worst
    if number > limit:
        raise ExportError(
            f"the cut at '{prepared.halves.cut}' gives away too much behind {codec}: its leak is {number:.2f} ({what}), "
            f"the limit is {limit:g}; no bundle was written. Cut higher up, or code more coarsely"
        )
    return seen
