"""Options of the command `cuts`; imports nothing that is slow, since every --help reads it."""

import argparse
from pathlib import Path


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of measuring and choosing."""
    add = parser.add_argument
    add(
        "--data",
        metavar="FILE",
        help="calibration data: an .npz with x and y, or package.module:function that returns them; with it everything is measured",
    )
    add(
        "--codec",
        action="append",
        metavar="TEXT",
        help="such as entropy:1; the first is predicted with, the leak is measured behind each (default: float32)",
    )
    add("--strategy", default="adasplit", help="who sends what in a round (default: %(default)s)")
    add("--batches", type=_positive, default=10, metavar="N", help="steps of a round (default: %(default)s)")
    add("--rounds", type=_positive, default=20, metavar="N", help="rounds of a run (default: %(default)s)")
    add("--devices", type=_positive, default=10, metavar="N", help="devices of the fleet (default: %(default)s)")
    add("--batch", type=_positive, default=32, metavar="N", help="samples of a step (default: %(default)s)")
    add("--threads", type=_positive, default=1, metavar="N", help="of onnxruntime and PyTorch (default: %(default)s)")
    add("--only", metavar="CUT,CUT", help="look at these cuts only")
    add("--board", type=Path, metavar="FILE", help="profile of a board; without it, times are this machine's")
    add("--link", metavar="SPEED", help="such as 256kbit; picks a cut")
    add("--budget", metavar="AMOUNT", help="such as 5MB/day; picks a cut")
    add("--max-leak", type=share, metavar="X", help="picks no cut that gives away more, 0 to 1")
    add(
        "--leak-seconds",
        type=_seconds,
        default=10.0,
        metavar="S",
        help="that a decoder trains for each cut and codec; 0: none (default: %(default)s)",
    )
    add("--json", type=Path, metavar="FILE", help="write all figures")
    add("--plot", type=Path, metavar="FILE.svg", help="write a drawing")
    add("--profile", type=Path, metavar="FILE", help="write what was measured as the profile of this machine")


def add_leak_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `build` that refuse a cut which gives away too much."""
    add = parser.add_argument
    add(
        "--max-leak",
        type=share,
        metavar="X",
        help="refuse a cut that gives away more, 0 to 1: the larger of distance correlation and what a decoder rebuilds",
    )
    add(
        "--data",
        metavar="FILE",
        help="for --max-leak: an .npz with x and y, or package.module:function that returns them",
    )
    add(
        "--codec",
        default="float32",
        metavar="TEXT",
        help="for --max-leak: what the smashed data go through, such as entropy:1 (default: %(default)s)",
    )
    add(
        "--leak-seconds",
        type=_seconds,
        default=60.0,
        metavar="S",
        help="for --max-leak: that the decoder trains (default: %(default)s)",
    )


def share(text: str) -> float:
    """A number from 0 to 1."""
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 1")
    return number


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 3600 seconds")
    return number
