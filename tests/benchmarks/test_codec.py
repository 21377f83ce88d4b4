import pytest

from benchmarks import codec
from benchmarks.options import BenchmarkError, Options
from benchmarks.results import record

ROW = {
    "subject": "lenet-pool1",
    "data": "pictures",
    "deviations": 0.5,
    "elements": 1_000_000,
    "ours": 1.1,
    "first": 1.2,
    "table_bytes": 123,
    "conditional": 1.0,
    "single": 2.5,
    "nonzero": 0.25,
    "rivals": {"quantised": 2.2, "bz2": 2.2, "zlib Z_RLE": 2.4, "zlib Z_HUFFMAN": 2.7, "zstd": 2.0, "brotli": 2.1},
    "ms": {"step": 100.0, "encode": 10.0, "decode": 200.0},
    "train_ms": 50.0,
    "share": [0.1, 0.09, 0.12],
    "others": 0.25,
}


def test_what_is_met_missed_and_missing_is_said(tmp_path):
    run = record(tmp_path / "codec.jsonl", [ROW, {"wheels": {"pcodec": 1 << 19}}])
    text = codec.draw([run])
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "| LeNet" in line]
    name = ["LeNet, pool1", "0.5"]
    assert lines == [
        [*name, "1.100", "1.000", "1.100", "missed", "2.500", "1.200", "123", "25%"],
        [*name, "1.10", "2.20", "2.20", "2.40", "2.70", "2.00", "none", "2.10", "0.55"],
        [*name, "400", "20", "missed", "10.0", "100.0", "10 (9-12)", "met", "50"],
    ]
    said = " ".join(text.split())
    assert "zstd could not be had, pcodec 0.50, brotli could not be had" in said
    assert "LeNet, pool1: pictures" in said
    assert "other processes took 25% to 25% of the processors. **More than 10%" in said


def test_an_unknown_row_is_refused(tmp_path):
    with pytest.raises(BenchmarkError, match="'alexnet'; there are lenet-pool1"):
        next(codec.run(Options(tmp_path, only="alexnet")))
