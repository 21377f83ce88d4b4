"""The codec `entropy:K`: a uniform quantiser whose symbols are coded by rANS with a table.

A value is its multiple of the step, moved to where the values of that multiple had their mean (its centroid); zero
stays zero. What a message holds, to the byte, is in `README.md`.
"""

import math
import struct
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from edge.wire import escapes, rans
from edge.wire.fit import train
from edge.wire.frames import WireError
from edge.wire.layout import Layout, fits
from edge.wire.ranks import fold, lower_bits, rank, unfold
from edge.wire.table import Table, parse_table
from edge.wire.tables import Tables
from edge.wire.varint import pack_varint, unpack_varint

Array = npt.NDArray[Any]

NUMBER = 4
LARGEST = 32766
"""No multiple of the step is larger; a step that would need it is widened."""

_PLAIN, _NAMED, _EMBEDDED = range(3)
_HEAD = struct.Struct("<Bf")
_ID = struct.Struct("<I")
_FLOAT32_LIMIT = float(np.finfo(np.float32).max)
_SMALL = 256
"""Elements from which on a table may pay that only this message uses."""
_CENTROID_SAMPLES = 1 << 14
_BYTES_A_LANE = 64
_FEWEST_LANES = 32
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
        deviation = float(flat.std(dtype=np.float64)) if flat.size else 0.0
        step = (deviations or 1.0) * (deviation or largest)
    used = np.float32(min(max(step, largest / LARGEST, 2.0**-126), _FLOAT32_LIMIT))
    if largest + float(used) >= _FLOAT32_LIMIT:
        raise WireError(f"values up to {largest:g} are too large for a step of {used:g}", "range")
    scaled = flat * np.float32(1 / float(used)) if flat.dtype == np.float32 and used > 1e-30 else flat / float(used)
    return Symbols(array.shape, float(used), scaled, np.rint(scaled).astype(np.int16))


@dataclass(frozen=True)
class Coded:
    """What `encode_with` gave."""

    payload: bytes
    bits: float
    """What the table says the symbols cost; without lanes, centroids and escapes."""


def usable(table: Table, shape: tuple[int, ...]) -> bool:
    """Whether tensors of this shape, with at least one element, can be coded with the table."""
    return fits(table.model.layout, shape) and _bases(table, Layout(table.model.layout, shape, table.model.size)) is not None


def encode_plain(symbols: Symbols) -> bytes:
    """The payload without a table."""
    return _HEAD.pack(_PLAIN, symbols.step) + escapes.pack(symbols.values.astype(np.int64))


def encode_with(symbols: Symbols, table: Table, *, embed: bool) -> Coded:
    """The payload with a table, which is embedded or only named.

    Raises:
        WireError: the table is for tensors of another shape.
    """
    model = table.model
    layout = Layout(model.layout, symbols.shape, model.size)
    bases = _bases(table, layout) if fits(table.model.layout, symbols.shape) else None
    if bases is None or not symbols.values.size:
        raise WireError(f"a table for other tensors than those of shape {symbols.shape}", "table")
    folded = fold(symbols.values, table.shift) if table.shift else symbols.values
    ranks = rank(folded, table.values)
    joined = _joined(layout.arrange(ranks), model.ranks)
    index = np.empty(joined.shape, np.int64)
    index[0] = model.contexts - 1
    np.take(table.following, joined[:-1], out=index[1:])
    index += bases
    index *= model.symbols
    index += joined
    flat = index.ravel()
    bits = float(table.bits.take(flat).sum(dtype=np.float64))
    side = _side(symbols, table, folded, ranks)
    lanes = rans.lanes_for(flat.size, layout.slab, max(_FEWEST_LANES, int(bits / 8) // _BYTES_A_LANE))
    frequency, start = table.flat
    least = _WORDS_A_LANE * 16 * flat.size / max(bits, 1) + 2
    paces = [int(least * factor) for factor in _SLOWER_PACES if least * factor <= rans.PACE_LIMIT]
    states, words, pace = rans.encode(frequency.take(flat), start.take(flat), layout.slab, lanes, paces, side)
    held = 2 * rans.first_lanes(lanes, pace)
    known = bytes([_EMBEDDED]) if embed else bytes([_NAMED])
    named = pack_varint(len(table.data)) + table.data if embed else _ID.pack(table.id)
    head = known + _HEAD.pack(0, symbols.step)[1:] + named + bytes([lanes - 1, pace]) + pack_varint(len(side))
    payload = head + rans.pack_states(states) + side[held:] + words.astype("<u2").tobytes()
    return Coded(payload, bits)


def encode_alone(symbols: Symbols) -> bytes:
    """The payload with a table of its own, or without one, whichever is shorter."""
    if symbols.values.size < _SMALL:
        return encode_plain(symbols)
    table = train(symbols.values.reshape(symbols.shape))
    coded = encode_with(symbols, table, embed=True).payload
    if len(coded) > symbols.values.size // 4 and symbols.values.size > 16 * _SMALL:
        return coded
    return min(coded, encode_plain(symbols), key=len)


def decode(payload: bytes | memoryview, shape: tuple[int, ...], tables: Tables | None = None) -> Array:
    """float32, flat.

    Raises:
        WireError: the payload is not that of such a tensor, or names a table that is not there (reason "table").
    """
    data = bytes(payload)
    if len(data) < _HEAD.size:
        raise WireError(f"entropy payload of {len(data)} bytes is cut off", "too short")
    form, step = _HEAD.unpack_from(data)
    if not math.isfinite(step) or step <= 0:
        raise WireError(f"quantiser step {step} is not a positive number", "step")
    if form == _PLAIN:
        return _decode_plain(data, step, math.prod(shape))
    table, offset = _table(data, form, tables)
    return _decode_with(data, offset, step, shape, table)


def _decode_plain(data: bytes, step: float, count: int) -> Array:
    values, taken = escapes.unpack(data[_HEAD.size :], count)
    if taken != len(data) - _HEAD.size:
        raise WireError(f"{len(data) - _HEAD.size - taken} bytes too many behind {count} numbers", "length")
    return _scaled(values, step)


def _decode_with(data: bytes, offset: int, step: float, shape: tuple[int, ...], table: Table) -> Array:
    count = math.prod(shape)
    model = table.model
    layout = Layout(model.layout, shape, model.size)
    bases = _bases(table, layout) if count and fits(table.model.layout, shape) else None
    if bases is None:
        raise WireError(f"a table for other tensors than those of shape {shape}", "table")
    if offset + 1 >= len(data):
        raise WireError("entropy payload is cut off", "too short")
    lanes, pace = data[offset] + 1, data[offset + 1]
    length, offset = unpack_varint(data, offset + 2)
    if lanes > layout.slab:
        raise WireError(f"{lanes} lanes for slabs of {layout.slab} symbols", "coder")
    states, taken = rans.unpack_states(data[offset : offset + 5 * lanes], lanes)
    offset += taken
    behind = max(0, length - 2 * rans.first_lanes(lanes, pace))
    if behind > len(data) - offset or (len(data) - offset - behind) % 2:
        raise WireError(f"entropy payload of {len(data)} bytes is cut off", "too short")
    words = np.frombuffer(data, "<u2", offset=offset + behind)
    joined, held = rans.decode(states, words, layout.slabs, bases, pace, table.alphabet)
    if any(held[length:]):
        raise WireError("code stream does not end where it began: its table is another one, or it is damaged", "coder")
    ranks = layout.restore(table.digits[joined])
    return _values(ranks, held[:length] + data[offset : offset + behind], step, table)


def _values(ranks: Array, side: bytes, step: float, table: Table) -> Array:
    many = len(table.values)
    counted = 0 if table.shift else many
    if len(side) < counted:
        raise WireError("centroids are cut off", "too short")
    centres = np.frombuffer(side, np.int8, counted)
    escaped = ranks == many
    values = np.append(np.array(table.values), 0)[ranks]
    values[escaped], taken = escapes.unpack(side[counted:], int(escaped.sum()))
    offset = counted + taken
    moved = np.zeros(many + 1, np.float32)
    if table.shift:
        nonzero = int(np.count_nonzero(values))
        stream = np.unpackbits(np.frombuffer(side, np.uint8, offset=offset))[: nonzero * table.shift]
        if len(stream) < nonzero * table.shift:
            raise WireError("lower bits are cut off", "too short")
        values = unfold(values, escapes.from_bits(stream, table.shift, nonzero), table.shift)
        offset += -(-nonzero * table.shift // 8)
    else:
        moved[:many] = centres.astype(np.float32) / 256
        moved[:many][np.array(table.values) == 0] = 0
    if offset != len(side):
        raise WireError(f"{len(side) - offset} bytes too many beside the code stream", "length")
    if table.shift:
        return _scaled(values, step)
    centred = np.append(np.array(table.values, np.float32), np.float32(0)) + moved
    result = centred[ranks]
    result[escaped] = values[escaped]
    return _scaled(result, step)


def _side(symbols: Symbols, table: Table, folded: Array, ranks: Array) -> bytes:
    """What is sent beside the ranks: centroids or lower bits, and escapes."""
    many = len(table.values)
    escaped = escapes.pack(folded[ranks == many].astype(np.int64))
    if table.shift:
        low = lower_bits(symbols.values.astype(np.int64), table.shift)
        return escaped + np.packbits(escapes.to_bits(low, table.shift)).tobytes()
    stride = max(1, ranks.size // _CENTROID_SAMPLES) | 1
    some, over = ranks[::stride], symbols.scaled[::stride]
    counts = np.bincount(some, minlength=many + 1)[:many]
    sums = np.bincount(some, weights=over, minlength=many + 1)[:many]
    means = sums / np.maximum(counts, 1) - np.where(counts, table.values, 0)
    means[np.array(table.values) == 0] = 0
    return np.clip(np.rint(256 * means), -128, 127).astype(np.int8).tobytes() + escaped


def _table(data: bytes, form: int, tables: Tables | None) -> tuple[Table, int]:
    if form == _EMBEDDED:
        length, offset = unpack_varint(data, _HEAD.size)
        if length > len(data) - offset:
            raise WireError(f"table of {length} bytes is cut off", "table")
        table = parse_table(data[offset : offset + length])
        if tables is not None:
            table = tables.put(table)
        return table, offset + length
    if form != _NAMED:
        raise WireError(f"entropy payload of unknown form {form}", "codec")
    if len(data) < _HEAD.size + _ID.size:
        raise WireError(f"entropy payload of {len(data)} bytes is cut off", "too short")
    (name,) = _ID.unpack_from(data, _HEAD.size)
    table = tables.get(name) if tables is not None else None
    if table is None:
        raise WireError(f"table {name:08x} is not known here", "table")
    return table, _HEAD.size + _ID.size


def _bases(table: Table, layout: Layout) -> Array | None:
    of_channel = table.class_of(layout.channels)
    return None if of_channel is None else layout.classes(of_channel)


def _joined(groups: Array, ranks: int) -> Array:
    """`(slabs, slab)`: the ranks of a group as one number, uint8."""
    joined = groups[..., 0].copy()
    for place in range(1, groups.shape[-1]):
        joined *= np.uint8(ranks)
        joined += groups[..., place]
    return joined


def _scaled(values: Array, step: float) -> Array:
    with np.errstate(over="ignore"):
        result = values.astype(np.float32) * np.float32(step)
    if not np.isfinite(result).all():
        raise WireError(f"tensor of {result.size} values holds NaN or infinity", "not finite")
    return result


@dataclass(frozen=True)
class Entropy:
    """The codec as text names it: every tensor has a table of its own, or none."""

    number: ClassVar[int] = NUMBER

    deviations: float = 1.0

    def encode(self, array: Array) -> bytes:
        """See `encode_alone`."""
        return encode_alone(quantise(array, deviations=self.deviations))
