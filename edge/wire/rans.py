"""Range coding by asymmetric numeral systems (rANS, Duda 2013), many lanes at once.

A lane is a state from 2^16 to 2^32. To encode a symbol of frequency f, whose slots start at c of 2^14, a state x that
would grow beyond 2^32 first gives its lower 16 bits away as a word, then becomes x // f * 2^14 + x % f + c; the decoder
goes the same way back. Here lanes are the elements of NumPy arrays, and a step moves all of them on by a symbol each;
the symbols come in slabs of equal size, since the frequencies of a slab may depend on the slab before it.

The encoder works from the last symbol to the first, so that the decoder can read forwards.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.wire.frames import WireError

Array = npt.NDArray[Any]

BITS = 14
SLOTS = 1 << BITS
LANES_LIMIT = 256

_LOWEST = 1 << 16
_LENGTH_BITS = 4


@dataclass(frozen=True)
class Alphabet:
    """What a decoder looks symbols up in; all arrays are flat over (context, symbol), or (context, slot)."""

    size: int
    """Symbols of each context."""
    frequency: Array
    """uint32; those of a context sum to 2^14."""
    start: Array
    """uint32: the symbol's first slot."""
    symbols: Array
    """uint8 `(contexts * 2^14,)`: whose slot it is."""
    following: Array
    """Context of the group that lies behind a symbol, int64 `(size,)`, without the class's share."""


def lanes_for(groups: int, slab: int, wanted: int) -> int:
    """Lanes to share a slab's groups evenly, at most `wanted`."""
    if not groups:
        return 1
    most = max(1, min(wanted, slab, LANES_LIMIT))
    return -(-slab // -(-slab // most))


def encode(frequency: Array, start: Array, slab: int, states: Array) -> tuple[Array, Array]:
    """Final states and words (uint16, in the order of reading) of symbols given by their frequencies and starts.

    Args:
        frequency: uint32 `(slabs * slab,)`.
        start: uint32 `(slabs * slab,)`.
        slab: symbols of a slab.
        states: one for each lane to begin with, uint32 from 2^16; may carry 16 bits each that `decode` gives back.
    """
    x = states.copy()
    q = np.empty_like(x)
    ceiling = frequency << np.uint32(32 - BITS)
    complement = np.uint32(SLOTS) - frequency
    full = np.empty(frequency.size, bool)
    low = np.empty(frequency.size, np.uint16)
    shift = np.empty_like(x)
    sixteen = np.uint32(16)
    for a, b in _steps(frequency.size, slab, len(x), backwards=True):
        if (n := b - a) == len(x):
            y, r, s = x, q, shift
        else:
            y, r, s = x[:n], q[:n], shift[:n]
        m = full[a:b]
        np.greater_equal(y, ceiling[a:b], out=m)
        low[a:b] = y
        np.multiply(m, sixteen, out=s)
        np.right_shift(y, s, out=y)
        np.floor_divide(y, frequency[a:b], out=r)
        np.multiply(r, complement[a:b], out=r)
        np.add(y, r, out=y)
        np.add(y, start[a:b], out=y)
    return x, low[full]


def decode(states: Array, words: Array, slabs: int, classes: Array, first: int, alphabet: Alphabet) -> Array:
    """Symbols `(slabs, slab)`, uint8; `states` become those that `encode` began with.

    Args:
        states: uint32, one for each lane; changed in place.
        words: uint16.
        slabs: how many there are.
        classes: `(slab,)` int64, context of each place of a slab before what `following` adds.
        first: what is added for the first slab.
        alphabet: the tables.

    Raises:
        WireError: the words end too early or too late.
    """
    slab = len(classes)
    out = np.empty((slabs, slab), np.uint8)
    contexts = classes + first
    wide = words.astype(np.uint32)
    position = 0
    for row in out:
        position = _decode_slab(states, wide, position, contexts, row, alphabet)
        np.take(alphabet.following, row, out=contexts, mode="clip")
        contexts += classes
    if position != len(words):
        raise WireError(f"code stream of {len(words)} words ends after {position}", "coder")
    return out


def _decode_slab(x: Array, words: Array, position: int, contexts: Array, row: Array, alphabet: Alphabet) -> int:
    slot = np.empty(len(x), np.int64)
    symbol = np.empty(len(x), np.uint8)
    near = contexts * SLOTS
    far = contexts * alphabet.size
    mask, bits, sixteen, lowest = np.uint32(SLOTS - 1), np.uint32(BITS), np.uint32(16), np.uint32(_LOWEST)
    for a, b in _steps(len(row), len(row), len(x)):
        y = x[: b - a]
        s = y & mask
        index = slot[: b - a]
        np.add(near[a:b], s, out=index)
        e = symbol[: b - a]
        alphabet.symbols.take(index, out=e, mode="clip")
        row[a:b] = e
        np.add(far[a:b], e, out=index)
        s -= alphabet.start.take(index, mode="clip")
        y >>= bits
        y *= alphabet.frequency.take(index, mode="clip")
        y += s
        empty = (y < lowest).nonzero()[0]
        if count := len(empty):
            taken = words[position : position + count]
            if len(taken) < count:
                raise WireError(f"code stream of {len(words)} words is cut off", "coder")
            y[empty] = y[empty] << sixteen | taken
            position += count
    return position


def _steps(total: int, slab: int, lanes: int, *, backwards: bool = False) -> Iterator[tuple[int, int]]:
    """Where each step begins and ends: every slab starts anew with the first lane."""
    inside = [(a, min(a + lanes, slab)) for a in range(0, slab, lanes)]
    slabs = range(0, total, slab) if total else range(0)
    for offset in reversed(slabs) if backwards else slabs:
        for a, b in reversed(inside) if backwards else inside:
            yield offset + a, offset + b


def fill_states(lanes: int, side: bytes) -> Array:
    """States to begin with, which carry the first bytes of `side`, two each."""
    held = np.frombuffer(side[: 2 * lanes].ljust(2 * lanes, b"\0"), "<u2")
    return held.astype(np.uint32) | np.uint32(_LOWEST)


def read_states(states: Array) -> bytes:
    """What `fill_states` put in.

    Raises:
        WireError: `decode` did not come back to such states: another table, or damaged bytes.
    """
    if (states >> np.uint32(16) != 1).any():
        raise WireError("code stream does not end where it began: its table is another one, or it is damaged", "coder")
    return states.astype("<u2").tobytes()


def pack_states(states: Array) -> bytes:
    """Final states: for each 4 bits with its length less 17, then its bits below the highest one."""
    lengths = np.frexp(states.astype(np.float64))[1].astype(np.int64) - 1
    head = _bits(lengths - 16, _LENGTH_BITS).ravel()
    body = _bits(states.astype(np.int64), 32)[np.arange(31, -1, -1) < lengths[:, None]]
    return np.packbits(np.concatenate((head, body))).tobytes()


def unpack_states(data: bytes | memoryview, lanes: int) -> tuple[Array, int]:
    """The states, and the bytes they took.

    Raises:
        WireError: they are cut off.
    """
    bits = np.unpackbits(np.frombuffer(data[: 5 * lanes], np.uint8))
    if len(bits) < _LENGTH_BITS * lanes:
        raise WireError(f"states of {lanes} lanes are cut off", "too short")
    lengths = 16 + bits[: _LENGTH_BITS * lanes].reshape(lanes, _LENGTH_BITS) @ np.array([8, 4, 2, 1])
    total = _LENGTH_BITS * lanes + int(lengths.sum())
    if len(bits) < total:
        raise WireError(f"states of {lanes} lanes are cut off", "too short")
    places = np.zeros((lanes, 32), np.uint8)
    places[np.arange(31, -1, -1) < lengths[:, None]] = bits[_LENGTH_BITS * lanes : total]
    places[np.arange(lanes), 31 - lengths] = 1
    return np.packbits(places, axis=1).view(">u4").ravel().astype(np.uint32), -(-total // 8)


def _bits(values: Array, width: int) -> Array:
    """Bits of each value, highest first, uint8 `(len, width)`."""
    return (values[:, None] >> np.arange(width - 1, -1, -1) & 1).astype(np.uint8)
