"""A second reader of `entropy`, written from edge/wire/README.md with lists and whole numbers: slow, and nothing shared."""

import functools
import itertools
import math
import struct
import zlib
from fractions import Fraction
from itertools import pairwise

FLAT, LINE, LAST, PLANE = range(4)


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def unzigzag(value):
    return value // 2 if value % 2 == 0 else -(value + 1) // 2


def bits_of(data):
    return [byte >> place & 1 for byte in data for place in range(7, -1, -1)]


def whole(bits):
    return int("".join(map(str, bits)) or "0", 2)


def numbers(data, at, count):
    if not count:
        return [], at
    form = data[at]
    least, at = varint(data, at + 1)
    if form & 64:
        length, at = varint(data, at)
        raw, width = zlib.decompress(data[at : at + length], -15), form & 31
        over = [int.from_bytes(raw[i : i + width], "little") for i in range(0, len(raw), width)]
        at += length
    else:
        stream, k, place, uppers = bits_of(data[at:]), form & 31, 0, []
        for _ in range(count):
            end = stream.index(1, place)
            uppers.append(end - place)
            place = end + 1
        over = []
        for upper in uppers:
            over.append(None)
            if upper < 24:
                over[-1] = upper << k | whole(stream[place : place + k])
                place += k
        for i, upper in enumerate(uppers):
            if upper == 24:
                over[i] = whole(stream[place : place + 24])
                place += 24
        at += -(-place // 8)
    plain = [value + unzigzag(least) for value in over]
    return [unzigzag(value) if form & 32 else value for value in plain], at


class Table:
    def __init__(self, data):
        raw = data[1:] if data[0] == 0 else zlib.decompress(data[1:], -15)
        self.id = zlib.crc32(raw)
        self.size, self.layout, self.shift = (raw[0] & 3) + 1, raw[0] >> 2 & 3, raw[0] >> 4
        self.ranks, self.classes = (raw[1] & 15) + 1, (raw[1] >> 4) + 1
        at, self.values, self.of_channel = 2, [], None
        for _ in range(self.ranks - 1):
            value, at = varint(raw, at)
            self.values.append(unzigzag(value))
        if self.classes > 1:
            channels, at = varint(raw, at)
            self.of_channel = [raw[at + c // 2] >> 4 * (c % 2) & 15 for c in range(channels)]
            at += -(-channels // 2)
        self.first = min(self.ranks, 12)
        self.second = min(self.ranks, {2: 8, 3: 4, 4: 3}[self.size] if self.layout == PLANE else 4)
        row = self.classes + self.first + 1 + self.second + 1
        flat = [byte - 256 * (byte > 127) for byte in raw[at:]]
        self.weights = [flat[j * row : (j + 1) * row] for j in range(self.ranks - 1)]
        self.memory = {}

    @functools.cache  # noqa: B019  a table lives as long as its test
    def probabilities(self, own, first, second):
        rest, found = 65536, []
        for row in self.weights:
            x = row[own] + row[self.classes + first] + row[self.classes + self.first + 1 + second]
            share = logistic(max(-96, min(96, x)))
            found.append(rest * (65536 - share) >> 16)
            rest = rest * share >> 16
        return [*found, rest]

    def frequencies(self, own, behind):
        """Behind: the ranks of the group behind, or None."""
        seen = behind and (behind if self.layout == PLANE else behind[-2:])
        key = own, seen and tuple(min(rank, self.first if self.layout != PLANE else self.second - 1) for rank in seen)
        if key not in self.memory:
            self.memory[key] = self.joint(own, behind)
        return self.memory[key]

    def joint(self, own, behind):
        weights = []
        for group in itertools.product(range(self.ranks), repeat=self.size):
            weight = 1 << 30
            for i, rank in enumerate(group):
                before = [*(behind if behind and self.layout != PLANE else []), *group[:i]]
                first = before[-1] if before else None
                if self.layout == PLANE:
                    second = behind[i] if behind else None
                else:
                    second = before[-2] if len(before) > 1 else None
                first = self.first if first is None else min(first, self.first - 1)
                second = self.second if second is None else min(second, self.second - 1)
                weight = weight * self.probabilities(own, first, second)[rank] >> 16
            weights.append(weight)
        found = [1 + weight * (16384 - len(weights)) // sum(weights) for weight in weights]
        found[found.index(max(found))] += 16384 - sum(found)
        return found

    def apart(self, symbol):
        return [symbol // self.ranks**place % self.ranks for place in range(self.size - 1, -1, -1)]


def logistic(x):
    return round(Fraction(65536) / (1 + Fraction(math.exp(-x / 8))))


def places(layout, shape, size):
    """For each slab the groups, a group being (channel, places of its elements in the flat tensor)."""
    count = math.prod(shape)
    if layout == PLANE:
        batch, channels, rows, columns = shape
        lines = [
            [
                (c, [((b * channels + c) * rows + r) * columns + w for b in range(batch) for w in range(columns)])
                for c in range(channels)
            ]
            for r in range(rows)
        ]
        return [
            [(c, line[i : i + size]) for c, line in slab for i in range(0, len(line), size)] for slab in lines
        ]  # fmt: skip
    channels = {FLAT: 1, LAST: shape[-1] if shape else 1}.get(layout) or shape[1]
    if layout == LINE:
        inner = count // shape[0] // channels
        lines = [
            [(b * channels + c) * inner + i for b in range(shape[0]) for i in range(inner)] for c in range(channels)
        ]
    else:
        lines = [list(range(c, count, channels)) for c in range(channels)]
    n, samples = count // channels, 1 if layout == FLAT else shape[0]
    wanted = max(1, samples // (size // math.gcd(size, n // samples)), min(-(-128 // channels), n // (32 * size)))
    part = size * -(-n // (size * wanted))
    parts = [(c, line[i : i + part]) for c, line in enumerate(lines) for i in range(0, n, part)]
    return [[(c, line[i : i + size]) for c, line in parts] for i in range(0, part, size)]


def read(payload, shape, tables):
    form, step, *centroids = struct.unpack_from("<Bf4b", payload)
    if form == 0:
        values, _ = numbers(payload, 9, math.prod(shape))
        return moved(values, step, centroids)
    if form == 2:
        length, at = varint(payload, 9)
        table, at = Table(payload[at : at + length]), at + length
        tables[table.id] = table
    else:
        table, at = tables[struct.unpack_from("<I", payload, 9)[0]], 13
    slabs = places(table.layout, shape, table.size)
    lanes, pace = payload[at] + 1, payload[at + 1]
    length, at = varint(payload, at + 2)
    stream = bits_of(payload[at : at + 5 * lanes])
    lengths = [16 + whole(stream[4 * i : 4 * i + 4]) for i in range(lanes)]
    states, place = [], 4 * lanes
    for many in lengths:
        states.append(1 << many | whole(stream[place : place + many]))
        place += many
    at += -(-place // 8)
    ramp = [lanes]
    while pace and ramp[-1] >= 16:
        ramp.append((ramp[-1] + 1) // 2)
    behind_states = max(0, length - 2 * ramp[-1])
    rest, at = payload[at : at + behind_states], at + behind_states
    words = [word for (word,) in struct.iter_unpack("<H", payload[at:])]
    held, ranks = symbols(table, slabs, states, words, ramp, pace)
    return moved(values_of(table, shape, ranks, held[:length] + rest), step, centroids)


def symbols(table, slabs, states, words, ramp, pace):
    order = [(r, g) for r, slab in enumerate(slabs) for g in range(len(slab))]
    ends = [len(order)]
    for lanes in ramp[:0:-1]:
        ends.append(max(0, ends[-1] - pace * lanes))
    stretches = list(zip(ramp, [(b, a) for a, b in pairwise([*ends, 0])][::-1], strict=True))
    groups, found = {}, {}
    for lanes, (begin, end) in stretches:
        if lanes < len(states):
            assert all(state >> 16 == 1 for state in states[lanes:])
            words = [state & 65535 for state in states[lanes:]] + words
            states = states[:lanes]
        i = begin
        while i < end:
            now = [item for item in order[i : min(i + lanes, end)] if item[0] == order[i][0]]
            empty = []
            for lane, (r, g) in enumerate(now):
                channel, where = slabs[r][g]
                own = table.of_channel[channel] if table.of_channel else 0
                frequency = table.frequencies(own, groups.get((r - 1, g)))
                slot, symbol, start = states[lane] & 16383, 0, 0
                while slot >= start + frequency[symbol]:
                    start += frequency[symbol]
                    symbol += 1
                states[lane] = frequency[symbol] * (states[lane] >> 14) + slot - start
                groups[r, g] = table.apart(symbol)
                found.update(zip(where, groups[r, g], strict=False))
                if states[lane] < 65536:
                    empty.append(lane)
            for lane in empty:
                states[lane] = states[lane] << 16 | words.pop(0)
            i += len(now)
    assert not words
    assert all(state >> 16 == 1 for state in states)
    return b"".join(struct.pack("<H", state & 65535) for state in states), found


def values_of(table, shape, ranks, side):
    escape, flat = table.ranks - 1, [ranks[place] for place in range(math.prod(shape))]
    escapes, at = numbers(side, 0, flat.count(escape))
    values = [escapes.pop(0) if rank == escape else table.values[rank] for rank in flat]
    if table.shift:
        stream, b = bits_of(side[at:]), table.shift
        for i, value in enumerate(values):
            if value:
                low, stream = whole(stream[:b]), stream[b:]
                values[i] = int(math.copysign((abs(value) - 1 << b) + low + 1, value))
    return values


def moved(values, step, centroids):
    near = dict(zip((-2, -1, 1, 2), centroids, strict=True))
    return [(value + near.get(value, 0) / 256) * step for value in values]
