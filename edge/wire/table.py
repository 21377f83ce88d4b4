"""Tables: how likely each symbol is behind its context, in so few numbers that they can be sent.

A symbol is a group of elements, joined to one number. The elements are ranks: 0 for the most frequent value, and so on,
the last one for all values without a rank. How likely a rank is depends on its channel's class and on two ranks near it:

    PLANE   first: the element before it in the group; second: the one above it
    others  first: the element before it; second: the one before that; both reach into the group behind

The probability that a rank is above j, if it is not below j, is the logistic function of a sum of three numbers of
the table (in eighths): of the class, of the first and of the second neighbour. From there on everything is integers,
so that all machines come to the same frequencies, to the bit.
"""

import functools
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edge.wire.frames import WireError
from edge.wire.layout import PLANE
from edge.wire.rans import SLOTS, Alphabet
from edge.wire.varint import pack_varint, unpack_varint, unzigzag, zigzag

Array = npt.NDArray[Any]


class Model(NamedTuple):
    """How ranks are joined to symbols, at most 256 of them."""

    ranks: int
    size: int
    """Elements of a symbol."""
    layout: int

    @property
    def first(self) -> int:
        """Levels of the first neighbour that are told apart; from the last on all count as one."""
        return min(self.ranks, _FIRST)

    @property
    def second(self) -> int:
        """The same of the second neighbour."""
        most: int = (_ABOVE if self.layout == PLANE else _BEFORE)[self.size]
        return min(self.ranks, most)

    @property
    def behind(self) -> tuple[int, ...]:
        """Levels of those elements of the group behind that count, which make up the context."""
        return (self.second,) * self.size if self.layout == PLANE else (self.second, self.first)

    @property
    def symbols(self) -> int:
        """How many there are."""
        return int(self.ranks**self.size)

    @property
    def contexts(self) -> int:
        """Of a class; the last is for groups with nothing behind them."""
        return math.prod(self.behind) + 1


RANKS_LIMIT = {2: 16, 3: 6, 4: 4}
"""By the elements of a symbol."""
_FIRST = 12
_BEFORE = {2: 4, 3: 4, 4: 4}
_ABOVE = {2: 8, 3: 4, 4: 3}
CLASSES_LIMIT = 16
CONTEXTS_LIMIT = 640
"""Of all classes: a decoder's tables take 16 KiB each."""
CHANNELS_LIMIT = 65_536
SHIFT_LIMIT = 15
TABLE_BYTES_LIMIT = 1 << 17
VALUE_LIMIT = 1 << 17

_LOGIT_LIMIT = 96
_RAW, _DEFLATED = 0, 1


@dataclass(frozen=True, eq=False)
class Table:
    """What both ends must know to code symbols; `data` is what is sent, `id` what it is called by."""

    model: Model
    shift: int
    """Lower bits of a value that are sent as they are."""
    values: tuple[int, ...]
    """The value of each rank but the last."""
    of_channel: tuple[int, ...]
    """Class of each channel; empty where there is one class, for any number of channels."""
    weights: Array
    """int8 `(ranks - 1, classes + first + 1 + second + 1)`: of the classes, of the first and the second neighbour's
    levels; the last level of each is for no neighbour."""

    @property
    def classes(self) -> int:
        """How many there are."""
        return int(self.weights.shape[1]) - self.model.first - self.model.second - 2

    @functools.cached_property
    def raw(self) -> bytes:
        """The table's bytes, the same for the same table."""
        ranks, size, layout = self.model
        head = bytes([size - 1 | layout << 2 | self.shift << 4, ranks - 1 | self.classes - 1 << 4])
        head += b"".join(pack_varint(zigzag(value)) for value in self.values)
        if self.classes > 1:
            nibbles = np.array([*self.of_channel, *[0] * (len(self.of_channel) % 2)], np.uint8)
            head += pack_varint(len(self.of_channel)) + (nibbles[::2] | nibbles[1::2] << 4).tobytes()
        return head + self.weights.astype(np.int8).tobytes()

    @functools.cached_property
    def data(self) -> bytes:
        """The bytes as they are sent: deflated where that is shorter."""
        raw = self.raw
        coder = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9)
        deflated = coder.compress(raw) + coder.flush()
        return bytes([_DEFLATED]) + deflated if len(deflated) < len(raw) else bytes([_RAW]) + raw

    @functools.cached_property
    def id(self) -> int:
        """CRC-32 of `raw`: how it was deflated does not matter."""
        return zlib.crc32(self.raw)

    @property
    def frequencies(self) -> Array:
        """int64 `(contexts, symbols)`, each context's sum to 2^14; contexts are (class, behind)."""
        return _joint(self.model, self.probabilities)

    @property
    def probabilities(self) -> Array:
        """Of ranks, in 2^16: int64 `(classes, second, first, ranks)`."""
        weights = self.weights.astype(np.int64)
        own, first, second = np.split(weights, [self.classes, self.classes + self.model.first + 1], axis=1)
        logits = own[:, :, None, None] + second[:, None, :, None] + first[:, None, None, :]
        above = logistic_table()[np.clip(logits, -_LOGIT_LIMIT, _LOGIT_LIMIT) + _LOGIT_LIMIT]
        rest = np.full(above.shape[1:], 1 << 16)
        parts = []
        for share in above:
            parts.append(rest * (65536 - share) >> 16)
            rest = rest * share >> 16
        return np.stack([*parts, rest], axis=-1)

    @functools.cached_property
    def following(self) -> Array:
        """Context behind which the next group stands, for each symbol: int64."""
        caps = self.model.behind
        near = digits(self.model)[:, -len(caps) :]
        contexts: Array = np.ravel_multi_index(tuple(np.minimum(near, np.array(caps) - 1).T), caps)
        return contexts

    @functools.cached_property
    def flat(self) -> tuple[Array, Array]:
        """Frequency and first slot of each (context, symbol), uint32, flat: what an encoder looks up."""
        return _flat(self.frequencies)

    @functools.cached_property
    def bits(self) -> Array:
        """What each (context, symbol) costs, float32, flat."""
        costs: Array = (np.log2(SLOTS) - np.log2(self.flat[0])).astype(np.float32)
        return costs

    @functools.cached_property
    def digits(self) -> Array:
        """The ranks that each symbol is made of: uint8 `(symbols, size)`, the first element's first."""
        return digits(self.model).astype(np.uint8)

    def class_of(self, channels: int) -> Array | None:
        """First context of each channel, int64; None where the table is for another number of channels."""
        if self.classes == 1:
            return np.zeros(channels, np.int64)
        if len(self.of_channel) != channels:
            return None
        return np.array(self.of_channel, np.int64) * self.model.contexts


@functools.lru_cache(maxsize=4)
def alphabet_of(table: Table) -> Alphabet:
    """What a decoder looks up: up to 12 MB, so that only a few are kept; made anew in some milliseconds."""
    frequency, start = _flat(table.frequencies)
    symbols = table.model.symbols
    every = np.tile(np.arange(symbols, dtype=np.uint8), len(frequency) // symbols)
    slots = np.repeat(every, frequency)
    return Alphabet(symbols, frequency, start, slots, table.following, table.model.contexts - 1)


def _flat(frequency: Array) -> tuple[Array, Array]:
    start = np.cumsum(frequency, axis=1) - frequency
    return frequency.astype(np.uint32).ravel(), start.astype(np.uint32).ravel()


def parse_table(data: bytes | memoryview) -> Table:
    """The table in these bytes.

    Raises:
        WireError: they are none; nothing of the size they claim is allocated before.
    """
    raw = bytes(data[1:]) if data and data[0] == _RAW else _inflated(data)
    if len(raw) < 2:
        raise WireError(f"table of {len(data)} bytes is cut off", "table")
    size, layout, shift = (raw[0] & 3) + 1, raw[0] >> 2 & 3, raw[0] >> 4
    ranks, classes = (raw[1] & 15) + 1, (raw[1] >> 4) + 1
    model = Model(ranks, size, layout)
    if not 2 <= ranks <= RANKS_LIMIT.get(size, 0) or model.contexts * classes > CONTEXTS_LIMIT:
        raise WireError(f"table of {classes} classes for {size} of {ranks} ranks in layout {layout}", "table")
    offset, values, of_channel = 2, [], ()
    for _ in range(ranks - 1):
        folded, offset = unpack_varint(raw, offset)
        values.append(unzigzag(folded))
    if len(set(values)) < len(values) or max(abs(value) for value in values) > VALUE_LIMIT:
        raise WireError(f"table's values {values!s:.80} are not distinct, or too large", "table")
    if classes > 1:
        channels, offset = unpack_varint(raw, offset)
        if channels > CHANNELS_LIMIT or len(raw) < offset + -(-channels // 2):
            raise WireError(f"table of {channels} channels is cut off, or too long", "table")
        pairs = np.frombuffer(raw, np.uint8, -(-channels // 2), offset)
        of_channel = tuple(np.stack([pairs & 15, pairs >> 4], axis=1).ravel()[:channels].tolist())
        offset += len(pairs)
        if max(of_channel, default=0) >= classes:
            raise WireError(f"table's classes go to {max(of_channel)}, there are {classes}", "table")
    shape = ranks - 1, classes + model.first + model.second + 2
    if len(raw) - offset != shape[0] * shape[1]:
        raise WireError(f"table with {len(raw) - offset} weights, {shape[0] * shape[1]} are needed", "table")
    weights = np.frombuffer(raw, np.int8, offset=offset).reshape(shape)
    return Table(model, shift, tuple(values), of_channel, weights)


def digits(model: Model) -> Array:
    """The ranks that a symbol is made of: `(symbols, size)`, the first element's first."""
    return np.stack(np.unravel_index(np.arange(model.ranks**model.size), (model.ranks,) * model.size), axis=1)


@functools.cache
def logistic_table() -> Array:
    """65536 / (1 + exp(-x / 8)) for x from -96 to 96, in whole-number arithmetic only."""
    one = 1 << 80
    step, term = 0, one
    for place in range(1, 40):
        step += term
        term //= 8 * place
    power, upper = one, []
    for _ in range(_LOGIT_LIMIT + 1):
        upper.append(((power << 17) // (power + one) + 1) >> 1)
        power = power * step >> 80
    return np.array([*(65536 - value for value in upper[:0:-1]), *upper])


@functools.cache
def _places(model: Model) -> tuple[Sequence[Array], Sequence[Array]]:
    """For each element of a group its second and its first neighbour's level: `(contexts, symbols)` each."""
    first, second = model.first, model.second
    inside = digits(model).T[:, None, :]
    grid = np.stack(np.unravel_index(np.arange(math.prod(model.behind)), model.behind))[:, :, None]
    firsts = [_capped(rank, first) for rank in inside[:-1]]
    if model.layout == PLANE:
        return [_or_none(ranks, second) for ranks in grid], [np.full((1, 1), first), *firsts]
    seconds = [_or_none(grid[0], second), _or_none(_capped(grid[1], second), second)]
    seconds += [_capped(rank, second) for rank in inside[:-2]]
    return seconds, [_or_none(grid[1], first), *firsts]


def _capped(ranks: Array, levels: int) -> Array:
    return np.minimum(ranks, levels - 1)


def _or_none(ranks: Array, levels: int) -> Array:
    """With a row for the context that has nothing behind it."""
    return np.append(ranks, [[levels]], axis=0)


def _joint(model: Model, probabilities: Array) -> Array:
    seconds, firsts = _places(model)
    weight = np.full((len(probabilities), model.contexts, model.symbols), 1 << 30)
    for second, first, rank in zip(seconds, firsts, digits(model).T, strict=True):
        weight = weight * probabilities[:, second, first, rank] >> 16
    flat = weight.reshape(-1, model.symbols)
    frequency: Array = 1 + flat * (SLOTS - model.symbols) // np.maximum(flat.sum(axis=1, keepdims=True), 1)
    frequency[np.arange(len(frequency)), frequency.argmax(axis=1)] += SLOTS - frequency.sum(axis=1)
    return frequency


def _inflated(data: bytes | memoryview) -> bytes:
    if not data or data[0] != _DEFLATED:
        raise WireError(f"unknown form of table {bytes(data[:1])!r}", "table")
    decoder = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        raw = decoder.decompress(data[1:], TABLE_BYTES_LIMIT)
    except zlib.error as error:
        raise WireError(f"damaged table: {error}", "table") from error
    if not decoder.eof or decoder.unused_data:
        raise WireError(f"table does not end within {TABLE_BYTES_LIMIT} bytes", "table")
    return raw
