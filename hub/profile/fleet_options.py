"""Options of `cutlayer-hub profile fleet`; what a device would refuse is refused here, in a sentence."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from edge.wire import topics
from edge.wire.codec import parse_codec
from edge.wire.frames import WireError
from edge.wire.inquiry import BATCH_LIMIT, ENTRIES, LIMIT_SECONDS, SECONDS, THREADS_LIMIT

T = TypeVar("T")

WAIT_SECONDS = 1800.0


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    add = parser.add_argument
    add("--config", type=Path, default=Path("hub.toml"), help="configuration of the hub (hub.toml)")
    add("--tls", action="store_true", help="as of cutlayer-hub serve: broker and enrolment of the fleet's own")
    add("--devices", type=_names, default=(), metavar="NAME,NAME", help="who is asked (as many as the fleet has)")
    add(
        "--batch",
        type=_numbers(BATCH_LIMIT),
        default=(),
        metavar="N,N",
        help="batch sizes (each device's own choice: 32)",
    )
    add("--threads", type=_numbers(THREADS_LIMIT), default=(), metavar="N,N", help="threads (each device's own)")
    add("--codec", type=_codecs, default=(), metavar="NAME,NAME", help="codecs (float32,entropy:1)")
    add("--seconds", type=_from_to(*SECONDS), default=3.0, help="most seconds a stage (3)")
    add("--out", type=Path, metavar="DIR", help="folder of the profiles (profiles/<fleet>-<time>)")
    wait = f"for the last answer; then those that are missing are named ({WAIT_SECONDS:g})"
    add("--wait", type=_from_to(*LIMIT_SECONDS), default=WAIT_SECONDS, metavar="SECONDS", help=wait)


def _words(text: str) -> list[str]:
    words = sorted({word.strip() for word in text.split(",")} - {""})
    if not words:
        raise argparse.ArgumentTypeError(f"{text!r} names nothing")
    return words


def _names(text: str) -> tuple[str, ...]:
    try:
        return tuple(topics.check_name(name) for name in _words(text))
    except WireError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _codecs(text: str) -> tuple[str, ...]:
    try:
        for word in _words(text):
            parse_codec(word)
    except WireError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return _few(tuple(_words(text)))


def _numbers(most: int) -> Callable[[str], tuple[int, ...]]:
    def read(text: str) -> tuple[int, ...]:
        try:
            numbers = tuple(sorted({int(word) for word in _words(text)}))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers like 1,32") from None
        if not 1 <= numbers[0] <= numbers[-1] <= most:
            raise argparse.ArgumentTypeError(f"{text}: they must be from 1 to {most}")
        return _few(numbers)

    return read


def _few(values: tuple[T, ...]) -> tuple[T, ...]:
    if len(values) > ENTRIES:
        raise argparse.ArgumentTypeError(f"{len(values)} of them; at most {ENTRIES} can be asked for at a time")
    return values


def _from_to(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{text}: it must be from {low:g} to {high:g}")
        return number

    return read
