"""The options of `cutlayer profile` and `cutlayer profile calibrate`, and what they do."""

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile

from edge.profile import attended
from edge.profile.asked import Asked
from edge.refusal import RefusalError
from edge.wire.profile import STAGES


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    usual = Asked("")
    parser.add_argument(
        "--config", type=Path, help="the device's configuration: its bundle, data, threads, meter, broker"
    )
    parser.add_argument("--bundle", help="a bundle instead of the configuration's; - reads it from standard input")
    parser.add_argument("--batch", type=_numbers, default=usual.batches, metavar="N,N", help="batch sizes (32)")
    parser.add_argument("--threads", type=_numbers, metavar="N,N", help="threads of a step (the configuration's, or 1)")
    parser.add_argument(
        "--codec", type=_words, default=usual.codecs, metavar="NAME,NAME", help="codecs (float32,entropy:1)"
    )
    parser.add_argument(
        "--stages", type=_words, default=usual.stages, metavar="NAME,NAME", help=f"which of {', '.join(STAGES)} (all)"
    )
    parser.add_argument("--seconds", type=float, default=usual.seconds, help="most seconds a stage (3)")
    parser.add_argument(
        "--precision", type=float, default=usual.precision, help="a median known to this share of it is enough (0.02)"
    )
    parser.add_argument("--synthetic", action="store_true", help="samples are made up, also where there are data")
    parser.add_argument(
        "--send-beyond-budget", action="store_true", help="measure sending although the device has a budget of bytes"
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write profile.json; - is standard output, the rest goes to stderr"
    )
    parser.add_argument(
        "--attended",
        type=_count,
        metavar="BYTES",
        help="for programs that wait for the profile: standard input is so many bytes of a bundle, then a byte now and then; "
        f"the profile ends when it ends, or brings nothing for {attended.SILENCE_SECONDS:g} s",
    )
    more = parser.add_subparsers(dest="what", metavar="calibrate", required=False)
    text = calibrate.__doc__ or ""
    calibration = more.add_parser("calibrate", help=text, description=text)
    calibration.add_argument(
        "--config", type=Path, required=True, help="the device's configuration: its meter, its broker"
    )
    calibration.add_argument("--out", type=Path, default=Path("energy-model.json"), help="file of the model")
    calibration.add_argument("--seconds", type=float, default=10.0, help="of each window (10)")
    calibration.add_argument("--repeats", type=int, default=3, help="windows of each load (3)")
    calibration.add_argument(
        "--no-send", action="store_true", help="leave out joules a byte: nothing is sent to the broker"
    )


def run(options: argparse.Namespace) -> int:
    """Measure what a bundle costs on this board: time, memory, joules and bytes of every stage of a step."""
    if options.what == "calibrate":
        return calibrate(options)
    from edge import config, processor  # noqa: PLC0415

    if options.config is None and options.bundle is None:
        raise RefusalError("there is nothing to measure: give --config device.toml or --bundle FILE")
    settings = None if options.config is None else config.load(options.config, os.environ)
    processor.probe()
    from edge.profile import record, table  # noqa: PLC0415  what the probe has tried

    to_stdout = options.json == "-"
    # Before minutes of measuring, not after them.
    _writable(options.json)
    say = sys.stderr if to_stdout else sys.stdout
    told = _progress()
    with _bundle(options.bundle, options.attended) as bundle:
        if options.attended is not None:
            attended.watch(told)
        asked = Asked(
            bundle=str((bundle or settings.bundle.path).absolute()),  # type: ignore[union-attr]  # one of both is there
            config=None if options.config is None else str(options.config.absolute()),
            batches=options.batch,
            threads=options.threads or (settings.run.threads if settings else 1,),
            codecs=options.codec,
            stages=options.stages,
            seconds=options.seconds,
            precision=options.precision,
            synthetic=options.synthetic,
            send_beyond_budget=options.send_beyond_budget,
        ).check()
        found = record.take(asked, settings, told=told, at=datetime.now(UTC).astimezone())
        told("")
    print(table.table(found), end="", file=say)
    if to_stdout:
        print(found.serialize(), end="")
    elif options.json:
        Path(options.json).write_text(found.serialize(), "utf-8")
    return 0 if found.stages else 1


def calibrate(options: argparse.Namespace) -> int:
    """Fit a model of this board's energy against its meter: idle power, joules a CPU second, joules a byte."""
    from edge import config  # noqa: PLC0415
    from edge.profile import calibrate as calibration  # noqa: PLC0415

    settings = config.load(options.config, os.environ)
    model = calibration.run(
        settings,
        seconds=options.seconds,
        repeats=options.repeats,
        send=not options.no_send,
        told=print,
        at=datetime.now(UTC).astimezone(),
    )
    model.save(options.out)
    for line in calibration.words(model, options.out):
        print(line)
    return 0


def _progress() -> Callable[[str], None]:
    """One line that is written over, where there is a terminal."""
    if not sys.stderr.isatty():
        return lambda text: print(text, file=sys.stderr, flush=True)
    return lambda text: print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


@contextmanager
def _bundle(name: str | None, count: int | None) -> Iterator[Path | None]:
    """The path of the bundle that is named; None where none is. One from standard input, all of it or so many bytes, lies in a file meanwhile."""
    if name != "-":
        yield None if name is None else Path(name)
        return
    with NamedTemporaryFile(suffix=".bundle") as file:
        if count is None:
            shutil.copyfileobj(sys.stdin.buffer, file)
        else:
            attended.copy(count, file)
        file.flush()
        yield Path(file.name)


def _writable(name: str | None) -> None:
    if name in (None, "-"):
        return
    folder = Path(str(name)).absolute().parent
    if not os.access(folder, os.W_OK):
        raise RefusalError(f"--json {name}: {folder} {'cannot be written' if folder.is_dir() else 'is no folder'}")


def _count(text: str) -> int:
    if not text.isdecimal() or not text.isascii():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of bytes")
    return int(text)


def _words(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (word.strip() for word in text.split(","))))


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in _words(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers like 1,32") from None
