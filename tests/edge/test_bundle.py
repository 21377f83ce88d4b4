import json
import zipfile

import numpy as np
import pytest

from edge import bundle
from edge.bundle import BundleError
from edge.wire.manifest import Manifest, Need
from tests.tiny import write_bundle


@pytest.fixture
def path(tmp_path):
    write_bundle(tmp_path / "device.bundle")
    return tmp_path / "device.bundle"


def rewrite(path, change):
    """Write the archive again with `change` applied to its members."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def test_loads_what_was_written(tmp_path):
    written = write_bundle(tmp_path / "device.bundle", weights=(3.0, 4.0))
    loaded = bundle.load(tmp_path / "device.bundle")
    assert loaded.id == written
    assert set(loaded.graphs) == {"local", "forward", "backward", "evaluate"}
    np.testing.assert_array_equal(loaded.state["weights"], np.array([3, 4], np.float32))
    assert loaded.manifest.settings["lr"].default == 0.01
    assert loaded.manifest.pieces({"lower"})[0].name == "scale.weight"


def test_a_changed_graph_is_not_loaded(path):
    def flip(members):
        data = bytearray(members["graphs/local.onnx"])
        data[-1] ^= 1
        members["graphs/local.onnx"] = bytes(data)

    rewrite(path, flip)
    with pytest.raises(BundleError, match=r"graphs/local.onnx has SHA-256"):
        bundle.load(path)


def test_a_missing_member_is_named(path):
    rewrite(path, lambda members: members.pop("graphs/forward.onnx"))
    with pytest.raises(BundleError, match=r"graphs/forward.onnx is missing"):
        bundle.load(path)


def test_a_member_larger_than_stated_is_not_unpacked(path):
    rewrite(path, lambda members: members.update({"state/weights.npy": b"0" * 1_000_000}))
    with pytest.raises(BundleError, match=r"state/weights.npy has 1000000 bytes; the limit is"):
        bundle.load(path)


@pytest.mark.parametrize("size", [0, 10, 200, 1500])
def test_a_cut_file_is_a_plain_sentence(path, size):
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(BundleError, match="is not a bundle this release can read"):
        bundle.load(path)


def test_no_file(tmp_path):
    with pytest.raises(BundleError, match="there is no bundle at"):
        bundle.load(tmp_path / "device.bundle")


@pytest.mark.parametrize(
    ("number", "what_to_do"),
    [(2, "install the release of cutlayer that built it, or a later one"), (0, "build the bundle anew")],
)
def test_another_format_is_refused_with_the_file_both_versions_and_what_to_do(path, number, what_to_do):
    def other(members):
        members["manifest.json"] = json.dumps({**json.loads(members["manifest.json"]), "format": number}).encode()

    rewrite(path, other)
    with pytest.raises(BundleError) as refused:
        bundle.load(path)
    assert str(refused.value) == (
        f"{path} is not a bundle this release can read: the manifest has format {number}; "
        f"this release reads format 1: {what_to_do}"
    )


def test_state_of_another_shape_than_stated_is_refused(tmp_path):
    write_bundle(tmp_path / "b", state={"weights": {"shape": [3], "dtype": "float32"}})
    with pytest.raises(BundleError, match=r"state/weights.npy has shape \(2,\).*manifest says \(3,\)"):
        bundle.load(tmp_path / "b")


def test_a_slice_outside_its_state_is_refused(tmp_path):
    slices = [{"name": "scale.weight", "state": "weights", "offset": 1, "shape": [2], "part": "lower"}]
    write_bundle(tmp_path / "b", slices=slices)
    with pytest.raises(BundleError, match=r"slice 'scale\.weight' does not lie inside state 'weights'"):
        bundle.load(tmp_path / "b")


def test_a_bundle_without_the_memory_of_its_graphs_is_read_and_keeps_its_id(tmp_path):
    id_ = write_bundle(tmp_path / "old")
    manifest = bundle.load(tmp_path / "old").manifest
    assert (manifest.memory, bundle.load(tmp_path / "old").id) == ({}, id_)
    assert b"memory" not in manifest.serialize(), "what older releases wrote keeps its id when it is written again"


def test_the_memory_of_a_graph_is_read_and_a_negative_one_refused(tmp_path):
    write_bundle(tmp_path / "b", memory={"local": {"fixed_bytes": 7, "sample_bytes": 3}})
    manifest = bundle.load(tmp_path / "b").manifest
    assert manifest.memory == {"local": Need(7, 3)}
    assert Manifest.parse(manifest.serialize()) == manifest
    write_bundle(tmp_path / "b", memory={"local": {"fixed_bytes": 7, "sample_bytes": -3}})
    with pytest.raises(BundleError, match="cannot need -3 bytes"):
        bundle.load(tmp_path / "b")


def test_keys_of_a_later_release_are_passed_over(tmp_path):
    id_ = write_bundle(tmp_path / "b", colour="blue")
    assert bundle.load(tmp_path / "b").id == id_


@pytest.mark.parametrize(
    ("tuning", "words"),
    [
        ({"measured": {"machine": {"architecture": "x86_64"}}}, "measured on x86_64, this is aarch64"),
        ({"measured": {"machine": {"architecture": "aarch64"}}}, ""),
        ({}, ""),
        ({"measured": "yes"}, ""),
    ],
)
def test_a_bundle_measured_on_another_architecture_says_so(tmp_path, tuning, words):
    write_bundle(tmp_path / "b", tuning=tuning)
    said = bundle.measured_elsewhere(bundle.load(tmp_path / "b").manifest, "aarch64")
    assert words in said
    assert bool(said) == bool(words)
