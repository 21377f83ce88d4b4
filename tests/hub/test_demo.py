"""What the demo builds for data of other shapes, simulated to be quick."""

import json
import struct

import numpy as np

from hub import simulate
from hub.demo import Wish


def idx_bytes(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def test_the_model_is_as_wide_as_the_pictures(tmp_path):
    wide = 28
    rng = np.random.default_rng(0)
    for part, count in (("train", 40), ("t10k", 20)):
        pictures = rng.integers(0, 256, (count, wide, wide), np.uint8, endpoint=False)
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(pictures))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(np.arange(count, dtype=np.uint8) % 2))
    wish = Wish(
        tmp_path / "run",
        devices=2,
        rounds=1,
        dataset="idx",
        windows="all",
        data=tmp_path,
        options={"kappa": 0.0, "masks": False},
        references=False,
    )
    simulate.run(wish)
    records = [json.loads(line) for line in (wish.folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    (last,) = [record for record in records if record["record"] == "round"]
    assert len(last["accuracies"]) == 2
    sent = {record["elements"] for record in records if record["record"] == "device"}
    assert max(sent) == 20 * 20 * (wide // 2) ** 2, "twenty samples of twenty channels"
