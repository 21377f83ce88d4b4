import struct

import numpy as np
import pytest

from benchmarks import sources
from hub.datasets import DatasetError, split


def idx(path, array):
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(head + array.astype(np.uint8).tobytes())


def pictures(folder, prefix, part, each):
    """Pictures that are their label, `each` of ten classes."""
    y = np.repeat(np.arange(10), each)
    idx(folder / f"{prefix}{part}-images", np.repeat(y, 28 * 28).reshape(-1, 28, 28))
    idx(folder / f"{prefix}{part}-labels", y)


@pytest.fixture
def folder(tmp_path):
    y = np.repeat(np.arange(10), 60)
    x = np.broadcast_to(y[:, None, None, None], (600, 3, 32, 32)).astype(np.uint8)
    np.savez(tmp_path / "cifar10-part.npz", xtr=x, ytr=y, xte=x, yte=y)
    for part in ("train", "t10k"):
        pictures(tmp_path / "fashion-mnist", "", part, 60)
    pictures(tmp_path, "notmnist-", "t10k", 60)
    return tmp_path


def test_fashion_has_two_classes_a_device_and_each_on_one(folder):
    found = split("benchmarks.sources:fashion", 5, "all", 0, folder / "fashion-mnist")
    assert found.shape == (1, 32, 32)
    assert sorted(c for data in found.values() for c in np.unique(data.y_train)) == list(range(10))
    for data in found.values():
        assert set(data.y_test) == set(data.y_train)
        assert len(data.y_train) == 120
        # The picture is in the middle, its margin black.
        assert np.allclose(data.x_train[:, 0, 16, 16] * 255, data.y_train)
        assert not data.x_train[:, :, :2].any()


def test_a_device_gets_no_more_than_the_size_says(folder, monkeypatch):
    monkeypatch.setitem(sources.SIZES, "mixed_cifar", sources.Size(70, 30))
    found = split("benchmarks.sources:mixed_cifar", 5, "all", 0, folder)
    assert {(len(data.y_train), len(data.y_test)) for data in found.values()} == {(70, 30)}
    assert {len(set(data.y_train)) for data in found.values()} == {2}
    assert "At most 70 training and 30 test samples" in found.provenance


def test_mixed_noniid_has_a_data_set_a_device_and_says_what_stands_in(folder):
    found = split("benchmarks.sources:mixed_noniid", 5, "all", 0, folder)
    assert list(found) == ["1-cifar10-low", "2-cifar10-high", "3-fashion-mnist", "4-digits", "5-notmnist"]
    assert "digits" in found.provenance
    assert found.classes == 25
    for number, data in enumerate(found.values()):
        assert set(data.y_train) == set(data.y_test) == set(range(5 * number, 5 * number + 5))
        assert data.x_train.shape[1:] == (3, 32, 32)
        assert max(np.bincount(data.y_train)) <= 40
    letters = found["5-notmnist"]
    assert np.allclose((letters.x_train[:, 1, 16, 16] + 1) / 2 * 255, letters.y_train - 20, atol=1e-3)

    for part in ("train", "t10k"):
        pictures(folder / "mnist", "", part, 60)
    assert "4-mnist" in split("benchmarks.sources:mixed_noniid", 5, "all", 0, folder)


def test_the_same_seed_gives_the_same_shares(folder):
    def labels(seed):
        found = split("benchmarks.sources:mixed_noniid", 5, "all", seed, folder)
        return [data.y_train.tolist() for data in found.values()]

    assert labels(1) == labels(1) != labels(2)


def test_what_is_missing_is_named(folder, tmp_path):
    (folder / "notmnist-t10k-images").unlink()
    with pytest.raises(DatasetError, match="holds no notmnist: notmnist/"):
        split("benchmarks.sources:mixed_noniid", 5, "all", 0, folder)
    with pytest.raises(DatasetError, match="give their folder"):
        split("benchmarks.sources:fashion", 5, "all", 0, None)
    with pytest.raises(DatasetError, match="for each of 5 devices"):
        split("benchmarks.sources:mixed_noniid", 4, "all", 0, tmp_path)
