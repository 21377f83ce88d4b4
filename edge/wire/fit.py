"""Tables from symbols: what the sender does now and then, in floating point. Whoever decodes needs nothing of it."""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edge.wire.layout import PLANE, Layout, layouts_of
from edge.wire.ranks import fold, rank
from edge.wire.table import CHANNELS_LIMIT, CONTEXTS_LIMIT, RANKS_LIMIT, SHIFT_LIMIT, Model, Table

Array = npt.NDArray[Any]

_CLASSES = (1, 2, 4, 8, 12, 16)
_BINS_LIMIT = 1 << 20
_SLOWER = {4: 1.0, 3: 1.01, 2: 1.03}
"""What smaller groups must save, since they are slower."""
_ESCAPES_LIMIT = 0.2
_RARE = 0.002
"""Share of the elements that is not worth a rank."""
_WIDE = 16
"""The most ranks."""
_OVERHEAD_BITS = 0.3
"""Of an escape, against its entropy."""
_ENOUGH = 1 << 18
"""Elements that are looked at, about."""
_RIDGE = 0.3
_STEPS = 6


class _Try(NamedTuple):
    bits: float
    table: Table


def train(values: Array, *, horizon: int = 1) -> Table:
    """The table that codes such quantised values shortest.

    Args:
        values: whole numbers, of the shape that is coded, or more of it along the first axis; at least one element.
        horizon: how many such messages share the table's own bytes.
    """
    if values.size > _ENOUGH and values.ndim and len(values) > 1:
        values = values[:: -(-len(values) * values.size // (_ENOUGH * len(values)))]
    shift = _shift(values)
    folded = fold(values, shift) if shift else values
    every, counts = np.unique(folded, return_counts=True)
    common = every[np.argsort(-counts, kind="stable")]
    counts = np.sort(counts)[::-1]
    tries: list[tuple[float, int, _Start, _Try]] = []
    worth = 2 + int((counts[1:] > _RARE * values.size).sum())
    for size, most in sorted(RANKS_LIMIT.items()):
        ranks = min(worth, most)
        escapes = counts[ranks - 1 :]
        if size > 2 and (shift or escapes.sum() > _ESCAPES_LIMIT * values.size):
            continue
        cost = _entropy(escapes) + _OVERHEAD_BITS * float(escapes.sum())
        ranked = _values_of_ranks(common, ranks - 1)
        for layout in layouts_of(values.shape):
            started = _Start(Model(ranks, size, layout), shift, ranked, rank(folded, ranked), values.shape)
            bits, table = _fitted(started, 1)
            tries.append((_SLOWER[size] * (bits + cost), len(tries), started, _Try(bits, table)))
    _, _, started, best = min(tries, key=lambda item: item[:2])
    return _with_classes(started, best, horizon)


class _Start(NamedTuple):
    model: Model
    shift: int
    values: tuple[int, ...]
    ranks: Array
    shape: tuple[int, ...]


def _with_classes(started: _Start, best: _Try, horizon: int) -> Table:
    def cost(found: _Try) -> float:
        return found.bits + 8 * len(found.table.data) / horizon

    for many in _CLASSES[1:]:
        if many * started.model.contexts > CONTEXTS_LIMIT:
            break
        found = _fitted(started, many)
        if cost(found) > cost(best):
            break
        best = found
    return best.table


def _fitted(start: _Start, many: int) -> _Try:
    model = start.model
    layout = Layout(model.layout, start.shape, model.size)
    apart = many > 1 and layout.channels <= CHANNELS_LIMIT and layout.channels * _bins(model) <= _BINS_LIMIT
    channels = layout.channels if apart else 1
    counts = _counts(start, layout, channels)
    order = np.argsort(np.argsort((counts * np.arange(model.ranks)).sum(axis=(1, 2, 3)), kind="stable"))
    classes = order * min(many, channels) // channels
    for _ in range(3 if channels > 1 else 1):
        many_now = int(classes.max()) + 1
        joined = np.stack([counts[classes == one].sum(axis=0) for one in range(many_now)])
        of_channel = tuple(classes.tolist()) if many_now > 1 else ()
        table = Table(model, start.shift, start.values, of_channel, _weights(joined))
        costs = 16 - np.log2(np.maximum(table.probabilities, 1))
        each = np.tensordot(counts, costs, axes=((1, 2, 3), (1, 2, 3)))
        found = _Try(float(each[np.arange(channels), classes].sum()), table)
        nearest = np.unique(each.argmin(axis=1), return_inverse=True)[1]
        if (nearest == classes).all():
            break
        classes = nearest
    return found


def _counts(start: _Start, layout: Layout, channels: int) -> Array:
    """How often each rank stands beside which neighbours: `(channels, second, first, ranks)`."""
    model = start.model
    groups = layout.arrange(start.ranks).astype(np.int64)
    none = np.full_like(groups, -1)
    behind = np.concatenate([none[:1], groups[:-1]])
    if model.layout == PLANE:
        second, first = behind, np.concatenate([none[..., :1], groups[..., :-1]], axis=-1)
    else:
        line = np.concatenate([behind[..., -2:], groups], axis=-1)
        second, first = line[..., : model.size], line[..., 1 : model.size + 1]
    place = layout.classes(np.arange(layout.channels) % channels)[:, None]
    index = place * (model.second + 1) + _level(second, model.second)
    index = (index * (model.first + 1) + _level(first, model.first)) * model.ranks + groups
    shape = channels, model.second + 1, model.first + 1, model.ranks
    return np.bincount(index.ravel(), minlength=math.prod(shape)).reshape(shape)


def _level(ranks: Array, levels: int) -> Array:
    """Levels of neighbours; none (-1) is the last."""
    return np.where(ranks < 0, levels, np.minimum(ranks, levels - 1))


def _bins(model: Model) -> int:
    return (model.second + 1) * (model.first + 1) * model.ranks


def _weights(counts: Array) -> Array:
    """Logistic regression of each "above j", a ridge holding back what is seldom seen: int8, in eighths."""
    classes, seconds, firsts, ranks = counts.shape
    least = counts[..., ::-1].cumsum(axis=-1)[..., ::-1].astype(np.float64)
    own, second, first = (axis.ravel() for axis in np.indices(counts.shape[:3]))
    rows = np.arange(own.size)
    inputs = np.zeros((own.size, classes + firsts + seconds))
    inputs[rows, own] = inputs[rows, classes + first] = inputs[rows, classes + firsts + second] = 1
    ridge = np.full(inputs.shape[1], _RIDGE)
    ridge[:classes] = 0.02
    columns = []
    for j in range(ranks - 1):
        seen, above = least[..., j].ravel(), least[..., j + 1].ravel()
        weight = np.zeros(inputs.shape[1])
        weight[:classes] = np.log((above.sum() + 0.5) / (seen.sum() - above.sum() + 0.5))
        for _ in range(_STEPS):
            share = 1 / (1 + np.exp(-inputs @ weight))
            slope = inputs.T @ (above - seen * share) - ridge * weight
            curve = (inputs * (seen * share * (1 - share))[:, None]).T @ inputs + np.diag(ridge)
            weight = np.clip(weight + np.clip(np.linalg.solve(curve, slope), -2, 2), -12, 12)
        columns.append(weight)
    eighths: Array = np.rint(8 * np.array(columns)).astype(np.int8)
    return eighths


def _values_of_ranks(common: Array, many: int) -> tuple[int, ...]:
    """The most frequent values; where there are fewer, the smallest others fill up."""
    chosen = common[:many].tolist()
    others = (value for size in range(many + 1) for value in (size, -size) if value not in chosen)
    return tuple(dict.fromkeys([*chosen, *others]))[:many]


def _shift(values: Array) -> int:
    """How many lower bits are better sent as they are."""
    every, counts = np.unique(values, return_counts=True)
    best, least = 0, math.inf
    for shift in range(SHIFT_LIMIT + 1):
        folded = fold(every, shift)
        merged = np.bincount(np.unique(folded, return_inverse=True)[1], weights=counts)
        escapes = np.sort(merged)[::-1][_WIDE - 1 :]
        whole = merged[np.unique(folded) != 0].sum()
        bits = _entropy(merged) + _OVERHEAD_BITS * escapes.sum() + shift * whole
        if bits < least:
            best, least = shift, bits
        if len(merged) < _WIDE:
            break
    return best


def _entropy(counts: Array) -> float:
    """In bits, of all that was counted."""
    total = counts.sum()
    return float(-(counts * np.log2(counts / total)).sum()) if total else 0.0
