"""Range coding by asymmetric numeral systems (rANS, Duda 2013), many lanes at once.

A lane is a state from 2^16 to 2^32. To encode a symbol of frequency f, whose slots start at c of 2^14, a state x that
would grow beyond 2^32 first gives its lower 16 bits away as a word, then becomes x // f * 2^14 + x % f + c; the decoder
goes the same way back. Here lanes are the elements of NumPy arrays, and a step moves all of them on by a symbol each;
the symbols come in slabs of equal size, since the frequencies of a slab may depend on the slab before it.

The encoder works from the last symbol to the first, so that the decoder can read forwards. A state to begin with holds
16 bits of anything. So the encoder begins with few lanes, which hold what is to be sent beside the symbols, and as soon
as they have given enough words away it doubles them: the new ones take those words up. Lanes then cost next to nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.wire.frames import WireError

Array = npt.NDArray[Any]

BITS = 14
SLOTS = 1 << BITS
LANES_LIMIT = 256
PACE_LIMIT = 255
STEPS_LIMIT = 1 << 16

_LOWEST = 1 << 16
_FEWEST = 8
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
    """Context of what stands behind each symbol, int64 `(size,)`, without the class's share."""
    nothing: int
    """Context of the first slab."""


def lanes_for(groups: int, slab: int, wanted: int) -> int:
    """Lanes to share a slab's groups evenly, at most `wanted`."""
    if not groups:
        return 1
    most = max(1, min(wanted, slab, LANES_LIMIT))
    return -(-slab // -(-slab // most))


def few_steps(slabs: int, slab: int, lanes: int) -> bool:
    """Whether so many slabs can be coded: no message may keep its reader busy for long."""
    return slabs * -(-slab // lanes) <= STEPS_LIMIT


def first_lanes(lanes: int, pace: int) -> int:
    """Lanes that the encoder begins with, and the decoder ends with."""
    return _ramp(lanes)[-1] if pace else lanes


def encode(
    frequency: Array, start: Array, slab: int, lanes: int, paces: Iterable[int], side: bytes
) -> tuple[Array, Array, int]:
    """Final states, words (uint16, in the order of reading) and pace of symbols given by frequencies and starts.

    Args:
        frequency: uint32 `(slabs * slab,)`.
        start: uint32 `(slabs * slab,)`.
        slab: symbols of a slab.
        lanes: how many there are in the end.
        paces: steps until lanes are doubled; the first is taken at which they have given enough words away by then.
            With 0 all lanes are there from the beginning, which always works.
        side: of these bytes the first lanes hold two each.
    """
    x = np.empty(lanes, np.uint32)
    quotient, shift = np.empty_like(x), np.empty_like(x)
    ceiling = frequency << np.uint32(32 - BITS)
    complement = np.uint32(SLOTS) - frequency
    full = np.empty(frequency.size, bool)
    low = np.empty(frequency.size, np.uint16)
    sixteen = np.uint32(16)
    for pace in (*(paces if lanes >= 2 * _FEWEST else ()), 0):
        active = first_lanes(lanes, pace)
        x[:active] = np.frombuffer(side[: 2 * active].ljust(2 * active, b"\0"), "<u2") | np.uint32(_LOWEST)
        for a, b, now in reversed(_plan(frequency.size, slab, lanes, pace)):
            if now > active:
                taken = b + full[b:].nonzero()[0][: now - active]
                if len(taken) < now - active:
                    break
                x[active:now] = low[taken] | np.uint32(_LOWEST)
                full[taken] = False
                active = now
            y, q, s, m = x[: b - a], quotient[: b - a], shift[: b - a], full[a:b]
            np.greater_equal(y, ceiling[a:b], out=m)
            low[a:b] = y
            np.multiply(m, sixteen, out=s)
            np.right_shift(y, s, out=y)
            np.floor_divide(y, frequency[a:b], out=q)
            np.multiply(q, complement[a:b], out=q)
            np.add(y, q, out=y)
            np.add(y, start[a:b], out=y)
        else:
            if active == lanes:
                break
    return x, low[full], pace


def decode(
    states: Array, words: Array, slabs: int, classes: Array, pace: int, alphabet: Alphabet
) -> tuple[Array, bytes]:
    """Symbols `(slabs, slab)`, uint8, and the first bytes of `side`; behind them are zeros if it was shorter.

    Args:
        states: uint32, one for each lane; changed in place.
        words: uint16.
        slabs: how many there are.
        classes: `(slab,)` int64, context of each place of a slab before what `following` adds.
        pace: as it was encoded.
        alphabet: the tables.

    Raises:
        WireError: the words end too early or too late, or the states are not what the encoder began with.
    """
    out = np.empty((slabs, len(classes)), np.uint8)
    reader = _Reader(states, words.astype(np.uint32), alphabet)
    row, near, far = -1, classes, classes
    for a, b, now in _plan(out.size, len(classes), len(states), pace):
        if a // len(classes) != row:
            behind = alphabet.following.take(out[row]) if row >= 0 else alphabet.nothing
            row += 1
            near = (classes + behind) * SLOTS
            far = (classes + behind) * alphabet.size
        reader.narrow(now)
        offset = row * len(classes)
        reader.step(near[a - offset : b - offset], far[a - offset : b - offset], out.reshape(-1)[a:b])
    reader.narrow(first_lanes(len(states), pace))
    return out, reader.end()


class _Reader:
    """Lanes being read."""

    def __init__(self, states: Array, words: Array, alphabet: Alphabet) -> None:
        self._x = states
        self._words = words
        self._position = 0
        self._alphabet = alphabet
        self._index = np.empty(len(states), np.int64)

    def narrow(self, lanes: int) -> None:
        """Give up all but so many lanes; what the others began with are the next words."""
        if lanes < len(self._x):
            held = _held(self._x[lanes:])
            self._words = np.concatenate([held, self._words[self._position :]])
            self._position = 0
            self._x = self._x[:lanes]

    def step(self, near: Array, far: Array, out: Array) -> None:
        """A symbol of each lane."""
        x, index = self._x[: len(out)], self._index[: len(out)]
        slot = x & np.uint32(SLOTS - 1)
        np.add(near, slot, out=index)
        self._alphabet.symbols.take(index, out=out, mode="clip")
        np.add(far, out, out=index)
        slot -= self._alphabet.start.take(index, mode="clip")
        x >>= np.uint32(BITS)
        x *= self._alphabet.frequency.take(index, mode="clip")
        x += slot
        empty = (x < np.uint32(_LOWEST)).nonzero()[0]
        if count := len(empty):
            taken = self._words[self._position : self._position + count]
            if len(taken) < count:
                raise WireError(f"code stream of {len(self._words)} words is cut off", "coder")
            x[empty] = x[empty] << np.uint32(16) | taken
            self._position += count

    def end(self) -> bytes:
        """What the last lanes began with."""
        if self._position != len(self._words):
            raise WireError(f"code stream of {len(self._words)} words ends after {self._position}", "coder")
        return _held(self._x).astype("<u2").tobytes()


def _held(states: Array) -> Array:
    if (states >> np.uint32(16) != 1).any():
        raise WireError("code stream does not end where it began: its table is another one, or it is damaged", "coder")
    return states & np.uint32(0xFFFF)


def _ramp(lanes: int) -> list[int]:
    """The lanes, then half of them, and so on."""
    ramp = [lanes]
    while ramp[-1] >= 2 * _FEWEST:
        ramp.append((ramp[-1] + 1) // 2)
    return ramp


def _plan(total: int, slab: int, lanes: int, pace: int) -> list[tuple[int, int, int]]:
    """Steps in the order of reading: first symbol, the one behind the last, lanes; none goes beyond its slab."""
    stretches = []
    end = total
    for fewer in _ramp(lanes)[:0:-1] if pace else ():
        begin = max(0, end - pace * fewer)
        stretches.append((begin, end, fewer))
        end = begin
    stretches.append((0, end, lanes))
    plan = []
    for begin, end, now in reversed(stretches):
        a = begin
        while a < end:
            b = min(a + now, end, (a // slab + 1) * slab)
            plan.append((a, b, now))
            a = b
    return plan


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
