"""The codec `entropy:K`: a uniform quantiser whose symbols are coded by rANS with a table.

A value is its multiple of the step; the smallest four multiples are moved to where their values had their mean, the
centroid. Zero stays zero. So what is decoded depends on the tensor and the step alone, whatever table was used: a device
that lost its tables in a power cut and codes a step once more sends the same values. What a message holds, to the byte, is
in `README.md`.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.wire import escapes, rans
from edge.wire.fit import train
from edge.wire.floats import FLOAT32_LIMIT, decoded
from edge.wire.frames import WireError
from edge.wire.layout import Layout, fits
from edge.wire.ranks import fold, lower_bits, rank, unfold
from edge.wire.table import Table, alphabet_of, parse_table
from edge.wire.tables import Tables
from edge.wire.varint import pack_varint, unpack_varint

Array = npt.NDArray[Any]

NUMBER = 4
LARGEST = 32766
"""No multiple of the step is larger; a step that would need it is widened."""

_PLAIN, _NAMED, _EMBEDDED = range(3)
_HEAD = struct.Struct("<Bf4b")
"""Form, step, centroids of `_MOVED` in 1/256 of the step."""
_MOVED = (-2, -1, 1, 2)
_ID = struct.Struct("<I")
SMALL = 256
"""Elements from which on a table may pay that only this message uses."""
_LARGE = 4096
_CENTROID_SAMPLES = 1 << 14
_BYTES_A_LANE = 64
_STEPS = 400
"""Of a lane, at most about so many, for speed; but a lane takes a byte."""
_WORDS_A_LANE = 1.1
"""That lanes give away, on average, before they are doubled: one each is needed."""
_SLOWER_PACES = (1, 1.5, 2.2, 4)


@dataclass(frozen=True)
class Symbols:
    """A tensor on its quantiser."""

    shape: tuple[int, ...]
    step: float
    scaled: Array
    """Values over the step: floats, flat."""
    values: Array
    """Their multiples: whole numbers, flat."""

    @property
    def nonzero_share(self) -> float:
        """Share of the elements that are not zero on the quantiser."""
        return float(np.count_nonzero(self.values)) / max(1, self.values.size)


def quantise(array: Array, *, deviations: float | None = None, step: float | None = None) -> Symbols:
    """A tensor of finite floats in multiples of a step.

    Args:
        array: of any shape.
        deviations: the step in standard deviations of the tensor.
        step: the step itself. It is widened where a value would be more than 32766 steps.

    Raises:
        WireError: a value is too large for float32.
    """
    flat = array.ravel()
    largest = float(max(flat.max(), -flat.min())) if flat.size else 0.0
    if step is None:
        deviation = _deviation(flat) if flat.size else 0.0
        step = (deviations or 1.0) * (deviation or largest)
    used = np.float32(min(max(step, largest / LARGEST, 2.0**-126), FLOAT32_LIMIT))
    if largest + float(used) >= FLOAT32_LIMIT:
        raise WireError(f"values up to {largest:g} are too large for a step of {used:g}", "range")
    scaled = flat * np.float32(1 / float(used)) if flat.dtype == np.float32 and used > 1e-30 else flat / float(used)
    return Symbols(array.shape, float(used), scaled, np.rint(scaled).astype(np.int16))


def _deviation(flat: Array) -> float:
    """In float32 where that holds the squares, since it is twice as fast."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        quick = float(flat.std())
    return quick if 1e-15 < quick < 1e15 else float(flat.std(dtype=np.float64))


@dataclass(frozen=True)
class Coded:
    """What `encode_with` gave."""

    payload: bytes
    bits: float
    """What the table says the symbols cost; without lanes, centroids and escapes."""


def step_of(payload: bytes) -> float:
    """The step that a payload of this codec was quantised with."""
    step: float = _HEAD.unpack_from(payload)[1]
    return step


def usable(table: Table, shape: tuple[int, ...]) -> bool:
    """Whether tensors of this shape can be coded with the table."""
    return _laid_out(table, shape) is not None


def encode_plain(symbols: Symbols) -> bytes:
    """The payload without a table."""
    return _head(_PLAIN, symbols) + escapes.pack(symbols.values.astype(np.int64))


def cost(symbols: Symbols, table: Table) -> float:
    """Bits that the table says the symbols cost, escapes and lower bits included.

    Raises:
        WireError: the table is for tensors of another shape.
    """
    folded, ranks = _ranked(symbols, table)
    flat = _places(ranks, table, *_expected(table, symbols.shape))
    beside = len(escapes.pack(folded[ranks == len(table.values)].astype(np.int64)))
    return float(table.bits.take(flat).sum(dtype=np.float64)) + 8 * beside + table.shift * np.count_nonzero(folded)


def encode_with(symbols: Symbols, table: Table, *, embed: bool) -> Coded:
    """The payload with a table, which is embedded or only named.

    Raises:
        WireError: the table is for tensors of another shape.
    """
    layout, bases = _expected(table, symbols.shape)
    folded, ranks = _ranked(symbols, table)
    flat = _places(ranks, table, layout, bases)
    bits = float(table.bits.take(flat).sum(dtype=np.float64))
    side = _beside(symbols, table, folded, ranks)
    lanes = rans.lanes_for(flat.size, layout.slab, max(flat.size // _STEPS, int(bits / 8) // _BYTES_A_LANE))
    if not rans.few_steps(layout.slabs, layout.slab, lanes):
        lanes = rans.lanes_for(flat.size, layout.slab, rans.LANES_LIMIT)
    frequency, start = table.flat
    least = _WORDS_A_LANE * 16 * flat.size / max(bits, 1) + 2
    paces = [int(least * factor) for factor in _SLOWER_PACES if least * factor <= rans.PACE_LIMIT]
    states, words, pace = rans.encode(frequency.take(flat), start.take(flat), layout.slab, lanes, paces, side)
    held = 2 * rans.first_lanes(lanes, pace)
    named = pack_varint(len(table.data)) + table.data if embed else _ID.pack(table.id)
    form = _head(_EMBEDDED if embed else _NAMED, symbols)
    head = form + named + bytes([lanes - 1, pace]) + pack_varint(len(side))
    payload = head + rans.pack_states(states) + side[held:] + words.astype("<u2").tobytes()
    return Coded(payload, bits)


def encode_alone(symbols: Symbols) -> bytes:
    """The payload with a table of its own, or without one, whichever is shorter."""
    if symbols.values.size < SMALL:
        return encode_plain(symbols)
    table = train(symbols.values.reshape(symbols.shape))
    if not usable(table, symbols.shape):
        return encode_plain(symbols)
    payload = encode_with(symbols, table, embed=True).payload
    # Where symbols take more than a bit or so, the table has paid for itself.
    if len(payload) > symbols.values.size // 8 and symbols.values.size > _LARGE:
        return payload
    return min(payload, encode_plain(symbols), key=len)


def decode(payload: bytes | memoryview, shape: tuple[int, ...], tables: Tables | None = None) -> Array:
    """float32, flat.

    Raises:
        WireError: the payload is not that of such a tensor, or names a table that is not there (reason "table").
    """
    data = bytes(payload)
    if len(data) < _HEAD.size:
        raise WireError(f"entropy payload of {len(data)} bytes is cut off", "too short")
    form, step, *centres = _HEAD.unpack_from(data)
    if not math.isfinite(step) or step <= 0:
        raise WireError(f"quantiser step {step} is not a positive number", "step")
    if form == _PLAIN:
        return _scaled(_moved(_decode_plain(data, math.prod(shape)), centres), step)
    table, offset = _table(data, form, tables)
    return _scaled(_moved(_decode_with(data, offset, shape, table), centres), step)


def _decode_plain(data: bytes, count: int) -> Array:
    values, taken = escapes.unpack(data[_HEAD.size :], count)
    if taken != len(data) - _HEAD.size:
        raise WireError(f"{len(data) - _HEAD.size - taken} bytes too many behind {count} numbers", "length")
    return values


def _decode_with(data: bytes, offset: int, shape: tuple[int, ...], table: Table) -> Array:
    layout, bases = _expected(table, shape)
    if offset + 1 >= len(data):
        raise WireError("entropy payload is cut off", "too short")
    lanes, pace = data[offset] + 1, data[offset + 1]
    length, offset = unpack_varint(data, offset + 2)
    if lanes > layout.slab or not rans.few_steps(layout.slabs, layout.slab, lanes):
        raise WireError(f"{lanes} lanes for {layout.slabs} slabs of {layout.slab} symbols", "coder")
    states, taken = rans.unpack_states(data[offset : offset + 5 * lanes], lanes)
    offset += taken
    behind = max(0, length - 2 * rans.first_lanes(lanes, pace))
    if behind > len(data) - offset or (len(data) - offset - behind) % 2:
        raise WireError(f"entropy payload of {len(data)} bytes is cut off", "too short")
    words = np.frombuffer(data, "<u2", offset=offset + behind)
    joined, held = rans.decode(states, words, layout.slabs, bases, pace, alphabet_of(table))
    if any(held[length:]):
        raise WireError("code stream does not end where it began: its table is another one, or it is damaged", "coder")
    ranks = layout.restore(table.digits[joined])
    return _values(ranks, held[:length] + data[offset : offset + behind], table)


def _values(ranks: Array, side: bytes, table: Table) -> Array:
    escaped = ranks == len(table.values)
    folded = np.array((*table.values, 0), np.int64)[ranks]
    folded[escaped], offset = escapes.unpack(side, int(np.count_nonzero(escaped)))
    if table.shift:
        folded, offset = _with_lower_bits(folded, side, offset, table.shift)
    if offset != len(side):
        raise WireError(f"{len(side)} bytes beside the code stream, {offset} are needed", "length")
    return folded


def _moved(values: Array, centres: Sequence[int]) -> Array:
    """Multiples of the step as floats, the small ones at their centroids."""
    reach = max(_MOVED)
    places = np.zeros(2 * reach + 2, np.float32)
    places[[multiple + reach for multiple in _MOVED]] = np.array(centres, np.float32) / np.float32(256)
    near = np.minimum((values + reach).view(np.uint64), 2 * reach + 1)  # the last place is for all that lie further off
    return values.astype(np.float32) + places[near]


def _centres(symbols: Symbols) -> list[int]:
    """How far the mean of the values of a multiple lies from it, in 1/256 of the step."""
    stride = max(1, symbols.values.size // _CENTROID_SAMPLES) | 1
    some, over = symbols.values[::stride], symbols.scaled[::stride]
    found = []
    for multiple in _MOVED:
        mine = over[some == multiple]
        moved = float(mine.mean(dtype=np.float64)) - multiple if mine.size else 0.0
        found.append(max(-128, min(127, round(256 * moved))))
    return found


def _head(form: int, symbols: Symbols) -> bytes:
    return _HEAD.pack(form, symbols.step, *_centres(symbols))


def _with_lower_bits(folded: Array, side: bytes, offset: int, shift: int) -> tuple[Array, int]:
    count = int(np.count_nonzero(folded))
    stream = np.unpackbits(np.frombuffer(side, np.uint8, offset=offset))[: count * shift]
    if len(stream) < count * shift:
        raise WireError("lower bits are cut off", "too short")
    return unfold(folded, escapes.from_bits(stream, shift, count), shift), offset + -(-count * shift // 8)


def _beside(symbols: Symbols, table: Table, folded: Array, ranks: Array) -> bytes:
    """What is sent beside the ranks: escapes, and lower bits."""
    escaped = escapes.pack(folded[ranks == len(table.values)].astype(np.int64))
    if not table.shift:
        return escaped
    low = lower_bits(symbols.values.astype(np.int64), table.shift)
    return escaped + np.packbits(escapes.to_bits(low, table.shift)).tobytes()


def _table(data: bytes, form: int, tables: Tables | None) -> tuple[Table, int]:
    if form == _EMBEDDED:
        length, offset = unpack_varint(data, _HEAD.size)
        if length > len(data) - offset:
            raise WireError(f"table of {length} bytes is cut off", "table")
        sent = parse_table(data[offset : offset + length])
        return sent if tables is None else tables.put(sent), offset + length
    if form != _NAMED:
        raise WireError(f"entropy payload of unknown form {form}", "codec")
    if len(data) < _HEAD.size + _ID.size:
        raise WireError(f"entropy payload of {len(data)} bytes is cut off", "too short")
    (name,) = _ID.unpack_from(data, _HEAD.size)
    table = tables.get(name) if tables is not None else None
    if table is None:
        raise WireError(f"table {name:08x} is not known here", "table")
    return table, _HEAD.size + _ID.size


def _ranked(symbols: Symbols, table: Table) -> tuple[Array, Array]:
    folded = fold(symbols.values, table.shift) if table.shift else symbols.values
    return folded, rank(folded, table.values)


def _places(ranks: Array, table: Table, layout: Layout, bases: Array) -> Array:
    """Where each group's context and symbol stand in the table's arrays: flat int64."""
    joined = _joined(layout.arrange(ranks), table.model.ranks)
    index = np.empty(joined.shape, np.int64)
    index[0] = table.model.contexts - 1
    np.take(table.following, joined[:-1], out=index[1:])
    index += bases
    index *= table.model.symbols
    index += joined
    return index.ravel()


def _expected(table: Table, shape: tuple[int, ...]) -> tuple[Layout, Array]:
    found = _laid_out(table, shape)
    if found is None:
        raise WireError(f"table {table.id:08x} is not for tensors of shape {shape}", "table")
    return found


def _laid_out(table: Table, shape: tuple[int, ...]) -> tuple[Layout, Array] | None:
    """The layout, and the first context of each place of a slab."""
    if not math.prod(shape) or not fits(table.model.layout, shape):
        return None
    layout = Layout(table.model.layout, shape, table.model.size)
    of_channel = table.class_of(layout.channels)
    if of_channel is None or not rans.few_steps(layout.slabs, layout.slab, rans.LANES_LIMIT):
        return None
    return layout, layout.classes(of_channel)


def _joined(groups: Array, ranks: int) -> Array:
    """`(slabs, slab)`: the ranks of a group as one number, uint8."""
    joined = groups[..., 0].copy()
    for place in range(1, groups.shape[-1]):
        joined *= np.uint8(ranks)
        joined += groups[..., place]
    return joined


def _scaled(values: Array, step: float) -> Array:
    with np.errstate(over="ignore"):
        return decoded(values.astype(np.float32) * np.float32(step))
