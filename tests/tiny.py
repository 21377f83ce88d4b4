"""A bundle small enough to work out by hand: smashed = x · w, loss = ½ Σ smashed², gradient descent on w."""

import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64
SHAPES = {
    "batch.x": (FLOAT, ["B", 2]),
    "batch.y": (INT, ["B"]),
    "down.gradient": (FLOAT, ["B", 2]),
    "state.weights": (FLOAT, [2]),
    "state.weights.next": (FLOAT, [2]),
    "setting.lr": (FLOAT, []),
    "state.anchor": (FLOAT, [2]),
    "state.anchor.next": (FLOAT, [2]),
    "state.own": (FLOAT, [2]),
    "state.own.next": (FLOAT, [2]),
    "up.change": (FLOAT, [2]),
    "up.smashed": (FLOAT, ["B", 2]),
    "metric.loss": (FLOAT, []),
}


def _graph(nodes, inputs, outputs):
    infos = {name: helper.make_tensor_value_info(name, *SHAPES[name]) for name in (*inputs, *outputs)}
    graph = helper.make_graph(
        [helper.make_node(op, list(ins), list(outs), **attributes) for op, ins, outs, attributes in nodes],
        "tiny",
        [infos[name] for name in inputs],
        [infos[name] for name in outputs],
        [helper.make_tensor("first", INT, [1], [0]), helper.make_tensor("half", FLOAT, [], [0.5])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString(), tuple(inputs), tuple(outputs)


FORWARD = ("Mul", ["batch.x", "state.weights"], ["up.smashed"], {})
UPDATE = [
    ("Mul", ["gradient", "setting.lr"], ["step"], {}),
    ("Sub", ["state.weights", "step"], ["state.weights.next"], {}),
]


def graphs():
    # Every reader of the old weights lies before the update: that is what allows one buffer for old and new.
    local = [
        FORWARD,
        ("ReduceSumSquare", ["up.smashed"], ["squares"], {"keepdims": 0}),
        ("Mul", ["squares", "half"], ["metric.loss"], {}),
        ("Mul", ["batch.x", "up.smashed"], ["product"], {}),
        ("ReduceSum", ["product", "first"], ["gradient"], {"keepdims": 0}),
        *UPDATE,
    ]
    backward = [
        ("Mul", ["batch.x", "down.gradient"], ["product"], {}),
        ("ReduceSum", ["product", "first"], ["gradient"], {"keepdims": 0}),
        *UPDATE,
    ]
    state, settings = "state.weights", "setting.lr"
    return {
        "local": _graph(local, ["batch.x", state, settings], ["state.weights.next", "up.smashed", "metric.loss"]),
        "forward": _graph([FORWARD], ["batch.x", state], ["up.smashed"]),
        "backward": _graph(backward, ["batch.x", "down.gradient", state, settings], ["state.weights.next"]),
        "evaluate": _graph([FORWARD], ["batch.x", state], ["up.smashed"]),
    }


def around():
    """Graphs for the begin and the end of a round: the way from the anchor goes up, and is added to `own`."""
    begin = [("Identity", ["state.weights"], ["state.anchor.next"], {})]
    end = [
        ("Sub", ["state.weights", "state.anchor"], ["up.change"], {}),
        ("Add", ["state.own", "up.change"], ["state.own.next"], {}),
    ]
    return {
        "begin": _graph(begin, ["state.weights"], ["state.anchor.next"]),
        "end": _graph(end, ["state.weights", "state.anchor", "state.own"], ["state.own.next", "up.change"]),
    }


def write_bundle(
    path: Path, *, weights=(1.0, 2.0), name="tiny", in_place=("local",), with_ends=False, **changes
) -> str:
    """Write the device's half; returns the bundle's id. `changes` replace keys of the manifest."""
    members = {}
    specs = {}
    vectors = ("weights", "anchor", "own") if with_ends else ("weights",)
    for kind, (data, inputs, outputs) in (graphs() | (around() if with_ends else {})).items():
        members[f"graphs/{kind}.onnx"] = data
        specs[kind] = {
            "file": f"graphs/{kind}.onnx",
            "inputs": inputs,
            "outputs": outputs,
            "in_place": kind in in_place,
            "random": {},
        }
    for vector in vectors:
        buffer = io.BytesIO()
        np.save(buffer, np.array(weights if vector == "weights" else (0, 0), np.float32))
        members[f"state/{vector}.npy"] = buffer.getvalue()
    manifest = {
        "format": 1,
        "name": name,
        "model": "tests.tiny:model",
        "cut": "scale",
        "objective": "contrastive",
        "optimizer": "sgd",
        "input": {"shape": [2], "dtype": "float32"},
        "classes": 2,
        "smashed": {"shape": [2], "dtype": "float32"},
        "settings": {"lr": {"default": 0.01, "minimum": 0.0, "maximum": 1.0}},
        "state": {vector: {"shape": [2], "dtype": "float32"} for vector in vectors},
        "slices": [{"name": "scale.weight", "state": "weights", "offset": 0, "shape": [2], "part": "lower"}],
        "graphs": specs,
        "files": {
            member: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for member, data in members.items()
        },
        "flops": {"forward": 2, "training": 6},
        "check": {},
        "versions": {},
        **changes,
    }
    encoded = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", encoded)
        for member, data in members.items():
            archive.writestr(member, data)
    return hashlib.sha256(encoded).hexdigest()
