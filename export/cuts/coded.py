"""The bytes of messages, measured: packed, cut into chunks and framed as devices and hubs do it."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge.wire import messages
from edge.wire.codec import Encoder, parse_codec, pieces
from edge.wire.coder import Coder, stream_codec
from edge.wire.frames import DATA_OVERHEAD, WireError, chunk_count
from edge.wire.manifest import Slice
from export.cuts.calibration import Array
from export.cuts.smashed import Smashed
from export.errors import ExportError

CHUNK_BYTES = 8192
"""What a device cuts its messages into."""
TAG = bytes(4)


@dataclass(frozen=True)
class Sizes:
    """Bytes of a message in frames; means over those with the table known at the other side."""

    activation: float
    gradient: float | None
    """None where none comes down."""
    table: float
    """What the table, sent once, adds; 0 without one."""


def check_codec(text: str) -> str:
    """The codec's text.

    Raises:
        ExportError: there is none of that name, or not with this parameter.
    """
    try:
        parse_codec(text)
    except WireError as error:
        raise ExportError(str(error)) from error
    return text


def sizes(sent: Sequence[Smashed], codec: str) -> Sizes:
    """Bytes of the messages of these steps, one stream each way."""
    up, down = _Stream(codec), _Stream(codec)
    ups, downs = [], []
    for step, each in enumerate(sent):
        ups.append(up.bytes(messages.Activation(TAG, 1, 0, step, "train", each.activation, each.labels, up.codec)))
        if each.gradient is not None:
            downs.append(down.bytes(messages.Gradient(TAG, 1, 0, step, each.gradient, 1.0, down.codec)))
    later = ups[1:] or ups
    return Sizes(statistics.fmean(later), statistics.fmean(downs[1:] or downs) if downs else None, up.table)


class _Stream:
    """One coder, whose other side knows every table at once."""

    def __init__(self, text: str) -> None:
        self._coder = Coder()
        self.codec: str | Encoder = stream_codec(text, self._coder)
        self.table = 0.0

    def bytes(self, message: messages.Message) -> int:
        size = framed(len(messages.pack(message)))
        sent = self._coder.sent
        if sent is not None and sent.table is not None and sent.embedded:
            self._coder.known(sent.table)
            table = self._coder.table
            self.table = float(len(table.data)) if table is not None else 0.0
        return size


def framed(length: int, chunk_bytes: int = CHUNK_BYTES) -> int:
    """Bytes of a message's frames."""
    return length + DATA_OVERHEAD * chunk_count(length, chunk_bytes)


def weights(slices: Sequence[Slice], parts: Sequence[str]) -> int:
    """Bytes of the message with these parts of a device's model, as float32."""
    named = {piece.name: np.zeros(piece.shape, np.float32) for piece in slices if piece.part in parts}
    return framed(len(messages.pack(messages.State(TAG, 1, named)))) if named else 0


def decoded(array: Array, codec: str) -> Array:
    """What the other side makes of an array."""
    from edge.wire.codec import decode  # noqa: PLC0415  only the leak meter decodes

    return decode(b"".join(pieces(array, codec)))[0]
