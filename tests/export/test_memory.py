"""The memory a graph is estimated to need: worked out by hand on a small one, measured in a process of its own on real ones."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from onnx import TensorProto, helper

import edge
from edge.memory import needed_bytes
from export.bundle import BuildSpec, build
from export.graphs import Graph
from export.memory import peak
from export.symbolic import BATCH

ROOT = Path(edge.__path__[0]).parent
FLOAT = TensorProto.FLOAT


def graph_of(nodes, shapes, outputs):
    infos = [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs]
    x = helper.make_tensor_value_info("batch.x", FLOAT, ["batch", 10])
    model = helper.make_model(helper.make_graph([helper.make_node(*node) for node in nodes], "small", [x], infos))
    return Graph("local", model, model, {}, {name: (shape, torch.float32) for name, shape in shapes.items()})


def test_a_tensor_lives_from_the_node_that_makes_it_to_the_last_that_reads_it():
    graph = graph_of(
        [
            ("Relu", ["batch.x"], ["a"]),  # a: 40 bytes a sample
            ("Relu", ["a"], ["b"]),  # a, b: 80
            ("Concat", ["b", "b"], ["c"]),  # b, c: 120
            ("Relu", ["c"], ["up.smashed"]),  # c and what goes up: 160
        ],
        {"a": (BATCH, 10), "b": (BATCH, 10), "c": (BATCH, 20), "up.smashed": (BATCH, 20)},
        ["up.smashed"],
    )
    assert [peak(graph, graph.model.graph.node, batch) for batch in (1, 3)] == [160, 480]


def test_a_view_takes_nothing_and_keeps_what_it_shows_alive_and_new_state_has_a_place_already():
    graph = graph_of(
        [
            ("Relu", ["batch.x"], ["a"]),  # 40
            ("Reshape", ["a", "wanted"], ["view"]),  # 40
            ("Relu", ["batch.x"], ["b"]),  # 80: the view is read below
            ("Add", ["view", "b"], ["state.weights.next"]),  # 80
        ],
        {"a": (BATCH, 10), "view": (10, BATCH), "b": (BATCH, 10), "state.weights.next": (BATCH, 10)},
        ["state.weights.next"],
    )
    assert peak(graph, graph.model.graph.node, 1) == 80


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    specs = {
        "LeNet": BuildSpec("export.models:LeNet", "pool2"),
        "Wearable": BuildSpec("export.models:Wearable", "pool2"),
        "Transformer": BuildSpec("export.models:Transformer", "blocks.0"),
    }
    return {name: build(spec, tmp_path_factory.mktemp(name), checked=False) for name, spec in specs.items()}


@pytest.mark.parametrize("batch", [1, 32, 128])
@pytest.mark.parametrize("model", ["LeNet", "Wearable", "Transformer"])
def test_the_estimate_is_close_to_what_a_device_process_takes(built, tmp_path, model, batch):
    """Seen here: 7 % below to 5 % above. Wanted: never 10 % below what is measured, nor 25 % above."""
    estimate = needed_bytes(built[model].manifest, "local", batch)
    assert 0.9 < estimate / measured(built[model].device, "local", batch, tmp_path) < 1.25


def measured(path, kind, batch, folder):
    command = [sys.executable, "-m", "tests.export.memory_child", path, kind, str(batch), folder / "state"]
    environ = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, env=environ, timeout=120)
    return int(done.stdout)


def test_every_graph_has_its_estimate_and_a_larger_state_needs_more(built):
    small, large = built["LeNet"].manifest, built["Transformer"].manifest
    assert set(small.memory) == set(small.graphs)
    assert small.memory["forward"].sample_bytes < small.memory["local"].sample_bytes
    assert large.memory["local"].fixed_bytes > 4 * sum(4 * spec.elements for spec in large.state.values())
