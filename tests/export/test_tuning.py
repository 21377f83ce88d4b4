"""Every formulation gives the same numbers, and a choice that was recorded is taken again."""

import dataclasses
import json
import zipfile

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  the name everybody reads

from export import tuning
from export.bundle import BuildSpec, build
from export.errors import ExportError
from export.geometry import Geometry, Site
from export.lowering.convolution import ABOVE, DOWN, FORWARD, formulations
from export.runtime import Runner
from export.symbolic import BATCH

BLOCK = tuning.block_here()

# (inputs, places, outputs, kernel, stride, padding, dilation, groups)
SHAPES = {
    "3x3": (16, (9, 8), 16, (3, 3), 1, 1, 1, 1),
    "few inputs": (3, (8, 9), 8, (3, 3), 1, 1, 1, 1),
    "channels that fill no block": (20, (7, 7), 12, (3, 3), 1, 1, 1, 1),
    "stride": (16, (8, 8), 32, (3, 3), 2, 1, 1, 1),
    "stride, rest dropped": (8, (9, 9), 4, (2, 2), 3, 0, 1, 1),
    "dilation": (16, (9, 9), 4, (3, 2), 1, 2, 2, 1),
    "padding beyond the kernel": (4, (5, 6), 4, (2, 2), 1, 2, 1, 1),
    "1x1": (24, (6, 6), 16, (1, 1), 1, 0, 1, 1),
    "1x1, stride": (16, (6, 6), 8, (1, 1), 2, 0, 1, 1),
    "groups": (8, (7, 7), 12, (3, 3), 1, 1, 1, 4),
    "depthwise": (20, (8, 8), 20, (3, 3), 1, 1, 1, 20),
    "depthwise, stride": (16, (8, 6), 16, (3, 3), 2, 1, 1, 16),
    "1d": (16, (20,), 32, (5,), 1, 2, 1, 1),
    "1d, few inputs": (6, (21,), 8, (3,), 2, 1, 1, 1),
    "1d, depthwise": (16, (12,), 16, (3,), 1, 1, 1, 16),
}
SAMPLES = 3


def sites(shape):
    """The three sites of a convolution, and for each its operands and its result in float64."""
    inputs, places, outputs, kernel, *numbers, groups = SHAPES[shape]
    rank = len(places)
    stride, padding, dilation = ((number,) * rank for number in numbers)
    geometry = Geometry(stride, padding, dilation, groups)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES, inputs, *places, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(
        outputs, inputs // groups, *kernel, generator=generator, dtype=torch.float64, requires_grad=True
    )
    y = (F.conv1d, F.conv2d)[rank - 1](x, weight, None, stride, padding, dilation, groups)
    gradient = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    down, above = torch.autograd.grad(y, (x, weight), gradient)

    def site(operator, left, right, out):
        shapes = [tuple(value.shape) for value in (left, right, out)]
        shapes = [each if value is weight or value is above else (BATCH, *each[1:]) for value, each in zip((left, right, out), shapes, strict=True)]  # fmt: skip
        return Site(operator, *shapes, geometry), left.detach(), right.detach(), out.detach()

    return [site(FORWARD, x, weight, y), site(DOWN, gradient, weight, down), site(ABOVE, gradient, x, above)]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_formulation_equals_float64(shape):
    for site, left, right, truth in sites(shape):
        for formulation in formulations(site, BLOCK):
            runner = Runner(tuning.graph(site, formulation, BLOCK, SAMPLES))
            given = runner.run({"left": left.float().numpy(), "right": right.float().numpy()})["out"]
            error = np.abs(given - truth.numpy()).max() / np.abs(truth.numpy()).max()
            assert given.shape == tuple(truth.shape)
            assert error < 1e-5, f"{site.name}, by {formulation}: {error:.1e}"


def test_blocks_are_never_taken_unasked():
    for shape in SHAPES:
        for site, *_ in sites(shape):
            assert formulations(site, 16)[0] != "blocks"
            assert "blocks" not in formulations(site, 0)


def test_the_fastest_is_chosen_and_the_portable_one_beside_it(monkeypatch):
    site = sites("3x3")[2][0]
    taken = {"taps": 3.0, "taps of samples": 2.0, "columns of samples": 4.0, "shifts": 1.99}
    monkeypatch.setattr(tuning, "measure", lambda *_: taken)
    (choice,) = tuning.tune({site: ["conv1"]}, 0, tuning.Effort()).choices
    assert (choice.usual, choice.formulation, choice.ratio) == ("taps", "shifts", 0.663)
    forward = sites("3x3")[0][0]
    monkeypatch.setattr(tuning, "measure", lambda *_: {"plain": 2.0, "blocks": 1.0})
    (choice,) = tuning.tune({forward: ["conv1"]}, 16, tuning.Effort()).choices
    assert (choice.formulation, choice.ratio) == ("blocks", 0.5)
    assert (choice.portable, choice.portable_ratio, choice.layers) == ("plain", 1.0, ("conv1",))


def test_what_is_hardly_faster_is_not_chosen(monkeypatch):
    monkeypatch.setattr(tuning, "measure", lambda *_: {"plain": 1.0, "blocks": 0.98})
    (choice,) = tuning.tune({sites("3x3")[0][0]: []}, 16, tuning.Effort()).choices
    assert choice.formulation == "plain"


SPEC = BuildSpec(model="export.models:Digits", cut="pool2")


def recorded(bundle, **changed):
    """The choices that a build of the digits' model would make, with other formulations put in by the start of their site."""
    found = tuning.read(bundle)
    choices = []
    for choice in found.choices:
        name = next((name for start, name in changed.items() if choice.site.startswith(start.replace("_", " "))), None)
        choices.append(dataclasses.replace(choice, formulation=name or choice.formulation, portable=name or choice.portable))  # fmt: skip
    return dataclasses.replace(found, choices=tuple(choices))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    return build(SPEC, tmp_path_factory.mktemp("tuned"), checked=False, effort=tuning.Effort(batch=4, seconds=0.0))


def test_a_recorded_choice_is_taken_and_changes_the_graph(tuned, tmp_path):
    plain = build(SPEC, tmp_path / "plain", checked=False)
    assert plain.manifest.tuning == {}
    other = recorded(tuned.device, weight_gradient="columns of samples")
    first, second = (build(SPEC, tmp_path / name, checked=False, tuning=other) for name in ("one", "two"))
    assert first.id == second.id != plain.id
    assert {each["portable"] for each in first.manifest.tuning["choices"] if each["site"].startswith("weight")} == {"columns of samples"}  # fmt: skip
    assert tuning.read(first.device) == other


def test_the_manifest_says_where_it_was_measured(tuned):
    measured = tuned.manifest.tuning["measured"]
    assert measured["machine"]["cores"] >= 1
    assert (measured["batch"], measured["threads"]) == (4, 1)
    assert {name for choice in tuned.manifest.tuning["choices"] for name in choice["layers"]} >= {"conv1", "conv2"}


def test_a_choice_that_does_not_fit_names_its_site(tuned, tmp_path):
    wrong = recorded(tuned.device, weight_gradient="row products")
    with pytest.raises(ExportError, match=r"row products.*weight gradient"):
        build(SPEC, tmp_path, checked=False, tuning=wrong)


def test_a_file_without_choices_is_refused(tmp_path):
    with pytest.raises(ExportError, match="no recorded choices at"):
        tuning.read(tmp_path / "none.json")
    (tmp_path / "other.json").write_text('{"tuning": {}}')
    with pytest.raises(ExportError, match="this release reads"):
        tuning.read(tmp_path / "other.json")


@pytest.mark.skipif(not BLOCK, reason="this processor's onnxruntime has no blocked layout")
def test_a_blocked_bundle_runs_without_blocks_too_and_gives_the_same(tuned, tmp_path):
    choices = recorded(tuned.device)
    fast = [dataclasses.replace(each, formulation="blocks", portable="plain") if each.site.startswith("forward") and "8x8" in each.site else dataclasses.replace(each, formulation=each.usual, portable=each.usual) for each in choices.choices]  # fmt: skip
    built = build(SPEC, tmp_path, tuning=dataclasses.replace(choices, choices=tuple(fast)))
    with zipfile.ZipFile(built.device) as archive:
        domains = {
            name: {node.domain for node in onnx.load_from_string(archive.read(name)).graph.node}
            for name in ("graphs/local.onnx", "graphs/local.blocked.onnx")
        }
        manifest = json.loads(archive.read("manifest.json"))
    assert domains == {"graphs/local.onnx": {""}, "graphs/local.blocked.onnx": {"", "com.microsoft.nchwc"}}
    assert manifest["layout"] == {"block": BLOCK, "probe": "graphs/probe.onnx"}
