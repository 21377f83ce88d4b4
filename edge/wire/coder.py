"""The sender's side of `entropy`: one stream of like tensors, such as a device's activations, that share tables.

A `Coder` is a codec that remembers: give it to a message in place of the codec's text. It trains a table on the first
tensor, sends it along until it is told that the other side has it, then names it, and looks now and then whether a new
one would pay for its bytes.
"""

import functools
from collections import deque
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from edge.wire import entropy
from edge.wire.fit import train
from edge.wire.floats import finite
from edge.wire.table import Table, parse_table

Array = npt.NDArray[Any]

HORIZON = 32
"""Messages that a new table is expected to serve."""
_MEMORY = 4
"""Tensors that a table is trained on: the latest."""
_MEMORY_ELEMENTS = 1 << 14
"""And elements of each of them at most, whole samples: a flight recorder keeps them too."""
_OTHER_STEP = 1.25
"""A step that differs by more than this factor from the one its table was made for asks for a new one."""
_WORSE = 1.05
_LOOKS = 4
"""Whether a new table pays is looked at after 1, 4, 16, … messages, and where the old one has become worse."""
_BY_HEART = 1.5
"""Bits that each number of a table saves of those tensors it was trained on, and of no others."""
_SAMPLE = 1 << 14


@dataclass(frozen=True)
class Sent:
    """What the last tensor came to."""

    elements: int
    payload_bytes: int
    bits: float
    """What the table says the symbols cost."""
    step: float
    nonzero_share: float
    """Share of the elements that were not zero on the quantiser."""
    table: int | None
    """Id of the table; None where there was none."""
    embedded: bool
    """Whether the table went along."""


class Coder:
    """A codec with tables for one stream.

    Attributes:
        deviations: the step in standard deviations of the tensor; may be changed between messages.
        step: the step itself, where it is not None.
        sent: the last tensor's figures; None before the first.
    """

    number: ClassVar[int] = entropy.NUMBER

    def __init__(self, deviations: float = 1.0, *, horizon: int = HORIZON) -> None:
        self.deviations = deviations
        self.step: float | None = None
        self.sent: Sent | None = None
        self._horizon = horizon
        self._data: bytes | None = None
        """Of the table: all else that it holds follows from them."""
        self._at_other_side: set[int] = set()
        self._recent: deque[Array] = deque(maxlen=_MEMORY)
        self._messages = 0
        self._next_look = 1
        self._relative_step = 0.0
        self._bits = 0.0
        self._correction = 1.0

    @property
    def table(self) -> Table | None:
        """The one in use."""
        return None if self._data is None else _parsed(self._data)

    def known(self, table: int) -> None:
        """The other side has the table of this id: a message that embedded it has been acknowledged."""
        self._at_other_side = {table}

    def forget(self) -> None:
        """The other side has lost its tables, or refused one: the next message embeds its table again."""
        self._at_other_side = set()

    def encode(self, array: Array) -> bytes:
        """The payload, with the coder's step; figures are in `sent`."""
        return self.encode_symbols(entropy.quantise(finite(array), deviations=self.deviations, step=self.step))

    def encode_symbols(self, symbols: entropy.Symbols) -> bytes:
        """The payload of a tensor that is quantised already: for who tries several steps."""
        table = self._suitable(symbols)
        if table is None:
            payload, bits, embedded = entropy.encode_plain(symbols), 0.0, False
        else:
            embedded = table.id not in self._at_other_side
            coded = entropy.encode_with(symbols, table, embed=embedded)
            payload, bits = coded.payload, coded.bits
            self._learn(symbols, bits)
        self.sent = Sent(
            symbols.values.size,
            len(payload),
            bits,
            symbols.step,
            symbols.nonzero_share,
            table.id if table is not None else None,
            embedded,
        )
        return payload

    def expect(self, array: Array, deviations: float) -> float:
        """Bytes that `array` will take with a step of so many deviations, about: the entropy of a sample, corrected by what came before."""
        step = deviations * float(array.std(dtype=np.float64))
        bits = estimate(array, step) * self._correction if step > 0 else 0.0
        table = self.table
        along = 0 if table is None or table.id in self._at_other_side else len(table.data)
        return bits / 8 + along + _HEAD_BYTES

    def _suitable(self, symbols: entropy.Symbols) -> Table | None:
        """The table to code with: the old one, or a new one where that pays."""
        if symbols.values.size < entropy.SMALL:
            return None
        self._messages += 1
        self._remember(symbols)
        old = self.table if self.table is not None and entropy.usable(self.table, symbols.shape) else None
        if old is not None and not self._due(symbols):
            return old
        new = self._trained(symbols)
        if new is None:
            return old
        if old is None or 8 * len(new.data) < self._horizon * self._gain(symbols, old, new):
            self._data, self._bits = new.data, 0.0
        self._next_look = _LOOKS * self._messages
        self._relative_step = self._coarseness(symbols)
        return self.table

    @staticmethod
    def _gain(symbols: entropy.Symbols, old: Table, new: Table) -> float:
        """Bits a message; what a new table has only learnt by heart is taken off."""
        return entropy.cost(symbols, old) - entropy.cost(symbols, new) - _BY_HEART * new.weights.size

    def _due(self, symbols: entropy.Symbols) -> bool:
        ratio = self._coarseness(symbols) / self._relative_step
        worse = self._bits > 0 and self._correction > _WORSE * self._bits
        if worse:
            self._bits = self._correction
        return worse or self._messages >= self._next_look or not 1 / _OTHER_STEP <= ratio <= _OTHER_STEP

    def _trained(self, symbols: entropy.Symbols) -> Table | None:
        if self._messages == 1 or self._coarse_change(symbols):
            while len(self._recent) > 1:
                self._recent.popleft()
        whole = symbols.values.reshape(symbols.shape)  # of this tensor not only what is remembered
        table = train(np.concatenate([*list(self._recent)[:-1], whole]), horizon=self._horizon)
        return table if entropy.usable(table, symbols.shape) else None

    def _coarse_change(self, symbols: entropy.Symbols) -> bool:
        ratio = self._coarseness(symbols) / self._relative_step if self._relative_step else 0.0
        return not 1 / _OTHER_STEP <= ratio <= _OTHER_STEP

    def _remember(self, symbols: entropy.Symbols) -> None:
        values = symbols.values.reshape(symbols.shape)
        if self._recent and self._recent[-1].shape[1:] != values.shape[1:]:
            self._recent.clear()
        kept = values[: max(1, _MEMORY_ELEMENTS * len(values) // values.size)] if values.ndim > 1 else values
        small = kept.min() >= -128 and kept.max() <= 127
        self._recent.append(kept.astype(np.int8 if small else np.int16))

    @staticmethod
    def _coarseness(symbols: entropy.Symbols) -> float:
        """The step in standard deviations, about; what the symbols look like depends on it."""
        sample = symbols.scaled[:: max(1, symbols.scaled.size // _SAMPLE) | 1]
        return 1 / max(float(sample.std(dtype=np.float64)), 1e-9)

    def _learn(self, symbols: entropy.Symbols, bits: float) -> None:
        guess = _entropy(symbols.values[:: max(1, symbols.values.size // _SAMPLE) | 1], symbols.values.size)
        if guess <= 0:
            return
        self._correction += 0.5 * (bits / guess - self._correction) if self._messages > 1 else bits / guess - 1
        self._bits = min(self._bits or self._correction, self._correction)


@functools.lru_cache(maxsize=16)
def _parsed(data: bytes) -> Table:
    return parse_table(data)


def stream_codec(text: str, coder: Coder) -> str | Coder:
    """What a codec's text stands for in a stream: for `entropy:K`, whose tables take long to train, the stream's one coder."""
    name, _, deviations = text.partition(":")
    if name != "entropy":
        return text
    coder.deviations = float(deviations)
    return coder


_HEAD_BYTES = 40
"""Head, centroids, states."""


def estimate(array: Array, step: float) -> float:
    """Bits of `array` in multiples of `step` were its symbols independent: entropy of a sample of 16384, about 0.2 ms."""
    flat = array.reshape(-1)
    sample = flat[:: max(1, flat.size // _SAMPLE) | 1]
    return _entropy(np.clip(np.rint(sample / step), -entropy.LARGEST, entropy.LARGEST).astype(np.int64), flat.size)


def _entropy(values: Array, many: int) -> float:
    if not values.size:
        return 0.0
    counts = np.bincount(values.astype(np.int64) - int(values.min()))
    shares = counts[counts > 0] / values.size
    return float(-(shares * np.log2(shares)).sum()) * many
