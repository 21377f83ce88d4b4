"""The activations of a segment that trains, coded: by ours, and by general-purpose coders from the same symbols."""

import bz2
import importlib
import itertools
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.answering import memory, serve, timed, told
from edge import bundle
from edge.segment import Segment
from edge.wire import entropy
from edge.wire.codec import encode
from edge.wire.coder import Coder
from edge.wire.fit import train
from edge.wire.floats import finite
from edge.wire.table import Table
from edge.wire.tables import Tables

WARM, TABLES_OF, MEASURED = 60, 4, 8
"""Steps before anything is coded; tensors that a table is trained on; tensors that are counted after them."""


class Device:
    """A segment after a few local steps, and what it would send."""

    def __init__(self, words: dict[str, Any]) -> None:
        self.segment = Segment(bundle.load(Path(words["bundle"])), threads=1)
        self.last = words["channels_last"]
        with np.load(words["batches"]) as file:
            x, y = file["x"], file["y"]
        self.batches = itertools.cycle([{"batch.x": a, "batch.y": b} for a, b in zip(x, y, strict=True)])
        self.places = itertools.count()
        for _ in range(WARM):
            self.step()
        self.tensors = [self._smashed() for _ in range(TABLES_OF + MEASURED)]
        self.coder, self.tables = Coder(), Tables()
        self.payload = b""

    def step(self) -> None:
        """A local step that sends nothing."""
        self._run("local", up=False)

    def sizes(self, deviations: float) -> dict[str, Any]:
        """Bits an element of the tensors behind those that the table was trained on, and of the first with its table."""
        self.coder, self.tables = Coder(deviations), Tables()
        first = 0.0
        for tensor in self.tensors[:TABLES_OF]:
            payload = self._encoded(tensor)
            first = first or 8 * len(payload) / tensor.size
        ours, conditional, single, others = [], [], [], []
        for tensor in self.tensors[TABLES_OF:]:
            symbols = entropy.quantise(tensor, deviations=deviations)
            payload = self._encoded(tensor)
            back = entropy.decode(payload, tensor.shape, self.tables)
            if np.abs(back - tensor.ravel()).max() > 1.001 * symbols.step:
                raise SystemExit("what was decoded is not what was encoded")
            values = symbols.values.reshape(tensor.shape)
            ours.append(8 * len(payload) / tensor.size)
            conditional.append(conditional_entropy(np.moveaxis(values, -1, 1) if self.last else values))
            single.append(conditional_entropy(values.reshape(1, 1, -1)[:, :, :, None].swapaxes(2, 3)))
            others.append({name: 8 * size / tensor.size for name, size in rivals(values, tensor, deviations).items()})
        self.payload = payload
        return {
            "elements": int(tensor.size),
            "ours": float(np.mean(ours)),
            "first": first,
            "table_bytes": len(self.table.data),
            "conditional": float(np.mean(conditional)),
            "single": float(np.mean(single)),
            "nonzero": symbols.nonzero_share,
            "rivals": {name: float(np.mean([one[name] for one in others])) for name in others[0]},
        }

    def encode(self) -> None:
        """The last tensor as a message of the stream: quantised, and coded with a table that is known."""
        symbols = entropy.quantise(finite(self.tensors[-1]), deviations=self.coder.deviations)
        entropy.encode_with(symbols, self.table, embed=False)

    def train(self) -> None:
        """A table from the tensors that the stream keeps for it."""
        tensors = [entropy.quantise(one, deviations=self.coder.deviations) for one in self.tensors[:TABLES_OF]]
        train(np.concatenate([one.values.reshape(one.shape) for one in tensors]), horizon=32)

    @property
    def table(self) -> Table:
        """The one in use."""
        if self.coder.table is None:
            raise SystemExit("these tensors are too small for a table")
        return self.coder.table

    def decode(self) -> None:
        """The way back."""
        entropy.decode(self.payload, self.tensors[-1].shape, self.tables)

    def _encoded(self, tensor: Any) -> bytes:
        payload = self.coder.encode(tensor)
        entropy.decode(payload, tensor.shape, self.tables)
        self.coder.known(self.table.id)
        return payload

    def _smashed(self) -> Any:
        return np.array(self._run("local", up=True).up["smashed"])

    def _run(self, kind: str, *, up: bool) -> Any:
        rng = np.random.default_rng([0, 0, next(self.places)])
        return self.segment.run(kind, next(self.batches), {}, rng, up=up)


def conditional_entropy(values: Any) -> float:
    """Empirical, bits an element: of a symbol `(batch, channel, row, …)` given its channel and the one in the row above."""
    above = np.full_like(values, values.min() - 1)
    above[:, :, 1:] = values[:, :, :-1]
    channel = np.broadcast_to(np.arange(values.shape[1]).reshape(-1, *[1] * (values.ndim - 2)), values.shape)
    span = int(values.max()) - int(values.min()) + 2
    behind = channel.astype(np.int64) * span + (above - above.min())
    together = behind * span + (values - values.min())
    return (_bits(together) - _bits(behind)) / values.size


def _bits(codes: Any) -> float:
    counts = np.unique(codes, return_counts=True)[1]
    return float(-(counts * np.log2(counts / codes.size)).sum())


def rivals(values: Any, tensor: Any, deviations: float) -> dict[str, int]:
    """Bytes that others make of the same symbols, one byte each; `quantised` is the codec that was there before."""
    raw = values.astype(np.int8).tobytes() if np.abs(values).max() < 128 else values.astype("<i2").tobytes()
    found = {name: len(coder(raw)) for name, coder in CODERS.items()}
    found["quantised"] = len(encode(tensor, f"quantised:{deviations}"))
    for name, (module, coder) in OPTIONAL.items():
        try:
            found[name] = len(coder(importlib.import_module(module), values, raw))
        except ImportError:
            continue
    return found


def _deflate(strategy: int) -> Callable[[bytes], bytes]:
    def code(raw: bytes) -> bytes:
        coder = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9, strategy)
        return coder.compress(raw) + coder.flush()

    return code


CODERS: dict[str, Callable[[bytes], bytes]] = {
    "bz2": bz2.compress,
    "zlib Z_RLE": _deflate(zlib.Z_RLE),
    "zlib Z_HUFFMAN": _deflate(zlib.Z_HUFFMAN_ONLY),
}
OPTIONAL: dict[str, tuple[str, Callable[[Any, Any, bytes], bytes]]] = {
    "zstd": ("backports.zstd", lambda zstd, _, raw: zstd.compress(raw, 19)),
    "pcodec": (
        "pcodec",
        lambda pcodec, values, _: pcodec.standalone.simple_compress(
            np.ascontiguousarray(values, np.int16).ravel(), pcodec.ChunkConfig()
        ),
    ),
    "brotli": ("brotli", lambda brotli, _, raw: brotli.compress(raw, quality=11)),
}


if __name__ == "__main__":
    device = Device(told())
    serve(
        {
            "sizes": device.sizes,
            "memory": memory,
            "step": lambda count: timed(device.step, count),
            "encode": lambda count: timed(device.encode, count),
            "train": lambda count: timed(device.train, count),
            "decode": lambda count: timed(device.decode, count),
        }
    )
