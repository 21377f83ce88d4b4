"""What a step costs on a device's board: the hub's question, and the device's answer.

The question is JSON. The answer carries `profile.json` (`edge/wire/profile.py`), deflated, or why there is none:

    kind 11 | u32 number | u8 form | form 0: the file's text as a zlib stream; form 1: the reason, UTF-8

A text that is too long is refused before it is unpacked further; whether it is a profile is the reader's business.
"""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge.wire import fields
from edge.wire.codec import Bytes, parse_codec
from edge.wire.fields import Check
from edge.wire.frames import U32, WireError
from edge.wire.reader import Reader

PACKED_LIMIT = 256 << 10
"""Most bytes of a profile on the wire."""
TEXT_LIMIT = 2 << 20
"""Most bytes of a profile's text."""
ENTRIES = 8
"""Most batch sizes, thread counts and codecs of one question."""
BATCH_LIMIT = 65_536
THREADS_LIMIT = 64
SECONDS = (0.05, 600.0)
"""That each stage may be measured for."""
LIMIT_SECONDS = (1.0, 86_400.0)
"""That all of it may take."""


@dataclass(frozen=True)
class Inquiry:
    """Hub to device: what does a step cost on your board? Profile it, and answer."""

    number: int
    """Drawn by the hub; the answer names it."""
    batches: tuple[int, ...]
    """Samples of a batch, ascending; none: what the profiler takes by itself, and so below."""
    threads: tuple[int, ...]
    """Ascending."""
    codecs: tuple[str, ...]
    """Ascending."""
    seconds: float
    """To measure each stage for."""
    limit_seconds: float
    """After so many the profiler is ended."""


@dataclass(frozen=True)
class Answer:
    """Device to hub: the profile, or why there is none."""

    number: int
    """Of the inquiry."""
    text: str = ""
    """Of `profile.json`; empty where there is none."""
    reason: str = ""
    """Why there is none; empty where there is one."""


def _within(low: float, high: float) -> Check:
    def check(name: str, value: Any) -> float:
        if not low <= fields.number(name, value) <= high:
            raise WireError(f"{name} = {value} is not a number from {low:g} to {high:g}", "fields")
        return float(value)

    return check


def _codec(name: str, value: Any) -> str:
    found: str = fields.text(64)(name, value)
    parse_codec(found)
    return found


INQUIRY: dict[str, Check] = {
    "number": fields.integer(0, U32),
    "batches": fields.ascending(fields.integer(1, BATCH_LIMIT), ENTRIES),
    "threads": fields.ascending(fields.integer(1, THREADS_LIMIT), ENTRIES),
    "codecs": fields.ascending(_codec, ENTRIES),
    "seconds": _within(*SECONDS),
    "limit_seconds": _within(*LIMIT_SECONDS),
}
"""The fields of an `Inquiry`."""

_HEAD = struct.Struct("<IB")
_PROFILE, _REASON = 0, 1
_ANSWER: dict[str, Check] = {"number": INQUIRY["number"], "reason": fields.text(fields.TEXT_LIMIT)}


def write_answer(message: Answer) -> Sequence[Bytes]:
    """Its bytes behind the kind.

    Raises:
        WireError: the text is too long, packed or as it is, or there are both or neither of text and reason.
    """
    fields.checked(vars(message), _ANSWER, "answer")
    if bool(message.text) == bool(message.reason):
        raise WireError(f"answer {message.number} needs a profile or a reason, one of both", "fields")
    if message.reason:
        return _HEAD.pack(message.number, _REASON), message.reason.encode()
    try:
        text = message.text.encode()
    except UnicodeEncodeError as error:
        raise WireError("the profile has characters that UTF-8 cannot carry", "fields") from error
    _bounded(len(text), TEXT_LIMIT, "profile")
    packed = zlib.compress(text, 9)
    _bounded(len(packed), PACKED_LIMIT, "packed profile")
    return _HEAD.pack(message.number, _PROFILE), packed


def read_answer(reader: Reader) -> Answer:
    """The answer in these bytes."""
    number, form = reader.numbers(_HEAD)
    data = reader.rest()
    if form not in (_PROFILE, _REASON):
        raise WireError(f"answer {number} has the unknown form {form}", "fields")
    if form == _PROFILE:
        _bounded(len(data), PACKED_LIMIT, "packed profile")
        data = _inflate(data)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise WireError(f"answer {number} is not UTF-8", "fields") from error
    answer = Answer(number, text) if form == _PROFILE else Answer(number, reason=text)
    fields.checked(vars(answer), _ANSWER, "answer")
    if not text:
        raise WireError(f"answer {number} is empty", "fields")
    return answer


def _inflate(data: bytes) -> bytes:
    decoder = zlib.decompressobj()
    try:
        text = decoder.decompress(data, TEXT_LIMIT + 1)
    except zlib.error as error:
        raise WireError(f"damaged profile: {error}", "deflate") from error
    _bounded(len(text), TEXT_LIMIT, "profile")
    if not decoder.eof or decoder.unused_data:
        raise WireError("a packed profile is cut off, or has bytes behind its end", "deflate")
    return text


def _bounded(size: int, limit: int, what: str) -> None:
    if size > limit:
        raise WireError(f"{what} of {size} bytes, the limit is {limit}", "too long")
