import io
import json
import zipfile

import numpy as np
import onnx
import pytest
import torch

from edge.wire.manifest import Manifest
from export.archive import read, sha256
from export.bundle import BuildSpec, build, load_hub_bundle
from export.cut import load_factory
from export.errors import ExportError

SPEC = BuildSpec("export.models:digits", arguments={"classes": 5}, seed=3)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(SPEC, tmp_path_factory.mktemp("bundle"))


def test_the_manifest_is_true(built):
    members = read(built.device)
    manifest = Manifest.parse(members["manifest.json"])
    assert manifest.id == sha256(members["manifest.json"]) == built.id
    assert set(members) == {"manifest.json", *manifest.files}
    for name, entry in manifest.files.items():
        assert (len(members[name]), sha256(members[name])) == (entry.bytes, entry.sha256)
    assert (manifest.name, manifest.cut, manifest.classes) == ("digits-pool1-contrastive", "pool1", 5)
    assert manifest.input.shape == (1, 8, 8)
    assert manifest.smashed.shape == (16, 4, 4)
    assert manifest.flops["forward"] == 64 * 16 * 9
    # Convolution and its weight gradient; the head's 1x1 convolution without gradient, its Linear three times; NT-Xent of 2.
    assert manifest.flops["training"] == 2 * 64 * 16 * 9 + 16 * 128 * 16 + 3 * 128 * 64 + 3 * 2 * 64
    assert all(graph.in_place for graph in manifest.graphs.values())
    assert set(manifest.settings) == {
        name.removeprefix("setting.")
        for graph in manifest.graphs.values()
        for name in graph.inputs
        if name.startswith("setting.")
    }


def test_the_slices_tell_where_each_parameter_lies(built):
    members = read(built.device)
    manifest = Manifest.parse(members["manifest.json"])
    flat = np.load(io.BytesIO(members["state/weights.npy"]), allow_pickle=False)
    torch.manual_seed(3)
    model = load_factory(SPEC.model, classes=5)
    named = {
        piece.name: flat[piece.offset : piece.offset + int(np.prod(piece.shape))].reshape(piece.shape)
        for piece in manifest.slices
    }
    assert np.array_equal(named["conv1.weight"], model.conv1.weight.detach().numpy())
    assert [piece.name for piece in manifest.pieces({"lower"})] == ["conv1.weight", "conv1.bias"]
    assert manifest.pieces({"head"})[0].name == "head.mix.weight"


def test_the_same_twice_gives_the_same_bytes(built, tmp_path):
    again = build(SPEC, tmp_path)
    assert again.device.read_bytes() == built.device.read_bytes()
    assert again.hub.read_bytes() == built.hub.read_bytes()


def test_another_seed_gives_another_bundle(built, tmp_path):
    other = build(BuildSpec("export.models:digits", arguments={"classes": 5}, seed=4), tmp_path, checked=False)
    assert other.id != built.id


def test_no_source_path_is_in_the_graphs(built):
    members = read(built.device)
    assert not [name for name, data in members.items() if b".py\x00" in data or b"/export/" in data or b"stack" in data]


def test_no_graph_finds_the_places_of_maxima_whose_windows_lie_side_by_side(built):
    members = read(built.device)
    for kind in built.manifest.graphs:
        nodes = onnx.load_from_string(members[f"graphs/{kind}.onnx"]).graph.node
        assert {len(node.output) for node in nodes if node.op_type == "MaxPool"} == {1}, kind


def test_the_hub_can_remake_the_model(built):
    bundle = load_hub_bundle(built.hub)
    assert bundle.bundle == built.id
    model = load_factory(bundle.model, **bundle.arguments)
    missing = model.load_state_dict(
        {name: torch.from_numpy(array.copy()) for name, array in bundle.upper.items()}, strict=False
    )
    assert sorted(missing.missing_keys) == ["conv1.bias", "conv1.weight"]
    assert missing.unexpected_keys == []


def rewritten(path, out, change):
    members = read(path)
    change(members)
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out


def flip(members):
    name = "upper/conv2.bias.npy"
    members[name] = members[name][:-1] + bytes([members[name][-1] ^ 1])


def drop(members):
    del members["upper/conv2.bias.npy"]


def future(members):
    members["hub.json"] = json.dumps({**json.loads(members["hub.json"]), "format": 9}).encode()


@pytest.mark.parametrize(
    ("change", "text"), [(flip, "does not have its hash"), (drop, "is damaged"), (future, "has format 9")]
)
def test_a_damaged_hub_bundle_is_refused(built, tmp_path, change, text):
    with pytest.raises(ExportError, match=text):
        load_hub_bundle(rewritten(built.hub, tmp_path / "hub.bundle", change))


def test_the_hub_knows_with_which_weights_devices_begin(built):
    members, start = read(built.device), load_hub_bundle(built.hub).start
    assert sorted(start) == sorted(piece.name for piece in built.manifest.slices)
    for piece in built.manifest.slices:
        vector = np.load(io.BytesIO(members[f"state/{piece.state}.npy"])).reshape(-1)
        mine = vector[piece.offset : piece.offset + piece.size].reshape(piece.shape)
        np.testing.assert_array_equal(start[piece.name], mine)


def test_a_hub_bundle_of_an_older_release_does_not_say(built, tmp_path):
    def older(members):
        fields = json.loads(members["hub.json"])
        for name in fields.pop("start"):
            del members[name]
        members["hub.json"] = json.dumps(fields).encode()

    old = load_hub_bundle(rewritten(built.hub, tmp_path / "hub.bundle", older))
    assert old.start == {}
    assert list(old.upper) == list(load_hub_bundle(built.hub).upper)


def test_a_cut_off_or_missing_hub_bundle_is_refused(built, tmp_path):
    torn = tmp_path / "torn.bundle"
    torn.write_bytes(built.hub.read_bytes()[:-40])
    with pytest.raises(ExportError, match="is damaged"):
        load_hub_bundle(torn)
    with pytest.raises(ExportError, match="there is no bundle"):
        load_hub_bundle(tmp_path / "none.bundle")


def test_unknown_objective_and_optimizer(tmp_path):
    with pytest.raises(ExportError, match="there is no objective 'x'; known are contrastive, gradient"):
        build(BuildSpec("export.models:digits", objective="x"), tmp_path)
    with pytest.raises(ExportError, match="there is no optimizer 'lion'; known are sgd, adam, adamw"):
        build(BuildSpec("export.models:digits", optimizer="lion"), tmp_path)


def test_a_bundle_that_fails_its_check_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr("export.check.GRADIENT_LIMIT", -1.0)
    monkeypatch.setattr("export.check.SHARE_OF_CONTROL", -1.0)
    with pytest.raises(ExportError, match="differ from PyTorch, so no bundle is written"):
        build(SPEC, tmp_path / "out")
    assert not (tmp_path / "out").exists()
