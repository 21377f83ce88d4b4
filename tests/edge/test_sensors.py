import os
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from edge.config import BrokerConfig, BundleConfig, DataConfig, DeviceConfig, IdentityConfig, RunConfig
from edge.sensors import Batch, Folder, SensorError, Source, Wanted, open_source

WANTED = Wanted((2, 3), "float32", 4)
ORDER = [8, 1, 2, 9, 6, 4, 3, 5, 7, 0]  # device "one", round 1, seed 7, ten samples


def configuration(folder: Path, source: str | Path, name: str = "one") -> DeviceConfig:
    return DeviceConfig(
        IdentityConfig(name, folder / "state"), BrokerConfig("mqtt://h"), BundleConfig(folder / "b"), DataConfig(str(source)), RunConfig()
    )  # fmt: skip


def opened(folder: Path, source: str | Path = "", name: str = "one", dtype: str = "float32") -> Source:
    return open_source(configuration(folder, source or folder / "device.npz", name), (2, 3), dtype, 4)


def rows(count: int, first: int = 0) -> np.ndarray:
    """Samples that are recognised by their first element."""
    return np.arange(first, first + count, dtype=np.float32)[:, None, None] * np.ones((2, 3), np.float32)


def record(path: Path, count: int = 10, **arrays) -> Path:
    content = {"x": rows(count), "y": np.arange(count) % 4, "test_x": rows(3, 100), "test_y": [0, 1, 2]}
    np.savez(path, **{key: value for key, value in {**content, **arrays}.items() if value is not None})
    return path


def seen(batch: Batch) -> list[int]:
    assert (batch.x[:, 0, 0].astype(int) % 4 == batch.y).all()
    return batch.x[:, 0, 0].astype(int).tolist()


def flat(batches: Iterable[list[int]]) -> list[int]:
    return [row for batch in batches for row in batch]


def refusal(folder: Path, source: str | Path = "", dtype: str = "float32") -> str:
    with pytest.raises(SensorError) as caught:
        opened(folder, source, dtype=dtype)
    return str(caught.value)


def test_one_pass_gives_every_sample_once_and_its_last_batch_is_short(tmp_path):
    record(tmp_path / "device.npz")
    source = opened(tmp_path)
    assert (source.samples, source.test_samples, source.batches(4)) == (10, 3, 3)
    taken = [seen(source.batch(1, step, 4, seed=7)) for step in range(3)]
    assert [len(batch) for batch in taken] == [4, 4, 2]
    assert sorted(flat(taken)) == list(range(10))
    assert flat(taken) != list(range(10))


def test_a_round_longer_than_the_data_recycles_it_in_another_order(tmp_path):
    record(tmp_path / "device.npz")
    source = opened(tmp_path)
    first, second = ([seen(source.batch(1, step, 4, 7)) for step in steps] for steps in (range(3), range(3, 6)))
    assert sorted(flat(second)) == list(range(10))
    assert first != second


def test_a_restart_in_mid_round_gets_the_same_batch(tmp_path):
    record(tmp_path / "device.npz")
    source = opened(tmp_path)
    before = [seen(source.batch(3, step, 4, 7)) for step in range(8)]
    assert seen(opened(tmp_path).batch(3, 5, 4, 7)) == before[5]
    assert seen(opened(tmp_path).batch(3, 1, 4, 7)) == before[1]


def test_the_order_is_pinned_so_that_an_update_does_not_change_it(tmp_path):
    record(tmp_path / "device.npz")
    assert seen(opened(tmp_path).batch(1, 0, 10, seed=7)) == ORDER


@pytest.mark.parametrize(("name", "round_", "seed"), [("two", 1, 7), ("one", 2, 7), ("one", 1, 8)])
def test_device_round_and_seed_change_the_order(tmp_path, name, round_, seed):
    record(tmp_path / "device.npz")
    assert seen(opened(tmp_path, name=name).batch(round_, 0, 10, seed)) != ORDER


def test_test_batches_come_in_order(tmp_path):
    record(tmp_path / "device.npz", test_x=rows(3), test_y=[0, 1, 2])
    source = opened(tmp_path)
    assert [seen(batch) for batch in source.test_batches(2)] == [[0, 1], [2]]
    assert seen(source.test_batch(1, 2)) == [2]
    assert source.test_batch(5, 2).x.shape == (0, 2, 3)


def test_a_file_without_test_samples_is_fine(tmp_path):
    record(tmp_path / "device.npz", test_x=None, test_y=None)
    source = opened(tmp_path)
    assert source.test_samples == 0
    assert list(source.test_batches(2)) == []


def test_batches_have_the_types_the_graphs_take(tmp_path):
    record(
        tmp_path / "device.npz",
        x=rows(10).astype(np.uint8),
        test_x=rows(3).astype(np.uint8),
        y=(np.arange(10) % 4).astype(np.int8),
    )
    batch = opened(tmp_path).batch(1, 0, 4, 7)
    assert (batch.x.dtype, batch.y.dtype, batch.x.flags.c_contiguous) == (np.float32, np.int64, True)
    assert opened(tmp_path, dtype="int64").batch(1, 0, 4, 7).x.dtype == np.int64


def test_labels_are_counted(tmp_path):
    record(tmp_path / "device.npz", y=[0, 0, 0, 3, 3, 1, 1, 1, 1, 0])
    assert opened(tmp_path).labels() == {0: 4, 1: 4, 3: 2}


def test_a_batch_size_or_step_that_makes_no_sense_is_refused(tmp_path):
    record(tmp_path / "device.npz")
    with pytest.raises(SensorError, match="batch size 0: it must be at least 1"):
        opened(tmp_path).batch(1, 0, 0, 7)
    with pytest.raises(SensorError, match="step -1 of round 1: steps start at 0"):
        opened(tmp_path).batch(1, -1, 4, 7)
    assert len(opened(tmp_path).batch(1, 3, 500, 7).y) == 10


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.zeros((10, 2, 4), np.float32)}, "device.npz: x is (10, 2, 4), the bundle wants (n, 2, 3)"),
        ({"x": np.zeros((10, 6), np.float32)}, "device.npz: x is (10, 6), the bundle wants (n, 2, 3)"),
        ({"x": np.zeros(())}, "device.npz: x is (), the bundle wants (n, 2, 3)"),
        ({"x": np.zeros((10, 2, 3), complex)}, "device.npz: x is complex128, the bundle wants float32: record numbers"),
        ({"x": rows(0), "y": np.zeros(0, int)}, "device.npz holds no samples: x is (0, 2, 3)"),
        ({"y": np.zeros(9, int)}, "device.npz: y is (9,), with 10 samples it must be (10,)"),
        ({"y": np.zeros(10)}, "device.npz: y is float64, labels must be whole numbers"),
        ({"y": [0] * 8 + [9, 0]}, "device.npz: label 9 at row 8 of y, the bundle has 4 classes: 0..3"),
        (
            {"y": [0, -1, 4] + [0] * 7},
            "device.npz: label -1 at row 1 of y and 1 more like it, the bundle has 4 classes: 0..3",
        ),
        ({"test_y": [0, 0, 4]}, "device.npz: label 4 at row 2 of test_y, the bundle has 4 classes: 0..3"),
        ({"y": None}, "device.npz has no y; wanted are x, y and both or neither of test_x, test_y"),
        (
            {"x": None, "test_y": None},
            "device.npz has no x, test_y; wanted are x, y and both or neither of test_x, test_y",
        ),
    ],
)
def test_data_the_bundle_cannot_take_is_refused_in_numbers(tmp_path, arrays, said):
    record(tmp_path / "device.npz", **arrays)
    assert refusal(tmp_path) == said


def test_values_that_are_not_finite_are_counted_and_the_first_row_named(tmp_path):
    x = rows(10).astype(np.float64)
    x[4, 1, 1:] = np.nan
    x[6, 0, 0] = 1e300  # finite in float64, not in float32
    record(tmp_path / "device.npz", x=x)
    assert refusal(tmp_path) == "device.npz: x has 3 values that are not finite in float32, the first at row 4"


def test_fractions_are_no_tokens(tmp_path):
    record(tmp_path / "device.npz")
    assert refusal(tmp_path, dtype="int64") == "device.npz: x is float32, the bundle wants int64: record whole numbers"


def test_a_missing_an_empty_and_a_damaged_file_are_sentences(tmp_path):
    path = tmp_path / "device.npz"
    assert refusal(tmp_path) == f"{path} cannot be read: No such file or directory"
    path.write_bytes(b"")
    assert refusal(tmp_path) == "device.npz is empty (0 bytes)"
    whole = record(path).read_bytes()
    path.write_bytes(whole[:-50])
    assert refusal(tmp_path) == "device.npz is not a whole .npz file: File is not a zip file"
    flipped = bytearray(whole)
    flipped[300] ^= 0xFF
    path.write_bytes(flipped)
    assert "device.npz is not a whole .npz file: Bad CRC-32" in refusal(tmp_path)


def test_no_damaged_byte_gets_past_the_reader_as_another_error(tmp_path):
    path = record(tmp_path / "device.npz", count=2, x=rows(2), test_x=None, test_y=None)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            assert opened(tmp_path).samples == 2
        except SensorError:
            continue


def test_python_objects_are_never_loaded(tmp_path):
    record(tmp_path / "device.npz", y=np.array([object()] * 10))
    assert "y.npy holds Python objects, which are never loaded" in refusal(tmp_path)


def test_a_header_that_promises_more_than_the_file_holds_is_refused_before_memory_is_asked_for(tmp_path):
    with zipfile.ZipFile(tmp_path / "device.npz", "w") as archive:
        for name in ("x", "y"):
            header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 2, 3), }".ljust(117) + b"\n"
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00\x76\x00" + header)
    assert refusal(tmp_path) == "device.npz is not a whole .npz file: x.npy says 2399999999976 bytes and holds 0"


# A folder of pieces ---------------------------------------------------------------------------------------------


def pieces(folder: Path, *firsts: int, count: int = 4) -> Path:
    folder.mkdir(exist_ok=True)
    for first in firsts:
        y = np.arange(first, first + count) % 4
        record(folder / f"{first:04}.npz", x=rows(count, first), y=y, test_x=rows(1, first), test_y=y[:1])
    return folder


def everything(source: Source, number: int, size: int = 3) -> list[int]:
    source.batch(number, 0, size, 7)  # the first batch of a round looks for new pieces
    return flat(seen(source.batch(number, step, size, 7)) for step in range(source.batches(size)))


def test_a_folder_gives_all_rows_of_all_pieces_once(tmp_path):
    source = opened(tmp_path, pieces(tmp_path / "data", 0, 4, 8))
    taken = everything(source, 1)
    assert sorted(taken) == list(range(12))
    assert taken != list(range(12))
    assert (source.samples, source.test_samples, source.labels()) == (12, 3, {0: 3, 1: 3, 2: 3, 3: 3})
    assert [batch.x[:, 0, 0].tolist() for batch in source.test_batches(2)] == [[0, 4], [8]]


def test_new_pieces_count_from_the_next_round_on_even_across_a_restart(tmp_path):
    data = pieces(tmp_path / "data", 0, 4)
    source = opened(tmp_path, data)
    before = everything(source, 1)
    pieces(data, 8)
    assert everything(source, 1) == before
    assert everything(opened(tmp_path, data), 1) == before
    assert sorted(everything(source, 2)) == list(range(12))
    assert everything(opened(tmp_path, data), 2) == everything(source, 2)


def test_a_damaged_piece_is_left_out_and_named(tmp_path, caplog):
    data = pieces(tmp_path / "data", 0, 4)
    (data / "0008.npz").write_bytes((data / "0004.npz").read_bytes()[:100])
    (data / "0009.tmp").write_bytes(b"being written")
    source = Folder(data, "one", WANTED, tmp_path / "note.json")
    assert sorted(everything(source, 1)) == list(range(8))
    assert source.refused == {"0008.npz": "0008.npz is not a whole .npz file: File is not a zip file"}
    assert [entry.getMessage() for entry in caplog.records] == [
        f"{data}/0008.npz is left out: 0008.npz is not a whole .npz file: File is not a zip file"
    ]


def test_a_folder_without_a_usable_piece_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    assert refusal(tmp_path, tmp_path / "data").endswith(
        "data holds no samples: none of its files is a usable .npz piece"
    )
    (tmp_path / "data" / "a.npz").write_bytes(b"")
    assert refusal(tmp_path, tmp_path / "data").endswith("; a.npz is empty (0 bytes)")


def test_a_piece_written_to_in_mid_round_is_noticed(tmp_path):
    data = pieces(tmp_path / "data", 0)
    source = opened(tmp_path, data)
    everything(source, 1)
    os.utime(data / "0000.npz", (1, 1))
    source._loaded.clear()
    with pytest.raises(SensorError, match=r"0000\.npz has changed during round 1"):
        source.batch(1, 0, 4, 7)


def test_memory_stays_within_the_limit_and_every_row_still_comes_once(tmp_path):
    data = pieces(tmp_path / "data", *range(0, 40, 4))
    held = 5 * 2 * 3 * 4 + 5 * 8  # five rows of x and y in each piece
    source = Folder(data, "one", WANTED, tmp_path / "note.json", limit_bytes=4 * held)
    most, taken = 0, []
    for step in range(source.batches(3)):
        taken += seen(source.batch(1, step, 3, 7))
        most = max(most, source._loaded_bytes())
    assert sorted(taken) == list(range(40))
    assert held < most <= 4 * held
    tight = Folder(data, "one", WANTED, tmp_path / "note.json", limit_bytes=2 * held)
    assert sorted(everything(tight, 1)) == list(range(40))
    with pytest.raises(SensorError, match=r"MiB in memory, the limit is 0\.0 MiB: record smaller pieces"):
        Folder(data, "one", WANTED, tmp_path / "note.json", limit_bytes=2 * held - 2)


# Made up, and one's own -----------------------------------------------------------------------------------------


def test_synthetic_data_fits_the_bundle_and_is_the_same_each_time(tmp_path):
    source = opened(tmp_path, "synthetic:40")
    assert (source.samples, source.test_samples, source.labels()) == (40, 10, dict.fromkeys(range(4), 10))
    batch, again = source.batch(1, 0, 8, 7), opened(tmp_path, "synthetic:40").batch(1, 0, 8, 7)
    assert batch.x.shape == (8, 2, 3)
    assert (batch.x == again.x).all()
    assert set(opened(tmp_path, "synthetic", dtype="int64").batch(1, 0, 64, 7).x.ravel().tolist()) == {0, 1}
    assert refusal(tmp_path, "synthetic:0") == "synthetic:0 holds no samples: x is (0, 2, 3)"


OWN = """
import numpy as np

x, y = np.ones((6, 2, 3), np.float32), np.arange(6) % 4

def pair(): return x, y
def four(): return x, y, x[:2], y[:2]
def named(device): return {"x": x * len(device), "y": y}
def three(): return x, y, x
def broken(): raise OSError("the sensor is unplugged")
number = 3

class Live:
    samples, test_samples = 100, 2
    def batch(self, round, step, size, seed):
        return x[:size] * (np.nan if step == 5 else step), y[:size]
    def test_batch(self, index, size):
        return x[:2], [0, 7]

def live(): return Live()
def half(): return object()
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_sensor.py").write_text(OWN)
    (tmp_path / "bad_sensor.py").write_text("import no_such_module")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own_sensor", None)


def test_a_function_of_ones_own_may_return_arrays(tmp_path, own):
    assert opened(tmp_path, "own_sensor:pair").samples == 6
    assert opened(tmp_path, "own_sensor:four").test_samples == 2
    assert opened(tmp_path, "own_sensor:named", name="abc").batch(1, 0, 2, 7).x.max() == 3


def test_a_function_of_ones_own_may_return_a_source_whose_batches_are_checked(tmp_path, own):
    source = opened(tmp_path, "own_sensor:live")
    batch = source.batch(1, 3, 4, 7)
    assert (batch.x.max(), batch.y.tolist()) == (3, [0, 1, 2, 3])
    assert (source.batches(8), source.labels()) == (13, {})
    with pytest.raises(SensorError, match="own_sensor:live, batch of step 5: x has 24 values that are not finite"):
        source.batch(1, 5, 4, 7)
    with pytest.raises(SensorError, match="own_sensor:live, test batch 0: label 7 at row 1 of y"):
        list(source.test_batches(2))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("own_sensor:three", "own_sensor:three returned 3 arrays, wanted are 2 (x, y) or 4 (x, y, test_x, test_y)"),
        ("own_sensor:broken", "own_sensor:broken failed: OSError: the sensor is unplugged"),
        ("own_sensor:number", "own_sensor:number is a int, not a function"),
        ("own_sensor:pear", "own_sensor:pear: own_sensor has no pear: did you mean pair?"),
        ("own_sensor:half", "own_sensor:half returned a object without samples, test_samples, batch, test_batch"),
        ("no_sensor:x", "no_sensor:x: import of no_sensor failed: ModuleNotFoundError: No module named 'no_sensor'"),
        (
            "bad_sensor:x",
            "bad_sensor:x: import of bad_sensor failed: ModuleNotFoundError: No module named 'no_such_module'",
        ),
    ],
)
def test_mistakes_of_ones_own_are_sentences(tmp_path, own, source, said):
    assert refusal(tmp_path, source) == said


def test_what_is_held_in_memory_says_how_much(tmp_path):
    record(tmp_path / "device.npz")
    # 13 samples of 2x3 float32, and a label of 8 bytes each
    assert opened(tmp_path).held_bytes == 13 * (2 * 3 * 4 + 8)
