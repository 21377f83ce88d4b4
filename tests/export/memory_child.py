"""A device process that runs one graph of a bundle: prints its peak memory in bytes. Arguments: bundle, kind, batch, a new folder."""

import sys
from pathlib import Path

import numpy as np

import edge.__main__
import edge.config
import edge.device  # noqa: F401
from edge import bundle
from edge.files import Files
from edge.memory import peak_bytes
from edge.outbox import Outbox
from edge.segment import Segment


def main(path: str, kind: str, batch: int, folder: str) -> None:
    loaded = bundle.load(Path(path))
    manifest, segment = loaded.manifest, Segment(loaded)
    rng = np.random.default_rng(0)
    shape = (batch, *manifest.input.shape)
    tokens = manifest.input.dtype == "int64"
    inputs = {
        "batch.x": rng.integers(0, 1000, shape) if tokens else rng.standard_normal(shape, np.float32),
        "batch.y": rng.integers(0, manifest.classes, batch),
        "down.gradient": np.zeros((batch, *manifest.smashed.shape), np.float32),
    }
    outbox = Outbox.open(Path(folder))
    for _ in range(3):
        segment.run(kind, inputs, {}, rng)
        outbox.put_state(segment.snapshot())
        outbox.commit()
    outbox.close()
    print(peak_bytes(Files(Path("/"))))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
