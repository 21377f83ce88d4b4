import gzip
import hashlib
import struct
import sys
import types
import zipfile

import numpy as np
import pytest

from hub.datasets import DatasetError, DeviceData, Federation, split, write_device_file
from hub.datasets.cifar import DEVIATION, MEAN, RECORD_BYTES
from hub.datasets.wearables import STRIDE, WINDOW, _load, divide, label_spread, label_stretch, windows_of


def digest(federation):
    total = hashlib.sha256()
    for name, data in [*federation.items(), *federation.unseen.items()]:
        total.update(name.encode())
        for array in (data.x_train, data.y_train, data.x_test, data.y_test):
            total.update(array.tobytes())
    return total.hexdigest()


@pytest.fixture
def source(monkeypatch):
    """Registers a user's own source and gives its name."""

    def register(function):
        module = types.ModuleType("greenhouse")
        module.beds = function
        monkeypatch.setitem(sys.modules, "greenhouse", module)
        return "greenhouse:beds"

    return register


def samples(count=4, labels=(0, 1, 0, 1)):
    return np.zeros((count, 2), np.float32), np.array(labels, np.int64)


# The smartwatch exercises


@pytest.mark.parametrize("length", range(947, 2619, 37))
def test_no_training_sample_is_in_a_test_window_and_a_whole_window_lies_between(length):
    train, test = divide(length)
    used_to_train = {i for start in train for i in range(start, start + WINDOW)}
    used_to_test = {i for start in test for i in range(start, start + WINDOW)}
    assert not used_to_train & used_to_test
    assert min(used_to_test) - max(used_to_train) - 1 >= WINDOW
    assert max(used_to_test) < length


def test_a_recording_divided_by_hand():
    # 1000 samples: 19 windows from 0, 50, .. 900; 80 % are 15, less 2 before the cut and 1 after it.
    train, test = divide(1000)
    assert train == [50 * i for i in range(13)]
    assert test == [800, 850, 900]


def test_a_wearer_file_holds_no_sample_of_the_test_side():
    recordings = _load()
    train, test = windows_of(recordings, 4)
    seen = {(w.recording, i) for w in train for i in range(w.start, w.start + WINDOW)}
    tested = {(w.recording, i) for w in test for i in range(w.start, w.start + WINDOW)}
    assert seen
    assert tested
    assert not seen & tested
    assert len({w.recording for w in train}) == 14


def test_five_labelled_windows_of_each_exercise():
    federation = split("wearables", 10, "scarce", 0, None)
    assert list(federation) == [f"wearer-{i:02d}" for i in range(1, 11)]
    for data in federation.values():
        assert data.x_train.shape == (35, 6, 100)
        assert np.bincount(data.y_train).tolist() == [5] * 7
        assert np.bincount(data.y_test, minlength=7).min() > 0
    assert sum(len(data.y_test) for data in federation.values()) == 851
    assert sum(len(federation[f"wearer-{i:02d}"].y_test) for i in range(1, 6)) == 399


def test_labelled_windows_are_a_stretch_of_six_seconds_in_one_recording():
    train, _ = windows_of(_load(), 1)
    few = label_stretch(train, np.random.default_rng(0))
    for exercise in range(7):
        mine = [w for w in few if w.exercise == exercise]
        assert len({w.recording for w in mine}) == 1
        assert [w.start - mine[0].start for w in mine] == [0, 50, 100, 150, 200]


def test_spread_windows_are_spread_over_the_training_time():
    train, _ = windows_of(_load(), 1)
    few = label_spread(train, np.random.default_rng(0))
    for exercise in range(7):
        mine = [w for w in train if w.exercise == exercise]
        places = sorted(mine.index(w) / len(mine) for w in few if w.exercise == exercise)
        assert all(i / 5 - 0.03 <= place <= (i + 1) / 5 + 0.03 for i, place in enumerate(places))


def test_scarce_windows_come_from_the_training_part_and_the_test_is_the_same():
    few = split("wearables", 3, "scarce", 0, None)
    everything = split("wearables", 3, "all", 0, None)
    for name, data in few.items():
        whole = everything[name]
        np.testing.assert_array_equal(data.x_test, whole.x_test)
        windows = {w.tobytes() for w in whole.x_train}
        assert all(w.tobytes() in windows for w in data.x_train)
        assert len(whole.x_train) > 300 or name == "wearer-03"


def test_windows_are_the_recording_in_half_g_and_radians_a_second():
    recordings = _load()
    first = int(np.flatnonzero(recordings["subject"] == 1)[0])
    recording = recordings["X"][first]
    data = split("wearables", 1, "all", 0, None)["wearer-01"]
    np.testing.assert_allclose(data.x_train[1, 0], recording[STRIDE : STRIDE + WINDOW, 0] / 0.5, rtol=1e-6)
    np.testing.assert_allclose(data.x_train[1, 5], recording[STRIDE : STRIDE + WINDOW, 5], rtol=1e-6)


def test_the_seed_decides_and_only_the_seed():
    def shares(seed):
        return digest(split("wearables", 10, "scarce", seed, None))

    assert shares(1) == shares(1)
    assert shares(1) != shares(2)
    few = split("wearables", 2, "scarce", 1, None)
    np.testing.assert_array_equal(
        few["wearer-02"].x_train, split("wearables", 10, "scarce", 1, None)["wearer-02"].x_train
    )


def test_new_wearers_take_no_part_in_training():
    federation = split("wearables", 8, "scarce", 3, None, new_wearers=2)
    assert len(federation) == 8
    assert len(federation.unseen) == 2
    assert not set(federation) & set(federation.unseen)
    recordings = _load()
    for name, data in federation.unseen.items():
        wearer = int(name.removeprefix("wearer-"))
        lengths = [len(x) for x, s in zip(recordings["X"], recordings["subject"], strict=True) if s == wearer]
        assert data.x_train.shape == (0, 6, 100)
        assert len(data.x_test) == sum((n - WINDOW) // STRIDE + 1 for n in lengths)
    assert "2 wearers left out" in federation.provenance


def test_more_devices_than_wearers():
    with pytest.raises(DatasetError, match=r"11 devices and 0 new wearers .* has 10 wearers"):
        split("wearables", 11, "all", 0, None)
    with pytest.raises(DatasetError, match=r"10 devices and 2 new wearers .* has 10 wearers"):
        split("wearables", 10, "all", 0, None, new_wearers=2)


def test_a_missing_package_names_the_pip_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DatasetError, match=r"needs the package 'seglearn'.*pip install 'cutlayer\[data\]'"):
        split("wearables", 2, "all", 0, None)


def test_a_missing_module_names_the_pip_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "hub.datasets.digits", raising=False)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DatasetError, match=r"'digits' needs the package 'sklearn.*pip install 'cutlayer\[data\]'"):
        split("digits", 2, "all", 0, None)


# What a board reads


def test_a_device_file_is_plain_numbers(tmp_path):
    data = split("wearables", 1, "scarce", 0, None)["wearer-01"]
    write_device_file(tmp_path / "a.npz", data)
    write_device_file(tmp_path / "b.npz", data)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert sorted(file.files) == ["test_x", "test_y", "x", "y"]
        np.testing.assert_array_equal(file["x"], data.x_train)
        np.testing.assert_array_equal(file["test_y"], data.y_test)
        assert file["x"].dtype == np.float32
        assert file["y"].dtype == np.int64
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        for member in archive.namelist():
            assert b"'|O'" not in archive.read(member)[:128]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "b.npz"]


def test_python_objects_are_not_written(tmp_path):
    x, y = samples()
    with pytest.raises(DatasetError, match="a device file holds numbers only"):
        write_device_file(tmp_path / "a.npz", DeviceData(x.astype(object), y, x, y))
    assert not list(tmp_path.iterdir())


# Digits, and how pictures are dealt


def test_digits_are_dealt_once_each():
    federation = split("digits", 4, "all", 0, None)
    train = sum(len(d.y_train) for d in federation.values())
    test = sum(len(d.y_test) for d in federation.values())
    assert train + test == 1797
    assert federation.shape == (1, 8, 8)
    counts = np.array([np.bincount(d.y_train) for d in federation.values()])
    assert (counts.max(0) - counts.min(0)).max() <= 1
    assert max(d.x_train.max() for d in federation.values()) == 1.0
    assert digest(federation) == digest(split("digits", 4, "all", 0, None))
    assert digest(federation) != digest(split("digits", 4, "all", 1, None))


def test_two_classes_a_device_cover_all_classes():
    federation = split("digits", 5, "all", 0, None, classes_per_device=2)
    held = [set(np.unique(d.y_train).tolist()) for d in federation.values()]
    assert [len(h) for h in held] == [2] * 5
    assert set.union(*held) == set(range(10))
    assert all(set(np.unique(d.y_test).tolist()) == h for d, h in zip(federation.values(), held, strict=True))


def test_scarce_digits_are_five_of_each_class():
    data = split("digits", 3, "scarce", 0, None)["device-02"]
    assert np.bincount(data.y_train).tolist() == [5] * 10


def test_what_the_digits_cannot_do_is_refused():
    with pytest.raises(DatasetError, match="11 classes a device were asked for; the data set 'digits' has 10"):
        split("digits", 2, "all", 0, None, classes_per_device=11)
    with pytest.raises(DatasetError, match="'digits' has no wearers"):
        split("digits", 2, "all", 0, None, new_wearers=1)
    with pytest.raises(DatasetError, match=r"device-.* has no (training|test) samples"):
        split("digits", 1000, "all", 0, None)


# IDX


def idx_bytes(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def idx_folder(tmp_path):
    rng = np.random.default_rng(0)
    for part, count in (("train", 40), ("t10k", 20)):
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(
            idx_bytes(rng.integers(0, 256, (count, 4, 3), np.uint8, endpoint=False))
        )
        labels = idx_bytes(np.arange(count, dtype=np.uint8) % 2)
        with gzip.open(tmp_path / f"{part}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(labels)
    return tmp_path


def test_idx_files_packed_and_not(idx_folder):
    federation = split("idx", 2, "all", 0, idx_folder)
    assert federation.shape == (1, 4, 3)
    assert federation.classes == 2
    assert [(len(d.y_train), len(d.y_test)) for d in federation.values()] == [(20, 10), (20, 10)]


def test_idx_without_training_files_holds_out_a_fifth_and_says_so(idx_folder):
    for path in idx_folder.glob("train-*"):
        path.unlink()
    federation = split("idx", 1, "all", 0, idx_folder)
    assert (len(federation["device-01"].y_train), len(federation["device-01"].y_test)) == (16, 4)
    assert "no training files" in federation.provenance


def images_path(folder):
    return folder / "train-images-idx3-ubyte"


def test_a_cut_idx_file(idx_folder):
    path = images_path(idx_folder)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(
        DatasetError,
        match="train-images-idx3-ubyte is damaged: expected 480 bytes for the values 40x4x3, found 473",
    ):
        split("idx", 2, "all", 0, idx_folder)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "damaged: expected 4 bytes for the head, found 0"),
        (b"PK\3\4", "is no IDX file of unsigned bytes: it begins with 50 4b 03 04"),
        (b"\0\0\x0d\3", "is no IDX file of unsigned bytes: it begins with 00 00 0d 03"),
        (b"\0\0\x08\3\0\0", "damaged: expected 12 bytes for the dimensions, found 2"),
        (
            bytes([0, 0, 8, 3]) + b"\xff" * 12,
            "promises 79228162458924105385300197375 bytes of values; the limit is 1073741824",
        ),
        (bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 7, 7]), "damaged: expected 2 bytes of values, found more"),
        (idx_bytes(np.zeros(40, np.uint8)), r"has the shape \(40,\)"),
    ],
)
def test_damaged_idx_files(idx_folder, content, sentence):
    images_path(idx_folder).write_bytes(content)
    with pytest.raises(DatasetError, match=sentence):
        split("idx", 2, "all", 0, idx_folder)


def test_a_cut_gzip_stream(idx_folder):
    path = idx_folder / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(DatasetError, match=r"t10k-labels-idx1-ubyte\.gz is damaged: its gzip stream does not end"):
        split("idx", 2, "all", 0, idx_folder)


def test_a_missing_half_and_an_empty_folder(idx_folder, tmp_path_factory):
    images_path(idx_folder).unlink()
    with pytest.raises(DatasetError, match="has the train labels but not the images"):
        split("idx", 2, "all", 0, idx_folder)
    with pytest.raises(DatasetError, match="holds no IDX files"):
        split("idx", 2, "all", 0, tmp_path_factory.mktemp("empty"))
    with pytest.raises(DatasetError, match="give their folder"):
        split("idx", 2, "all", 0, None)


# CIFAR


def cifar_record(label, red):
    return bytes([label]) + bytes([red]) * 1024 + bytes(2048)


def test_cifar_binary_files(tmp_path):
    (tmp_path / "data_batch_1.bin").write_bytes(b"".join(cifar_record(i % 10, 255) for i in range(20)))
    (tmp_path / "test_batch.bin").write_bytes(b"".join(cifar_record(i, 0) for i in range(10)))
    federation = split("cifar", 5, "all", 0, tmp_path, classes_per_device=2)
    assert federation.class_names[3] == "cat"
    for data in federation.values():
        assert data.x_train.shape == (4, 3, 32, 32)
        assert len(np.unique(data.y_train)) == 2
        np.testing.assert_allclose(data.x_train[0, 0], (1 - MEAN[0, 0, 0]) / DEVIATION[0, 0, 0], rtol=1e-6)
        np.testing.assert_allclose(data.x_test[0, 2], -MEAN[2, 0, 0] / DEVIATION[2, 0, 0], rtol=1e-6)


def test_damaged_cifar_files(tmp_path):
    with pytest.raises(DatasetError, match="holds no CIFAR-10"):
        split("cifar", 2, "all", 0, tmp_path)
    (tmp_path / "data_batch_1.bin").write_bytes(bytes(RECORD_BYTES - 1))
    (tmp_path / "test_batch.bin").write_bytes(bytes(RECORD_BYTES))
    with pytest.raises(DatasetError, match=r"data_batch_1.bin is damaged: .* multiple of 3073 bytes, found 3072"):
        split("cifar", 2, "all", 0, tmp_path)
    (tmp_path / "data_batch_1.bin").write_bytes(cifar_record(12, 0))
    with pytest.raises(DatasetError, match="has the label 12; labels go from 0 to 9"):
        split("cifar", 1, "all", 0, tmp_path)


def test_cifar_npz(tmp_path):
    x, y = np.zeros((20, 3, 32, 32), np.uint8), (np.arange(20) % 10).astype(np.uint8)
    np.savez(tmp_path / "cifar10_part.npz", xtr=x, ytr=y, xte=x, yte=y)
    assert len(split("cifar", 2, "all", 0, tmp_path)["device-01"].y_train) == 10
    np.savez(tmp_path / "cifar10_part.npz", xtr=x, ytr=y)
    with pytest.raises(DatasetError, match=r"cifar10_part\.npz lacks an array"):
        split("cifar", 2, "all", 0, tmp_path)
    np.savez(tmp_path / "cifar10_part.npz", xtr=np.array([{}]), ytr=y, xte=x, yte=y)
    with pytest.raises(DatasetError, match=r"cifar10_part\.npz is damaged"):
        split("cifar", 2, "all", 0, tmp_path)


# A user's own source


def test_a_users_own_function(source):
    def beds(request):
        return Federation(
            {f"bed-{i}": DeviceData(*samples(), *samples()) for i in range(request.devices)},
            ("dry", "wet"),
            f"seed {request.seed}",
        )

    federation = split(source(beds), 3, "all", 7, None)
    assert list(federation) == ["bed-0", "bed-1", "bed-2"]
    assert federation.provenance == "seed 7"


@pytest.mark.parametrize(
    ("train", "test", "sentence"),
    [
        (samples(0, ()), samples(), "bed of the data set 'greenhouse:beds' has no training samples"),
        (samples(), samples(0, ()), "bed of the data set 'greenhouse:beds' has no test samples"),
        (samples(labels=(0, 1, 2, 0)), samples(), "training data of bed have the label 2; labels go from 0 to 1"),
        (samples(), samples(labels=(0, -1, 1, 0)), "test data of bed have the label -1; labels go from 0 to 1"),
        (samples(4, (0, 1)), samples(), "4 samples and labels of shape"),
        ((np.full((1, 2), np.nan, np.float32), np.zeros(1, np.int64)), samples(), "2 values that are not finite"),
        ((np.zeros((1, 2)), np.zeros(1, np.int64)), samples(), "are float64 with int64 labels"),
        ((np.zeros((1, 3), np.float32), np.zeros(1, np.int64)), samples(), r"the shape \(3,\); the others have \(2,\)"),
    ],
)
def test_shares_that_could_not_train_are_refused(source, train, test, sentence):
    name = source(lambda _request: Federation({"bed": DeviceData(*train, *test)}, ("dry", "wet"), ""))
    with pytest.raises(DatasetError, match=sentence):
        split(name, 1, "all", 0, None)


def test_sources_that_are_none(source):
    with pytest.raises(DatasetError, match="unknown data set 'minst': take one of wearables, digits, idx, cifar"):
        split("minst", 1, "all", 0, None)
    with pytest.raises(DatasetError, match="there is no module 'no_such_module' on the Python path"):
        split("no_such_module:f", 1, "all", 0, None)
    with pytest.raises(DatasetError, match="'greenhouse' has no 'peds'"):
        split(source(None).replace("beds", "peds"), 1, "all", 0, None)
    with pytest.raises(DatasetError, match=r"returned a dict; it must return a hub\.datasets\.Federation"):
        split(source(lambda _request: {}), 1, "all", 0, None)
    with pytest.raises(DatasetError, match="0 devices were asked for"):
        split("digits", 0, "all", 0, None)
    with pytest.raises(DatasetError, match="windows is 'few'"):
        split("digits", 1, "few", 0, None)
