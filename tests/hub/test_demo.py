"""What the demo builds for data of other shapes, simulated to be quick."""

import json
import struct

import numpy as np
import pytest

from hub import simulate
from hub.__main__ import main
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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--strategy", "nonsense"], "there is no strategy 'nonsense'; known are adasplit, fedavg"),
        (["--set", "kappa=1.5"], "strategy adasplit: kappa = 1.5: must be from 0 to 1"),
        (["--strategy", "fedavg", "--set", "kappa=0.5"], "strategy fedavg has no option kappa; it has "),
    ],
)
@pytest.mark.parametrize("command", ["demo", "simulate"])
def test_a_wrong_strategy_or_option_is_a_sentence_and_no_traceback(command, arguments, words, tmp_path, capsys):
    out = ["--out", str(tmp_path / "run")]
    assert main([command, "--dataset", "digits", "--devices", "2", *arguments, *out]) != 0
    told = capsys.readouterr().err
    assert words in told
    assert "Traceback" not in told
